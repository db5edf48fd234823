"""From observations of any space, with any leading axes, to features; and their running statistics."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from tests.nets.examples import CHW, HWC, OBSERVATIONS, leaf, observations, row
from torchward.nets.features import Features, encode_rows
from torchward.nets.normalize import RunningNorm
from torchward.nets.spaces import MASK, Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, SpaceError, Tree, Tuple


def features(space: Space, normalize: bool = False, encoder: Literal["nature", "impala"] = "nature") -> Features:
    torch.manual_seed(0)
    return Features(space, encoder, normalize)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_leading_axes_change_nothing(name: str, normalize: bool) -> None:
    space = OBSERVATIONS[name]
    made = features(space, normalize)
    seen = observations(space, (2, 3), Generator().manual_seed(0))
    made.absorb(seen)
    with torch.no_grad():
        out = made(seen)
        assert out.shape == (2, 3, made.size) and out.dtype == torch.float32
        for i in range(2):
            torch.testing.assert_close(made(row(seen, i)), out[i])
        torch.testing.assert_close(made(row(seen, slice(1, 2), slice(2, 3))), out[1:2, 2:3])


def test_each_discrete_leaf_is_one_hot() -> None:
    eye = torch.eye(4)
    assert torch.equal(features(Discrete(4, start=-1))(torch.arange(-1, 3)), eye)
    both = features(MultiDiscrete((4, 2)))(torch.tensor([[3, 0], [1, 1]]))
    assert torch.equal(both, torch.cat([eye[[3, 1]], torch.eye(2)[[0, 1]]], 1))
    assert torch.equal(features(MultiBinary(3))(torch.tensor([[1, 0, 1]])), torch.tensor([[1.0, 0.0, 1.0]]))


def test_boxes_are_flattened_in_c_order() -> None:
    matrix = torch.arange(12.0).reshape(2, 2, 3)
    assert torch.equal(features(Box((2, 3)))(matrix), torch.arange(12.0).reshape(2, 6))
    assert torch.equal(features(Box(()))(torch.tensor([3.0, 4.0])), torch.tensor([[3.0], [4.0]]))


def test_every_part_of_a_nested_space_is_there() -> None:
    """Changing any element of an observation changes the features."""
    space = OBSERVATIONS["nested"]
    made = features(space)
    assert made.size == 3 + 2 + 2 + 1
    seen = observations(space, (1,), Generator().manual_seed(0))
    before = made(seen)
    a, b, c, d = leaf(seen, "a", 0), leaf(seen, "a", 1), leaf(seen, "b", "c"), leaf(seen, "b", "d")
    changes: list[Tree] = [
        {"a": (a % 3 + 1, b), "b": {"c": c, "d": d}},
        {"a": (a, b + 1), "b": {"c": c, "d": d}},
        {"a": (a, b), "b": {"c": 1 - c, "d": d}},
        {"a": (a, b), "b": {"c": c, "d": d + 1}},
    ]
    for changed in changes:
        assert not torch.equal(made(changed), before)


@pytest.mark.parametrize("encoder", ["nature", "impala"])
def test_channels_may_be_first_or_last(encoder: Literal["nature", "impala"]) -> None:
    last, first = features(HWC, encoder=encoder), features(CHW, encoder=encoder)
    first.load_state_dict(last.state_dict())
    image = leaf(observations(HWC, (2,), Generator().manual_seed(0)))
    assert torch.equal(last(image), first(image.permute(0, 3, 1, 2)))


def test_images_are_brought_to_unit_range() -> None:
    made = features(HWC)
    seen: list[Tensor] = []
    made.encoders[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    made(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, *HWC.shape))
    assert torch.equal(seen[0][0], torch.zeros(3, 36, 40)) and torch.equal(seen[0][1], torch.ones(3, 36, 40))


def test_each_image_has_an_encoder_of_its_own() -> None:
    made = features(Tuple((HWC, HWC)))
    image = observations(HWC, (1,), Generator().manual_seed(0))
    left, right = made((image, image)).chunk(2, -1)
    assert left.shape == (1, 512) and not torch.equal(left, right)


def test_the_mask_is_no_feature() -> None:
    space = Dict({"x": Box((2,)), MASK: MultiBinary(3)})
    made = features(space, normalize=True)
    assert made.size == 2
    seen = observations(space, (4,), Generator().manual_seed(0))
    assert torch.equal(made(seen), made({"x": leaf(seen, "x"), MASK: 1 - leaf(seen, MASK)}))
    inner = Dict({"x": Dict({MASK: MultiBinary(3)})})  # an entry of that name further down is an observation
    assert features(inner).size == 3


def test_an_observation_of_nothing_is_refused() -> None:
    with pytest.raises(SpaceError, match="nothing to learn from"):
        features(Dict({MASK: MultiBinary(3)}))


def test_only_real_numbers_are_normalised() -> None:
    space = Tuple((Discrete(3), Box((2,))))
    made = features(space, normalize=True)
    made.absorb((torch.arange(3), torch.tensor([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])))
    out = made((torch.tensor([2]), torch.tensor([[4.0, 5.0]])))
    torch.testing.assert_close(out, torch.tensor([[1.5**0.5, 0.0, 0.0, 0.0, 1.0]]))


def test_without_real_numbers_there_is_nothing_to_normalise() -> None:
    made = features(Discrete(3), normalize=True)
    made.absorb(torch.arange(3))
    assert torch.equal(made(torch.arange(3)), torch.eye(3))


def test_a_users_encoder_sees_rows_of_every_part() -> None:
    class Encoder(nn.Module):
        def forward(self, seen: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
            index, vector = seen["a"]
            assert index.shape == (6,) and vector.shape == (6, 2)
            return torch.cat([index[:, None], vector], 1)

    space = Dict({"a": Tuple((Discrete(3), Box((2,))))})
    seen = observations(space, (2, 3), Generator().manual_seed(0))
    out = encode_rows(Encoder(), space, seen)
    assert torch.equal(out, torch.cat([leaf(seen, "a", 0)[..., None], leaf(seen, "a", 1)], -1))


class TestRunningNorm:
    def pieces(self) -> list[Tensor]:
        generator = Generator().manual_seed(0)
        scale, shift = torch.tensor([1.0, 100.0, 1e-3]), torch.tensor([0.0, -50.0, 3.0])
        return [torch.randn(2, n, 3, generator=generator) * scale + shift for n in (1, 40, 7)]

    def test_its_statistics_are_those_of_all_data_at_once(self) -> None:
        norm = RunningNorm(3)
        for piece in self.pieces():
            norm.absorb(piece)
        rows = torch.cat(self.pieces(), 1).reshape(-1, 3).numpy().astype(np.float64)
        np.testing.assert_allclose(norm.mean.numpy(), rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(norm.var.numpy(), rows.var(0), rtol=1e-12)
        assert float(norm.count) == len(rows)
        out = norm(torch.from_numpy(rows).float()).numpy()
        np.testing.assert_allclose(out, (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-8), atol=3e-4)

    def test_masked_entries_never_enter(self) -> None:
        norm, other = RunningNorm(3), RunningNorm(3)
        generator = Generator().manual_seed(1)
        for piece in self.pieces():
            mask = torch.rand(piece.shape[:2], generator=generator) < 0.5
            norm.absorb(torch.where(mask[..., None], piece, torch.nan), mask)
            if mask.any():
                other.absorb(piece[mask])
        for left, right in zip(norm.buffers(), other.buffers(), strict=True):
            assert torch.equal(left, right)
        assert norm.mean.isfinite().all()

    def test_it_stands_still_until_it_absorbs(self) -> None:
        norm = RunningNorm(3)
        assert torch.equal(norm(torch.ones(2, 3)), torch.ones(2, 3))
        norm.absorb(self.pieces()[1])
        before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
        for piece in self.pieces():
            norm(piece)
        norm.absorb(self.pieces()[0], torch.zeros(2, 1, dtype=torch.bool))
        assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())

    def test_it_clips(self) -> None:
        norm = RunningNorm(1, clip=2.0)
        assert norm(torch.tensor([[-9.0], [9.0], [1.5]])).tolist() == [[-2.0], [2.0], [1.5]]

    def test_a_constant_says_nothing(self) -> None:
        """However large: 0 stays 0, also in float32, where 1000 / 1e-4 has no room for the difference."""
        norm = RunningNorm(1)
        for _ in range(3):
            norm.absorb(torch.full((50, 1), 1000.1))
        assert float(norm(torch.tensor([[1000.1]]))) == 0.0

    def test_a_small_deviation_beside_a_large_mean_is_kept(self) -> None:
        norm = RunningNorm(1)
        rows = 1e4 + torch.arange(-8.0, 9.0)[:, None] / 64
        norm.absorb(rows)
        exact = (rows.double() - rows.double().mean()) / rows.double().std(unbiased=False)
        torch.testing.assert_close(norm(rows), exact.float(), atol=1e-5, rtol=1e-5)
