"""Gymnasium's spaces as torchward's, and trees of NumPy arrays that are shaped by them."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchward.nets import spaces
from torchward.nets.spaces import Bound, Space, SpaceError, Tree

Arrays: TypeAlias = NDArray[Any] | dict[str, "Arrays"] | tuple["Arrays", ...]
"""A tree of NumPy arrays: what worlds take and give."""
NUMBERS = "biufO"
"""The kinds of NumPy's that are numbers; objects are told apart where they are stored."""


def from_gym(space: gym.Space[Any], of_actions: bool = False) -> Space:
    """torchward's description of a Gymnasium space. Of observations all Boxes but those of uint8 are float32, as which
    they are read; ``of_actions`` Boxes of integers keep their dtype, in which they are handed over, and the bounds of
    real numbers are the last ones within them that float32 has.

    Raises :class:`SpaceError` for Text, Graph, Sequence and the like."""
    match space:
        case gym.spaces.Box():
            keeps = space.dtype == np.uint8 or (of_actions and space.dtype.kind in "iu")
            dtype = space.dtype.name if keeps else "float32"
            low, high = space.low, space.high
            if of_actions and not keeps:
                within = _inwards(low, np.inf), _inwards(high, -np.inf)
                apart = within[0] <= within[1]  # or float32 has no number between the two
                low, high = np.where(apart, within[0], low), np.where(apart, within[1], high)
                with np.errstate(over="ignore", invalid="ignore"):
                    between = high.astype(np.float32) - low.astype(np.float32)
                # Bounds so far apart that nothing can be scaled to them stand for none.
                wide = np.isfinite(low) & np.isfinite(high) & ~np.isfinite(between)
                low, high = np.where(wide, -np.inf, low), np.where(wide, np.inf, high)
            return spaces.Box(tuple(space.shape), _bound(low), _bound(high), dtype)
        case gym.spaces.Discrete():
            return spaces.Discrete(int(space.n), int(space.start))
        case gym.spaces.MultiDiscrete():
            if space.nvec.ndim != 1 or np.any(space.start):
                raise SpaceError(
                    f"expected a MultiDiscrete of one axis that starts at 0, got {space}; flatten it in a wrapper"
                )
            return spaces.MultiDiscrete(tuple(int(n) for n in space.nvec))
        case gym.spaces.MultiBinary():
            if len(space.shape) != 1:
                raise SpaceError(f"expected a MultiBinary of one axis, got {space}; flatten it in a wrapper")
            return spaces.MultiBinary(space.shape[0])
        case gym.spaces.Dict():
            return spaces.Dict({name: from_gym(inner, of_actions) for name, inner in space.spaces.items()})
        case gym.spaces.Tuple():
            return spaces.Tuple(tuple(from_gym(inner, of_actions) for inner in space.spaces))
    raise SpaceError(
        f"expected Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple, got {space}; convert it in an "
        "ObservationWrapper or ActionWrapper"
    )


def _inwards(bound: NDArray[Any], to: float) -> NDArray[np.float32]:
    """A bound in float32: itself, or the next number in the direction of ``to``; infinite, where it is beyond float32.
    An environment may well refuse an action that lies outside by a rounding."""
    with np.errstate(over="ignore"):
        near = bound.astype(np.float32)
    outside = np.isfinite(near) & (near < bound if to > 0 else near > bound)
    return np.where(outside, np.nextafter(near, np.float32(to)), near)


def _bound(array: NDArray[Any]) -> Bound:
    flat = array.astype(np.float64).ravel()
    return float(flat[0]) if flat.size and np.all(flat == flat[0]) else tuple(float(value) for value in flat)


def with_mask(space: Space, mask: Space) -> spaces.Dict:
    """The observation space once the mask from ``info`` travels in the observation."""
    entries = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
    return spaces.Dict({**entries, spaces.MASK: mask})


