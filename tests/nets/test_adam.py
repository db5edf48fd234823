"""Adam's steps are those of torch.optim.Adam, bit for bit, also after a restart."""

import pytest
import torch
from torch import Tensor, nn

from torchward.nets.adam import Adam


def steps(optimizer: Adam | torch.optim.Adam, network: nn.Module, count: int) -> None:
    for i in range(count):
        x = torch.full((4, 3), 0.1 * i + 0.3)
        loss: Tensor = network(x).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def equal(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


def test_the_steps_are_those_of_pytorch() -> None:
    ours, theirs = network(), network()
    own = Adam(ours.parameters(), 1e-2, eps=1e-5)
    other = torch.optim.Adam(theirs.parameters(), 1e-2, eps=1e-5, fused=True)
    steps(own, ours, 5)
    steps(other, theirs, 5)
    assert equal(ours, theirs)
    own.lr = other.param_groups[0]["lr"] = 3e-3
    steps(own, ours, 5)
    steps(other, theirs, 5)
    assert equal(ours, theirs) and not equal(ours, network())


def test_a_restart_changes_nothing() -> None:
    whole, halved = network(), network()
    steps(Adam(whole.parameters(), 1e-2), whole, 6)
    first = Adam(halved.parameters(), 1e-2)
    steps(first, halved, 3)
    second = Adam(halved.parameters(), 9.0)
    second.load_state_dict(first.state_dict())
    control = Adam(network().parameters(), 1e-2)
    assert second.lr == control.lr
    reference = network()
    steps(Adam(reference.parameters(), 1e-2), reference, 3)
    assert equal(halved, reference)
    steps(second, halved, 3)
    straight = network()
    optimizer = Adam(straight.parameters(), 1e-2)
    steps(optimizer, straight, 3)
    steps(optimizer, straight, 3)
    assert equal(halved, straight)


def test_what_the_loss_does_not_reach_stays() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Adam([used, unused], 0.1)
    used.sum().backward()
    optimizer.step()
    assert torch.equal(unused, torch.ones(2)) and not torch.equal(used, torch.ones(2))


def test_each_parameter_counts_its_own_steps() -> None:
    """As PyTorch's does: the correction for the start is that of the steps in which a parameter had a gradient."""
    pairs = [[nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))] for _ in range(2)]
    optimizers: list[Adam | torch.optim.Adam] = [Adam(pairs[0], 0.1), torch.optim.Adam(pairs[1], 0.1, fused=True)]
    for late in (False, False, True, True):
        for (always, sometimes), optimizer in zip(pairs, optimizers, strict=True):
            optimizer.zero_grad()
            loss: Tensor = always.square().sum() + (sometimes.square().sum() if late else 0.0)
            loss.backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))
    assert not torch.equal(pairs[0][0], pairs[0][1])


def test_a_long_gradient_is_scaled_down_as_pytorch_does_and_a_short_one_is_left() -> None:
    for most in (0.1, 1e6):
        ours, theirs = network(), network()
        own, other = Adam(ours.parameters(), 1e-2), torch.optim.Adam(theirs.parameters(), 1e-2, fused=True)
        for i in range(4):
            x = torch.full((4, 3), 0.2 * i + 0.5)
            for optimizer, net in ((own, ours), (other, theirs)):
                optimizer.zero_grad()
                net(x).square().sum().backward()
            norm = own.step(most)
            torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs.parameters(), most))
            other.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
        assert norm is not None and (norm > most) == (most == 0.1)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_a_long_gradient_is_scaled_down_whatever_it_is_made_of(dtype: torch.dtype, near: float) -> None:
    """As far as numbers of that type go; the norm is no coarser than float32."""
    ours, theirs = network().to(dtype), network().to(dtype)
    own, other = Adam(ours.parameters(), 1e-2), torch.optim.Adam(theirs.parameters(), 1e-2, fused=True)
    for i in range(3):
        for optimizer, net in ((own, ours), (other, theirs)):
            optimizer.zero_grad()
            net(torch.full((4, 3), 0.2 * i + 0.5, dtype=dtype)).square().sum().backward()
        exact = torch.cat([p.grad.double().flatten() for p in ours.parameters() if p.grad is not None]).norm()
        norm = own.step(0.1)
        assert norm is not None and norm > 0.1
        torch.testing.assert_close(norm.double(), exact, rtol=1e-6, atol=0.0)
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        other.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=near, atol=near * 1e-2)
    assert not equal(ours, network().to(dtype))
