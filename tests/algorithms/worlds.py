"""Worlds that are learnt in seconds, and whose best return is known."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np


class Corridor(gym.Env[Any, Any]):
    """Five places in a row; the last pays 1 and ends, every step costs 0.1. Best: four steps right, 0.7."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (5,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.time = 0, 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = max(0, self.place + (1 if action == 1 else -1))
        self.time += 1
        won = self.place == 4
        return self._see(), (1.0 if won else 0.0) - 0.1 * (not won), won, self.time >= 30 and not won, {}

    def _see(self) -> Any:
        return np.eye(5, dtype=np.float32)[self.place]


class Railing(Corridor):
    """A corridor that tells which way is forbidden, to the left of its first place, and raises if one goes it."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        seen, _ = super().reset(seed=seed, options=options)
        return seen, self._tell()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if action == 0 and self.place == 0:
            raise ValueError("there is a railing")
        seen, reward, terminated, truncated, _ = super().step(action)
        return seen, reward, terminated, truncated, self._tell()

    def _tell(self) -> dict[str, Any]:
        return {"action_mask": np.array([self.place > 0, True])}


class Aim(gym.Env[Any, Any]):
    """One step: the reward is how near the action, in [-3, 3], comes to the number that is shown. Best: 0."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.action_space = gym.spaces.Box(-3.0, 3.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.target = self.np_random.uniform(-2.0, 2.0, 1).astype(np.float32)
        return self.target, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.target, -float(abs(action - self.target)[0]), True, False, {}


class Dial(Aim):
    """The same, with an action of whole numbers: 0 stands for -3 and 240 for 3. All that was done is in ``done``."""

    done: ClassVar[list[Any]] = []

    def __init__(self, dtype: Any = np.uint8) -> None:
        super().__init__()
        self.action_space = gym.spaces.Box(0, 240, (1,), dtype)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.done.append(action)
        return super().step(action / 40.0 - 3.0)


class Recall(gym.Env[Any, Any]):
    """A cue of -1 or 1 is shown once; two blank steps later the action has to name it, for 1. Without memory: 0.5."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return np.array([2.0 * self.cue - 1.0, 0.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        last = self.time == 3
        seen = np.array([0.0, float(self.time == 2)], np.float32)
        return seen, float(last and action == self.cue), last, False, {}


class Serve(gym.Env[Any, Any]):
    """One step, a choice and a number: which side the shown number lies on, and how far out. Best: 0."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Dict({"side": gym.spaces.Discrete(2), "width": gym.spaces.Box(0.0, 1.0, (1,))})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.target = self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32)
        return self.target, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        missed = float(action["side"] != (self.target[0] > 0.0))
        return self.target, -missed - float(abs(action["width"] - abs(self.target))[0]), True, False, {}
