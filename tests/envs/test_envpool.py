"""EnvPool's batches, by a stand-in with its interface: seeded when made, next-step autoreset, int32 actions."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from tests.envs.worlds import Walk, close, lively, native, rows
from torchward.envs.collect import EnvSource
from torchward.envs.faults import WorldError
from torchward.envs.make import EnvOptions, make
from torchward.envs.native import Native
from torchward.envs.task import Control
from torchward.nets.spaces import Discrete

OPTIONS = EnvOptions(vectorization="envpool", env_kwargs={"pace": 2})


class Pool:
    """``num_envs`` walks. A reset row has reward 0 and elapsed_step 0, as EnvPool's has."""

    def __init__(self, num_envs: int, seed: int, pace: int) -> None:
        self.seed, self.pace, self.closed = seed, pace, False
        self.observation_space = Walk.observation_space
        self.action_space = gym.spaces.Discrete(2)
        self.action_space.dtype = np.dtype(np.int32)  # type: ignore[assignment]
        self.spec = SimpleNamespace(config=SimpleNamespace(num_envs=num_envs))
        self.envs = [Walk(i) for i in range(num_envs)]
        self.over = np.zeros(num_envs, bool)

    def reset(self) -> Any:
        self.over[:] = False
        seen = [env.reset()[0] for env in self.envs]
        return np.stack(seen), self.info()

    def step(self, actions: Any) -> Any:
        assert actions.dtype == np.int32 and not self.closed
        answers = [
            (*env.reset()[:1], 0.0, False, False) if over else env.step(action)[:4]
            for env, over, action in zip(self.envs, self.over, actions, strict=True)
        ]
        seen, reward, terminated, truncated = map(np.array, zip(*answers, strict=True))
        self.over = terminated | truncated
        return seen, reward.astype(np.float32), terminated, truncated, self.info()

    def info(self) -> dict[str, Any]:
        return {"elapsed_step": np.array([env.time for env in self.envs], np.int32)}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    made: list[Pool] = []

    def make_pool(name: str, *, env_type: str, num_envs: int, seed: int, **kwargs: Any) -> Pool:
        assert name == "Walk-v0" and env_type == "gymnasium"
        made.append(Pool(num_envs, seed, **kwargs))
        return made[-1]

    module = ModuleType("envpool")
    vars(module)["make"] = make_pool
    monkeypatch.setitem(sys.modules, "envpool", module)
    return made


def test_its_rollouts_are_those_of_next_step_autoreset(pools: list[Pool]) -> None:
    worlds = make("Walk-v0", 3, OPTIONS)
    assert isinstance(worlds, Native) and worlds.mode is AutoresetMode.NEXT_STEP and not worlds.resumable
    policy = lively(worlds.observation_space, worlds.action_space, "lstm")
    ours = native(AutoresetMode.NEXT_STEP)(Walk, 3, False)
    sources = [EnvSource(each, 0) for each in (worlds, ours)]
    left, right = (source.collect(policy, 30) for source in sources)
    assert torch.equal(left.loss_mask, right.loss_mask) and not left.loss_mask.all()
    for world in range(3):
        assert all(map(close, rows([left], world), rows([right], world)))
    assert sources[0].episodes() == sources[1].episodes()
    sources[0].close()
    assert all(pool.closed for pool in pools) and {pool.pace for pool in pools} == {2}


def test_a_reset_with_a_seed_makes_a_new_pool(pools: list[Pool]) -> None:
    worlds = make("Walk-v0", 3, OPTIONS)
    for seed in (3, 2**40):
        worlds.reset(seed)
        assert pools[-1].seed == seed % 2**31 and pools[-2].closed and not pools[-1].closed
    count = len(pools)
    worlds.step(np.zeros(3, np.int64))
    assert len(pools) == count


def test_a_cut_begins_a_new_pool(pools: list[Pool]) -> None:
    source = EnvSource(make("Walk-v0", 2, OPTIONS), 0)
    policy = lively(source.worlds.observation_space, source.worlds.action_space)
    source.collect(policy, 5)
    source.episodes()
    seeds = {pool.seed for pool in pools}
    source.cut()
    assert pools[-1].seed not in seeds and source.episodes() == []
    assert isinstance(source.observation, np.ndarray) and not source.observation[:, 1].any()


def test_as_a_task(pools: list[Pool]) -> None:
    """Of an id that Gymnasium does not know: spaces, worlds and evaluations are the pool's."""
    task = Control("Walk-v0", OPTIONS)
    assert task.action_space == Discrete(2) and task.name == "Walk-v0"
    policy = lively(task.observation_space, task.action_space)
    evaluation = task.evaluate(policy, 5, 0)
    assert len(evaluation.returns) == 5 and len(pools[-1].envs) == 5
    task.source(2, 0).close()
    assert all(pool.closed for pool in pools)


def test_without_envpool_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(WorldError, match=r"needs EnvPool: pip install 'torchward\[envpool\]'"):
        Control("Pong-v5", EnvOptions(vectorization="envpool"))


def test_what_envpool_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("envpool")

    def refuse(name: str, **kwargs: Any) -> Any:
        raise AssertionError(f"{name} is not supported")

    vars(module)["make"] = refuse
    monkeypatch.setitem(sys.modules, "envpool", module)
    with pytest.raises(WorldError, match="EnvPool cannot make 'Sudoku-v0': Sudoku-v0 is not supported"):
        make("Sudoku-v0", 1, EnvOptions(vectorization="envpool"))
    with pytest.raises(WorldError, match="EnvPool makes environments from ids, got Walk"):
        make(Walk, 1, EnvOptions(vectorization="envpool"))
