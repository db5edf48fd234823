"""REINFORCE and the clipped surrogate: exact gradients on a small softmax, and where the clips cut them off."""

import pytest
import torch
from torch import Tensor

from tests.functional.compare import assert_exact
from torchward.functional.policy_losses import clipped_surrogate, entropy_loss, reinforce


def gradient_at(
    ratio: float, advantage: float, low: float, high: float, dual: float | None = None
) -> tuple[float, bool]:
    """The loss's derivative by log pi at the given ratio, and whether it was reported as clipped."""
    log_prob = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    out = clipped_surrogate(log_prob, torch.zeros_like(log_prob), torch.full_like(log_prob, advantage), low, high, dual)
    (gradient,) = torch.autograd.grad(out.loss.sum(), log_prob)
    return float(gradient), bool(out.clipped)


@pytest.mark.parametrize(
    ("ratio", "advantage", "dual", "free"),
    [
        (1.0, 2.0, None, True),
        (1.0, -2.0, None, True),
        (1.35, 2.0, None, False),  # it paid, and is likelier already
        (0.5, 2.0, None, True),  # it paid, and was lost: come back
        (0.5, -2.0, None, False),  # it cost, and is rarer already
        (1.35, -2.0, None, True),  # it cost, and grew: come back
        (1.25, 2.0, None, True),  # between 1 + clip_low and 1 + clip_high: clip-higher lets it grow
        (0.75, -2.0, None, False),
        (50.0, -2.0, None, True),  # unbounded without a second clip
        (50.0, -2.0, 3.0, False),
        (2.9, -2.0, 3.0, True),
        (50.0, 2.0, 3.0, False),  # the second clip leaves positive advantages to the first
        (0.1, 2.0, 3.0, True),
    ],
)
def test_the_gradient_is_reinforces_or_nothing(ratio: float, advantage: float, dual: float | None, free: bool) -> None:
    gradient, clipped = gradient_at(ratio, advantage, low=0.2, high=0.3, dual=dual)
    assert clipped is not free
    assert gradient == pytest.approx(-ratio * advantage if free else 0.0, abs=1e-12)


def test_clip_higher_moves_the_upper_clip_alone() -> None:
    assert gradient_at(1.25, 1.0, low=0.2, high=0.2) == (0.0, True)
    assert gradient_at(1.25, 1.0, low=0.2, high=0.3)[1] is False
    assert gradient_at(0.75, -1.0, low=0.2, high=0.3) == (0.0, True)
    assert gradient_at(0.75, -1.0, low=0.3, high=0.2)[1] is False


def random_batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_prob, old, advantage = (torch.randn(40, 25, generator=generator, dtype=torch.float64) for _ in range(3))
    return log_prob.requires_grad_(), old, advantage


@pytest.mark.parametrize("dual", [None, 1.5, 3.0])
def test_clipped_says_exactly_where_there_is_no_gradient(dual: float | None) -> None:
    log_prob, old, advantage = random_batch(0)
    out = clipped_surrogate(log_prob, old, advantage, 0.1, 0.4, dual)
    (gradient,) = torch.autograd.grad(out.loss.sum(), log_prob)
    assert torch.equal(out.clipped, gradient == 0)
    assert 0.1 < out.clipped.double().mean() < 0.9
    free = ~out.clipped
    assert_exact(gradient[free], -(out.log_ratio.exp() * advantage)[free].detach())


def test_the_surrogate_is_pessimistic_and_the_second_clip_bounds_it() -> None:
    log_prob, old, advantage = random_batch(1)
    plain = clipped_surrogate(log_prob, old, advantage, 0.2, 0.2)
    assert bool((plain.loss >= -plain.log_ratio.exp() * advantage - 1e-12).all())
    dual = clipped_surrogate(log_prob, old, advantage, 0.2, 0.2, 2.0)
    assert bool((dual.loss <= plain.loss).all())
    assert bool((dual.loss[advantage < 0] <= -2.0 * advantage[advantage < 0]).all())
    assert torch.equal(dual.loss[advantage > 0], plain.loss[advantage > 0])
    assert bool((dual.loss < plain.loss).any())


