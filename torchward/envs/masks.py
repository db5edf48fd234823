"""Masks of allowed actions: out of an info, where environments give them, into the observation, where policies look."""

from typing import Any

import gymnasium as gym
import numpy as np

from torchward.envs import faults
from torchward.envs import spaces as sp
from torchward.envs.worlds import Array
from torchward.nets import spaces
from torchward.nets.spaces import Space


def observation_space(space: gym.Space[Any], action_space: Space, mask: bool) -> Space:
    """An environment's observations, with a ``mask`` of its actions if that is asked for."""
    described = sp.from_gym(space)
    return (
        sp.with_mask(described, sp.mask_space(action_space)) if mask and not spaces.has_mask(described) else described
    )


def with_mask(seen: Any, info: dict[str, Any], name: str) -> dict[str, Any]:
    """An observation with the mask of its info. Raises :class:`~torchward.envs.faults.WorldError` without one."""
    if isinstance(seen, dict) and spaces.MASK in seen:
        return seen
    if not isinstance(info, dict) or spaces.MASK not in info:
        raise faults.no_mask(name)
    entries = seen if isinstance(seen, dict) else {"observation": seen}
    return {**entries, spaces.MASK: info[spaces.MASK]}


def with_vector_mask(seen: Any, info: dict[str, Any], observation: Any, name: str, n: int) -> dict[str, Any]:
    """Masks of a vector's info: those that were given now, and the previous ones of the other worlds."""
    if isinstance(seen, dict) and spaces.MASK in seen:
        return seen
    if spaces.MASK not in info and observation is None:
        return with_mask(seen, info, name)
    previous = None if observation is None else observation[spaces.MASK]
    return with_mask(seen, {spaces.MASK: _merged(info, spaces.MASK, np.ones(n, bool), previous)}, name)


def _merged(info: dict[str, Any], key: str, given: Array, previous: Any) -> Any:
    """``info[key]``, or ``previous`` of the worlds for which it says nothing."""
    if key not in info:
        return previous
    given = given & np.asarray(info.get("_" + key, given))
    if isinstance(info[key], dict):
        parts = [part for part in info[key] if not part.startswith("_")]
        return {part: _merged(info[key], part, given, None if previous is None else previous[part]) for part in parts}
    return np.stack([info[key][i] if given[i] else previous[i] for i in range(len(given))])
