"""Environments that the benchmarks need and Gymnasium does not register."""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

SEEN = [0, 2]
"""The position of the cart and the angle of the pole, among what CartPole shows."""


class CartPolePositions(gym.ObservationWrapper[NDArray[np.float32], Any, NDArray[np.float32]]):
    """CartPole-v1 with both velocities hidden: one observation does not tell where the pole is going."""

    def __init__(self, **kwargs: Any) -> None:
        whole = gym.make("CartPole-v1", disable_env_checker=True, **kwargs)
        super().__init__(whole)
        box = whole.observation_space
        assert isinstance(box, gym.spaces.Box)
        self.observation_space = gym.spaces.Box(box.low[SEEN], box.high[SEEN], dtype=np.float32)

    def observation(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        return observation[SEEN]


class Bits(gym.Env[Any, Any]):
    """Each action turns one of eight bits; a step costs 1 until they are those of the goal (Andrychowicz et al. 2017,
    section 3.1)."""

    def __init__(self, bits: int = 8) -> None:
        self.shape, box = (2, bits), gym.spaces.Box(0.0, 1.0, (bits,), np.float32)
        self.observation_space = gym.spaces.Dict(observation=box, achieved_goal=box, desired_goal=box)
        self.action_space = gym.spaces.Discrete(bits)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.bits, self.goal = self.np_random.integers(2, size=self.shape).astype(np.float32)
        self.time = 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.bits[int(action)] = 1.0 - self.bits[int(action)]
        self.time += 1
        met = bool(self.compute_terminated(self.bits, self.goal, {}))
        return self._see(), float(met) - 1.0, met, self.time >= len(self.bits), {}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return self.compute_terminated(achieved, desired, info).astype(np.float32) - 1.0

    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        return (np.asarray(achieved) == np.asarray(desired)).all(-1)

    def _see(self) -> dict[str, Any]:
        return {"observation": self.bits.copy(), "achieved_goal": self.bits.copy(), "desired_goal": self.goal.copy()}
