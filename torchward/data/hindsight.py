"""Hindsight: a step that missed its goal is also a step towards where it led (Andrychowicz et al. 2017)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.replay import Prioritised, Replay, Transitions
from torchward.data.rollout import Rollout
from torchward.data.streams import Ints, fold
from torchward.nets import spaces
from torchward.nets.spaces import SpaceError

__all__ = ["HER", "GoalTask", "Goals", "Hindsight", "Memory", "Strategy", "with_goals"]

Strategy: TypeAlias = Literal["future", "final"]
"""Of what was achieved later in its episode, a step's new goal is: any with equal chance, or the last."""


@dataclass(frozen=True)
class HER:
    """Steps of the replay are also learnt from with goals that their episode achieved later (Andrychowicz et al. 2017).

    The environment has observations of ``observation``, ``achieved_goal`` and ``desired_goal``, and a
    ``compute_reward``."""

    n_sampled_goal: int = 4
    """Steps with another goal for each with its own."""
    goal_selection_strategy: Strategy = "future"
    """The other goal: any that the episode achieves later, or the last one."""

    def __post_init__(self) -> None:
        if self.n_sampled_goal < 1:
            raise ConfigError(f"expected n_sampled_goal of HER of at least 1, got {self.n_sampled_goal}")


class Goals(NamedTuple):
    """What it earns ``[K]``, and whether it ends an episode, to achieve goals ``[K, ...]`` where others are desired."""

    compute_reward: Callable[[Tensor, Tensor], Tensor]
    compute_terminated: Callable[[Tensor, Tensor], Tensor] | None = None


@runtime_checkable
class GoalTask(Protocol):
    """A task that can say what goals pay."""

    def goals(self) -> Goals: ...


def with_goals(replay: Replay, option: Any, task: Any) -> "Memory":
    """The replay, with hindsight where ``option`` is :class:`HER`.

    Raises ConfigError for a task that cannot say what goals pay, SpaceError for one whose observations have none."""
    if not isinstance(option, HER):
        return replay
    if not isinstance(task, GoalTask):
        raise ConfigError(f"hindsight needs a task with goals(), what each goal pays; {task.name} has none")
    probe = Hindsight(replay, lambda achieved, desired: achieved, option.n_sampled_goal)  # first the spaces
    reward, terminated = task.goals()
    zeros = probe.achieved.take(np.zeros(2, np.int64)).to(replay.device)
    reward(zeros, zeros)
    if terminated is not None:
        terminated(zeros, zeros)
    return Hindsight(replay, reward, option.n_sampled_goal, option.goal_selection_strategy, terminated)


class Hindsight:
    """A replay whose steps are drawn with other goals, ``n_sampled_goal`` times for each time with their own.

    Observations are dictionaries with ``observation``, ``achieved_goal`` and ``desired_goal``.
    ``compute_reward(achieved, desired)`` says what it earns, ``[K]``, to achieve one goal ``[K, ...]`` where another is
    desired. With ``compute_terminated``, of the same form, an episode ends for a new goal where that is achieved, and
    only there; without it, where it ended.

    Raises SpaceError where the observations have no goals, ValueError for a number of goals below 1."""

    def __init__(
        self,
        replay: Replay,
        compute_reward: Callable[[Tensor, Tensor], Tensor],
        n_sampled_goal: int = 4,
        strategy: Strategy = "future",
        compute_terminated: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        space = replay.streams.observation.space
        names = {"observation", "achieved_goal", "desired_goal"}
        entries = space.spaces if isinstance(space, spaces.Dict) else {}
        goals = [entries[name] for name in ("achieved_goal", "desired_goal") if name in entries]
        shapes = {goal.shape for goal in goals if isinstance(goal, spaces.Box)}
        if names - set(entries) or len(shapes) != 1 or not all(isinstance(goal, spaces.Box) for goal in goals):
            raise SpaceError(
                "hindsight needs a Dict of observation, achieved_goal and desired_goal, of which the goals are Boxes "
                f"of one shape; got {spaces.describe(space)}"
            )
        if n_sampled_goal < 1:
            raise ValueError(f"expected n_sampled_goal of at least 1, got {n_sampled_goal}")
        self.replay, self.strategy = replay, strategy
        self.compute_reward, self.compute_terminated = compute_reward, compute_terminated
        self.share = n_sampled_goal / (n_sampled_goal + 1)
        self.achieved = replay.streams.observation.entry("achieved_goal")

    def sample(self, batch_size: int, gamma: float, n_steps: int = 1) -> Transitions:
        """As :meth:`~torchward.data.replay.Replay.sample`; rewards and goals are those of hindsight for most."""
        streams = self.replay.streams
        stream, row = self.replay.draw(batch_size)
        slots, counts = streams.span(stream, row, n_steps)
        reward, terminated = streams.reward[slots], streams.terminated[slots]
        again = np.flatnonzero(self.replay.generator.random(batch_size) < self.share)
        goal = self._goals(stream[again], row[again])
        following = streams.slots(stream[again, None], row[again, None] + np.arange(1, n_steps + 1))
        achieved = self.achieved.take(following).to(self.replay.device).flatten(0, 1)
        desired = goal.repeat_interleave(n_steps, 0)
        reward[again] = self.compute_reward(achieved, desired).reshape(-1, n_steps).float().cpu().numpy()
        if self.compute_terminated is not None:
            ends = self.compute_terminated(achieved, desired).reshape(-1, n_steps).bool().cpu().numpy()
            terminated[again] = ends
            counts[again, 1:] &= ~np.logical_or.accumulate(ends, 1)[:, :-1]
        batch = self.replay.transitions(stream, row, fold(reward, terminated, counts, gamma))
        where = torch.from_numpy(again).to(goal.device)
        for observation in (batch.observation, batch.next_observation):
            assert isinstance(observation, dict) and isinstance(observation["desired_goal"], Tensor)
            observation["desired_goal"].index_copy_(0, where, goal)
        return batch

    def _goals(self, stream: Ints, row: Ints) -> Tensor:
        """A goal for each row: what was achieved in its episode after it."""
        last = self.replay.streams.last(stream, row)
        if self.strategy == "future":
            last = self.replay.generator.integers(row + 1, last + 1)
        return self.achieved.take(self.replay.streams.slots(stream, last)).to(self.replay.device)

    # The replay's other verbs

    def __len__(self) -> int:
        return len(self.replay)

    @property
    def nbytes(self) -> int:
        return self.replay.nbytes

    @property
    def prioritised(self) -> Prioritised | None:
        return self.replay.prioritised

    @property
    def beta(self) -> float:
        return self.replay.beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self.replay.beta = beta

    def add(self, rollout: Rollout) -> None:
        self.replay.add(rollout)

    def cut(self) -> None:
        self.replay.cut()

    def update_priorities(self, index: Tensor, priority: Tensor) -> None:
        self.replay.update_priorities(index, priority)

    def state_dict(self) -> dict[str, Any]:
        return self.replay.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.replay.load_state_dict(state)


Memory: TypeAlias = Replay | Hindsight
"""What off-policy learners sample from."""