def mask_space(action_space: Space) -> Space:
    """The shape of the mask that a discrete action space takes."""
    match action_space:
        case spaces.Discrete():
            return spaces.MultiBinary(action_space.n)
        case spaces.MultiDiscrete():
            return spaces.MultiBinary(sum(action_space.nvec))
        case spaces.MultiBinary():
            return spaces.MultiBinary(action_space.n)
        case spaces.Dict() | spaces.Tuple():
            named = action_space.spaces if isinstance(action_space, spaces.Dict) else enumerate(action_space.spaces)
            parts = {str(name): inner for name, inner in dict(named).items() if not isinstance(inner, spaces.Box)}
            if parts:
                return spaces.Dict({name: mask_space(inner) for name, inner in parts.items()})
    raise SpaceError(
        f"an action mask needs discrete actions, got {spaces.describe(action_space)}; leave the option out"
    )


def choosable(action_space: Space, mask: Arrays, part: str = "") -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """For each choice of an action space, where a mask ``[..., n]`` leaves anything of it to be chosen ``[...]``, and
    in words which part of the action it is. Bits are no such choices: one that is forbidden stays 0."""
    if isinstance(action_space, spaces.Dict | spaces.Tuple):
        named = action_space.spaces if isinstance(action_space, spaces.Dict) else enumerate(action_space.spaces)
        for name, inner in dict(named).items():
            if isinstance(mask, dict) and str(name) in mask:
                yield from choosable(inner, mask[str(name)], f" of {name!r}")
        return
    assert isinstance(mask, np.ndarray)
    if isinstance(action_space, spaces.Discrete):
        yield part, np.logical_or.reduce(mask, -1)
    elif isinstance(action_space, spaces.MultiDiscrete):
        ends = np.cumsum(action_space.nvec)
        for i, (end, n) in enumerate(zip(ends, action_space.nvec, strict=True)):
            yield f"{part} of choice {i}", np.logical_or.reduce(mask[..., end - n : end], -1)


