"""Sampled estimators against the exact answers of a random process of five states, within their own standard error.

The exact gradient is the finite difference of the exact return. Rows are single episodes, masked after their end; the
policy is a table of logits. A gradient is estimated a hundred times, from disjoint rows: hence its standard error.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.functional import worlds
from tests.functional.compare import assert_exact
from torchward.functional import bellman
from torchward.functional.advantages import gae, group_relative, leave_one_out
from torchward.functional.policy_losses import clipped_surrogate, reinforce
from torchward.functional.reduction import masked_sum
from torchward.functional.returns import discounted_returns, lambda_returns, retrace, vtrace

STATES, ACTIONS, ROWS, TIME, PARTS = 5, 3, 20_000, 40, 100
SIGMAS = 4.5  # of the few hundred numbers compared below, a correct one strays further for about one seed in a hundred
gammas = pytest.mark.parametrize("gamma", [0.9, 1.0])


class Sample(NamedTuple):
    """Episodes [rows, time]; `cut` marks boundaries that are no ends: the world runs on behind them."""

    state: Tensor
    action: Tensor
    reward: Tensor
    next_state: Tensor
    terminated: Tensor
    cut: Tensor
    mask: Tensor


WORLD = worlds.random_world(STATES, ACTIONS, seed=11, episodic=True)
LOGITS = worlds.random_policy(STATES, ACTIONS, seed=11).log()
POLICY = LOGITS.softmax(-1)
BEHAVIOUR = 0.5 * POLICY + 0.5 * worlds.random_policy(STATES, ACTIONS, seed=12)


def sample(policy: Tensor, seed: int) -> Sample:
    generator = torch.Generator().manual_seed(seed)

    def draw(probs: Tensor) -> Tensor:
        at = torch.rand(ROWS, 1, generator=generator, dtype=torch.float64)
        return (probs.cumsum(-1) < at).sum(-1).clamp(max=probs.shape[-1] - 1)

    state = draw(WORLD.start.expand(ROWS, STATES))
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(TIME):
        action = draw(policy[state])
        next_state = draw(WORLD.transition[state, action])
        columns.append((state, action, next_state))
        state = next_state
    states, actions, next_states = (torch.stack(column, dim=1) for column in zip(*columns, strict=True))
    mask = states != STATES - 1
    return Sample(
        state=states,
        action=actions,
        reward=WORLD.reward[states, actions],
        next_state=next_states,
        terminated=mask & (next_states == STATES - 1),
        cut=torch.rand(ROWS, TIME, generator=generator) < 0.3,
        mask=mask,
    )


@pytest.fixture(scope="module")
def on_policy() -> Sample:
    return sample(POLICY, seed=1)


@pytest.fixture(scope="module")
def off_policy() -> Sample:
    return sample(BEHAVIOUR, seed=2)


def exact_return(logits: Tensor, gamma: float) -> float:
    value = bellman.policy_evaluation_exact(WORLD.transition, WORLD.reward, logits.softmax(-1), gamma)
    return float(WORLD.start @ value)


def exact_gradient(gamma: float, step: float = 1e-5) -> Tensor:
    """Central differences of the exact return by every logit of a state that is not terminal."""
    gradient = torch.zeros(STATES, ACTIONS, dtype=torch.float64)
    for s in range(STATES - 1):
        for a in range(ACTIONS):
            nudge = torch.zeros_like(gradient)
            nudge[s, a] = step
            gradient[s, a] = (exact_return(LOGITS + nudge, gamma) - exact_return(LOGITS - nudge, gamma)) / (2 * step)
    return gradient


def sigmas_from(estimates: Tensor, exact: Tensor) -> float:
    """How many standard errors the mean of the estimates [parts, ...] lies off the exact answer, at the worst entry."""
    error = estimates.std(0) / len(estimates) ** 0.5
    return float(((estimates.mean(0) - exact).abs() / error.clamp(min=1e-12)).max())


def sampled_gradients(s: Sample, weight: Tensor, *, ppo: bool = False) -> Tensor:
    """The gradient of the expected return, once for each part of the rows: [parts, states, actions]."""
    gradients = []
    size = ROWS // PARTS
    for part in range(PARTS):
        rows = slice(part * size, (part + 1) * size)
        logits = LOGITS.clone().requires_grad_()
        log_prob = logits.log_softmax(-1)[s.state[rows], s.action[rows]]
        if ppo:
            loss = clipped_surrogate(log_prob, log_prob.detach(), weight[rows], 0.2, 0.2).loss
        else:
            loss = reinforce(log_prob, weight[rows])
        gradients.append(-torch.autograd.grad(masked_sum(loss, s.mask[rows]) / size, logits)[0])
    return torch.stack(gradients)


def weights(s: Sample, kind: str, gamma: float) -> Tensor:
    """An advantage at every step, times the gamma^t that the discounted objective's gradient asks for."""
    value = bellman.policy_evaluation_exact(WORLD.transition, WORLD.reward, POLICY, gamma)
    now, then = value[s.state], value[s.next_state]
    discount = gamma ** torch.arange(TIME, dtype=torch.float64)
    nowhere = torch.zeros_like(s.cut)
    if kind in ("leave one out", "group relative"):
        whole = (discount * s.reward).sum(1)
        group = torch.arange(8)[:, None].expand(8, 4).reshape(-1)  # groups of 4, and 32 rows at a time
        blocks = [
            leave_one_out(block, group) if kind == "leave one out" else group_relative(block, group, scale=False)
            for block in whole.split(32)
        ]
        return torch.cat(blocks)[:, None].expand(ROWS, TIME)
    to_go = discounted_returns(s.reward, then, s.terminated, nowhere, gamma)
    advantage = {
        "reward to go": lambda: to_go,
        "less the value": lambda: to_go - now,
        "less a wrong baseline": lambda: to_go - torch.tensor([3.0, -1.0, 2.0, 0.5, 0.0], dtype=torch.float64)[s.state],
        "gae": lambda: gae(s.reward, now, then, s.terminated, nowhere, gamma, 0.9),
        "gae over cuts": lambda: gae(s.reward, now, then, s.terminated, s.cut, gamma, 0.9),
        "td error": lambda: gae(s.reward, now, then, s.terminated, nowhere, gamma, 0.0),
        "cuts taken for ends": lambda: gae(s.reward, now, then, s.terminated | s.cut, s.cut, gamma, 0.9),
        "wrong value, short trace": lambda: gae(s.reward, 0 * now, 0 * then, s.terminated, nowhere, gamma, 0.3),
    }[kind]()
    return advantage * discount


