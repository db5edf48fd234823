"""Exact solvers against each other, against all deterministic policies, series, and closed forms."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.functional import worlds
from tests.functional.compare import assert_exact
from torchward.functional import bellman

TIGHT = 1e-13
seeds = pytest.mark.parametrize("seed", range(4))
gammas = pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99])


def by_series(world: worlds.World, policy: Tensor, gamma: float, steps: int) -> tuple[Tensor, Tensor]:
    """Values and occupancy by walking forward: what is earned, and where one is, after t = 0, 1, ... steps."""
    chain = torch.stack([policy[s] @ world.transition[s] for s in range(len(policy))])
    income = torch.stack([policy[s] @ world.reward[s] for s in range(len(policy))])
    value, visits = torch.zeros_like(income), torch.zeros_like(income)
    ahead, here = torch.eye(len(policy), dtype=torch.float64), world.start
    for t in range(steps):
        value = value + gamma**t * ahead @ income
        visits = visits + gamma**t * here
        ahead, here = ahead @ chain, here @ chain
    return value, visits


@seeds
@gammas
def test_evaluation_is_the_solution_the_iteration_and_the_series(seed: int, gamma: float) -> None:
    world, policy = worlds.random_world(6, 3, seed), worlds.random_policy(6, 3, seed)
    mdp = (world.transition, world.reward)
    exact = bellman.policy_evaluation_exact(*mdp, policy, gamma)
    assert_exact(bellman.policy_evaluation(*mdp, policy, gamma, tolerance=TIGHT), exact, atol=1e-10)
    assert_exact(by_series(world, policy, gamma, steps=3000)[0], exact, atol=1e-10)
    assert_exact((policy * bellman.q_from_v(*mdp, exact, gamma)).sum(-1), exact, atol=1e-10)


@seeds
@gammas
def test_value_iteration_is_policy_iteration_is_the_best_of_all_policies(seed: int, gamma: float) -> None:
    world = worlds.random_world(5, 3, seed)
    mdp = (world.transition, world.reward)
    values = []
    for choice in itertools.product(range(3), repeat=5):
        chain, income = world.transition[range(5), choice], world.reward[range(5), choice]
        values.append(torch.linalg.solve(torch.eye(5, dtype=torch.float64) - gamma * chain, income))
    best = torch.stack(values).amax(0)
    for solution in (
        bellman.value_iteration(*mdp, gamma, tolerance=TIGHT),
        bellman.policy_iteration(*mdp, gamma),
    ):
        assert_exact(solution.value, best, atol=1e-10)
        assert_exact(solution.q, bellman.q_from_v(*mdp, best, gamma), atol=1e-10)
        assert_exact(solution.q.amax(-1), best, atol=1e-10)
        assert_exact(bellman.policy_evaluation_exact(*mdp, solution.policy, gamma), best, atol=1e-10)
        assert bool(((solution.policy == 0) | (solution.policy == 1)).all())


@seeds
def test_the_operators_are_contractions_and_monotone(seed: int) -> None:
    world, policy, gamma = worlds.random_world(6, 3, seed), worlds.random_policy(6, 3, seed), 0.9
    generator = torch.Generator().manual_seed(seed)
    v, w = 10 * torch.randn(2, 6, generator=generator, dtype=torch.float64)
    operators: dict[str, Callable[[Tensor], Tensor]] = {
        "greedy": lambda x: bellman.q_from_v(world.transition, world.reward, x, gamma).amax(-1),
        "policy": lambda x: (policy * bellman.q_from_v(world.transition, world.reward, x, gamma)).sum(-1),
        "soft": lambda x: bellman.q_from_v(world.transition, world.reward, x, gamma).logsumexp(-1),
    }
    for operator in operators.values():
        assert float((operator(v) - operator(w)).abs().max()) <= gamma * float((v - w).abs().max()) + 1e-12
        assert bool((operator(torch.maximum(v, w)) >= operator(v) - 1e-12).all())
        # A constant passes through, times gamma: the contraction can be no better.
        assert_exact(operator(v + 3.0), operator(v) + 3.0 * gamma, atol=1e-10)


def test_the_residual_bounds_the_error() -> None:
    world, gamma = worlds.random_world(6, 3, 0), 0.95
    exact = bellman.policy_iteration(world.transition, world.reward, gamma).value
    iterations = []
    for tolerance in (1e-1, 1e-3, 1e-5):
        solution = bellman.value_iteration(world.transition, world.reward, gamma, tolerance=tolerance)
        assert solution.residual <= tolerance
        assert float((solution.value - exact).abs().max()) <= solution.residual * gamma / (1 - gamma) + 1e-12
        iterations.append(solution.iterations)
    assert iterations == sorted(iterations)


@seeds
@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_soft_value_iteration_is_its_fixed_point(seed: int, temperature: float) -> None:
    world, gamma = worlds.random_world(6, 3, seed), 0.9
    mdp = (world.transition, world.reward)
    soft = bellman.soft_value_iteration(*mdp, gamma, temperature, tolerance=TIGHT)
    entropy = -(soft.policy * soft.policy.log()).sum(-1)
    assert_exact(soft.q, bellman.q_from_v(*mdp, soft.value, gamma), atol=1e-10)
    assert_exact(soft.value, temperature * (soft.q / temperature).exp().sum(-1).log(), atol=1e-10)
    assert_exact(soft.value, (soft.policy * soft.q).sum(-1) + temperature * entropy, atol=1e-10)
    assert_exact(soft.policy, ((soft.q - soft.value[:, None]) / temperature).exp(), atol=1e-10)

    def return_and_entropy(policy: Tensor) -> Tensor:
        bonus = -temperature * (policy * policy.log()).sum(-1, keepdim=True)
        return bellman.policy_evaluation_exact(world.transition, world.reward + bonus, policy, gamma)

    assert_exact(return_and_entropy(soft.policy), soft.value, atol=1e-10)
    for other in range(10):
        assert bool((return_and_entropy(worlds.random_policy(6, 3, other)) <= soft.value + 1e-10).all())


@seeds
def test_soft_values_fall_to_the_hard_ones_with_the_temperature(seed: int) -> None:
    world, gamma = worlds.random_world(6, 3, seed), 0.9
    hard = bellman.value_iteration(world.transition, world.reward, gamma, tolerance=TIGHT)
    last = torch.full_like(hard.value, torch.inf)
    for temperature in (1.0, 0.1, 1e-2, 1e-4, 1e-6):
        soft = bellman.soft_value_iteration(world.transition, world.reward, gamma, temperature, tolerance=TIGHT)
        bound = temperature * torch.tensor(3.0).log().item() / (1 - gamma)
        assert bool((soft.value >= hard.value - 1e-10).all()) and bool((soft.value <= last + 1e-10).all())
        assert bool((soft.value <= hard.value + bound + 1e-10).all())
        last = soft.value
    assert_exact(soft.policy, hard.policy, atol=1e-10)


@seeds
@gammas
def test_occupancy_counts_visits_and_pays_the_return(seed: int, gamma: float) -> None:
    world, policy = worlds.random_world(6, 3, seed), worlds.random_policy(6, 3, seed)
    visits = bellman.occupancy(world.transition, policy, world.start, gamma)
    assert float(visits.sum()) == pytest.approx(1 / (1 - gamma), rel=1e-12)
    assert_exact(visits, by_series(world, policy, gamma, steps=3000)[1], atol=1e-10)
    value = bellman.policy_evaluation_exact(world.transition, world.reward, policy, gamma)
    assert_exact(visits @ (policy * world.reward).sum(-1), world.start @ value, atol=1e-10)


def test_a_fair_walk_without_discount_has_the_gamblers_values() -> None:
    """From i of n: the chance of winning is i / n, and the walk lasts i (n - i) steps."""
    n = 8
    world = worlds.walk(n)
    anything = torch.full((n + 1, 2), 0.5, dtype=torch.float64)
    i = torch.arange(n + 1, dtype=torch.float64)
    chance = torch.where(i < n, i / n, 0.0)
    mdp = (world.transition, world.reward)
    assert_exact(bellman.policy_evaluation_exact(*mdp, anything, 1.0), chance, atol=1e-10)
    assert_exact(bellman.policy_evaluation(*mdp, anything, 1.0, tolerance=TIGHT), chance, atol=1e-10)
    for solution in (bellman.value_iteration(*mdp, 1.0, tolerance=TIGHT), bellman.policy_iteration(*mdp, 1.0)):
        assert_exact(solution.value, chance, atol=1e-10)
    for state in range(n + 1):
        start = torch.nn.functional.one_hot(torch.tensor(state), n + 1).double()
        visits = bellman.occupancy(world.transition, anything, start, 1.0)
        assert float(visits.sum()) == pytest.approx(state * (n - state), abs=1e-9)
        assert float(visits @ world.reward[:, 0]) == pytest.approx(float(chance[state]), abs=1e-12)


def test_the_books_grid_without_discount() -> None:
    """The random policy's values in Sutton and Barto's figure 4.1, and the distances that the best policy walks."""
    world = worlds.grid(4)
    mdp = (world.transition, world.reward)
    anything = torch.full((16, 4), 0.25, dtype=torch.float64)
    printed = [0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0]
    assert_exact(
        bellman.policy_evaluation_exact(*mdp, anything, 1.0), torch.tensor(printed, dtype=torch.float64), atol=1e-10
    )
    distance = torch.tensor([min(s // 4 + s % 4, 6 - s // 4 - s % 4) for s in range(16)], dtype=torch.float64)
    for solution in (bellman.value_iteration(*mdp, 1.0), bellman.policy_iteration(*mdp, 1.0)):
        assert_exact(solution.value, -distance, atol=1e-10)


@seeds
def test_episodic_worlds_without_discount_are_the_limit_of_those_with(seed: int) -> None:
    world, policy = worlds.random_world(5, 3, seed, episodic=True), worlds.random_policy(5, 3, seed)
    mdp = (world.transition, world.reward)
    near = 1 - 1e-9
    for solve in (bellman.value_iteration, bellman.policy_iteration):
        assert_exact(solve(*mdp, 1.0).value, solve(*mdp, near).value, atol=1e-6)
    exact = bellman.policy_evaluation_exact(*mdp, policy, 1.0)
    assert_exact(exact, bellman.policy_evaluation_exact(*mdp, policy, near), atol=1e-6)
    assert_exact(exact, by_series(world, policy, 1.0, steps=400)[0], atol=1e-10)
    visits = bellman.occupancy(world.transition, policy, world.start, 1.0)
    assert_exact(visits @ (policy * world.reward).sum(-1), world.start @ exact, atol=1e-10)
    assert visits[-1] == 0.0


def test_a_loop_that_costs_nothing_does_not_hide_the_value_without_discount() -> None:
    """Two states: waiting (action 0) is free, going (action 1) pays 1 and ends."""
    transition = torch.zeros(2, 2, 2, dtype=torch.float64)
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1, :, 1] = 1.0
    reward = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    for solution in (
        bellman.value_iteration(transition, reward, 1.0),
        bellman.policy_iteration(transition, reward, 1.0),
    ):
        assert torch.equal(solution.value, torch.tensor([1.0, 0.0], dtype=torch.float64))
        assert solution.residual == 0.0
    wait = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="from state 0 it never does"):
        bellman.policy_evaluation_exact(transition, reward, wait, 1.0)


def test_a_state_that_pays_for_ever_is_no_end() -> None:
    world = worlds.walk(3)
    reward = world.reward.clone()
    reward[3] = 1.0
    anything = torch.full((4, 2), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="must reach a terminal state"):
        bellman.policy_evaluation_exact(world.transition, reward, anything, 1.0)
    with pytest.raises(ValueError, match="check that every episode ends"):
        bellman.value_iteration(world.transition, reward, 1.0, max_iterations=100)


def test_a_terminal_state_holds_no_entropy() -> None:
    world = worlds.random_world(5, 3, 0, episodic=True)
    for gamma in (0.9, 1.0):
        soft = bellman.soft_value_iteration(world.transition, world.reward, gamma, 0.5, tolerance=TIGHT)
        assert soft.value[-1] == 0.0
        rest = 0.5 * (soft.q[:-1] / 0.5).logsumexp(-1)
        assert_exact(soft.value[:-1], rest, atol=1e-10)


def test_greedy_takes_the_first_of_the_best() -> None:
    policy = bellman.greedy_policy(torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]]))
    assert torch.equal(policy, torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_get_one_clear_sentence() -> None:
    world, policy = worlds.random_world(4, 2, 0), worlds.random_policy(4, 2, 0)
    mdp = (world.transition, world.reward)
    with pytest.raises(ValueError, match="gamma must lie"):
        bellman.value_iteration(*mdp, 1.5)
    with pytest.raises(ValueError, match="must reach a terminal state"):
        bellman.policy_evaluation_exact(*mdp, policy, 1.0)
    with pytest.raises(ValueError, match="must reach a terminal state"):
        bellman.policy_evaluation(*mdp, policy, 1.0)
    with pytest.raises(ValueError, match="must reach a terminal state"):
        bellman.occupancy(world.transition, policy, world.start, 1.0)
    with pytest.raises(ValueError, match=r"After 50 iterations .* raise max_iterations"):
        bellman.value_iteration(*mdp, 0.99, max_iterations=50)
    with pytest.raises(ValueError, match="After 1 iterations"):
        bellman.policy_iteration(*mdp, 0.99, max_iterations=1)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        bellman.soft_value_iteration(*mdp, 0.9, 0.0)
    with pytest.raises(ValueError, match="must be a distribution: not negative"):
        bellman.value_iteration(2 * world.transition, world.reward, 0.9)
    with pytest.raises(ValueError, match=r"got \[4, 2, 4\] and \[4, 3\]"):
        bellman.value_iteration(world.transition, torch.zeros(4, 3), 0.9)
    with pytest.raises(ValueError, match="Every row of policy"):
        bellman.policy_evaluation_exact(*mdp, 2 * policy, 0.9)
    with pytest.raises(ValueError, match="start must be a distribution over 4 states"):
        bellman.occupancy(world.transition, policy, 2 * world.start, 0.9)
    with pytest.raises(ValueError, match="one per state"):
        bellman.q_from_v(*mdp, torch.zeros(1, dtype=torch.float64), 0.9)
