"""Soft values and the losses of SAC and TD3, against enumeration, exact KL and exact soft policy iteration."""

import math

import pytest
import torch
from torch import Tensor

from tests.functional.compare import assert_exact
from tests.functional.worlds import random_policy, random_world
from torchward.functional.bellman import q_from_v, soft_value_iteration
from torchward.functional.policy_losses import (
    deterministic_policy_loss,
    soft_policy_loss,
    soft_policy_loss_discrete,
    temperature_loss,
)
from torchward.functional.value_losses import pessimistic_value, soft_value, soft_value_discrete


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("ent_coef", [0.0, 0.3, torch.tensor(2.0, dtype=torch.float64)])
def test_the_exact_forms_are_the_expectations_of_the_sampled_ones(ent_coef: float | Tensor) -> None:
    q, log_probs = random(4, 5), random(4, 5, seed=1).log_softmax(-1)
    value, loss = soft_value_discrete(q, log_probs, ent_coef), soft_policy_loss_discrete(log_probs, q, ent_coef)
    for row in range(4):
        one, other = 0.0, 0.0
        for action in range(5):
            each = (q[row, action], log_probs[row, action])
            probability = float(each[1].exp())
            one += probability * float(soft_value(*each, ent_coef))
            other += probability * float(soft_policy_loss(each[1], each[0], ent_coef))
        assert float(value[row]) == pytest.approx(one) and float(loss[row]) == pytest.approx(other)
        assert one == pytest.approx(-other)


def test_the_policy_losss_gradient_is_that_of_the_exact_divergence() -> None:
    """Of temperature * KL(pi || softmax(Q / temperature)): the improvement of soft policy iteration."""
    logits, q, ent_coef = random(3, 6).requires_grad_(), random(3, 6, seed=1), 0.4
    log_probs = logits.log_softmax(-1)
    divergence = (log_probs.exp() * (log_probs - (q / ent_coef).log_softmax(-1))).sum()
    (expected,) = torch.autograd.grad(ent_coef * divergence, logits, retain_graph=True)
    (gradient,) = torch.autograd.grad(soft_policy_loss_discrete(log_probs, q, ent_coef).sum(), logits)
    assert_exact(gradient, expected)
    best = (q / ent_coef).log_softmax(-1).requires_grad_()
    (flat,) = torch.autograd.grad(soft_policy_loss_discrete(best.log_softmax(-1), q, ent_coef).sum(), best)
    assert_exact(flat, torch.zeros_like(flat))


