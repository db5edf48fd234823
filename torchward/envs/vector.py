"""Many worlds stepped at once, behind one protocol, whatever they are and however they reset themselves.

Three kinds: single environments in this process, single environments in processes of their own, and environments
that are vectors by nature (Gymnasium's ``vector_entry_point``, EnvPool, a VectorEnv of the user's). A
:class:`Step` says the same of all of them; the difference between the autoreset modes ends here. What can be wrong with
what they give is said by :mod:`torchward.envs.faults`.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from numpy.typing import NDArray

from torchward.envs import faults
from torchward.envs import spaces as sp
from torchward.envs.faults import FLAGS, MISSING, NUMBERS, RAISED, WorldError
from torchward.envs.spaces import Arrays
from torchward.nets import spaces
from torchward.nets.spaces import Space

__all__ = [
    "Array",
    "Factory",
    "InProcess",
    "Native",
    "Processes",
    "Step",
    "WorldError",
    "Worlds",
    "episode_seed",
    "is_nondeterministic",
    "layers",
    "step_seconds",
]

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


class InProcess:
    """Single environments, stepped one after the other in this process.

    Each episode is begun with a seed of its own, so a world is brought back by that seed and the actions since; an
    environment with ``state_dict`` and ``load_state_dict`` is brought back by those instead, if its wrappers can be."""

    def __init__(self, name: str, envs: "list[gym.Env[Any, Any]]", mask: bool = False) -> None:
        self.name, self.envs, self.n, self.mask = name, envs, len(envs), mask
        self.action_space = sp.from_gym(envs[0].action_space, of_actions=True)
        self.observation_space = _observation_space(envs[0].observation_space, self.action_space, mask)
        self.has_state = all(map(_has_state, envs))
        self.resumable = self.has_state or not is_nondeterministic(envs[0])

    def reset(self, seed: int) -> Arrays:
        self.seed = seed
        self.episode = [0] * self.n
        self.since = [0] * self.n
        self.actions: list[Any] = []
        self.observation = sp.empty(self.observation_space, (self.n,))
        for i in range(self.n):
            self._reset(i, self.observation)
        return self.observation

    def step(self, action: Arrays) -> Step:
        if not self.has_state:
            self.actions.append(sp.copy(action))
        actions = _split(action, self.n)
        observation = sp.empty(self.observation_space, (self.n,))
        reward = np.zeros(self.n, np.float32)
        terminated, truncated = np.zeros(self.n, bool), np.zeros(self.n, bool)
        final: Arrays | None = None
        shape = observation.shape[1:] if isinstance(observation, np.ndarray) else None  # None: of no array
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
                self.episode[i] += 1
                self.since[i] = len(self.actions)
                self._reset(i, observation)
            elif (
                seen.shape == shape and seen.dtype.kind in "fiu"
                if type(seen) is np.ndarray
                else shape == () and type(seen) in NUMBERS
            ):
                observation[i] = seen  # type: ignore[index]  # it has a shape: it is one array
            else:
                self._put(observation, i, seen, info)
        if len(self.actions) > 4096 and (oldest := min(self.since)) > 0:
            del self.actions[:oldest]
            self.since = [start - oldest for start in self.since]
        self.observation = observation
        return Step(observation, reward, terminated, truncated, np.zeros(self.n, bool), final)

    def _reset(self, i: int, target: Arrays) -> None:
        try:
            given: Any = self.envs[i].reset(seed=episode_seed(self.seed, i, self.episode[i]))
        except RAISED as error:
            raise WorldError(f"{self.name} raised {type(error).__name__} at the reset of world {i}: {error}") from error
        faults.check_reset(self.name, i, given)
        seen, info = given
        self._put(target, i, seen, info, first=True)

    def _put(self, target: Arrays, i: int, seen: Any, info: dict[str, Any], first: bool = False) -> None:
        """Of the ``first`` observation of an episode its numbers are looked at, too."""
        seen = _with_mask(seen, info, self.name) if self.mask else seen
        if not sp.fits(self.observation_space, seen):
            raise faults.misfit(self.name, self.observation_space, seen)
        if first and not sp.holds(self.observation_space, seen):
            raise faults.misplaced(self.name, self.observation_space)
        sp.put(target, i, seen)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"seed": self.seed, "episode": list(self.episode), "observation": self.observation}
        if self.has_state:
            return state | {"worlds": [_layers_state(env) for env in self.envs]}
        oldest = min(self.since)
        state["since"] = [start - oldest for start in self.since]
        state["actions"] = _stack(self.actions[oldest:])
        return state

    def load_state_dict(self, state: dict[str, Any]) -> Arrays:
        """Begin each world's episode again and repeat the actions since.

        Raises :class:`WorldError` if a world does not come to where it stood: it is not determined by its seed."""
        self.reset(int(state["seed"]))
        self.episode = [int(k) for k in state["episode"]]
        self.observation = state["observation"]
        if self.has_state:
            for env, layers in zip(self.envs, state["worlds"], strict=True):
                _load_layers(env, layers)
            return self.observation
        self.since, self.actions = [int(start) for start in state["since"]], _unstack(state["actions"])
        observation = sp.empty(self.observation_space, (self.n,))
        rows = [_split(action, self.n) for action in self.actions]
        for i, env in enumerate(self.envs):
            self._reset(i, observation)
            for row in rows[self.since[i] :]:
                try:
                    seen, _, terminated, truncated, info = env.step(row[i])
                except RAISED as error:
                    raise faults.strayed(self.name) from error
                if terminated or truncated:
                    raise faults.strayed(self.name)
                self._put(observation, i, seen, info)
        if not _equal(observation, self.observation):
            raise faults.strayed(self.name)
        return self.observation

    def close(self) -> None:
        for env in self.envs:
            env.close()


class Processes:
    """Single environments in processes of their own: the same episodes as :class:`InProcess`, for costly steps."""

    def __init__(self, name: str, factories: list[Factory], mask: bool = False, resumable: bool = True) -> None:
        self.name, self.n, self.mask = name, len(factories), mask
        self.vector = AsyncVectorEnv(factories, autoreset_mode=AutoresetMode.DISABLED)
        self.action_space = sp.from_gym(self.vector.single_action_space, of_actions=True)
        self.observation_space = _observation_space(self.vector.single_observation_space, self.action_space, mask)
        self.resumable = resumable

    def reset(self, seed: int) -> Arrays:
        self.seed = seed
        self.episode = [0] * self.n
        self.since = [0] * self.n
        self.actions: list[Any] = []
        return self._reset(np.ones(self.n, bool))

    def step(self, action: Arrays) -> Step:
        self.actions.append(sp.copy(action))
        try:
            seen, reward, terminated, truncated, info = self.vector.step(action)
        except Exception as error:
            raise self._failed("", error) from error
        observation, ended = self._batch(seen, info), terminated | truncated
        final: Arrays | None = None
        if ended.any():
            final = observation
            for i in np.flatnonzero(ended):
                self.episode[i] += 1
                self.since[i] = len(self.actions)
            observation = self._reset(ended)
        if len(self.actions) > 4096 and (oldest := min(self.since)) > 0:
            del self.actions[:oldest]
            self.since = [start - oldest for start in self.since]
        return Step(observation, reward.astype(np.float32), terminated, truncated, np.zeros(self.n, bool), final)

    def _reset(self, which: Array) -> Arrays:
        seeds = [episode_seed(self.seed, i, self.episode[i]) if which[i] else None for i in range(self.n)]
        try:
            seen, info = self.vector.reset(seed=seeds, options=None if which.all() else {"reset_mask": which})
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
            seen = _with_vector_mask(seen, info, getattr(self, "observation", None), self.name, self.n)
        self.observation = _batch(seen, self.observation_space, self.n, self.name)
        return self.observation

    def state_dict(self) -> dict[str, Any]:
        oldest = min(self.since)
        return {
            "seed": self.seed,
            "episode": list(self.episode),
            "observation": self.observation,
            "since": [start - oldest for start in self.since],
            "actions": _stack(self.actions[oldest:]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> Arrays:
        """As for :class:`InProcess`; the worlds are repeated together, each from when its own episode began."""
        self.reset(int(state["seed"]))
        self.episode = [int(k) for k in state["episode"]]
        self.since, self.actions = [int(start) for start in state["since"]], _unstack(state["actions"])
        self._reset(np.ones(self.n, bool))
        starts = np.array(self.since)
        for t, action in enumerate(self.actions):
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
        if self.actions and (starts == len(self.actions)).any():
            self._reset(starts == len(self.actions))
        if not _equal(self.observation, state["observation"]):
            raise faults.strayed(self.name)
        return self.observation

    def close(self) -> None:
        pipes = zip(self.vector.parent_pipes, self.vector.processes, strict=True)
        if all(pipe is None or process.is_alive() for pipe, process in pipes):
            self.vector.close()
            return
        vars(self.vector)["_state"] = AsyncState.DEFAULT  # or it waits for an answer that never comes
        self.vector.close(terminate=True)


class Native:
    """A vector environment in any autoreset mode: Gymnasium's own, EnvPool's, the user's."""

    def __init__(self, name: str, vector: "VectorEnv[Any, Any, Any]", mask: bool = False) -> None:
        self.name, self.vector, self.n, self.mask = name, vector, vector.num_envs, mask
        self.action_space = sp.from_gym(vector.single_action_space, of_actions=True)
        self.observation_space = _observation_space(vector.single_observation_space, self.action_space, mask)
        mode = vector.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = mode if isinstance(mode, AutoresetMode) else AutoresetMode(mode)
        self.attributes = _state_attributes(vector)
        self.resumable = self.attributes is not None or hasattr(vector, "state_dict")
        self.ended = np.zeros(self.n, bool)
        self.like = sp.empty(self.observation_space, (self.n,))

    def reset(self, seed: int) -> Arrays:
        self.ended = np.zeros(self.n, bool)
        return self._batch(*self._call("reset", seed=seed))

    def step(self, action: Arrays) -> Step:
        seen, reward, terminated, truncated, info = self._call("step", action)
        observation = self._batch(seen, info)
        ended, reset, final = terminated | truncated, np.zeros(self.n, bool), None
        if self.mode is AutoresetMode.NEXT_STEP:
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
                seen = _with_mask(seen, {spaces.MASK: mask}, self.name)  # no action follows: any mask will do
            sp.put(final, i, seen)
        return final

    def _call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self.vector, verb)(*args, **kwargs)
        except RAISED as error:
            raise WorldError(f"{self.name} raised {type(error).__name__} in {verb}: {error}") from error

    def _batch(self, seen: Any, info: dict[str, Any]) -> Arrays:
        if self.mask:
            seen = _with_vector_mask(seen, info, getattr(self, "observation", None), self.name, self.n)
        like = self.like
        # A fitting array is not copied: whoever collects copies it into a rollout before the next step.
        if not (isinstance(seen, np.ndarray) and seen.shape == like.shape and seen.dtype == like.dtype):  # type: ignore[union-attr]
            seen = _batch(seen, self.observation_space, self.n, self.name)
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


