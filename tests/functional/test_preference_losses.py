"""Preference losses: what they must be by their meaning, and DPO's optimum against the closed form it is derived
from."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchward.functional.preference_losses import bradley_terry, centring, dpo, ipo, kto, odds_ratio, simpo

NUMBER = st.floats(-8.0, 8.0)


def double(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@given(NUMBER, NUMBER, NUMBER)
def test_one_of_two_answers_is_picked(a: float, b: float, shift: float) -> None:
    """The two ways to pick have probability 1 together, and only the difference of rewards counts."""
    one, other = bradley_terry(double(a), double(b)), bradley_terry(double(b), double(a))
    torch.testing.assert_close((-one).exp() + (-other).exp(), double(1.0))
    torch.testing.assert_close(bradley_terry(double(a + shift), double(b + shift)), one)
    torch.testing.assert_close(
        bradley_terry(double(a), double(b), double(shift)), bradley_terry(double(a - shift), double(b))
    )


def test_odds_of_being_picked_are_the_difference_of_rewards() -> None:
    picked = (-bradley_terry(double(math.log(3.0)), double(0.0))).exp()
    assert float(picked) == pytest.approx(0.75)


def test_centring_holds_a_pair_about_0_and_leaves_its_difference() -> None:
    rewards = torch.tensor([5.0, 3.0], requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(centring(rewards[:1], rewards[1:]).sum(), rewards)
        rewards = (rewards - 0.1 * gradient).detach().requires_grad_()
    assert rewards.tolist() == pytest.approx([1.0, -1.0], abs=1e-4)


def test_dpo_reaches_the_closed_form_of_the_regularised_optimum() -> None:
    """Picks by a known reward, all pairs of six answers: the minimum is ref exp(r / beta) / Z."""
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(6, generator=generator, dtype=torch.float64)
    reference = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0)
    logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    one, other = torch.combinations(torch.arange(6)).T
    picked, beta = torch.sigmoid(reward[one] - reward[other]), 0.4
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        ratio = logits.log_softmax(0) - reference
        cost = picked * dpo(ratio[one], ratio[other], beta) + (1 - picked) * dpo(ratio[other], ratio[one], beta)
        cost.sum().backward()
        return cost.sum()

    optimizer.step(loss)
    expected = (reference + reward / beta).softmax(0)
    assert float((logits.detach().softmax(0) - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.4])
def test_smoothed_labels_are_certain_only_as_far_as_the_noise_lets_them(noise: float) -> None:
    """The minimum is where the chosen answer is the better one with probability 1 - noise."""
    gap, beta = double(math.log((1 - noise) / noise) / 0.3).requires_grad_(), 0.3
    (gradient,) = torch.autograd.grad(dpo(gap, double(0.0), beta, noise).sum(), gap)
    assert abs(float(gradient)) < 1e-12


def test_smoothing_is_the_mean_over_labels_that_may_be_wrong() -> None:
    right, wrong = dpo(double(1.3), double(-0.4), 0.5), dpo(double(-0.4), double(1.3), 0.5)
    torch.testing.assert_close(dpo(double(1.3), double(-0.4), 0.5, 0.1), 0.9 * right + 0.1 * wrong)


def test_dpo_pulls_hardest_where_it_is_wrong() -> None:
    gaps = double(-20.0, 0.0, 20.0).requires_grad_()
    (gradient,) = torch.autograd.grad(dpo(gaps, torch.zeros_like(gaps), 0.5).sum(), gaps)
    assert gradient.tolist() == pytest.approx([-0.5, -0.25, 0.0], abs=1e-4)


@given(st.floats(0.05, 2.0), NUMBER)
def test_ipo_wants_a_gap_of_its_own_and_no_more(beta: float, other: float) -> None:
    wanted = other + 1.0 / (2.0 * beta)
    assert float(ipo(double(wanted), double(other), beta)) == pytest.approx(0.0, abs=1e-18)
    assert float(ipo(double(wanted + 1.0), double(other), beta)) == pytest.approx(1.0)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_odds_as_they_are_counted(p: float, q: float) -> None:
    chosen, rejected = p / (1 - p), q / (1 - q)
    expected = -math.log(chosen / (chosen + rejected))
    assert float(odds_ratio(double(math.log(p)), double(math.log(q)))) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_odds_of_an_answer_that_is_certain_are_finite() -> None:
    mean = torch.zeros(1, requires_grad=True)
    loss = odds_ratio(mean, torch.tensor([-1.0]))
    loss.sum().backward()
    assert mean.grad is not None and loss.isfinite().all() and mean.grad.isfinite().all()


def test_simpo_is_undecided_where_the_difference_is_the_margin() -> None:
    assert float(simpo(double(-1.0), double(-1.5), 2.0, 1.0)) == pytest.approx(math.log(2.0))
    assert float(simpo(double(-1.0), double(-9.0), 2.0, 1.0)) < 1e-6


def test_kto_by_hand() -> None:
    """At the reference point an answer is worth half of its weight; what good and bad lose there adds up to one."""
    desirable = torch.tensor([True, False, True, False])
    gained = double(0.3, 0.3, 2.3, 2.3)
    cost = kto(gained, desirable, double(0.3)[0], 1.0, 2.0, 3.0)
    assert cost[:2].tolist() == pytest.approx([1.0, 1.5])
    assert float(cost[2] / 2.0 + cost[3] / 3.0) == pytest.approx(1.0)
    assert float(cost[2]) == pytest.approx(2.0 / (1.0 + math.exp(2.0)))


def test_ktos_reference_point_is_not_learnt() -> None:
    point = torch.tensor(0.5, requires_grad=True)
    gained = torch.tensor([1.0], requires_grad=True)
    kto(gained, torch.tensor([True]), point, 0.1).sum().backward()
    assert point.grad is None and gained.grad is not None