def empty(space: Space, lead: tuple[int, ...]) -> Arrays:
    """Zeros for observations with the leading axes ``lead``: uint8 as it is, other Boxes float32, the rest int64."""
    if isinstance(space, spaces.Box):
        return np.zeros((*lead, *space.shape), space.dtype)
    if isinstance(space, spaces.Dict):
        return {name: empty(inner, lead) for name, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(empty(inner, lead) for inner in space.spaces)
    return np.zeros((*lead, *spaces.event_shape(space)), np.int64)


def put(target: Arrays, index: Any, source: Any) -> None:
    """``target[index] = source``, leaf by leaf."""
    if isinstance(target, dict):
        for name, branch in target.items():
            put(branch, index, source[name])
    elif isinstance(target, tuple):
        for branch, part in zip(target, source, strict=True):
            put(branch, index, part)
    else:
        target[index] = source


def fits(space: Space, seen: Any, n: int | None = None) -> bool:
    """Whether an observation, or a batch of ``n``, has the entries and shapes that ``space`` says."""
    if isinstance(space, spaces.Dict):
        return isinstance(seen, dict) and all(
            k in seen and fits(inner, seen[k], n) for k, inner in space.spaces.items()
        )
    if isinstance(space, spaces.Tuple):
        whole = isinstance(seen, tuple | list) and len(seen) == len(space.spaces)
        return whole and all(fits(inner, part, n) for inner, part in zip(space.spaces, seen, strict=True))
    return _shape(seen) == (() if n is None else (n,)) + spaces.event_shape(space) and _kind(seen) in NUMBERS


def holds(space: Space, seen: Any) -> bool:
    """Whether an observation, or a batch, that :func:`fits` stays what it is in the type in which it is kept, and
    whether its choices are among those that there are. Real numbers, and what bits are, are not looked at."""
    if isinstance(space, spaces.Dict):
        return all(holds(inner, seen[name]) for name, inner in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return all(holds(inner, part) for inner, part in zip(space.spaces, seen, strict=True))
    kind = np.dtype(space.dtype if isinstance(space, spaces.Box) else np.int64)
    given = np.asarray(seen)
    if kind.kind not in "iu":
        return True
    try:
        if given.dtype != kind and not np.array_equal(given.astype(kind), given):
            return False
    except (TypeError, ValueError, OverflowError):  # objects that are no numbers
        return False
    if isinstance(space, spaces.Discrete):
        return bool(((given >= space.start) & (given < space.start + space.n)).all())
    if isinstance(space, spaces.MultiDiscrete):
        return bool(((given >= 0) & (given < np.asarray(space.nvec))).all())
    return True


def has_choices(space: Space) -> bool:
    """Whether some of its numbers stand for one of so many choices."""
    return any(isinstance(leaf, spaces.Discrete | spaces.MultiDiscrete) for leaf in spaces.leaves(space))


def require_numbers(seen: Any) -> None:
    """Raise TypeError where an observation has a leaf that is text, or no real numbers: NumPy would convert both."""
    if isinstance(seen, dict | tuple):
        for part in seen.values() if isinstance(seen, dict) else seen:
            require_numbers(part)
    elif _kind(seen) not in NUMBERS:
        raise TypeError(f"expected numbers, got {outline(seen)}")


def outline(seen: Any) -> str:
    """The entries and shapes of an observation, for messages; and its type, where that is none of numbers."""
    if isinstance(seen, dict):
        return f"{{{', '.join(f'{name}: {outline(part)}' for name, part in seen.items())}}}"
    if isinstance(seen, tuple):
        return f"({', '.join(map(outline, seen))})"
    shape = _shape(seen)
    if seen is None or shape is None:
        return f"a {type(seen).__name__}"
    kinds = {"U": " of text", "S": " of bytes", "c": " of complex numbers"}
    return f"a {type(seen).__name__} of shape {shape}{kinds.get(_kind(seen), '')}"


def _shape(seen: Any) -> tuple[int, ...] | None:
    try:
        return tuple(np.shape(seen))
    except ValueError:  # a ragged list
        return None


def _kind(seen: Any) -> str:
    """The kind of NumPy's that a leaf is of."""
    return (seen if isinstance(seen, np.ndarray) else np.asarray(seen)).dtype.kind


def copy(arrays: Arrays) -> Arrays:
    """A tree of arrays that shares nothing with ``arrays``."""
    if isinstance(arrays, dict):
        return {name: copy(branch) for name, branch in arrays.items()}
    if isinstance(arrays, tuple):
        return tuple(copy(branch) for branch in arrays)
    return arrays.copy()


def take(arrays: Arrays, index: Any) -> Arrays:
    """``arrays[index]``, leaf by leaf; a copy if ``index`` is a list or an array."""
    if isinstance(arrays, dict):
        return {name: take(branch, index) for name, branch in arrays.items()}
    if isinstance(arrays, tuple):
        return tuple(take(branch, index) for branch in arrays)
    picked: NDArray[Any] = arrays[index]
    return picked


def leaves(arrays: Arrays) -> list[NDArray[Any]]:
    """The arrays of a tree, depth first."""
    if isinstance(arrays, dict):
        return [leaf for branch in arrays.values() for leaf in leaves(branch)]
    if isinstance(arrays, tuple):
        return [leaf for branch in arrays for leaf in leaves(branch)]
    return [arrays]


def numpy(tree: Tree) -> Arrays:
    """A tree of tensors as arrays that share their memory where they can."""
    if isinstance(tree, dict):
        return {name: numpy(branch) for name, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(numpy(branch) for branch in tree)
    assert isinstance(tree, Tensor)
    array: NDArray[Any] = tree.detach().cpu().numpy()
    return array


def tensors(arrays: Arrays, device: str | torch.device = "cpu") -> Tree:
    """A tree of arrays as tensors; on the CPU they share their memory."""
    if isinstance(arrays, dict):
        return {name: tensors(branch, device) for name, branch in arrays.items()}
    if isinstance(arrays, tuple):
        return tuple(tensors(branch, device) for branch in arrays)
    return torch.from_numpy(arrays).to(device)
