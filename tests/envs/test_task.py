"""Judging a policy: exactly the episodes that were asked for, of which the short ones displace no long one."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.envs.worlds import Masked, Walk, lively
from tests.nets.examples import leaf
from torchward.data.protocols import Source, Task
from torchward.envs import task as tasks
from torchward.envs.faults import WorldError
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.envs.worlds import episode_seed
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.tasks import find
from torchward.tasks.find import LaunchError


class Uneven(gym.Env[Any, Any]):
    """An episode lasts 2 or 40 steps, as its seed says; each step pays 1."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)
    begun: list[bool] = []  # noqa: RUF012 (the test reads it)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.choice([2, 40]))
        self.begun.append(self.left == 40)
        return np.zeros(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(1), 1.0, self.left == 0, False, {}


@pytest.mark.parametrize("episodes", [1, 3, 16, 37])
def test_exactly_the_episodes_that_were_asked_for(episodes: int) -> None:
    task = Control(Uneven)
    evaluation = task.evaluate(lively(task.observation_space, task.action_space), episodes, 0)
    assert len(evaluation.returns) == len(evaluation.lengths) == episodes
    assert evaluation.returns == [float(length) for length in evaluation.lengths]
    assert set(evaluation.lengths) <= {2, 40}


def test_short_episodes_displace_no_long_ones() -> None:
    """The share of long episodes is that of those that were begun as a quota: the first of each world. Taking the
    first to end would find short ones alone."""
    task = Control(Uneven)
    policy = lively(task.observation_space, task.action_space)
    long = sum(sum(length == 40 for length in task.evaluate(policy, 16, seed).lengths) for seed in range(12))
    count = 16 * 12
    assert abs(long - count / 2) < 4 * (count / 4) ** 0.5


@pytest.mark.parametrize("cell", ["none", "lstm"])
def test_the_same_seed_plays_the_same_episodes(cell: str) -> None:
    task = Control("CartPole-v1")
    policy = lively(task.observation_space, task.action_space, cell)
    first, again, other = (task.evaluate(policy, 5, seed) for seed in (0, 0, 1))
    assert first == again and first != other
    random = [task.evaluate(policy, 5, seed, deterministic=False) for seed in (0, 0, 1)]
    assert random[0] == random[1] != random[2] and random[0] != first


def test_an_evaluation_replays_no_training_episode() -> None:
    task = Control("CartPole-v1", EnvOptions(vectorization="sync"))
    begun: list[tuple[float, ...]] = []

    class Looks(ActorCritic):
        def act(self, observation: Any, state: Any, noise: Any) -> Any:
            begun.extend(tuple(row.tolist()) for row in observation)
            return super().act(observation, state, noise)

    policy = Looks(task.observation_space, task.action_space)
    task.evaluate(policy, 4, 0)
    judged = set(begun)
    begun.clear()
    task.source(4, 0).collect(policy, 30)
    assert not judged & set(begun)


@pytest.mark.parametrize("vector", [False, True])
def test_a_recurrent_policy_begins_each_episode_anew(vector: bool) -> None:
    """Its state is zero at the first step of an episode and at no other, in worlds that play several, in either way
    of resetting. A reset row is no step: what its state is does not matter."""
    task = Control(gym.vector.SyncVectorEnv([Walk] * 2) if vector else Walk)
    policy = lively(task.observation_space, task.action_space, "lstm")
    act, begun = policy.act, 0

    def watched(observation: Any, state: Any, noise: Any) -> Any:
        nonlocal begun
        for row, part in zip(observation, state[0], strict=True):
            begins = float(row[1]) == 0
            begun += begins
            assert vector or bool((part == 0).all()) == begins
            assert not begins or not part.any()
        return act(observation, state, noise)

    policy.act = watched  # type: ignore[method-assign]
    assert len(task.evaluate(policy, 20, 0).returns) == 20
    assert begun >= 20


def test_an_evaluation_changes_nothing_of_the_policy() -> None:
    """An encoder of somebody's may drop, and keep statistics: not while it is judged."""

    class Encoder(torch.nn.Module):
        features = 4

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Dropout(0.5)
            )

        def forward(self, observation: Any) -> torch.Tensor:
            encoded: torch.Tensor = self.layers(observation)
            return encoded

    task = Control(Walk)
    policy = ActorCritic(task.observation_space, task.action_space, Network(), encoder=Encoder())
    before, generator = {name: x.clone() for name, x in policy.state_dict().items()}, torch.get_rng_state()
    first = task.evaluate(policy, 3, 0)
    assert policy.training and torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(x, before[name]) for name, x in policy.state_dict().items())
    policy.eval()
    assert task.evaluate(policy, 3, 0) == first and not policy.training


def test_masks_are_obeyed() -> None:
    task = Control(Masked, EnvOptions(action_mask=True))
    policy = lively(task.observation_space, task.action_space)
    assert len(task.evaluate(policy, 4, 0, deterministic=False).returns) == 4


def test_worlds_are_closed_also_after_an_error() -> None:
    closed: list[int] = []

    class Broken(Walk):
        def step(self, action: Any) -> Any:
            raise ValueError("no")

        def close(self) -> None:
            closed.append(1)

    task = Control(Broken)
    closed.clear()
    with pytest.raises(WorldError, match="Broken raised ValueError"):
        task.evaluate(lively(task.observation_space, task.action_space), 3, 0)
    assert len(closed) == 3


