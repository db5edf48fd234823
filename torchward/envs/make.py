"""From whatever a user calls an environment to worlds: an id, a class, a factory, an instance, a file."""

import copy
import difflib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from torchward.envs.atari import AtariVector, Classic, Machado, envpool_arguments, is_atari, single
from torchward.envs.faults import RAISED, WorldError
from torchward.envs.in_process import InProcess
from torchward.envs.native import Native
from torchward.envs.processes import Processes
from torchward.envs.worlds import Factory, Worlds, has_state, is_nondeterministic, layers

Environment: TypeAlias = (
    str | Callable[..., gym.Env[Any, Any] | VectorEnv[Any, Any, Any]] | gym.Env[Any, Any] | VectorEnv[Any, Any, Any]
)
COSTLY = 3e-4
"""Seconds of a step from which a process of its own pays: a message between two processes costs about a third of it."""


@dataclass(frozen=True)
class EnvOptions:
    """How environments are made and stepped."""

    vectorization: Literal["auto", "sync", "async", "native", "envpool"] = "auto"
    """In this process, in processes of their own, by the environment's own vector form, or by EnvPool. auto: native
    where the environment has it, async where a step is costly and there are cores for it, else sync."""
    action_mask: bool = False
    """Take the entry action_mask of each info as the mask of allowed actions. (A mask in a Dict observation needs no
    option.)"""
    max_episode_steps: int = 0
    """Time limit of an episode in steps; 0: the environment's own."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment, as JSON."""
    atari: Machado | Classic = field(default_factory=Machado)
    """How the games of ALE are played and seen: as Machado et al. (2018) recommend, or as DQN was made known."""


def make_env(environment: Environment, options: EnvOptions | None = None, **kwargs: Any) -> "gym.Env[Any, Any]":
    """One environment. Raises :class:`WorldError` for an unknown id (and names the nearest) or what is none."""
    made = build(environment, options, **kwargs)
    if isinstance(made, VectorEnv):
        raise WorldError(f"{name_of(environment)} is a vector of environments, where one environment is needed")
    return made


def build(
    environment: Environment, options: EnvOptions | None = None, **kwargs: Any
) -> "gym.Env[Any, Any] | VectorEnv[Any, Any, Any]":
    """What an id, a class, a factory or an instance stands for: one environment, or a vector of them (an instance of
    which stands for itself)."""
    options = options or EnvOptions()
    arguments = {**options.env_kwargs, **kwargs}
    limit = options.max_episode_steps
    made: Any = None
    if is_atari(environment):
        return single(str(environment), _atari(str(environment), options), **kwargs)
    if isinstance(environment, str):
        return _from_id(environment, limit, arguments)
    if isinstance(environment, VectorEnv):
        if options.env_kwargs:
            raise WorldError(
                f"{name_of(environment)} is made already, and takes no {', '.join(options.env_kwargs)}; give a "
                "factory, which is called with them"
            )
        return _without_limit(environment, environment, limit)
    if isinstance(environment, gym.Env):
        made = _copy(environment, arguments)
    elif callable(environment):
        try:
            made = environment(**arguments)
        except WorldError:
            raise
        except RAISED as error:
            raise WorldError(
                f"{name_of(environment)} raised {type(error).__name__} when it was made: {error}"
            ) from error
    if isinstance(made, VectorEnv):
        return _without_limit(environment, made, limit)
    if not isinstance(made, gym.Env):
        what = repr(environment) if made is None else f"{name_of(environment)}, which made a {type(made).__name__}"
        raise WorldError(f"expected an environment id, class, factory or instance, got {what}")
    return limited(made, limit) if limit else made


def _without_limit(
    environment: Environment, vector: "VectorEnv[Any, Any, Any]", limit: int
) -> "VectorEnv[Any, Any, Any]":
    """The vector. Raises :class:`WorldError` for a time limit, which only those whom it holds could take."""
    if limit:
        raise WorldError(
            f"{name_of(environment)} is a vector of environments, and takes no max_episode_steps, got {limit}; limit "
            "the environments that it holds, as gymnasium.wrappers.TimeLimit does"
        )
    return vector


def _from_id(name: str, limit: int, arguments: dict[str, Any]) -> "gym.Env[Any, Any]":
    if limit:
        arguments = {"max_episode_steps": limit, **arguments}
    try:
        return gym.make(name, disable_env_checker=True, **arguments)
    except gym.error.DependencyNotInstalled as error:
        raise WorldError(
            f"{name} needs a package that is not installed ({_first_line(error)}); {_extra(name)}"
        ) from error
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        raise WorldError(f"expected the id of a registered environment, got {name!r}.{_nearest_id(name)}") from error
    except ImportError as error:
        raise WorldError(
            f"{name!r} cannot be imported ({_first_line(error)}); install its package, or correct what stands before "
            "the colon"
        ) from error
    except Exception as error:
        raise WorldError(f"{name!r} cannot be made: {_first_line(error)}") from error


