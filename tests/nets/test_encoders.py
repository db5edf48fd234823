"""Perceptrons, convolutions, recurrent layers: shapes that papers state, initialisation, no leak between episodes."""

import math
from typing import Any, Literal

import pytest
import torch
from torch import Generator, Tensor, nn

from torchward.data.tree import replace_rows
from torchward.nets.conv import Impala, Nature
from torchward.nets.mlp import Activation, Towers, orthogonal
from torchward.nets.recurrent import Recurrent
from torchward.nets.spaces import SpaceError


def is_orthogonal(weight: Tensor, gain: float) -> bool:
    """W W^T or W^T W is gain^2 I, whichever is the smaller."""
    matrix = weight.detach().flatten(1).double()
    square = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return bool(torch.allclose(square, gain**2 * torch.eye(len(square), dtype=torch.float64), atol=1e-5))


@pytest.mark.parametrize(
    "layer", [nn.Linear(7, 3), nn.Linear(3, 7), nn.Conv2d(3, 8, 5), nn.Conv2d(2, 40, 3), nn.Linear(4, 4, bias=False)]
)
@pytest.mark.parametrize("gain", [0.01, 1.0, math.sqrt(2.0)])
def test_orthogonal_weights(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    assert orthogonal(layer, gain) is layer
    assert is_orthogonal(layer.weight, gain)
    assert layer.bias is None or not layer.bias.any()


class TestTowers:
    def test_every_tower_is_orthogonal_and_its_own(self) -> None:
        made = Towers(3, 5, (8, 4), "tanh")
        weights = {name: p for name, p in made.named_parameters() if name.startswith("weight")}
        assert len(weights) == 2
        for weight in weights.values():
            assert len(weight) == 3
            assert all(is_orthogonal(each, math.sqrt(2.0)) for each in weight)
            assert not torch.equal(weight[0], weight[1])
        assert all(not p.any() for name, p in made.named_parameters() if name.startswith("bias"))

    @pytest.mark.parametrize(
        ("name", "module"), [("tanh", nn.Tanh()), ("relu", nn.ReLU()), ("elu", nn.ELU()), ("silu", nn.SiLU())]
    )
    def test_each_is_the_perceptron_of_its_weights(self, name: Activation, module: nn.Module) -> None:
        made = Towers(2, 5, (8, 4), name)
        for parameter in made.parameters():
            nn.init.normal_(parameter)
        x = torch.randn(6, 5, generator=Generator().manual_seed(0))
        for tower in range(2):
            layers: list[nn.Module] = []
            for i, (inputs, outputs) in enumerate([(5, 8), (8, 4)]):
                linear = nn.Linear(inputs, outputs)
                own = dict(made.named_parameters())
                linear.load_state_dict(
                    {"weight": own[f"weight{i}"][tower].T, "bias": own[f"bias{i}"][tower].squeeze(0)}
                )
                layers += [linear, module]
            expected = nn.Sequential(*layers)(x)
            torch.testing.assert_close(made(x)[tower], expected)
            torch.testing.assert_close(made.one(tower, x), expected)

    def test_no_hidden_layer_is_the_identity(self) -> None:
        made, x = Towers(2, 5, (), "relu"), torch.randn(3, 5)
        assert made.features == 5
        assert torch.equal(made(x), torch.stack([x, x])) and torch.equal(made.one(1, x), x)

    def test_no_gradient_crosses(self) -> None:
        made = Towers(2, 5, (8, 4), "tanh")
        made(torch.randn(3, 5))[0].sum().backward()
        for parameter in made.parameters():
            assert parameter.grad is not None
            assert (parameter.grad[1] == 0).all() and (parameter.grad[0] != 0).any()


class TestConvolutions:
    def test_nature_is_that_of_the_paper(self) -> None:
        """84 x 84 x 4 becomes 20 x 20 x 32, 9 x 9 x 64, 7 x 7 x 64 = 3136, 512: 1,684,128 parameters up to there."""
        made = Nature(4, 84, 84)
        assert made(torch.rand(2, 4, 84, 84)).shape == (2, 512) and made.features == 512
        count = sum(p.numel() for p in made.parameters())
        assert count == (8 * 8 * 4 + 1) * 32 + (4 * 4 * 32 + 1) * 64 + (3 * 3 * 64 + 1) * 64 + (3136 + 1) * 512

    def test_impala_is_that_of_the_paper(self) -> None:
        """Three halvings and 32 channels: 72 x 96 becomes 9 x 12 x 32 = 3456, then 256; 15 convolutions in all."""
        made = Impala(3, 72, 96)
        assert made(torch.rand(2, 3, 72, 96)).shape == (2, 256) and made.features == 256
        linear = next(layer for layer in made.modules() if isinstance(layer, nn.Linear))
        assert linear.in_features == 3456
        assert sum(isinstance(layer, nn.Conv2d) for layer in made.modules()) == 15

    def test_small_images_are_for_impala(self) -> None:
        assert Nature(3, 36, 36)(torch.rand(1, 3, 36, 36)).shape == (1, 512)
        with pytest.raises(SpaceError, match="at least 36 x 36, got 35 x 60; use encoder='impala'"):
            Nature(3, 35, 60)
        assert Impala(3, 7, 5)(torch.rand(1, 3, 7, 5)).shape == (1, 256)


CELLS: list[Literal["lstm", "gru"]] = ["lstm", "gru"]


@pytest.mark.parametrize("cell", CELLS)
class TestRecurrent:
    def test_a_layer_that_only_acts_still_has_a_gradient_on_a_gpu(self, cell: Literal["lstm", "gru"]) -> None:
        """cuDNN gives none to a layer that is not in training."""
        made = self.made(cell).eval()
        assert made.layer.training and not made.training

    def made(self, cell: Literal["lstm", "gru"]) -> Recurrent:
        torch.manual_seed(0)
        made = Recurrent(3, 4, cell)
        for name, parameter in made.named_parameters():
            if "bias" in name:
                nn.init.normal_(parameter)
        return made

    @pytest.mark.parametrize("likely", [0.0, 0.3, 0.7, 1.0])
    @pytest.mark.parametrize(("batch", "time"), [(3, 11), (1, 1), (4, 1), (1, 6)])
    def test_a_row_at_once_is_step_by_step(
        self, cell: Literal["lstm", "gru"], likely: float, batch: int, time: int
    ) -> None:
        made, generator = self.made(cell), Generator().manual_seed(1)
        x = torch.randn(batch, time, 3, generator=generator)
        boundary = torch.rand(batch, time, generator=generator) < likely
        start = tuple(torch.randn(batch, 4, generator=generator) for _ in made.initial_state(1))
        state: Any = start
        outputs = []
        for t in range(time):
            output, state = made.step(x[:, t], state)
            outputs.append(output)
            state = replace_rows(state, boundary[:, t], made.initial_state(batch))
        torch.testing.assert_close(made.unroll(x, start, boundary), torch.stack(outputs, 1), atol=1e-6, rtol=1e-5)

    def test_no_episode_sees_another(self, cell: Literal["lstm", "gru"]) -> None:
        """The gradient of an output is exactly 0 by every input but those of its own episode up to it."""
        made = self.made(cell)
        boundary = torch.tensor([[0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1]]).bool()
        x = torch.randn(3, 6, 3, generator=Generator().manual_seed(0), requires_grad=True)
        start = tuple(torch.randn(3, 4, requires_grad=True) for _ in made.initial_state(1))
        episode = boundary.long().cumsum(1) - boundary.long()
        out = made.unroll(x, start, boundary)
        for b in range(3):
            for t in range(6):
                by_x, *by_start = torch.autograd.grad(out[b, t].sum(), (x, *start), retain_graph=True)
                own = torch.zeros(3, 6, dtype=torch.bool)
                own[b] = (episode[b] == episode[b, t]) & (torch.arange(6) <= t)
                assert (by_x[~own] == 0).all()
                assert (by_x[own] != 0).any(-1).all()
                for part in by_start:
                    assert (part[[i for i in range(3) if i != b]] == 0).all()
                    assert bool((part[b] != 0).any()) == (int(episode[b, t]) == 0)

    def test_the_first_state_is_zero(self, cell: Literal["lstm", "gru"]) -> None:
        state = self.made(cell).initial_state(5)
        assert len(state) == (2 if cell == "lstm" else 1)
        assert all(part.shape == (5, 4) and not part.any() for part in state)

    def test_weights_are_orthogonal(self, cell: Literal["lstm", "gru"]) -> None:
        for name, parameter in Recurrent(3, 4, cell).named_parameters():
            assert not parameter.any() if "bias" in name else is_orthogonal(parameter, 1.0)
