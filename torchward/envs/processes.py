"""Single environments in processes of their own, for costly steps."""

import os
import random
import signal
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState

from torchward.envs import faults
from torchward.envs import spaces as sp
from torchward.envs.faults import FLAGS, MISSING, NUMBERS, RAISED, WorldError
from torchward.envs.masks import observation_space, with_vector_mask
from torchward.envs.spaces import Arrays
from torchward.envs.worlds import Array, Factory, Past, Step, as_batch, episode_seed, equal, layers_state, load_layers


class Processes:
    """Single environments in processes of their own: the same episodes as :class:`InProcess`, for costly steps."""

    def __init__(
        self, name: str, factories: list[Factory], mask: bool = False, resumable: bool = True, has_state: bool = False
    ) -> None:
        self.name, self.n, self.mask = name, len(factories), mask
        draw, here = _next_draw(), os.getpid()
        apart = [partial(_apart, factory, episode_seed(draw, i, 0), here) for i, factory in enumerate(factories)]
        looked_at = [partial(_looked_at, name, i, factory) for i, factory in enumerate(apart)]
        self.vector = AsyncVectorEnv(looked_at, autoreset_mode=AutoresetMode.DISABLED)
        self.action_space = sp.from_gym(self.vector.single_action_space, of_actions=True)
        self.observation_space = observation_space(self.vector.single_observation_space, self.action_space, mask)
        self.resumable, self.has_state = resumable or has_state, has_state
        self.is_repeated = resumable and not has_state

    def reset(self, seed: int) -> Arrays:
        self.past = Past(seed, self.n)
        return self._reset(np.ones(self.n, bool))

    def step(self, action: Arrays) -> Step:
        if self.is_repeated:
            self.past.actions.append(sp.copy(action))
        try:
            seen, reward, terminated, truncated, info = self.vector.step(action)
        except WorldError:  # it says all that is to be said
            raise
        except Exception as error:
            raise self._failed("", error) from error
        observation, ended = self._batch(seen, info), terminated | truncated
        final: Arrays | None = None
        if ended.any():
            final = observation
            for i in np.flatnonzero(ended):
                self.past.ended(int(i))
            observation = self._reset(ended)
        self.past.forget()
        return Step(observation, reward.astype(np.float32), terminated, truncated, np.zeros(self.n, bool), final)

    def _reset(self, which: Array) -> Arrays:
        seeds = [self.past.seed_of(i) if which[i] else None for i in range(self.n)]
        try:
            seen, info = self.vector.reset(seed=seeds, options=None if which.all() else {"reset_mask": which})
        except WorldError:
            raise
        except Exception as error:
            raise self._failed("at a reset ", error) from error
        return self._batch(seen, info)

    def _failed(self, when: str, error: Exception) -> WorldError:
        """What is wrong with a step or reset that raised: the environment did, or a process is no more."""
        if not isinstance(error, EOFError | ConnectionError):
            return WorldError(f"{self.name} raised {type(error).__name__} {when}in a process of its own: {error}")
        fault = faults.died(self.name, self.vector.processes, when)
        self.close()  # nobody else may, and those that live would wait
        return fault

    def _batch(self, seen: Any, info: dict[str, Any]) -> Arrays:
        if self.mask:
            seen = with_vector_mask(seen, info, getattr(self, "observation", None), self.name, self.n)
        self.observation = as_batch(seen, self.observation_space, self.n, self.name)
        return self.observation

    def state_dict(self) -> dict[str, Any]:
        past = self.past
        state = {"seed": past.seed, "episode": list(past.episode), "observation": self.observation}
        if self.has_state:
            return state | {"worlds": list(self.vector.call("layers_state"))}
        return state | past.actions_dict()

    def load_state_dict(self, state: dict[str, Any]) -> Arrays:
        """As for :class:`InProcess`; the worlds are repeated together, each from when its own episode began."""
        self.reset(int(state["seed"]))
        self.past.episode = [int(k) for k in state["episode"]]
        if "worlds" in state:
            self.vector.call("load_layers", state["worlds"])
            self.observation = state["observation"]
            return self.observation
        self.past.load_actions(state)
        self._reset(np.ones(self.n, bool))
        starts, actions = np.array(self.past.since), self.past.actions
        for t, action in enumerate(actions):
            if t and (starts == t).any():
                self._reset(starts == t)
            try:
                seen, _, terminated, truncated, info = self.vector.step(action)
            except Exception as error:
                raise faults.strayed(self.name) from error
            self._batch(seen, info)
            ended = terminated | truncated
            if (ended & (starts <= t)).any():
                raise faults.strayed(self.name)
            if ended.any():
                self._reset(ended)
        if actions and (starts == len(actions)).any():
            self._reset(starts == len(actions))
        if not equal(self.observation, state["observation"]):
            raise faults.strayed(self.name)
        return self.observation

    def close(self) -> None:
        pipes = zip(self.vector.parent_pipes, self.vector.processes, strict=True)
        if all(pipe is None or process.is_alive() for pipe, process in pipes):
            self.vector.close()
            return
        vars(self.vector)["_state"] = AsyncState.DEFAULT  # or it waits for an answer that never comes
        self.vector.close(terminate=True)


