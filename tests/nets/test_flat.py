"""Parameters as one vector: it is the parameters, and what is done to it is done to each."""

import copy

import pytest
import torch
from torch import Tensor, nn

from torchward.nets.adam import Adam
from torchward.nets.flat import Flat


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3, bias=False))


def loss(net: nn.Module) -> Tensor:
    out: Tensor = net(torch.linspace(-1.0, 1.0, 20).reshape(5, 4))
    return (out - 3.0).square().sum()


def test_the_vector_is_the_parameters() -> None:
    net = network()
    before, out = [p.detach().clone() for p in net.parameters()], loss(net).detach()
    flat = Flat(net.parameters())
    assert all(map(torch.equal, net.parameters(), before)) and torch.equal(loss(net), out)
    assert flat.value.shape == (4 * 8 + 8 + 8 * 3,)
    flat.value.mul_(2.0)
    assert all(torch.equal(p, 2.0 * b) for p, b in zip(net.parameters(), before, strict=True))


def test_the_gradients_are_a_vector_too_and_do_not_pile_up() -> None:
    net, flat = network(), None
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss(net), list(net.parameters()))])
    flat = Flat(net.parameters())
    for _ in range(2):
        flat.zero_grad()
        loss(net).backward()
        assert isinstance(flat.value.grad, Tensor)
        torch.testing.assert_close(flat.value.grad, expected)


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_bounded_steps_are_those_of_separate_parameters(max_norm: float) -> None:
    net, other = network(), network()
    flat = Flat(net.parameters())
    ours, theirs = Adam([flat.value], 0.01), torch.optim.Adam(other.parameters(), 0.01)
    for _ in range(5):
        flat.zero_grad()
        loss(net).backward()
        flat.clip(max_norm)
        ours.step()
        theirs.zero_grad()
        loss(other).backward()
        norm = nn.utils.clip_grad_norm_(other.parameters(), max_norm)
        assert flat.value.grad is not None
        torch.testing.assert_close(flat.value.grad.norm(), norm.clamp(max=max_norm))
        theirs.step()
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_states_are_loaded_in_place() -> None:
    net, state = network(), {name: torch.full_like(p, 7.0) for name, p in network().state_dict().items()}
    flat = Flat(net.parameters())
    net.load_state_dict(state)
    assert torch.equal(flat.value, torch.full_like(flat.value, 7.0))
    copied = copy.deepcopy(net)
    flat.value.zero_()
    assert all(bool((p == 7.0).all()) for p in copied.parameters())


def test_what_is_frozen_has_no_gradient() -> None:
    net = network().requires_grad_(False)
    flat = Flat(net.parameters())
    assert flat.value.grad is None and all(p.grad is None for p in net.parameters())


def test_parameters_of_several_kinds_are_refused() -> None:
    net = network()
    with pytest.raises(ValueError, match=r"of one kind .* torch.float32 on cpu; torch.float64 on cpu"):
        Flat([*net.parameters(), nn.Parameter(torch.zeros(2, dtype=torch.float64))])
    with pytest.raises(ValueError, match=r"torch.float32 on cpu; torch.float32 on cpu, frozen"):
        Flat([*net.parameters(), torch.zeros(2)])
    with pytest.raises(ValueError, match="got none"):
        Flat([])