def is_nondeterministic(env: "gym.Env[Any, Any]") -> bool:
    """Whether an environment's registration says that seed and actions do not determine what it does."""
    spec = env.unwrapped.spec
    return spec is not None and spec.nondeterministic


def layers(env: "gym.Env[Any, Any]") -> Iterator[Any]:
    """An environment's wrappers from the outside in, then itself."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def _has_state(env: "gym.Env[Any, Any]") -> bool:
    """Whether the environment and every wrapper around it either say their state or are known to have none."""
    known = gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker
    *wrappers, inner = layers(env)
    return _says_state(inner) and all(_says_state(layer) or type(layer) in known for layer in wrappers)


def _says_state(layer: Any) -> bool:
    return hasattr(layer, "state_dict") and hasattr(layer, "load_state_dict")


def _layers_state(env: "gym.Env[Any, Any]") -> list[Any]:
    return [layer.state_dict() if _says_state(layer) else getattr(layer, "_elapsed_steps", 0) for layer in layers(env)]


def _load_layers(env: "gym.Env[Any, Any]", states: list[Any]) -> None:
    for layer, state in zip(layers(env), states, strict=True):
        if _says_state(layer):
            layer.load_state_dict(state)
        elif isinstance(layer, gym.wrappers.TimeLimit):
            vars(layer)["_elapsed_steps"] = int(state)


def _batch(seen: Any, space: Space, n: int, name: str) -> Arrays:
    """A copy of a vector's observations, as ``space`` says."""
    if not sp.fits(space, seen, n):
        raise faults.misfit(name, space, seen, n)
    batch = sp.empty(space, (n,))
    sp.put(batch, slice(None), seen)
    return batch


