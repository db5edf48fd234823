"""A curriculum: the same task in levels, from easy to hard. Who succeeds at one goes on to the next.

A world whose reward is never found teaches nothing. A smaller one is found by chance, and what was learnt there begins
the next level with some success. What is judged is always the last level.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torchward.config import ConfigError
from torchward.data.protocols import Episode, Evaluation, Policy, Source, Task
from torchward.data.random import derive
from torchward.data.rollout import Rollout
from torchward.nets.spaces import Space, describe


class Curriculum:
    """A :class:`~torchward.data.protocols.Task` of several with equal spaces, the easiest first.

    The next level begins with the first rollout after the last ``window`` episodes have returned ``reached`` or more in
    the mean. It never goes back. ``say`` is told of it. Raises ConfigError where there are no levels, or where they
    differ in their spaces."""

    def __init__(
        self,
        levels: Sequence[Task],
        reached: float,
        window: int = 100,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if not levels or window < 1:
            raise ConfigError(f"expected levels and a window of at least 1, got {len(levels)} and {window}")
        for each in levels:
            for what in ("observation_space", "action_space"):
                if (one := getattr(each, what)) != (first := getattr(levels[0], what)):
                    raise ConfigError(
                        f"expected levels of equal spaces, got {describe(first)} in {levels[0].name} and "
                        f"{describe(one)} in {each.name}"
                    )
        self.levels, self.reached, self.window, self.say = list(levels), reached, window, say

    @property
    def name(self) -> str:
        """The name of its last level."""
        return f"up to {self.levels[-1].name}"

    @property
    def observation_space(self) -> Space:
        """That of every level."""
        return self.levels[-1].observation_space

    @property
    def action_space(self) -> Space:
        """That of every level."""
        return self.levels[-1].action_space

    def source(self, n_envs: int, seed: int, device: str = "cpu", **how: Any) -> Source:
        """Worlds of the first level, and of the others in their time. ``how`` is what else its levels' sources take."""

        def make(level: int) -> Source:
            return self.levels[level].source(n_envs, derive(seed, f"level {level}"), device, **how)

        return CurriculumSource(make, len(self.levels), self.reached, self.window, self.say)

    def evaluate(self, policy: Policy, episodes: int, seed: int, **how: Any) -> Evaluation:
        """Episodes of the last level."""
        return self.levels[-1].evaluate(policy, episodes, seed, **how)


class GroupCurriculum(Curriculum):
    """A :class:`~torchward.data.texts.GroupTask` of several: a curriculum of text, in the words of one policy."""

    @property
    def max_completion_length(self) -> int:
        """The largest number of tokens of an answer at any level."""
        lengths: list[int] = [each.max_completion_length for each in self.levels]  # type: ignore[attr-defined]
        return max(lengths)

    @property
    def problems(self) -> Any:
        """Those of the last level."""
        return self.levels[-1].problems  # type: ignore[attr-defined]

    def using(self, policy: Any) -> "GroupCurriculum":
        """The same levels in the words of ``policy``."""
        levels = [each.using(policy) for each in self.levels]  # type: ignore[attr-defined]
        return GroupCurriculum(levels, self.reached, self.window, self.say)


class CurriculumSource:
    """A :class:`~torchward.data.protocols.Source` that is one of several: that of the level which has been reached."""

    def __init__(
        self,
        make: Callable[[int], Source],
        levels: int,
        reached: float,
        window: int,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.make, self.levels, self.reached, self.say = make, levels, reached, say
        self.level = 0
        self.recent: deque[float] = deque(maxlen=window)
        """The returns of the level's last episodes."""
        self.source = make(0)
        self.resumable = self.source.resumable
        """Whether the level's source is."""

    def collect(self, policy: Policy, horizon: int | None) -> Rollout:
        """The next steps, at the next level if this one was mastered."""
        full = len(self.recent) == self.recent.maxlen
        if full and self.level + 1 < self.levels and sum(self.recent) / len(self.recent) >= self.reached:
            if self.say is not None:
                self.say(f"level {self.level + 2} of {self.levels} begins")
            self._begin(self.level + 1)
            return replace(self.source.collect(policy, horizon), begun_anew=True)
        return self.source.collect(policy, horizon)

    def _begin(self, level: int) -> None:
        self.source.close()
        self.level = level
        self.recent.clear()
        self.source = self.make(level)
        self.resumable = self.source.resumable

    def episodes(self) -> list[Episode]:
        """The episodes that have ended since the last call."""
        ended = self.source.episodes()
        self.recent.extend(each.return_ for each in ended)
        return ended

    def cut(self) -> bool:
        """As the level's source."""
        return self.source.cut()

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level, "recent": list(self.recent), "source": self.source.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if int(state["level"]) != self.level:
            self._begin(int(state["level"]))
        self.recent.clear()
        self.recent.extend(state["recent"])
        self.source.load_state_dict(state["source"])

    def close(self) -> None:
        self.source.close()
