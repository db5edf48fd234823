"""The divergences of a student from its teacher: against sums over all outcomes, their limits, and autograd."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from torchward.functional.distillation import divergence, divergence_gradient, mixture

BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)


def logits(seed: int, scale: float = 2.0, actions: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(5, actions, generator=generator, dtype=torch.float64)


def summed(p: list[float], q: list[float], beta: float) -> float:
    """The definition, outcome by outcome, in Python's numbers."""
    if beta == 0.0:
        return math.fsum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    if beta == 1.0:
        return summed(q, p, 0.0)
    m = [beta * x + (1.0 - beta) * y for x, y in zip(p, q, strict=True)]
    return beta * summed(p, m, 0.0) + (1.0 - beta) * summed(q, m, 0.0)


def test_two_outcomes_by_hand() -> None:
    """p is fair and q says the first three times in four: m of the two halves is 5/8 and 3/8."""
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.75, 0.25]).log()
    assert float(divergence(p, q, 0.0)) == pytest.approx(0.5 * math.log(4 / 3))
    assert float(divergence(p, q, 1.0)) == pytest.approx(0.75 * math.log(3 / 2) - 0.25 * math.log(2))
    of_p = 0.5 * math.log(4 / 5) + 0.5 * math.log(4 / 3)
    of_q = 0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3)
    assert float(divergence(p, q, 0.5)) == pytest.approx(0.5 * (of_p + of_q))


@pytest.mark.parametrize("beta", BETAS)
def test_it_is_the_sum_over_all_outcomes(beta: float) -> None:
    p, q = logits(0).softmax(-1), logits(1).softmax(-1)
    found = divergence(p.log(), q.log(), beta)
    for row in range(len(p)):
        assert float(found[row]) == pytest.approx(summed(p[row].tolist(), q[row].tolist(), beta), rel=1e-12)


def test_its_limits_are_the_two_divergences_of_kullback_and_leibler() -> None:
    """Scaled; at a distance that shrinks as beta does."""
    log_p, log_q = logits(0).log_softmax(-1), logits(1).log_softmax(-1)
    forward, reverse = divergence(log_p, log_q, 0.0), divergence(log_p, log_q, 1.0)
    assert (forward - reverse).abs().min() > 0.05
    for small in (1e-3, 1e-5):
        low, high = divergence(log_p, log_q, small) / small, divergence(log_p, log_q, 1.0 - small) / small
        assert ((low - forward).abs() / forward).max() < 300 * small
        assert ((high - reverse).abs() / reverse).max() < 300 * small


def test_two_that_share_nothing_are_as_far_apart_as_beta_is_undecided() -> None:
    log_p = torch.tensor([60.0, 0.0], dtype=torch.float64).log_softmax(-1)
    for beta in (0.2, 0.5):
        entropy = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
        assert float(divergence(log_p, log_p.flip(0), beta)) == pytest.approx(entropy)


@pytest.mark.parametrize("beta", BETAS)
def test_the_gradient_by_autograd_and_by_finite_differences(beta: float) -> None:
    log_p, student = logits(0).log_softmax(-1), logits(1).requires_grad_()
    (expected,) = torch.autograd.grad(divergence(log_p, student.log_softmax(-1), beta).sum(), student)
    found = divergence_gradient(log_p, student.detach().log_softmax(-1), beta)
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=1e-10)
    step = 1e-5
    for row, action in product(range(2), range(7)):
        nudge = torch.zeros_like(student)
        nudge[row, action] = step
        up, down = (
            float(divergence(log_p, (student.detach() + sign * nudge).log_softmax(-1), beta)[row]) for sign in (1, -1)
        )
        assert float(found[row, action]) == pytest.approx((up - down) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("beta", BETAS)
def test_a_student_that_is_its_teacher_is_told_nothing(beta: float) -> None:
    """To the last bit, in single precision too."""
    same = logits(3).float().log_softmax(-1)
    assert not divergence(same, same.clone(), beta).any() and not divergence_gradient(same, same.clone(), beta).any()


@pytest.mark.parametrize("beta", BETAS)
def test_single_precision_holds_where_one_of_the_two_is_certain(beta: float) -> None:
    """Probabilities down to exp(-110), which are 0 in float32."""
    p, q = logits(0, 60.0).log_softmax(-1), logits(1, 60.0).log_softmax(-1)
    assert min(p.min(), q.min()) < -110.0
    for function in (divergence, divergence_gradient):
        found, expected = function(p.float(), q.float(), beta), function(p, q, beta)
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_mixture_is_that_of_probabilities() -> None:
    p, q = logits(0, 8.0).softmax(-1), logits(1, 8.0).softmax(-1)
    for beta in (0.001, 0.3, 0.999):
        torch.testing.assert_close(mixture(p.log(), q.log(), beta).exp(), beta * p + (1 - beta) * q, atol=0, rtol=1e-12)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_is_refused() -> None:
    one = logits(0).log_softmax(-1)
    for function in (divergence, divergence_gradient):
        with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\], got 1.5"):
            function(one, one, 1.5)
        with pytest.raises(ValueError, match="Expected tensors of one shape"):
            function(one, one[:, :3], 0.5)