def step_seconds(env: "gym.Env[Any, Any]", steps: int = 32) -> float:
    """The median time of a random step, in seconds; 0 if one raises, which is for the run to tell."""
    times = []
    try:
        env.action_space.seed(0)
        env.reset(seed=0)
        for _ in range(steps):
            action = env.action_space.sample()
            start = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            times.append(time.perf_counter() - start)
            if terminated or truncated:
                env.reset()
    except Exception:
        return 0.0
    return float(np.median(times))


def _observation_space(space: gym.Space[Any], action_space: Space, mask: bool) -> Space:
    described = sp.from_gym(space)
    return (
        sp.with_mask(described, sp.mask_space(action_space)) if mask and not spaces.has_mask(described) else described
    )


def _with_mask(seen: Any, info: dict[str, Any], name: str) -> dict[str, Any]:
    if isinstance(seen, dict) and spaces.MASK in seen:
        return seen
    if not isinstance(info, dict) or spaces.MASK not in info:
        raise faults.no_mask(name)
    entries = seen if isinstance(seen, dict) else {"observation": seen}
    return {**entries, spaces.MASK: info[spaces.MASK]}


def _with_vector_mask(seen: Any, info: dict[str, Any], observation: Any, name: str, n: int) -> dict[str, Any]:
    """Masks of a vector's info: those that were given now, and the previous ones of the other worlds."""
    if isinstance(seen, dict) and spaces.MASK in seen:
        return seen
    if spaces.MASK not in info and observation is None:
        return _with_mask(seen, info, name)
    previous = None if observation is None else observation[spaces.MASK]
    return _with_mask(seen, {spaces.MASK: _merged(info, spaces.MASK, np.ones(n, bool), previous)}, name)


