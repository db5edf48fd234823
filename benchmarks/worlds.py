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
