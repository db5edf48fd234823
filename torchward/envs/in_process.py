"""Single environments, stepped one after the other in this process."""

import math
from typing import Any

import gymnasium as gym
import numpy as np

from torchward.envs import faults
from torchward.envs import spaces as sp
from torchward.envs.faults import FLAGS, MISSING, NUMBERS, RAISED, WHOLE
from torchward.envs.masks import observation_space, with_mask
from torchward.envs.spaces import Arrays
from torchward.envs.worlds import Past, Step, equal, has_state, is_nondeterministic, layers_state, load_layers
from torchward.nets import spaces
from torchward.nets.spaces import Space


class InProcess:
    """Single environments, stepped one after the other in this process.

    Each episode is begun with a seed of its own, so a world is brought back by that seed and the actions since; an
    environment with ``state_dict`` and ``load_state_dict`` is brought back by those instead, if its wrappers can be.
    Raises :class:`WorldError` where two of the environments are one."""

    def __init__(self, name: str, envs: "list[gym.Env[Any, Any]]", mask: bool = False) -> None:
        if len({id(env.unwrapped) for env in envs}) < len(envs):
            raise faults.shared(name)
        self.name, self.envs, self.n, self.mask = name, envs, len(envs), mask
        self.action_space = sp.from_gym(envs[0].action_space, of_actions=True)
        self.observation_space = observation_space(envs[0].observation_space, self.action_space, mask)
        self.has_choices = sp.has_choices(self.observation_space)
        self.least, self.most = _range(self.observation_space)
        self.at_sight = WHOLE if self.has_choices else NUMBERS
        self.has_state = all(map(has_state, envs))
        self.resumable = self.has_state or not is_nondeterministic(envs[0])
        self.is_repeated = self.resumable and not self.has_state

    def reset(self, seed: int) -> Arrays:
        self.past = Past(seed, self.n)
        self.observation = sp.empty(self.observation_space, (self.n,))
        for i in range(self.n):
            self._reset(i, self.observation)
        return self.observation

    def step(self, action: Arrays) -> Step:
        if self.is_repeated:
            self.past.actions.append(sp.copy(action))
        actions = _split(action, self.n)
        observation = sp.empty(self.observation_space, (self.n,))
        reward = np.zeros(self.n, np.float32)
        terminated, truncated = np.zeros(self.n, bool), np.zeros(self.n, bool)
        final: Arrays | None = None
        shape = observation.shape[1:] if isinstance(observation, np.ndarray) else None  # None: of no array
        least, most, at_sight, plain = self.least, self.most, self.at_sight, None if self.has_choices else shape
        for i, env in enumerate(self.envs):
            given: Any = MISSING
            try:
                given = env.step(actions[i])
                seen, paid, end, cut, info = given
            except RAISED as error:
                raise faults.failed_step(self.name, i, given, error) from error
            if type(paid) not in NUMBERS or type(end) not in FLAGS or type(cut) not in FLAGS:
                faults.check_step(self.name, i, paid, end, cut)
            reward[i], terminated[i], truncated[i] = paid, end, cut
            if terminated[i] or truncated[i]:
                final = sp.empty(self.observation_space, (self.n,)) if final is None else final
                self._put(final, i, seen, info)
                self.past.ended(i)
                self._reset(i, observation)
            elif (
                seen.shape == plain and seen.dtype.kind in "fiu"
                if type(seen) is np.ndarray
                else shape == () and type(seen) in at_sight and least <= seen <= most
            ):
                observation[i] = seen  # type: ignore[index]  # it has a shape: it is one array
            else:
                self._put(observation, i, seen, info)
        self.past.forget()
        self.observation = observation
        return Step(observation, reward, terminated, truncated, np.zeros(self.n, bool), final)

    def _reset(self, i: int, target: Arrays) -> None:
        try:
            given: Any = self.envs[i].reset(seed=self.past.seed_of(i))
        except RAISED as error:
            raise faults.failed_reset(self.name, i, error) from error
        faults.check_reset(self.name, i, given)
        seen, info = given
        self._put(target, i, seen, info, first=True)

    def _put(self, target: Arrays, i: int, seen: Any, info: dict[str, Any], first: bool = False) -> None:
        """Of the ``first`` observation of an episode, and where there are choices, its numbers are looked at, too."""
        seen = with_mask(seen, info, self.name) if self.mask else seen
        faults.check_observation(self.name, self.observation_space, seen, first or self.has_choices)
        sp.put(target, i, seen)

    def state_dict(self) -> dict[str, Any]:
        past = self.past
        state: dict[str, Any] = {"seed": past.seed, "episode": list(past.episode), "observation": self.observation}
        if self.has_state:
            return state | {"worlds": [layers_state(env) for env in self.envs]}
        return state | past.actions_dict()

    def load_state_dict(self, state: dict[str, Any]) -> Arrays:
        """Begin each world's episode again and repeat the actions since, if it was not its state that was saved.

        Raises :class:`WorldError` if a world does not come to where it stood: it is not determined by its seed."""
        self.reset(int(state["seed"]))
        self.past.episode = [int(k) for k in state["episode"]]
        self.observation = state["observation"]
        if "worlds" in state:
            for env, states in zip(self.envs, state["worlds"], strict=True):
                load_layers(env, states)
            return self.observation
        self.past.load_actions(state)
        observation = sp.empty(self.observation_space, (self.n,))
        rows = [_split(action, self.n) for action in self.past.actions]
        for i, env in enumerate(self.envs):
            self._reset(i, observation)
            for row in rows[self.past.since[i] :]:
                try:
                    seen, _, terminated, truncated, info = env.step(row[i])
                except RAISED as error:
                    raise faults.strayed(self.name) from error
                if terminated or truncated:
                    raise faults.strayed(self.name)
                self._put(observation, i, seen, info)
        if not equal(observation, self.observation):
            raise faults.strayed(self.name)
        return self.observation

    def close(self) -> None:
        for env in self.envs:
            env.close()


def _range(space: Space) -> tuple[float, float]:
    """Between which numbers a single one is taken as it is."""
    return (space.start, space.start + space.n - 1) if isinstance(space, spaces.Discrete) else (-math.inf, math.inf)


def _split(action: Arrays, n: int) -> list[Any]:
    if isinstance(action, dict):
        parts = {name: _split(branch, n) for name, branch in action.items()}
        return [{name: parts[name][i] for name in parts} for i in range(n)]
    if isinstance(action, tuple):
        return list(zip(*(_split(branch, n) for branch in action), strict=True))
    return action.tolist() if action.ndim == 1 else list(action.copy())  # what an environment does to it, stays there
