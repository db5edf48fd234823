"""Environments that are vectors by nature: Gymnasium's ``vector_entry_point``, EnvPool's, a VectorEnv of the user's."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from torchward.envs import faults
from torchward.envs import spaces as sp
from torchward.envs.faults import RAISED, WorldError
from torchward.envs.masks import observation_space, with_mask, with_vector_mask
from torchward.envs.spaces import Arrays
from torchward.envs.worlds import Array, Step, as_batch
from torchward.nets import spaces

FINAL = "final_obs", "final_observation"
"""What info calls an episode's last observation, where another is shown in its place."""


class Native:
    """A vector environment in any autoreset mode: Gymnasium's own, EnvPool's, the user's."""

    def __init__(self, name: str, vector: "VectorEnv[Any, Any, Any]", mask: bool = False) -> None:
        self.name, self.vector, self.n, self.mask = name, vector, vector.num_envs, mask
        self.action_space = sp.from_gym(vector.single_action_space, of_actions=True)
        self.observation_space = observation_space(vector.single_observation_space, self.action_space, mask)
        mode = vector.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = mode if isinstance(mode, AutoresetMode) else AutoresetMode(mode)
        self.attributes = _state_attributes(vector)
        self.resumable = self.attributes is not None or hasattr(vector, "state_dict")
        self.ended = np.zeros(self.n, bool)
        self.like = sp.empty(self.observation_space, (self.n,))
        self.has_choices = sp.has_choices(self.observation_space)

    def reset(self, seed: int) -> Arrays:
        self.ended = np.zeros(self.n, bool)
        return self._batch(*self._call("reset", seed=seed))

    def step(self, action: Arrays) -> Step:
        # A copy: what an environment writes there is its own.
        seen, reward, terminated, truncated, info = self._call("step", sp.copy(action))
        observation = self._batch(seen, info)
        terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)  # some give 0 and 1
        ended, reset, final = terminated | truncated, np.zeros(self.n, bool), None
        if self.mode is AutoresetMode.NEXT_STEP:
            if ended.any() and (key := next((key for key in FINAL if key in info), None)):
                raise faults.unread_final(self.name, key)
            reset, self.ended = self.ended, ended
        elif ended.any():
            final = self._final(observation, info, ended)
            if self.mode is AutoresetMode.DISABLED:
                observation = self._batch(*self._call("reset", options={"reset_mask": ended.copy()}))
        return Step(observation, np.asarray(reward, np.float32), terminated, truncated, reset, final)

    def _final(self, observation: Arrays, info: dict[str, Any], ended: Array) -> Arrays:
        if self.mode is AutoresetMode.DISABLED:
            return sp.copy(observation)
        if "final_obs" not in info:
            raise faults.no_final(self.name)
        final = sp.empty(self.observation_space, (self.n,))
        for i in np.flatnonzero(ended):
            seen = _row(info["final_obs"], int(i))
            if self.mask:
                mask = sp.take(observation[spaces.MASK], int(i))  # type: ignore[call-overload]
                seen = with_mask(seen, {spaces.MASK: mask}, self.name)  # no action follows: any mask will do
            faults.check_observation(self.name, self.observation_space, seen, self.has_choices)
            sp.put(final, i, seen)
        return final

    def _call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self.vector, verb)(*args, **kwargs)
        except RAISED as error:
            raise WorldError(f"{self.name} raised {type(error).__name__} in {verb}: {error}") from error

    def _batch(self, seen: Any, info: dict[str, Any]) -> Arrays:
        if self.mask:
            seen = with_vector_mask(seen, info, getattr(self, "observation", None), self.name, self.n)
        like = self.like
        # A fitting array is not copied: whoever collects copies it into a rollout before the next step.
        if not (isinstance(seen, np.ndarray) and seen.shape == like.shape and seen.dtype == like.dtype):  # type: ignore[union-attr]
            seen = as_batch(seen, self.observation_space, self.n, self.name, self.has_choices)
        elif self.has_choices:
            faults.check_observation(self.name, self.observation_space, seen, True, self.n)
        observation: Arrays = seen
        self.observation = observation
        return observation

    def state_dict(self) -> dict[str, Any]:
        if not self.resumable:
            return {}
        state: dict[str, Any] = {"ended": self.ended.copy(), "observation": sp.copy(self.observation)}
        if self.attributes is None:
            state["vector"] = self.vector.state_dict()  # type: ignore[attr-defined]
        else:
            state["vector"] = {name: np.copy(getattr(self.vector, name)) for name in self.attributes}
            state["random"] = self.vector.np_random.bit_generator.state
        return state

    def load_state_dict(self, state: dict[str, Any]) -> Arrays:
        self.reset(0)
        if self.attributes is None:
            self.vector.load_state_dict(state["vector"])  # type: ignore[attr-defined]
        else:
            for name in self.attributes:
                setattr(self.vector, name, np.copy(state["vector"][name]))
            self.vector.np_random.bit_generator.state = state["random"]
        self.ended = np.asarray(state["ended"]).copy()
        self.observation = state["observation"]
        return self.observation

    def close(self) -> None:
        self.vector.close()


def _state_attributes(vector: "VectorEnv[Any, Any, Any]") -> tuple[str, ...] | None:
    """The arrays that, with the generator, are the whole state of a vector environment that Gymnasium ships."""
    from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

    return ("state", "steps", "prev_done") if type(vector) is CartPoleVectorEnv else None


def _row(tree: Any, i: int) -> Any:
    if isinstance(tree, dict):
        return {name: _row(branch, i) for name, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_row(branch, i) for branch in tree)
    return tree[i]