UNBIASED = [
    "reward to go",
    "less the value",
    "less a wrong baseline",
    "gae",
    "gae over cuts",
    "td error",
    "leave one out",
]


@gammas
@pytest.mark.parametrize("kind", UNBIASED)
def test_the_sampled_policy_gradient_is_the_exact_one(on_policy: Sample, kind: str, gamma: float) -> None:
    exact = exact_gradient(gamma)
    estimates = sampled_gradients(on_policy, weights(on_policy, kind, gamma))
    assert sigmas_from(estimates, exact) < SIGMAS
    # The comparison has power: the gradient itself is far from 0.
    assert sigmas_from(estimates, torch.zeros_like(exact)) > 5 * SIGMAS


@gammas
@pytest.mark.parametrize("kind", ["cuts taken for ends", "wrong value, short trace"])
def test_wrong_credit_is_seen_to_be_wrong(on_policy: Sample, kind: str, gamma: float) -> None:
    estimates = sampled_gradients(on_policy, weights(on_policy, kind, gamma))
    assert sigmas_from(estimates, exact_gradient(gamma)) > 1.5 * SIGMAS


@gammas
def test_a_group_mean_that_includes_oneself_shrinks_the_gradient_by_its_share(on_policy: Sample, gamma: float) -> None:
    estimates = sampled_gradients(on_policy, weights(on_policy, "group relative", gamma))
    assert sigmas_from(estimates, exact_gradient(gamma) * 3 / 4) < SIGMAS
    assert sigmas_from(estimates, exact_gradient(gamma)) > SIGMAS


def test_ppos_first_step_is_the_exact_gradient(on_policy: Sample) -> None:
    weight = weights(on_policy, "gae", 0.9)
    estimates = sampled_gradients(on_policy, weight, ppo=True)
    assert_exact(estimates, sampled_gradients(on_policy, weight), atol=1e-12)
    assert sigmas_from(estimates, exact_gradient(0.9)) < SIGMAS


def test_baselines_reduce_the_variance(on_policy: Sample) -> None:
    def spread(kind: str) -> float:
        return float(sampled_gradients(on_policy, weights(on_policy, kind, 0.9)).var(0).sum())

    assert spread("td error") < spread("gae") < spread("less the value") < spread("less a wrong baseline")


