"""Potential-based shaping: its theorem, exactly; what it does at ends; and what an addition of another kind does."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.algorithms.worlds import Corridor
from tests.functional.worlds import World, random_policy, random_world
from torchward.config import ConfigError
from torchward.data.bonus import arrived
from torchward.data.potential import Potential
from torchward.data.protocols import Shaping
from torchward.data.random import seeded
from torchward.data.rollout import Rollout
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.functional.advantages import gae
from torchward.functional.bellman import policy_evaluation_exact, value_iteration
from torchward.nets.actor_critic import ActorCritic

GAMMA = 0.9


def shaped(world: World, phi: Tensor, gamma: float) -> Tensor:
    """The expected reward with the difference of a potential."""
    return world.reward + gamma * world.transition @ phi - phi[:, None]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("episodic", [False, True])
def test_the_optimal_policy_is_the_same_and_q_is_less_by_the_potential(seed: int, episodic: bool) -> None:
    world = random_world(6, 3, seed, episodic=episodic)
    phi = 10.0 * torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if episodic:
        phi[-1] = 0.0  # behind an end there is nothing to come
    plain = value_iteration(world.transition, world.reward, GAMMA, tolerance=1e-12)
    with_hint = value_iteration(world.transition, shaped(world, phi, GAMMA), GAMMA, tolerance=1e-12)
    assert torch.equal(plain.policy[: 6 - episodic], with_hint.policy[: 6 - episodic])
    assert (with_hint.q - (plain.q - phi[:, None])).abs().max() < 1e-9
    policy = random_policy(6, 3, seed)  # and so for every policy, not the best alone
    one = policy_evaluation_exact(world.transition, world.reward, policy, GAMMA)
    other = policy_evaluation_exact(world.transition, shaped(world, phi, GAMMA), policy, GAMMA)
    assert (other - (one - phi)).abs().max() < 1e-9


def test_a_potential_that_is_not_0_behind_an_end_misleads() -> None:
    """Why phi of an end is 0: with another, episodes are long or short for its sake. One may stop now, for 1, or earn
    0.2 a step for ever."""
    transition = torch.zeros(2, 2, 2, dtype=torch.float64)
    transition[0, 0, 1] = transition[0, 1, 0] = transition[1, :, 1] = 1.0
    reward = torch.tensor([[1.0, 0.2], [0.0, 0.0]], dtype=torch.float64)
    plain = value_iteration(transition, reward, GAMMA).policy[0]
    for end, same in ((0.0, True), (5.0, False)):
        paid = reward + GAMMA * transition @ torch.tensor([0.0, end], dtype=torch.float64)
        paid[1] = 0.0
        assert torch.equal(value_iteration(transition, paid, GAMMA).policy[0], plain) == same


def bicycle(places: int) -> tuple[World, Tensor]:
    """A row of places, the last an end that pays 1; left and right. And a bonus for every step towards the end."""
    transition = torch.zeros(places, 2, places, dtype=torch.float64)
    reward, bonus = torch.zeros(places, 2, dtype=torch.float64), torch.zeros(places, 2, dtype=torch.float64)
    for place in range(places - 1):
        transition[place, 0, max(0, place - 1)] = transition[place, 1, place + 1] = 1.0
    transition[-1, :, -1] = 1.0
    reward[-2, 1] = 1.0
    bonus[:-1, 1] = 0.2
    return World(transition, reward, torch.eye(places, dtype=torch.float64)[0]), bonus


def test_a_bonus_that_is_no_potential_makes_it_ride_in_circles() -> None:
    world, bonus = bicycle(8)
    best = value_iteration(world.transition, world.reward, 0.99).policy
    assert best[:-1, 1].tolist() == [1.0] * 7, "always right"
    paid = value_iteration(world.transition, world.reward + bonus, 0.99).policy
    assert paid[-2, 0] == 1.0, "at the last place before the end it turns back, to be paid once more for the same way"
    arrives = policy_evaluation_exact(world.transition, world.reward, paid, 0.99)
    assert arrives[0] == 0.0, "and never arrives"
    phi = -0.2 * torch.arange(7, -1, -1, dtype=torch.float64)
    hint = value_iteration(world.transition, shaped(world, phi, 0.99), 0.99).policy
    assert torch.equal(hint[:-1], best[:-1]), "the same hint, paid back on the way back, does no harm"


def collected(steps: int, **options: Any) -> Rollout:
    task = Control(Corridor, EnvOptions(**options))
    with seeded(0, "policy"):
        policy = ActorCritic(task.observation_space, task.action_space)
    return task.source(4, 0).collect(policy, steps)


def phi(observation: Any) -> Tensor:
    """Of a place, which is shown as one of five."""
    found: Tensor = observation @ torch.tensor([0.3, -1.0, 4.0, 0.5, 7.0])
    return found


def worth(observation: Any) -> Tensor:
    found: Tensor = observation @ torch.tensor([1.0, -2.0, 0.5, 3.0, 100.0])
    return found


@pytest.mark.parametrize("gamma", [0.9, 1.0])
@pytest.mark.parametrize("limit", [5, None])
def test_advantages_are_the_same_with_values_that_are_less_by_the_potential(gamma: float, limit: int | None) -> None:
    """Ends, time limits, the end of a rollout, reset rows: one identity says that each is treated right."""
    rollout = collected(200, max_episode_steps=limit)
    assert rollout.terminated.any() and (rollout.boundary & ~rollout.terminated & rollout.loss_mask).any()
    made = Potential(phi, gamma)
    assert isinstance(made, Shaping)
    with_hint, metrics = made.shape(rollout)

    def credit(of: Rollout, value: Any) -> Tensor:
        here, there = value(of.observation), value(arrived(of))
        return gae(of.reward, here, there, of.terminated, of.boundary, gamma, 0.7)

    one, other = credit(rollout, worth), credit(with_hint, lambda seen: worth(seen) - phi(seen))
    assert (one - other)[rollout.loss_mask].abs().max() < 1e-3
    assert torch.equal(with_hint.reward[~rollout.loss_mask], rollout.reward[~rollout.loss_mask])
    paid = (with_hint.reward - rollout.reward)[rollout.loss_mask]
    assert float(metrics["potential"]) == pytest.approx(float(paid.mean()), abs=1e-6)


def test_by_hand() -> None:
    rollout = collected(1)
    first, last = rollout.observation, rollout.last
    assert isinstance(first, Tensor) and isinstance(last, Tensor)
    assert {int(row.argmax()) for row in first[:, 0]} == {0}
    with_hint, _ = Potential(phi, 0.5).shape(rollout)
    for row in range(4):
        after = int(last[row].argmax())
        expected = float(rollout.reward[row, 0]) + 0.5 * [0.3, -1.0][after] - 0.3
        assert float(with_hint.reward[row, 0]) == pytest.approx(expected)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ConfigError, match=r"gamma within \[0, 1\], got 1.5"):
        Potential(phi, 1.5)
    with pytest.raises(ConfigError, match=r"of 4 observations as shape \[4\], got \[4, 5\]"):
        Potential(lambda seen: seen, 0.9).shape(collected(1))  # type: ignore[arg-type, return-value]