def _copy(environment: "gym.Env[Any, Any]", arguments: dict[str, Any]) -> Any:
    """Another environment like this one: copied, with all that was changed on it, or, where it cannot be copied or
    ``arguments`` are given, made anew from what it was made from."""
    spec = environment.spec
    wrappers = () if spec is None else spec.additional_wrappers
    is_known = spec is not None and all(wrapper.kwargs is not None for wrapper in wrappers)
    if arguments and not is_known:
        raise WorldError(
            f"{name_of(environment)} is made already, and takes no {', '.join(arguments)}; give its class or a "
            "factory, which is called with them"
        )
    if not arguments:
        try:
            return copy.deepcopy(environment)
        except Exception as error:
            if not is_known:
                raise WorldError(
                    f"{name_of(environment)} cannot be copied ({_first_line(error)}); give a factory, such as "
                    "lambda: MyEnv()"
                ) from error
    assert spec is not None
    return gym.make(spec, **arguments)


def limited(env: "gym.Env[Any, Any]", limit: int) -> "gym.Env[Any, Any]":
    """The environment with a time limit, in place of the one that it may have."""
    for layer in layers(env):
        if isinstance(layer, gym.wrappers.TimeLimit):
            vars(layer)["_max_episode_steps"] = limit
            return env
    return gym.wrappers.TimeLimit(env, limit)


def make(environment: Environment, n_envs: int, options: EnvOptions | None = None, whole_games: bool = False) -> Worlds:
    """``n_envs`` worlds of one kind. ``whole_games`` is for evaluations: nothing is cut or clipped for learning's sake.
    Raises :class:`WorldError` where that cannot be."""
    options = options or EnvOptions()
    name = name_of(environment)
    if n_envs < 1:
        raise WorldError(f"expected at least one environment, got n_envs={n_envs}")
    if isinstance(environment, VectorEnv):
        build(environment, options)  # which says what it cannot be told
        return _vector(name, environment, n_envs, options)
    if options.vectorization == "envpool":
        return Native(name, _envpool(environment, n_envs, options, whole_games), options.action_mask)
    if is_atari(environment):
        if options.vectorization not in ("auto", "native"):
            raise WorldError(
                f"{name} is stepped by ALE's own vector; leave vectorization={options.vectorization!r} out"
            )
        return Native(name, AtariVector(name, n_envs, _atari(name, options), whole_games), options.action_mask)
    if options.vectorization == "native" or (
        options.vectorization == "auto" and has_native(environment, options, n_envs)
    ):
        return Native(name, _native(name, environment, n_envs, options), options.action_mask)
    first = build(environment, options)
    if isinstance(first, VectorEnv):
        return _vector(name, first, n_envs, options)
    factories: list[Factory] = [partial(make_env, environment, options) for _ in range(n_envs)]
    several = n_envs > 1 and (os.cpu_count() or 1) > 1
    costly = several and options.vectorization == "auto" and step_seconds(first) > COSTLY
    resumable, says_state = not is_nondeterministic(first), has_state(first)
    first.close()
    if options.vectorization == "async" or costly:
        return Processes(name, factories, options.action_mask, resumable, says_state)
    return InProcess(name, [factory() for factory in factories], options.action_mask)


def _vector(name: str, vector: "VectorEnv[Any, Any, Any]", n_envs: int, options: EnvOptions) -> Worlds:
    if vector.num_envs != n_envs:
        raise WorldError(
            f"{name} holds {vector.num_envs} environments, but n_envs={n_envs}; set n_envs={vector.num_envs}"
        )
    return Native(name, vector, options.action_mask)


def name_of(environment: Environment) -> str:
    """A short name for messages, runs and charts."""
    if isinstance(environment, str):
        return environment
    if isinstance(environment, gym.Env):
        return environment.spec.id if environment.spec is not None else type(environment.unwrapped).__name__
    return getattr(environment, "__name__", type(environment).__name__)


def has_native(environment: Environment, options: EnvOptions, n_envs: int) -> bool:
    """Whether Gymnasium has a vector form that needs nothing beyond NumPy, and that is quicker: from 4 worlds on."""
    if not isinstance(environment, str) or n_envs < 4 or options.max_episode_steps or options.action_mask:
        return False
    try:
        spec = gym.spec(environment.rpartition(":")[2])
    except gym.error.Error:
        return False
    entry = spec.vector_entry_point
    return (
        isinstance(entry, str) and entry.startswith("gymnasium.envs.classic_control") and not spec.additional_wrappers
    )


