"""AdamW's steps are those of torch.optim.AdamW, bit for bit, in groups, also after a restart."""

import pytest
import torch
from torch import Tensor, nn

from torchward.nets.adamw import AdamW, Group, decayed

BETAS = (0.8, 0.95)


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def ours(of: nn.Sequential) -> AdamW:
    """The lower layer with decay, the upper one without and slower."""
    low, high = tuple(of[0].parameters()), tuple(of[2].parameters())
    return AdamW([Group(low, 0.1), Group((), 0.3), Group(high, 0.0, 0.25)], 1e-2, BETAS, 1e-6)


def theirs(of: nn.Sequential) -> torch.optim.AdamW:
    groups = [
        {"params": list(of[0].parameters()), "weight_decay": 0.1},
        {"params": list(of[2].parameters()), "weight_decay": 0.0, "lr": 1e-2 * 0.25},
    ]
    return torch.optim.AdamW(groups, 1e-2, BETAS, 1e-6, fused=True)


def gradients(of: nn.Sequential, i: int, scale: float = 1.0) -> None:
    of.zero_grad()
    loss: Tensor = of(torch.full((4, 3), 0.1 * i + 0.3)).square().sum() * scale
    loss.backward()


def equal(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


def test_the_steps_are_those_of_pytorch() -> None:
    one, other = network(), network()
    own, reference = ours(one), theirs(other)
    for i in range(8):
        if i == 4:
            own.lr = 3e-3
            for group, scale in zip(reference.param_groups, (1.0, 0.25), strict=True):
                group["lr"] = 3e-3 * scale
        for each, optimizer in ((one, own), (other, reference)):
            gradients(each, i)
            optimizer.step()
        assert equal(one, other)
    assert not equal(one, network())


@pytest.mark.parametrize("scale", [1e-3, 10.0])
def test_a_gradient_that_is_too_long_is_shortened(scale: float) -> None:
    one, other = network(), network()
    own, reference = ours(one), theirs(other)
    for i in range(5):
        gradients(one, i, scale)
        gradients(other, i, scale)
        norm = own.step(max_grad_norm=0.5)
        expected = nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        reference.step()
        torch.testing.assert_close(norm, expected)
        assert (norm > 0.5) == (scale > 1.0)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_a_gradient_is_shortened_whatever_it_is_made_of(dtype: torch.dtype, near: float) -> None:
    """As far as numbers of that type go; the norm is no coarser than float32, though PyTorch's is of their type."""
    one, other = network().to(dtype), network().to(dtype)
    own, reference = ours(one), theirs(other)
    for i in range(3):
        for each in (one, other):
            each.zero_grad()
            each(torch.full((4, 3), 0.1 * i + 0.3, dtype=dtype)).square().sum().backward()
        exact = torch.cat([p.grad.double().flatten() for p in one.parameters() if p.grad is not None]).norm()
        norm = own.step(max_grad_norm=0.5)
        assert norm > 0.5
        torch.testing.assert_close(norm.double(), exact, rtol=1e-6, atol=0.0)
        nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        reference.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=near, atol=near * 1e-2)
    assert not equal(one, network().to(dtype))


def test_adapters_in_float32_beside_a_value_head_in_bfloat16_are_one_gradient() -> None:
    half, whole = nn.Parameter(torch.ones(3, dtype=torch.bfloat16)), nn.Parameter(torch.ones(3))
    optimizer = AdamW([Group((half, whole))], 0.1)
    (3.0 * half.float().sum() + 4.0 * whole.sum()).backward()
    torch.testing.assert_close(optimizer.step(0.5), torch.tensor(75.0).sqrt())
    assert (half < 1.0).all() and (whole < 1.0).all()


def test_what_has_no_gradient_stays() -> None:
    """And so do its decay and its count, as in PyTorch; the norm is that of the others."""
    one, other = network(), network()
    own, reference = ours(one), theirs(other)
    first = next(one.parameters())
    before = first.detach().clone()
    for i in range(4):
        for each in (one, other):
            gradients(each, i)
            weight, *_, bias = each.parameters()
            bias.grad = None
            if i < 2:
                weight.grad = None
        norm = own.step()
        parts = [p.grad.flatten() for p in one.parameters() if p.grad is not None]
        torch.testing.assert_close(norm, torch.cat(parts).norm())
        reference.step()
        assert equal(one, other)
        assert torch.equal(first, before) == (i < 2)
    own.zero_grad()
    assert all(parameter.grad is None for parameter in one.parameters())
    with pytest.raises(ValueError, match="expected a gradient to step by, got none"):
        own.step()


def test_a_restart_changes_nothing() -> None:
    whole, halved = network(), network()
    straight, first = ours(whole), ours(halved)
    second = ours(halved)
    for i in range(6):
        if i == 3:
            first.lr = straight.lr = 5e-3
            second.load_state_dict(first.state_dict())
        gradients(whole, i)
        gradients(halved, i)
        if i == 1:  # the counts are then not all equal
            for each in (whole, halved):
                next(each.parameters()).grad = None
        straight.step()
        (first if i < 3 else second).step()
        assert equal(whole, halved)
    assert second.lr == 5e-3


def test_matrices_decay_and_the_rest_does_not() -> None:
    of = network()
    frozen, low, matrix, high = of.parameters()
    frozen.requires_grad_(False)
    matrices, others = decayed(of.parameters(), 0.1, 0.5)
    assert [id(p) for p in matrices.parameters] == [id(matrix)]
    assert [id(p) for p in others.parameters] == [id(low), id(high)]
    assert (matrices.weight_decay, others.weight_decay) == (0.1, 0.0)
    assert matrices.lr_scale == others.lr_scale == 0.5
