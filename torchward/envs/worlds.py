"""Many worlds stepped at once, behind one protocol, whatever they are and however they reset themselves.

There are three kinds: single environments in this process (:mod:`torchward.envs.in_process`), in processes of their own
(:mod:`torchward.envs.processes`), and environments that are vectors by nature (:mod:`torchward.envs.native`). A
:class:`Step` says the same of all of them; the difference between the autoreset modes ends here. What can be wrong with
what they give is said by :mod:`torchward.envs.faults`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from torchward.envs import faults
from torchward.envs import spaces as sp
from torchward.envs.spaces import Arrays
from torchward.nets.spaces import Space

Array: TypeAlias = NDArray[Any]
Factory: TypeAlias = Callable[[], "gym.Env[Any, Any]"]


class Step(NamedTuple):
    """What ``n`` worlds answered to an action each.

    ``observation`` is what to act on next. ``reset`` marks worlds that ignored their action because they were only
    starting anew (next-step autoreset). ``final`` holds, where a world ended and has started anew within this step,
    the observation in which it ended (other rows mean nothing); None where no world did."""

    observation: Arrays
    reward: Array
    terminated: Array
    truncated: Array
    reset: Array
    final: Arrays | None


class Worlds(Protocol):
    """``n`` environments of one kind, stepped together."""

    name: str
    n: int
    observation_space: Space
    action_space: Space
    resumable: bool

    def reset(self, seed: int) -> Arrays: ...
    def step(self, action: Arrays) -> Step: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Arrays: ...
    def close(self) -> None: ...


def episode_seed(seed: int, world: int, episode: int) -> int:
    """The seed of a world's k-th episode: what makes any episode repeatable without the ones before it."""
    words = [seed, world, episode]
    short = max(words) < 2**32  # an array of words is read at once, a list number by number
    sequence = np.random.SeedSequence(np.array(words, np.uint32) if short else words)
    return int(sequence.generate_state(1)[0] >> 1)


class Past:
    """How ``n`` worlds that begin each episode by a seed of its own came to where they stand: the episode that each one
    is in, and the actions since the oldest of these began."""

    def __init__(self, seed: int, n: int) -> None:
        self.seed = seed
        self.episode = [0] * n
        self.since = [0] * n
        """The number of actions that there were when each world's episode began."""
        self.actions: list[Any] = []

    def seed_of(self, i: int) -> int:
        """The seed of the episode that a world is in, or is to begin."""
        return episode_seed(self.seed, i, self.episode[i])

    def ended(self, i: int) -> None:
        """A world's next episode begins."""
        self.episode[i] += 1
        self.since[i] = len(self.actions)

    def forget(self) -> None:
        """Leave out actions that lie before all episodes, now and then."""
        if len(self.actions) > 4096 and (oldest := min(self.since)) > 0:
            del self.actions[:oldest]
            self.since = [start - oldest for start in self.since]

    def actions_dict(self) -> dict[str, Any]:
        """What of a world's state_dict is about its actions."""
        oldest = min(self.since)
        return {"since": [start - oldest for start in self.since], "actions": _stack(self.actions[oldest:])}

    def load_actions(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`actions_dict` gave."""
        self.since, self.actions = [int(start) for start in state["since"]], _unstack(state["actions"])


def is_nondeterministic(env: "gym.Env[Any, Any]") -> bool:
    """Whether an environment's registration says that seed and actions do not determine what it does."""
    spec = env.unwrapped.spec
    return spec is not None and spec.nondeterministic


def layers(env: "gym.Env[Any, Any] | VectorEnv[Any, Any, Any]") -> Iterator[Any]:
    """An environment's wrappers from the outside in, then itself; of a vector also those of the first one that it
    holds, if it shows them."""
    while isinstance(env, gym.Wrapper | VectorWrapper):
        yield env
        env = env.env
    yield env
    held = getattr(env, "envs", None) if isinstance(env, VectorEnv) else None
    if isinstance(held, list | tuple) and held:
        yield from layers(held[0])


def time_limit(env: "gym.Env[Any, Any] | VectorEnv[Any, Any, Any]") -> int | None:
    """The steps after which an environment, or those of a vector, are cut; None where no one says."""
    limits = [layer._max_episode_steps for layer in layers(env) if isinstance(layer, gym.wrappers.TimeLimit)]
    return (None if env.spec is None else env.spec.max_episode_steps) or min(limits, default=None)


def has_state(env: "gym.Env[Any, Any]") -> bool:
    """Whether the environment and every wrapper around it either say their state or are known to have none."""
    known = gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker
    *wrappers, inner = layers(env)
    return _says_state(inner) and all(_says_state(layer) or type(layer) in known for layer in wrappers)


def _says_state(layer: Any) -> bool:
    return hasattr(layer, "state_dict") and hasattr(layer, "load_state_dict")


def layers_state(env: "gym.Env[Any, Any]") -> list[Any]:
    """The states of an environment and its wrappers, from the outside in."""
    return [layer.state_dict() if _says_state(layer) else getattr(layer, "_elapsed_steps", 0) for layer in layers(env)]


def load_layers(env: "gym.Env[Any, Any]", states: list[Any]) -> None:
    """Take up what :func:`layers_state` gave."""
    for layer, state in zip(layers(env), states, strict=True):
        if _says_state(layer):
            layer.load_state_dict(state)
        elif isinstance(layer, gym.wrappers.TimeLimit):
            vars(layer)["_elapsed_steps"] = int(state)


def as_batch(seen: Any, space: Space, n: int, name: str, numbers: bool = False) -> Arrays:
    """A copy of a vector's observations, as ``space`` says; raises as :func:`~torchward.envs.faults.check_observation`
    does."""
    faults.check_observation(name, space, seen, numbers, n)
    batch = sp.empty(space, (n,))
    sp.put(batch, slice(None), seen)
    return batch


def equal(left: Any, right: Any) -> bool:
    """Whether two trees of arrays hold the same numbers."""
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(sp.leaves(left), sp.leaves(right), strict=True)
    )


def _stack(actions: list[Any]) -> Any:
    if not actions:
        return None
    if isinstance(actions[0], dict):
        return {name: _stack([action[name] for action in actions]) for name in actions[0]}
    if isinstance(actions[0], tuple):
        return tuple(_stack([action[i] for action in actions]) for i in range(len(actions[0])))
    return np.stack(actions)


def _unstack(stacked: Any) -> list[Any]:
    if stacked is None:
        return []
    return [sp.take(stacked, t) for t in range(len(sp.leaves(stacked)[0]))]