def test_the_reparameterised_gradient_of_a_normal_policy_in_closed_form() -> None:
    """Q = -a^2 / 2 and a = mean + std * noise: by the mean it is the mean, by log std it is std^2 - ent_coef."""
    mean, log_std = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.7, -0.3))
    z = torch.linspace(-9.0, 9.0, 2001, dtype=torch.float64)
    density = torch.exp(-0.5 * z.square())
    action = mean + log_std.exp() * z
    log_prob = -0.5 * ((action - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2.0 * math.pi)
    loss = (soft_policy_loss(log_prob, -0.5 * action.square(), 0.25) * density / density.sum()).sum()
    by_mean, by_log_std = torch.autograd.grad(loss, [mean, log_std])
    assert_exact(by_mean, mean.detach(), atol=1e-9)
    assert_exact(by_log_std, log_std.detach().mul(2.0).exp() - 0.25, atol=1e-9)


@pytest.mark.parametrize("never", [-1e30, -math.inf])
@pytest.mark.parametrize("junk", [math.inf, -math.inf, math.nan, 1e30])
def test_what_is_forbidden_counts_exactly_nothing(never: float, junk: float) -> None:
    logits, q = random(3).requires_grad_(), random(4, seed=1)
    log_probs = torch.cat([logits, torch.tensor([never], dtype=torch.float64)]).log_softmax(-1)
    q = torch.cat([q[:3], torch.tensor([junk], dtype=torch.float64)])
    loss = soft_policy_loss_discrete(log_probs, q, 0.2)
    alone = soft_policy_loss_discrete(logits.log_softmax(-1), q[:3], 0.2)
    assert_exact(loss, alone)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (expected,) = torch.autograd.grad(alone, logits)
    assert_exact(gradient, expected)
    assert_exact(soft_value_discrete(q, log_probs, 0.2), -alone)


def test_no_gradient_flows_into_the_temperature_but_by_its_own_loss() -> None:
    log_ent_coef = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    q, log_prob = random(5), random(5, seed=1)
    for found in (
        soft_value(q, log_prob, log_ent_coef.exp()),
        soft_policy_loss(log_prob, q, log_ent_coef.exp()),
        soft_value_discrete(q, log_prob.log_softmax(-1), log_ent_coef.exp()),
        soft_policy_loss_discrete(log_prob.log_softmax(-1), q, log_ent_coef.exp()),
    ):
        assert not found.requires_grad


@pytest.mark.parametrize(("entropy", "sign"), [(0.5, 1.0), (-1.5, -1.0), (-1.0, 0.0)])
def test_the_temperature_falls_above_its_target_and_rises_below(entropy: float, sign: float) -> None:
    log_ent_coef = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    sample = torch.tensor([entropy, entropy], dtype=torch.float64, requires_grad=True)
    loss = temperature_loss(log_ent_coef, sample, -1.0).sum()
    (gradient,) = torch.autograd.grad(loss, log_ent_coef, retain_graph=True)
    assert math.copysign(1.0, float(gradient)) * (gradient != 0) == sign  # a step goes against the gradient
    assert float(gradient) == pytest.approx(2.0 * (entropy + 1.0))
    (leak,) = torch.autograd.grad(loss, sample, allow_unused=True)
    assert leak is None
    each = temperature_loss(log_ent_coef, sample, torch.tensor([-1.0, 0.0], dtype=torch.float64))
    assert_exact(each.detach(), 0.3 * torch.tensor([entropy + 1.0, entropy], dtype=torch.float64))


def test_of_several_critics_the_lowest_is_believed_and_learnt_through() -> None:
    q = torch.tensor([[1.0, 5.0], [2.0, -1.0], [3.0, 4.0]], requires_grad=True)
    value = pessimistic_value(q)
    assert value.tolist() == [1.0, -1.0]
    (gradient,) = torch.autograd.grad(value.sum(), q)
    assert gradient.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


def test_the_deterministic_policy_gradient_is_the_critics_by_the_action() -> None:
    action = torch.tensor([0.2, -0.6], requires_grad=True)
    (gradient,) = torch.autograd.grad(deterministic_policy_loss(-(action - 0.5).square()).sum(), action)
    torch.testing.assert_close(gradient, 2.0 * (action.detach() - 0.5))


def test_soft_policy_iteration_climbs_to_the_soft_optimum() -> None:
    """Haarnoja et al. 2018b, lemmas 1 and 2 and theorem 1, by these functions: evaluation contracts, no value falls."""
    world, gamma, ent_coef = random_world(5, 3, seed=2), 0.6, 0.3
    log_probs = random_policy(5, 3, seed=1).log()
    before = torch.full((5,), -math.inf, dtype=torch.float64)
    for _ in range(12):
        value = torch.zeros(5, dtype=torch.float64)
        for _ in range(45):
            q = q_from_v(world.transition, world.reward, value, gamma)
            value = soft_value_discrete(q, log_probs, ent_coef)
        assert (value >= before - 1e-9).all()
        before = value
        log_probs = (q / ent_coef).log_softmax(-1)  # where the policy loss has its minimum, as shown above
    optimum = soft_value_iteration(world.transition, world.reward, gamma, ent_coef)
    assert_exact(value, optimum.value, atol=1e-8)
    assert_exact(log_probs.exp(), optimum.policy, atol=1e-8)


def test_shapes_have_to_agree(unchecked: None) -> None:
    with pytest.raises(ValueError, match="one shape"):
        soft_value(torch.zeros(3), torch.zeros(4), 0.1)
    with pytest.raises(ValueError, match="one shape"):
        soft_policy_loss_discrete(torch.zeros(3, 2), torch.zeros(3, 4), 0.1)