def _merged(info: dict[str, Any], key: str, given: Array, previous: Any) -> Any:
    """``info[key]``, or ``previous`` of the worlds for which it says nothing."""
    if key not in info:
        return previous
    given = given & np.asarray(info.get("_" + key, given))
    if isinstance(info[key], dict):
        parts = [part for part in info[key] if not part.startswith("_")]
        return {part: _merged(info[key], part, given, None if previous is None else previous[part]) for part in parts}
    return np.stack([info[key][i] if given[i] else previous[i] for i in range(len(given))])


def _split(action: Arrays, n: int) -> list[Any]:
    if isinstance(action, dict):
        parts = {name: _split(branch, n) for name, branch in action.items()}
        return [{name: parts[name][i] for name in parts} for i in range(n)]
    if isinstance(action, tuple):
        return list(zip(*(_split(branch, n) for branch in action), strict=True))
    return action.tolist() if action.ndim == 1 else list(action.copy())  # what an environment does to it, stays there


def _row(tree: Any, i: int) -> Any:
    if isinstance(tree, dict):
        return {name: _row(branch, i) for name, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_row(branch, i) for branch in tree)
    return tree[i]


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


def _equal(left: Any, right: Any) -> bool:
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(sp.leaves(left), sp.leaves(right), strict=True)
    )