class _Looking(gym.Wrapper[Any, Any, Any, Any]):
    """What world ``i`` of ``name`` gives is looked at where it still is what was given: in the memory that processes
    share it has the shape of its space, whatever it had before."""

    def __init__(self, env: "gym.Env[Any, Any]", name: str, i: int) -> None:
        super().__init__(env)
        self.name, self.i = name, i
        self.space = sp.from_gym(env.observation_space)
        self.has_choices = sp.has_choices(self.space)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """As :class:`InProcess` does it; nobody gives options, but a vector hands on None or an empty dictionary."""
        given: Any = self.env.reset(seed=seed)
        faults.check_reset(self.name, self.i, given)
        faults.check_observation(self.name, self.space, given[0], True)
        return given

    def layers_state(self) -> list[Any]:
        """What :func:`~torchward.envs.worlds.layers_state` says of this world."""
        return layers_state(self.env)

    def load_layers(self, worlds: list[Any]) -> None:
        """Take up this world's state from those of all ``worlds``."""
        load_layers(self.env, worlds[self.i])

    def step(self, action: Any) -> Any:
        given: Any = MISSING
        try:
            given = self.env.step(action)
            seen, paid, end, cut, _ = given
        except RAISED as error:
            if given is MISSING and not faults.raised_in_a_wrapper(error):
                raise  # the other side says in which process
            raise faults.failed_step(self.name, self.i, given, error) from error
        if type(paid) not in NUMBERS or type(end) not in FLAGS or type(cut) not in FLAGS:
            faults.check_step(self.name, self.i, paid, end, cut)
        faults.check_observation(self.name, self.space, seen, self.has_choices)
        return given


def _next_draw() -> int:
    """A number that the global generators of NumPy and Python determine; they stay where they stand."""
    array, plain = np.random.RandomState(), random.Random()
    array.set_state(np.random.get_state())  # noqa: NPY002 (other people's environments use it)
    plain.setstate(random.getstate())
    return int(array.randint(2**31)) ^ plain.getrandbits(31)


def _apart(factory: Factory, seed: int, parent: int) -> "gym.Env[Any, Any]":
    """A world in a process of its own, or for a look at its spaces in the ``parent``.

    A process has global generators of its own, where a fork has copies. And a terminal tells all its processes of
    Ctrl-C and of its end: the parent alone heeds it, and may step to the end of its iteration."""
    if os.getpid() != parent:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        for told in ("SIGINT", "SIGHUP"):
            if hasattr(signal, told):
                signal.signal(getattr(signal, told), signal.SIG_IGN)
    return factory()


def _looked_at(name: str, i: int, factory: Factory) -> "gym.Env[Any, Any]":
    return _Looking(factory(), name, i)