def _native(name: str, environment: Environment, n_envs: int, options: EnvOptions) -> "VectorEnv[Any, Any, Any]":
    if isinstance(environment, str):
        make_env(environment, options).close()  # which imports its package, or says what is wrong with it
        identity = environment.rpartition(":")[2]
        if gym.spec(identity).vector_entry_point is not None:
            limit = {"max_episode_steps": options.max_episode_steps} if options.max_episode_steps else {}
            arguments: dict[str, Any] = {**limit, **options.env_kwargs}
            try:
                return gym.make_vec(identity, n_envs, "vector_entry_point", **arguments)
            except Exception as error:
                raise WorldError(f"the vector form of {name} cannot be made: {_first_line(error)}") from error
    raise WorldError(f"{name} has no vector form of its own; use vectorization='sync' or 'async'")


def _atari(name: str, options: EnvOptions) -> Machado | Classic:
    """How a game of ALE is played, with the time limit of the options."""
    if options.env_kwargs:
        raise WorldError(f"{name} takes no env_kwargs: the fields of EnvOptions.atari say how it is played")
    steps = options.max_episode_steps
    return replace(options.atari, max_frames=steps * options.atari.frameskip) if steps else options.atari


def _envpool(
    environment: Environment, n_envs: int, options: EnvOptions, whole_games: bool
) -> "VectorEnv[Any, Any, Any]":
    if not isinstance(environment, str):
        raise WorldError(f"EnvPool makes environments from ids, got {name_of(environment)}; leave vectorization out")
    if is_atari(environment):
        environment = environment.rpartition("/")[2]  # EnvPool calls them Pong-v5
    try:
        import envpool
    except ImportError as error:
        raise WorldError("vectorization='envpool' needs EnvPool: pip install 'torchward[envpool]'") from error
    from torchward.envs.envpool import EnvPoolVector

    limit = {"max_episode_steps": options.max_episode_steps} if options.max_episode_steps else {}
    games = envpool_arguments(options.atari, whole_games) if _is_envpool_game(envpool, environment) else {}
    try:
        return EnvPoolVector(envpool, environment, n_envs, {**games, **limit, **options.env_kwargs})
    except Exception as error:
        raise WorldError(f"EnvPool cannot make {environment!r}: {_first_line(error)}") from error


def _is_envpool_game(envpool: Any, environment: str) -> bool:
    """Whether EnvPool knows an id for a game of Atari: all of them see a stack of frames."""
    try:
        return "episodic_life" in envpool.make_spec(environment).config._fields
    except Exception:  # make says what is wrong
        return False


def _nearest_id(environment: str) -> str:
    if game := re.fullmatch(r"(\w+?)(NoFrameskip|Deterministic)-v\d", environment):
        return f" Atari games are called as in 'ALE/{game[1]}-v5'; EnvOptions.atari says how they are played."
    ids: dict[str, list[str]] = {}
    for known in gym.registry:
        ids.setdefault(_bare_name(known), []).append(known)
    close = difflib.get_close_matches(_bare_name(environment), ids, 1, 0.75)
    return f" Did you mean {max(ids[close[0]], key=_version)!r}?" if close else " `torchward list` shows them."


def _bare_name(environment: str) -> str:
    """An id without namespace, version and capitals: two ids are as near as these are."""
    return re.sub(r"-v\d+$", "", environment.rpartition("/")[2]).casefold()


def _version(environment: str) -> tuple[int, bool]:
    """What of two ids of one name is the newer; of two as new, the one without a namespace."""
    version = re.search(r"-v(\d+)$", environment)
    return (int(version[1]) if version else 0, "/" not in environment)


def _extra(environment: str) -> str:
    for word, extra in (("Lander", "box2d"), ("BipedalWalker", "box2d"), ("Racing", "box2d"), ("-v5", "mujoco")):
        if word in environment:
            return f"pip install 'torchward[{extra}]'"
    return "install it with pip"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def step_seconds(env: "gym.Env[Any, Any]", steps: int = 32, patience: float = 0.5) -> float:
    """The median time of a random step, in seconds; 0 if one raises, which is for the run to tell. Of ``steps``, or of
    as many as ``patience`` seconds allow, but of three."""
    times = list[float]()
    begun = time.perf_counter()
    try:
        env.action_space.seed(0)
        env.reset(seed=0)
        for _ in range(steps):
            action = env.action_space.sample()
            start = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            times.append(time.perf_counter() - start)
            if len(times) >= 3 and time.perf_counter() - begun > patience:
                break
            if terminated or truncated:
                env.reset()
    except Exception:
        return 0.0
    return float(np.median(times))
