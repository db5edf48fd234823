"""Distributions of the return: the projection against a sum over atoms, losses by hand and by what minimises them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tests.functional.compare import assert_exact
from torchward.functional import value_losses

SUPPORT = torch.linspace(-2.0, 3.0, 11, dtype=torch.float64)


def distribution(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(-1)


def by_atoms(probs: list[float], atoms: list[float], support: list[float]) -> list[float]:
    """Each atom on its own: which two neighbours of the support it lies between, and how far along."""
    projected = [0.0] * len(support)
    for p, y in zip(probs, atoms, strict=True):
        if y <= support[0]:
            projected[0] += p
        elif y >= support[-1]:
            projected[-1] += p
        else:
            right = next(i for i, z in enumerate(support) if z > y)
            along = (y - support[right - 1]) / (support[right] - support[right - 1])
            projected[right - 1] += p * (1 - along)
            projected[right] += p * along
    return projected


def test_the_projection_is_the_sum_over_atoms() -> None:
    probs = distribution(0, 4, 3, 7)
    atoms = 3.0 * torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert (atoms < SUPPORT[0]).any() and (atoms > SUPPORT[-1]).any()
    projected = value_losses.project_categorical(probs, atoms, SUPPORT)
    for i in range(4):
        for j in range(3):
            expected = by_atoms(probs[i, j].tolist(), atoms[i, j].tolist(), SUPPORT.tolist())
            assert_exact(projected[i, j], torch.tensor(expected, dtype=torch.float64))


@given(st.lists(st.floats(-2.0, 3.0), min_size=1, max_size=6))
def test_mass_and_mean_stay_inside_the_support(places: list[float]) -> None:
    atoms = torch.tensor([places], dtype=torch.float64)
    probs = distribution(2, 1, len(places))
    projected = value_losses.project_categorical(probs, atoms, SUPPORT)
    assert bool((projected >= 0).all())
    assert_exact(projected.sum(-1), torch.ones(1, dtype=torch.float64))
    assert_exact(projected @ SUPPORT, (probs * atoms).sum(-1))


def test_what_lies_on_the_support_stays_and_what_lies_outside_goes_to_its_ends() -> None:
    probs = distribution(3, 5, 11)
    assert_exact(value_losses.project_categorical(probs, SUPPORT.expand(5, 11), SUPPORT), probs)
    for shift, end in ((100.0, -1), (-100.0, 0)):
        projected = value_losses.project_categorical(probs, SUPPORT.expand(5, 11) + shift, SUPPORT)
        assert_exact(projected[:, end], torch.ones(5, dtype=torch.float64))
        assert float(projected.sum()) == pytest.approx(5.0)


def test_projection_by_hand() -> None:
    """Bellemare et al. 2017, figure 1: shrunk by gamma, moved by the reward, and carried over."""
    support = torch.tensor([0.0, 1.0, 2.0])
    probs = torch.tensor([[0.25, 0.25, 0.5]])
    atoms = 0.5 + 0.5 * support.expand(1, 3)  # 0.5, 1.0, 1.5
    assert_close(value_losses.project_categorical(probs, atoms, support), torch.tensor([[0.125, 0.625, 0.25]]))


def test_the_categorical_value_is_the_mean() -> None:
    probs = distribution(4, 6, 11)
    value = value_losses.categorical_value(probs.log() + 7.0, SUPPORT)
    assert_exact(value, (probs * SUPPORT).sum(-1))


def test_cross_entropy_is_least_at_the_target_and_its_gradient_is_the_difference() -> None:
    target = distribution(5, 3, 11)
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(6), dtype=torch.float64, requires_grad=True)
    moving = target.clone().requires_grad_()
    loss = value_losses.categorical_cross_entropy(logits, moving)
    gradient, leak = torch.autograd.grad(loss.sum(), (logits, moving), allow_unused=True)
    assert leak is None
    assert_exact(gradient, logits.detach().softmax(-1) - target)
    entropy = -(target * target.log()).sum(-1)
    assert_exact(value_losses.categorical_cross_entropy(target.log(), target), entropy)
    assert bool((loss > entropy).all())


def quantile_by_loops(quantiles: list[float], target: list[float], kappa: float) -> float:
    total = 0.0
    for i, theta in enumerate(quantiles):
        for y in target:
            u, tau = y - theta, (2 * i + 1) / (2 * len(quantiles))
            weight = tau if u >= 0 else 1 - tau
            huber = abs(u) if kappa == 0 else u * u / 2 / kappa if abs(u) <= kappa else abs(u) - kappa / 2
            total += weight * huber / len(target)
    return total


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0, 5.0])
def test_the_quantile_loss_is_the_sum_over_pairs(kappa: float) -> None:
    generator = torch.Generator().manual_seed(7)
    quantiles, target = (torch.randn(2, 3, n, generator=generator, dtype=torch.float64) for n in (5, 8))
    loss = value_losses.quantile_huber_loss(quantiles, target, kappa)
    for i in range(2):
        for j in range(3):
            expected = quantile_by_loops(quantiles[i, j].tolist(), target[i, j].tolist(), kappa)
            assert float(loss[i, j]) == pytest.approx(expected, rel=1e-12)


def test_the_quantile_loss_is_least_at_the_quantiles() -> None:
    """Minimised over a sample of 1001 numbers with kappa = 0, the parameters come to lie at its quantiles."""
    sample = torch.randn(1001, generator=torch.Generator().manual_seed(8), dtype=torch.float64).exp()
    levels = (torch.arange(4, dtype=torch.float64) + 0.5) / 4
    expected = sample.quantile(levels)
    best = value_losses.quantile_huber_loss(expected[None], sample[None], 0.0)
    for i in range(4):
        for step in (-0.05, 0.05):
            moved = expected.clone()
            moved[i] += step
            assert float(value_losses.quantile_huber_loss(moved[None], sample[None], 0.0)) > float(best)
    theta = expected.clone().requires_grad_()
    loss = value_losses.quantile_huber_loss(theta[None], sample[None], 0.0)
    (gradient,) = torch.autograd.grad(loss.sum(), theta)
    assert_exact(gradient, torch.zeros(4, dtype=torch.float64), atol=2 / 1001)


def test_quantile_targets_get_no_gradient() -> None:
    quantiles, target = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = value_losses.quantile_huber_loss(quantiles, target).sum()
    gradient, leak = torch.autograd.grad(loss, (quantiles, target), allow_unused=True)
    assert gradient.abs().sum() > 0 and leak is None


def test_the_target_of_n_steps() -> None:
    reward, discount = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, 0.25])
    next_value = torch.tensor([4.0, -torch.inf, 8.0])
    assert torch.equal(value_losses.n_step_target(reward, discount, next_value), torch.tensor([3.0, 2.0, 5.0]))
    terminated = torch.tensor([False, True, False])
    one_step = value_losses.td_target(reward, terminated, next_value, 0.5)
    assert torch.equal(value_losses.n_step_target(reward, 0.5 * (~terminated).float(), next_value), one_step)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_get_one_clear_sentence() -> None:
    x, y = torch.zeros(2, 3), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"probs \[2, 3\], atoms \[2, 4\]"):
        value_losses.project_categorical(x, y, SUPPORT)
    with pytest.raises(ValueError, match="a support of at least two atoms, got 1"):
        value_losses.project_categorical(x, x, SUPPORT[:1])
    with pytest.raises(ValueError, match=r"logits \[2, 3\], target \[2, 4\]"):
        value_losses.categorical_cross_entropy(x, y)
    with pytest.raises(ValueError, match=r"quantiles \[2\], target \[3\]"):
        value_losses.quantile_huber_loss(x, torch.zeros(3, 3))
    with pytest.raises(ValueError, match="kappa must be at least 0"):
        value_losses.quantile_huber_loss(x, x, -1.0)
    with pytest.raises(ValueError, match="next_value"):
        value_losses.n_step_target(x, x, y)
