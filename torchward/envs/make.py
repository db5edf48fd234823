"""From whatever a user calls an environment to worlds: an id, a class, a factory, an instance, a file."""

import copy
import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import gymnasium as gym
from gymnasium.vector import VectorEnv

from torchward.envs.vector import Factory, InProcess, Native, Processes, WorldError, Worlds, step_seconds

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


def make_env(environment: Environment, options: EnvOptions | None = None, **kwargs: Any) -> "gym.Env[Any, Any]":
    """One environment. Raises :class:`WorldError` for an unknown id (with the nearest one) or what is no environment."""
    options = options or EnvOptions()
    arguments = {**options.env_kwargs, **kwargs}
    made: Any
    if isinstance(environment, str):
        limit = {"max_episode_steps": options.max_episode_steps} if options.max_episode_steps else {}
        try:
            return gym.make(environment, disable_env_checker=True, **limit, **arguments)
        except gym.error.DependencyNotInstalled as error:
            raise WorldError(f"{environment} needs a package that is not installed ({_first_line(error)}); {_extra(environment)}") from error
        except (gym.error.NameNotFound, gym.error.VersionNotFound, gym.error.NamespaceNotFound, gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
            raise WorldError(f"expected the id of a registered environment, got {environment!r}.{_nearest_id(environment)}") from error
        except ImportError as error:
            raise WorldError(f"{environment!r} cannot be imported ({_first_line(error)}); install its package or correct the part before the colon") from error
        except gym.error.Error as error:
            raise WorldError(f"{environment!r} cannot be made: {_first_line(error)}") from error
    if isinstance(environment, gym.Env):
        made = gym.make(environment.spec, **arguments) if environment.spec is not None else copy.deepcopy(environment)
    elif callable(environment):
        made = environment(**arguments)
    else:
        made = None
    if not isinstance(made, gym.Env):
        raise WorldError(f"expected an environment id, class, factory or instance, got {environment!r}")
    return gym.wrappers.TimeLimit(made, options.max_episode_steps) if options.max_episode_steps else made


def make(environment: Environment, n_envs: int, options: EnvOptions | None = None) -> Worlds:
    """``n_envs`` worlds of one kind. Raises :class:`WorldError` where that cannot be."""
    options = options or EnvOptions()
    name = name_of(environment)
    if n_envs < 1:
        raise WorldError(f"expected at least one environment, got n_envs={n_envs}")
    if isinstance(environment, VectorEnv):
        if environment.num_envs != n_envs:
            raise WorldError(f"{name} holds {environment.num_envs} environments, but n_envs={n_envs}; set n_envs={environment.num_envs}")
        return Native(name, environment, options.action_mask)
    if options.vectorization == "envpool":
        return Native(name, _envpool(name, n_envs, options), options.action_mask)
    if options.vectorization == "native" or (options.vectorization == "auto" and has_native(environment, options, n_envs)):
        return Native(name, _native(name, environment, n_envs, options), options.action_mask)
    factories: list[Factory] = [partial(make_env, environment, options) for _ in range(n_envs)]
    first = factories[0]()
    if isinstance(first, VectorEnv):
        return Native(name, first, options.action_mask)
    costly = n_envs > 1 and (os.cpu_count() or 1) > 1 and options.vectorization == "auto" and step_seconds(first) > COSTLY
    if options.vectorization == "async" or costly:
        first.close()
        return Processes(name, factories, options.action_mask)
    first.close()
    return InProcess(name, [factory() for factory in factories], options.action_mask)


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
    return isinstance(entry, str) and entry.startswith("gymnasium.envs.classic_control") and not spec.additional_wrappers


def _native(name: str, environment: Environment, n_envs: int, options: EnvOptions) -> "VectorEnv[Any, Any, Any]":
    if not isinstance(environment, str) or gym.spec(environment).vector_entry_point is None:
        raise WorldError(f"{name} has no vector form of its own; use vectorization='sync' or 'async'")
    return gym.make_vec(environment, num_envs=n_envs, vectorization_mode="vector_entry_point", **options.env_kwargs)


def _envpool(name: str, n_envs: int, options: EnvOptions) -> "VectorEnv[Any, Any, Any]":
    try:
        import envpool
    except ImportError as error:
        raise WorldError("vectorization='envpool' needs EnvPool: pip install 'torchward[envpool]'") from error
    from torchward.envs.envpool import EnvPoolVector

    return EnvPoolVector(envpool, name, n_envs, options.env_kwargs)


def _nearest_id(environment: str) -> str:
    close = difflib.get_close_matches(environment, gym.registry, 1, 0.5)
    return f" Did you mean {close[0]!r}?" if close else " `torchward list` shows them."


def _extra(environment: str) -> str:
    for word, extra in (("Lander", "box2d"), ("Walker", "box2d"), ("Racing", "box2d"), ("-v5", "mujoco"), ("ALE/", "atari")):
        if word in environment:
            return f"pip install 'torchward[{extra}]'"
    return "install it with pip"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