@pytest.mark.parametrize("dual", [None, 3.0])
def test_at_ratio_one_ppo_is_the_policy_gradient(dual: float | None) -> None:
    _, old, advantage = random_batch(2)
    log_prob = old.clone().requires_grad_()
    out = clipped_surrogate(log_prob, old, advantage, 0.2, 0.2, dual)
    (surrogate,) = torch.autograd.grad(out.loss.sum(), log_prob)
    (score,) = torch.autograd.grad(reinforce(log_prob, advantage).sum(), log_prob)
    assert torch.equal(out.log_ratio.exp(), torch.ones_like(old))
    assert not bool(out.clipped.any())
    assert torch.equal(surrogate, score)


def test_expected_gradients_are_those_of_the_expected_reward() -> None:
    """All actions of a softmax summed: REINFORCE, with any baseline, and PPO's first step give d E[reward] exactly."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    reward = torch.randn(5, generator=generator, dtype=torch.float64)
    probs = logits.detach().softmax(-1)
    (exact,) = torch.autograd.grad(-(logits.softmax(-1) * reward).sum(), logits)
    for baseline in (0.0, 7.0):
        log_prob = logits.log_softmax(-1)
        losses = [
            reinforce(log_prob, reward - baseline),
            clipped_surrogate(log_prob, log_prob.detach(), reward - baseline, 0.2, 0.2).loss,
        ]
        for loss in losses:
            (gradient,) = torch.autograd.grad((probs * loss).sum(), logits, retain_graph=True)
            assert_exact(gradient, exact)


def test_unclipped_surrogate_off_policy_is_importance_sampling() -> None:
    """Actions of another policy, all summed: the ratio makes value and gradient those of the policy learnt."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    behaviour = torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(-1)
    reward = torch.randn(5, generator=generator, dtype=torch.float64)
    out = clipped_surrogate(logits.log_softmax(-1), behaviour, reward, 1.0, 1e9)
    loss, expected = (behaviour.exp() * out.loss).sum(), -(logits.softmax(-1) * reward).sum()
    assert_exact(loss, expected)
    (gradient,), (exact,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    assert_exact(gradient, exact)


def test_weights_get_no_gradient() -> None:
    log_prob, old, advantage = random_batch(5)
    old.requires_grad_()
    advantage.requires_grad_()
    loss = clipped_surrogate(log_prob, old, advantage, 0.2, 0.2, 3.0).loss + reinforce(log_prob, advantage)
    gradients = torch.autograd.grad(loss.sum(), (log_prob, old, advantage), allow_unused=True)
    assert gradients[0] is not None
    assert gradients[1] is None and gradients[2] is None


def test_clips_may_be_tensors_on_the_device() -> None:
    log_prob, old, advantage = random_batch(6)
    as_floats = clipped_surrogate(log_prob, old, advantage, 0.25, 0.5)
    low, high = torch.tensor(0.25), torch.tensor(0.5)
    for clips in ((low, high), (low, 0.5), (0.25, high)):
        as_tensors = clipped_surrogate(log_prob, old, advantage, *clips)
        for x, y in zip(as_floats, as_tensors, strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("distance", [-1e4, -100.0, 100.0, 1e4])
@pytest.mark.parametrize("advantage", [-1e3, 1e3])
def test_nothing_overflows_float32(distance: float, advantage: float) -> None:
    log_prob = torch.tensor([distance], requires_grad=True)
    out = clipped_surrogate(log_prob, torch.zeros(1), torch.tensor([advantage]), 0.2, 0.2)
    (gradient,) = torch.autograd.grad(out.loss.sum(), log_prob)
    assert bool(out.loss.isfinite().all()) and bool(gradient.isfinite().all())


def test_entropy_loss_raises_the_entropy() -> None:
    entropy = torch.tensor([[0.5, 2.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(entropy_loss(entropy).sum(), entropy)
    assert torch.equal(gradient, torch.full((1, 2), -1.0))


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_get_one_clear_sentence() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"log_prob \[2, 3\], advantage \[2, 1\]"):
        reinforce(x, x[:, :1])
    with pytest.raises(ValueError, match=r"old_log_prob \[3\]"):
        clipped_surrogate(x, x[0], x, 0.2, 0.2)
    with pytest.raises(ValueError, match="clip_low must lie"):
        clipped_surrogate(x, x, x, 1.2, 0.2)
    with pytest.raises(ValueError, match="clip_high must not be negative"):
        clipped_surrogate(x, x, x, 0.2, -0.2)
    with pytest.raises(ValueError, match="dual_clip must be above 1"):
        clipped_surrogate(x, x, x, 0.2, 0.2, 0.5)
