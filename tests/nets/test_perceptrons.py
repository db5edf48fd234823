"""Perceptrons side by side are perceptrons one by one, and their gradient by hand is autograd's."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.testing import assert_close

from torchward.nets.perceptrons import Activation, Perceptrons

SHAPES: list[tuple[int, tuple[int, ...], int]] = [
    (count, arch, outputs) for count in (1, 2, 3) for arch in ((), (5,), (6, 4, 5)) for outputs in (1, 3)
]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "elu": nn.functional.elu,
}


def made(count: int, arch: tuple[int, ...], outputs: int, activation: Activation = "relu") -> Perceptrons:
    with torch.random.fork_rng():
        torch.manual_seed(count)
        return Perceptrons(count, 5, arch, outputs, activation).double()


def inputs(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(seed)
    return tuple(torch.randn(7, n, generator=generator, dtype=torch.float64) for n in (3, 2))  # type: ignore[return-value]


def one_by_one(network: Perceptrons, x: Tensor) -> Tensor:
    """Each perceptron by itself, as a chain of PyTorch's own linear layers."""
    found = []
    for i in range(network.count):
        latent, layers = x, len(network.weights)
        for layer in range(layers):
            last = layer == layers - 1
            weight = network.get_parameter(f"weight{layer}")[i]
            weight = weight if last else weight.T
            bias = network.get_parameter(f"bias{layer}")[i].flatten() if layer else weight[:, -1]
            latent = nn.functional.linear(latent, weight if layer else weight[:, :-1], bias)
            latent = latent if last else ACTIVATIONS[network.activation](latent)
        found.append(latent)
    return torch.stack(found)


@pytest.mark.parametrize(("count", "arch", "outputs"), SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_side_by_side_is_one_by_one(count: int, arch: tuple[int, ...], outputs: int, activation: Activation) -> None:
    network, (left, right) = made(count, arch, outputs, activation), inputs()
    expected = one_by_one(network, torch.cat([left, right], -1))
    assert_close(network(left, right), expected)
    assert_close(network.record(left, right).outputs, expected)
    assert_close(network.record(left, right, count=1).outputs, expected[:1])


@pytest.mark.parametrize(("count", "arch", "outputs"), SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_by_hand_is_autograds(
    count: int, arch: tuple[int, ...], outputs: int, activation: Activation
) -> None:
    network, (left, right) = made(count, arch, outputs, activation), inputs()
    by_outputs = torch.randn(count, 7, outputs, generator=Generator().manual_seed(3), dtype=torch.float64)
    right.requires_grad_()
    wanted = [*network.parameters(), right]
    expected = torch.autograd.grad(one_by_one(network, torch.cat([left, right], -1)), wanted, by_outputs)
    recorded = network.record(left, right)
    kept = by_outputs.clone()
    for _ in range(2):  # into new memory, and into that which is there, without adding up; nothing else is spoilt
        assert_close(recorded.backward(by_outputs, slice(3, 5)), expected[-1])
        assert_close([p.grad for p in network.parameters()], list(expected[:-1]))
        assert_close(recorded.by_inputs(by_outputs, slice(3, None)), expected[-1])
    assert torch.equal(by_outputs, kept)
    assert recorded.backward(by_outputs) is None


def test_a_gradient_of_some_rows_is_that_of_a_loss_of_these() -> None:
    network, (left, right) = made(2, (6, 4), 3), inputs()
    by_outputs = torch.randn(2, 7, 3, generator=Generator().manual_seed(4), dtype=torch.float64)
    rows = network.record(left, right).rows(slice(4))
    alone = network.record(left[:4], right[:4])
    assert_close(rows.outputs, alone.outputs)
    found = []
    for each in (rows, alone):
        each.backward(by_outputs[:, :4])
        found.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert_close(*found)
    assert len(found[0]) == 5


def test_autograd_goes_through_as_well() -> None:
    network, (left, right) = made(2, (6, 4), 1), inputs()
    (by_left,) = torch.autograd.grad(network(left.requires_grad_(), right).square().sum(), left)
    recorded = network.record(left, right)
    assert_close(by_left, recorded.by_inputs(2.0 * recorded.outputs, slice(3)))


def test_weights_begin_as_those_of_a_linear_layer() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Perceptrons(2, 100, (400,), 50)
        linear = [nn.Linear(100, 400), nn.Linear(400, 50)]
    first, rest = network.get_parameter("weight0").detach(), network.get_parameter("weight1").detach()
    bias = network.get_parameter("bias1").detach()
    for ours, theirs in ((first[:, :-1], linear[0].weight), (first[:, -1], linear[0].bias), (rest, linear[1].weight),
                         (bias, linear[1].bias)):  # fmt: skip
        bound = (100 if ours is not rest and ours is not bias else 400) ** -0.5
        assert float(ours.abs().max()) <= bound
        assert_close(ours.std(), theirs.detach().std(), rtol=0.15, atol=0.0)
