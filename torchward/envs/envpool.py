"""EnvPool's batches as a Gymnasium vector environment: next-step autoreset, seeded when it is made."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class EnvPoolVector(VectorEnv[Any, Any, Any]):
    """``n_envs`` worlds of EnvPool. A pool takes its seed when it is made, so a reset with a seed makes a new one."""

    def __init__(self, envpool: Any, name: str, n_envs: int, arguments: dict[str, Any]) -> None:
        self.envpool, self.name, self.num_envs, self.arguments = envpool, name, n_envs, arguments
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.pool = self._make(0)
        self.single_observation_space = self.pool.observation_space
        self.single_action_space = self.pool.action_space
        self.observation_space = batch_space(self.single_observation_space, n_envs)
        self.action_space = batch_space(self.single_action_space, n_envs)

    def _make(self, seed: int) -> Any:
        return self.envpool.make(self.name, env_type="gymnasium", num_envs=self.num_envs, seed=seed, **self.arguments)

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if isinstance(seed, int):
            self.pool.close()
            self.pool = self._make(seed % 2**31)
        observation, info = self.pool.reset()
        return observation, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        wanted = self.single_action_space.dtype
        observation, reward, terminated, truncated, info = self.pool.step(np.asarray(actions).astype(wanted))
        return observation, reward, terminated, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        self.pool.close()