class Endless(Walk):
    """Pays the number of the step."""

    def step(self, action: Any) -> Any:
        self.time += 1
        return self._see(), float(self.time), False, False, {}


def test_an_episode_without_an_end_counts_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one of its world is another, not the rest of it."""
    monkeypatch.setattr(tasks, "EVALUATION_STEPS", 20)
    task = Control(Endless)
    evaluation = task.evaluate(lively(task.observation_space, task.action_space), 18, 0)
    assert evaluation.returns == [210.0] * 18 and evaluation.lengths == [20] * 18
    vector = Control(gym.vector.SyncVectorEnv([Endless] * 2))
    assert vector.evaluate(lively(task.observation_space, task.action_space), 2, 0).lengths == [20] * 2


@pytest.mark.parametrize("vector", [False, True])
def test_a_time_limit_of_the_users_own_is_kept(vector: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "EVALUATION_STEPS", 20)

    def world() -> Any:
        return gym.wrappers.TimeLimit(gym.wrappers.OrderEnforcing(gym.wrappers.TimeLimit(Endless(), 30)), 40)

    task = Control(lambda: gym.vector.SyncVectorEnv([world] * 2) if vector else world())
    assert task.evaluate(lively(task.observation_space, task.action_space), 2, 0).lengths == [30] * 2


def test_running_statistics_of_each_world_are_refused() -> None:
    one, many = gym.wrappers, gym.wrappers.vector

    def vector(world: Any = Walk) -> Any:
        return gym.vector.SyncVectorEnv([world] * 2)

    made: Any
    for name, option, *makers in (
        ("NormalizeObservation", "--normalize-observation", one.NormalizeObservation, many.NormalizeObservation),
        ("NormalizeReward", "--normalize-reward, in ppo", one.NormalizeReward, many.NormalizeReward),
    ):
        inside = partial(makers[0], Walk())
        for made in (
            lambda wrap=makers[0]: gym.wrappers.TimeLimit(wrap(Walk()), 9),
            lambda wrap=makers[1]: wrap(vector()),
            lambda inside=inside: vector(inside),
        ):
            with pytest.raises(WorldError, match=rf"got one in {name}, whose running statistics begin .*\({option}"):
                Control(made)

    def frozen() -> Any:
        made = one.NormalizeObservation(Walk())
        made.update_running_mean = False
        return made

    assert Control(frozen).observation_space == Control(Walk).observation_space


def test_actions_are_scaled_and_shifted() -> None:
    seen: list[tuple[Any, Any]] = []

    class Notes(Walk):
        action_space: Any = gym.spaces.Tuple(
            (
                gym.spaces.Discrete(2, start=3),
                gym.spaces.Box(np.array([0, -4], np.float32), np.array([1, 4], np.float32)),
            )
        )

        def step(self, action: Any) -> Any:
            assert self.action_space[1].contains(action[1])
            seen.append((int(action[0]), np.array(action[1])))
            return super().step(action[0] - 3)

    task = Control(Notes, EnvOptions(vectorization="sync"))
    policy = lively(task.observation_space, task.action_space, log_std_init=1.0)
    rollout = task.source(1, 0).collect(policy, 40)
    choice, number = leaf(rollout.action, 0)[0], leaf(rollout.action, 1)[0]
    assert [index for index, _ in seen] == (choice + 3).tolist()
    given = torch.from_numpy(np.stack([box for _, box in seen]))
    expected = torch.stack([(number[:, 0].clamp(-1, 1) + 1) / 2, 4 * number[:, 1].clamp(-1, 1)], 1)
    torch.testing.assert_close(given, expected)
    assert (number.abs() > 1).any()  # the policy's own action is not clipped


@pytest.mark.parametrize("attribute", ["action_space", "observation_space"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_space_that_is_missing_is_named(attribute: str, wrapped: bool) -> None:
    class Lacks(gym.Env[Any, Any]):
        def __init__(self) -> None:
            for name in {"action_space", "observation_space"} - {attribute}:
                setattr(self, name, gym.spaces.Discrete(2))

    options = EnvOptions(max_episode_steps=9 if wrapped else 0)
    with pytest.raises(WorldError, match=rf"expected Lacks to have an {attribute}, got none; set self\.{attribute} in"):
        Control(Lacks, options)
    with pytest.raises(LaunchError, match=f"expected Lacks to have an {attribute}"):
        find.task(Lacks, options)

    class Text(Lacks):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, attribute, 3)

    with pytest.raises(WorldError, match=rf"expected Text to have an {attribute}, got 3; set self\.{attribute} in"):
        Control(Text)


def test_the_nouns_are_what_the_protocols_say() -> None:
    task = Control("CartPole-v1")
    assert isinstance(task, Task)
    source = task.source(4, 0)
    assert isinstance(source, Source) and source.resumable
    assert ActorCritic(task.observation_space, task.action_space, Network()).history is False


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**32, 2**40])
def test_the_seed_of_an_episode_is_that_of_its_numbers(seed: int) -> None:
    """However they are handed over: a run of before is resumed with the same episodes."""
    for world, episode in ((0, 0), (3, 1), (0, 2**33)):
        whole = np.random.SeedSequence([seed, world, episode]).generate_state(1)[0]
        assert episode_seed(seed, world, episode) == int(whole) >> 1
