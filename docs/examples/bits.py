"""Ten bits are to be turned into a pattern: an environment of goals, for hindsight (Andrychowicz et al. 2017, 3.1)."""

from typing import Any

import gymnasium as gym
import numpy as np


class Env(gym.Env[dict[str, Any], np.int64]):
    """Each action turns one bit. Every step costs 1, but for the one that completes the pattern, which ends the
    episode; so do as many steps as there are bits. ``size``: how many."""

    def __init__(self, size: int = 10) -> None:
        bits = gym.spaces.Box(0.0, 1.0, (size,), np.float32)
        self.observation_space = gym.spaces.Dict({"observation": bits, "achieved_goal": bits, "desired_goal": bits})
        self.action_space = gym.spaces.Discrete(size)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.bits, self.goal = self.np_random.integers(2, size=(2, len(self))).astype(np.float32)
        self.time = 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.bits[action] = 1.0 - self.bits[action]
        self.time += 1
        reward = self.compute_reward(self.bits, self.goal, {})
        return self._see(), float(reward), bool(reward == 0.0), self.time == len(self), {}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        """What it earns to achieve one goal where another is desired, for arrays of goals ``[..., size]``."""
        return self.compute_terminated(achieved, desired, info).astype(np.float32) - 1.0

    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        """Whether it ends the episode."""
        return (achieved == desired).all(-1)

    def __len__(self) -> int:
        return int(self.action_space.n)  # type: ignore[attr-defined]

    def _see(self) -> dict[str, Any]:
        return {"observation": self.bits.copy(), "achieved_goal": self.bits.copy(), "desired_goal": self.goal}
