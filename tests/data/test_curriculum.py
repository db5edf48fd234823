"""A curriculum: when a level begins, that it is resumed bit for bit, and that it learns what is too hard alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.algorithms import tiny_text
from tests.algorithms.test_every import learn, lines
from tests.algorithms.training import score
from torchward.algorithms import grpo, ppo
from torchward.config import ConfigError
from torchward.data.curriculum import Curriculum, CurriculumSource, GroupCurriculum
from torchward.data.protocols import Episode, Source, Task
from torchward.data.replay import Replay
from torchward.data.texts import GroupTask
from torchward.envs.task import Control
from torchward.nets.uniform import UniformPolicy
from torchward.tasks import find


class Corridor(gym.Env[Any, Any]):
    """So many places; the last pays 1 and ends; three times as many steps. What is seen is how far there is to go."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.observation_space = gym.spaces.Box(0.0, 2.0, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left, self.time = self.places - 1, 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left += -1 if action == 1 else self.left < self.places - 1
        self.time += 1
        return self._see(), float(self.left == 0), self.left == 0, self.time >= 3 * self.places, {}

    def _see(self) -> Any:
        return np.array([self.left / 16], np.float32)


def corridors(*lengths: int, **how: Any) -> Curriculum:
    return Curriculum([Control(lambda n=n: Corridor(n)) for n in lengths], **{"reached": 0.9, "window": 10, **how})


@dataclass(frozen=True)
class Told:
    """What stands for a rollout."""

    level: int
    count: int
    begun_anew: bool = False


class Counted:
    """A source that only counts, and earns what it is told to."""

    resumable = True

    def __init__(self, level: int) -> None:
        self.level, self.count, self.closed, self.pays = level, 0, False, 0.0

    def collect(self, policy: Any, horizon: int | None) -> Any:
        self.count += 1
        return Told(self.level, self.count)

    def episodes(self) -> list[Episode]:
        return [Episode(self.pays, 1)] * 2

    def cut(self) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]

    def close(self) -> None:
        self.closed = True


def test_the_next_level_begins_when_the_mean_of_a_full_window_is_enough() -> None:
    made: list[Counted] = []
    said: list[str] = []

    def make(level: int) -> Source:
        made.append(Counted(level))
        return made[-1]

    source = CurriculumSource(make, 3, reached=0.5, window=4, say=said.append)
    assert isinstance(source, Source)
    levels, begun = [], []
    for pays in (0.0, 1.0, 0.4, 0.4, 0.4, 0.6, 0.6, 1.0, 1.0, 1.0):
        made[-1].pays = pays
        told: Any = source.collect(None, None)  # type: ignore[arg-type]
        levels.append(told.level)
        begun.append(told.begun_anew)
        source.episodes()
    # After (0, 1) the mean is 0.5; then 0.4 is too little three times, and (0.4, 0.6) is 0.5; there is no fourth level.
    assert levels == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert begun == [False, False, True, False, False, False, True, False, False, False]
    assert [each.closed for each in made] == [True, True, False]
    assert said == ["level 2 of 3 begins", "level 3 of 3 begins"]
    other = CurriculumSource(make, 3, reached=0.5, window=4)
    other.load_state_dict(source.state_dict())
    assert other.level == 2 and other.collect(None, None) == source.collect(None, None)  # type: ignore[arg-type]


class Shows(gym.Env[Any, Any]):
    """It shows the number of its level for three steps, whatever is done."""

    observation_space = gym.spaces.Box(0.0, 9.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, level: int) -> None:
        self.level = level

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.array([self.level], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return np.array([self.level], np.float32), 1.0, self.time == 3, False, {}


@pytest.mark.parametrize("n_steps", [1, 3])
def test_no_step_in_a_replay_leads_from_one_level_to_the_next(n_steps: int) -> None:
    task = Curriculum([Control(lambda level=level: Shows(level)) for level in (1, 2, 3)], reached=3.0, window=2)
    source = task.source(2, 0)
    policy = UniformPolicy(task.observation_space, task.action_space)
    replay = Replay(task.observation_space, task.action_space, 2, 400, seed=0)
    for _ in range(12):
        replay.add(source.collect(policy, 4))
        source.episodes()
    batch = replay.sample(4000, 0.9, n_steps)
    assert isinstance(batch.observation, torch.Tensor) and isinstance(batch.next_observation, torch.Tensor)
    assert set(batch.observation.flatten().tolist()) == {1.0, 2.0, 3.0}
    apart = (batch.observation != batch.next_observation).flatten()
    assert not apart.any()


def settings(total: int) -> ppo.Config:
    return ppo.Config(
        total_timesteps=total, n_envs=8, n_steps=32, batch_size=64, n_epochs=4, learning_rate=3e-3, ent_coef=0.01
    )


def test_what_is_too_hard_alone_is_learnt_level_by_level(tmp_path: Path) -> None:
    levels: list[str] = []
    hard, easy = corridors(16), corridors(4, 8, 16, say=levels.append)
    assert isinstance(easy, Task) and find.is_task(easy)
    assert score(tmp_path / "alone", ppo, settings(8_192), hard, 5) == 0.0
    assert score(tmp_path / "levels", ppo, settings(8_192), easy, 5) == 1.0
    assert levels == ["level 2 of 3 begins", "level 3 of 3 begins"]


def test_it_goes_on_bit_for_bit_and_on_its_level(tmp_path: Path) -> None:
    task = corridors(3, 4, 5, reached=0.5)
    whole = learn(tmp_path / "whole", ppo, settings(4_096), task, None, False)
    learn(tmp_path / "halved", ppo, settings(4_096), task, 2_048, False)
    again = learn(tmp_path / "halved", ppo, settings(4_096), task, None, True)
    assert all(torch.equal(again[key], whole[key]) for key in whole)
    assert lines(tmp_path / "halved") == lines(tmp_path / "whole")


def test_levels_of_text_are_answered_in_groups() -> None:
    task = GroupCurriculum([tiny_text.task(graded=True), tiny_text.task()], reached=0.5)
    assert isinstance(task, GroupTask) and task.max_completion_length == 3
    policy = tiny_text.policy(tiny_text.task())
    spoken = task.using(policy)
    source = spoken.source(8, 0, num_generations=4)
    group = source.collect(policy, None).context["group"]
    assert isinstance(group, torch.Tensor) and group.tolist() == [0] * 4 + [1] * 4
    assert grpo.Config().num_generations and spoken.name == "up to pairs"
    assert len(spoken.evaluate(policy, 5, 0).returns) == 5


def test_levels_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="expected levels and a window of at least 1, got 0 and 100"):
        Curriculum([], 1.0)
    with pytest.raises(ConfigError, match="expected levels of equal spaces"):
        Curriculum([Control(lambda: Corridor(3)), Control("CartPole-v1")], 1.0)