@gammas
def test_summing_over_occupancy_and_actions_gives_the_gradient_exactly(gamma: float) -> None:
    """The policy gradient theorem: no samples, all states and actions weighted by how often they are met."""
    value = bellman.policy_evaluation_exact(WORLD.transition, WORLD.reward, POLICY, gamma)
    advantage = bellman.q_from_v(WORLD.transition, WORLD.reward, value, gamma) - value[:, None]
    visits = bellman.occupancy(WORLD.transition, POLICY, WORLD.start, gamma)[:, None] * POLICY
    logits = LOGITS.clone().requires_grad_()
    loss = (visits * reinforce(logits.log_softmax(-1), advantage)).sum()
    assert_exact(-torch.autograd.grad(loss, logits)[0], exact_gradient(gamma), atol=1e-8)


def by_parts(x: Tensor) -> Tensor:
    return x.reshape(PARTS, -1).mean(1)


@gammas
@pytest.mark.parametrize("lambda_", [0.0, 0.8, 1.0])
def test_lambda_returns_average_to_the_exact_value(on_policy: Sample, gamma: float, lambda_: float) -> None:
    s = on_policy
    value = bellman.policy_evaluation_exact(WORLD.transition, WORLD.reward, POLICY, gamma)
    target = lambda_returns(s.reward, value[s.next_state], s.terminated, s.cut, gamma, lambda_)
    assert sigmas_from(by_parts(target[:, 0]), WORLD.start @ value) < SIGMAS


@gammas
def test_vtrace_without_truncation_is_unbiased_off_policy_whatever_the_critic(off_policy: Sample, gamma: float) -> None:
    s = off_policy
    wrong = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    log_ratio = (POLICY / BEHAVIOUR).log()[s.state, s.action]
    nowhere = torch.zeros_like(s.cut)
    ends = (s.terminated, nowhere, gamma)
    exact = exact_return(LOGITS, gamma)
    for ratio, expected_close in ((log_ratio, True), (torch.zeros_like(log_ratio), False)):
        traced = vtrace(ratio, s.reward, wrong[s.state], wrong[s.next_state], *ends, rho_bar=1e9, c_bar=1e9)
        sigmas = sigmas_from(by_parts(traced.target[:, 0]), torch.tensor(exact, dtype=torch.float64))
        assert (sigmas < SIGMAS) is expected_close


@gammas
@pytest.mark.parametrize("rho_bar", [0.7, 1.0, 1.3])
def test_vtrace_stays_at_the_value_of_its_truncated_policy(off_policy: Sample, gamma: float, rho_bar: float) -> None:
    """Its fixed point is V of the policy proportional to min(rho_bar * mu, pi) (Espeholt et al. 2018, theorem 1)."""
    s = off_policy
    truncated = torch.minimum(rho_bar * BEHAVIOUR, POLICY)
    value = bellman.policy_evaluation_exact(
        WORLD.transition, WORLD.reward, truncated / truncated.sum(-1, keepdim=True), gamma
    )
    log_ratio = (POLICY / BEHAVIOUR).log()[s.state, s.action]
    inputs = (log_ratio, s.reward, value[s.state], value[s.next_state], s.terminated, s.cut, gamma)
    for lambda_ in (0.5, 1.0):
        moved = vtrace(*inputs, lambda_=lambda_, rho_bar=rho_bar).target - value[s.state]
        assert sigmas_from(by_parts(moved[:, 0]), torch.zeros((), dtype=torch.float64)) < SIGMAS


@gammas
@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_retrace_stays_at_the_exact_action_values(off_policy: Sample, gamma: float, lambda_: float) -> None:
    s = off_policy
    value = bellman.policy_evaluation_exact(WORLD.transition, WORLD.reward, POLICY, gamma)
    q = bellman.q_from_v(WORLD.transition, WORLD.reward, value, gamma)[s.state, s.action]
    log_ratio = (POLICY / BEHAVIOUR).log()[s.state, s.action]
    target = retrace(log_ratio, s.reward, q, value[s.next_state], s.terminated, s.cut, gamma, lambda_)
    moved = (target - q)[:, 0]
    for action in range(ACTIONS):
        chosen = torch.where(s.action[:, 0] == action, moved, 0.0)
        assert sigmas_from(by_parts(chosen), torch.zeros((), dtype=torch.float64)) < SIGMAS
