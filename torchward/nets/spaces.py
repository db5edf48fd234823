"""What an observation or an action may be: six frozen descriptions that travel as JSON with a saved policy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

Tree: TypeAlias = Tensor | dict[str, "Tree"] | tuple["Tree", ...]
Bound: TypeAlias = float | tuple[float, ...]


class SpaceError(ValueError):
    """A space that torchward cannot describe, or data that does not fit one."""


@dataclass(frozen=True)
class Box:
    """Real (or uint8) arrays; of actions, of any integers. ``low`` and ``high`` are one number, or one for each element
    in C order."""

    shape: tuple[int, ...]
    low: Bound = -math.inf
    high: Bound = math.inf
    dtype: str = "float32"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """uint8 with three axes: height, width and channels, in either order."""
        return self.dtype == "uint8" and len(self.shape) == 3

    @property
    def is_integer(self) -> bool:
        """Whether its numbers are whole."""
        return self.dtype.startswith(("int", "uint"))

    @property
    def is_bounded(self) -> bool:
        return all(math.isfinite(bound) for bound in (*_flat(self.low), *_flat(self.high)))

    def bounds(self) -> tuple[Tensor, Tensor]:
        """``low`` and ``high`` as float32 tensors that broadcast over the shape."""
        return self._bound(self.low), self._bound(self.high)

    def _bound(self, value: Bound) -> Tensor:
        tensor = torch.tensor(value, dtype=torch.float32)
        return tensor.reshape(self.shape) if tensor.numel() == self.size else tensor


@dataclass(frozen=True)
class Discrete:
    """The integers ``start, ..., start + n - 1``."""

    n: int
    start: int = 0


@dataclass(frozen=True)
class MultiDiscrete:
    """A vector of integers, the i-th in ``0, ..., nvec[i] - 1``."""

    nvec: tuple[int, ...]


@dataclass(frozen=True)
class MultiBinary:
    """A vector of ``n`` bits."""

    n: int


@dataclass(frozen=True)
class Dict:
    """Named spaces, in sorted order of their names."""

    spaces: dict[str, "Space"]


@dataclass(frozen=True)
class Tuple:
    """Spaces one after the other."""

    spaces: tuple["Space", ...]


Space: TypeAlias = Box | Discrete | MultiDiscrete | MultiBinary | Dict | Tuple
MASK = "action_mask"
"""The key of a Dict observation that says which actions are allowed."""


def _flat(bound: Bound) -> tuple[float, ...]:
    return bound if isinstance(bound, tuple) else (bound,)


def to_json(space: Space) -> dict[str, Any]:
    """The space as plain JSON; :func:`from_json` is its inverse."""
    match space:
        case Box():
            low, high = _bound_to_json(space.low), _bound_to_json(space.high)
            return {"type": "Box", "shape": list(space.shape), "low": low, "high": high, "dtype": space.dtype}
        case Discrete():
            return {"type": "Discrete", "n": space.n, "start": space.start}
        case MultiDiscrete():
            return {"type": "MultiDiscrete", "nvec": list(space.nvec)}
        case MultiBinary():
            return {"type": "MultiBinary", "n": space.n}
        case Dict():
            return {"type": "Dict", "spaces": {name: to_json(inner) for name, inner in space.spaces.items()}}
        case Tuple():
            return {"type": "Tuple", "spaces": [to_json(inner) for inner in space.spaces]}


def from_json(data: dict[str, Any]) -> Space:
    """The space that :func:`to_json` wrote. Raises :class:`SpaceError` for anything else."""
    match data:
        case {"type": "Box", "shape": shape, "low": low, "high": high, "dtype": dtype}:
            return Box(tuple(shape), _bound_from_json(low), _bound_from_json(high), dtype)
        case {"type": "Discrete", "n": n, "start": start}:
            return Discrete(n, start)
        case {"type": "MultiDiscrete", "nvec": nvec}:
            return MultiDiscrete(tuple(nvec))
        case {"type": "MultiBinary", "n": n}:
            return MultiBinary(n)
        case {"type": "Dict", "spaces": dict(spaces)}:
            return Dict({name: from_json(inner) for name, inner in spaces.items()})
        case {"type": "Tuple", "spaces": list(spaces)}:
            return Tuple(tuple(from_json(inner) for inner in spaces))
    raise SpaceError(f"expected the JSON of a space (Box, Discrete, ...), got {str(data)[:80]}; the file is damaged")


def _bound_to_json(bound: Bound) -> Any:
    """JSON has no infinity: it travels as the string ``"inf"`` or ``"-inf"``."""
    if isinstance(bound, tuple):
        return [_bound_to_json(element) for element in bound]
    return bound if math.isfinite(bound) else str(bound)


def _bound_from_json(value: Any) -> Bound:
    return tuple(float(element) for element in value) if isinstance(value, list) else float(value)


def describe(space: Space) -> str:
    """One short phrase for messages, such as ``Box(4)`` or ``Dict(mask: MultiBinary(3))``."""
    match space:
        case Box():
            return f"Box({' x '.join(map(str, space.shape))}{f', {space.dtype}' if space.is_integer else ''})"
        case Discrete():
            return f"Discrete({space.n})"
        case MultiDiscrete():
            return f"MultiDiscrete({', '.join(map(str, space.nvec))})"
        case MultiBinary():
            return f"MultiBinary({space.n})"
        case Dict():
            return f"Dict({', '.join(f'{name}: {describe(inner)}' for name, inner in space.spaces.items())})"
        case Tuple():
            return f"Tuple({', '.join(describe(inner) for inner in space.spaces)})"


def leaves(space: Space) -> Iterator[Space]:
    """The spaces that are not Dict or Tuple, depth first."""
    match space:
        case Dict():
            for inner in space.spaces.values():
                yield from leaves(inner)
        case Tuple():
            for inner in space.spaces:
                yield from leaves(inner)
        case _:
            yield space


def event_shape(space: Space) -> tuple[int, ...]:
    """The shape of one element of a leaf space: ``()`` for Discrete."""
    match space:
        case Box():
            return space.shape
        case Discrete():
            return ()
        case MultiDiscrete():
            return (len(space.nvec),)
        case MultiBinary():
            return (space.n,)
    raise SpaceError(f"{describe(space)} is not a leaf: it has no single shape")


def acted(space: Space) -> Space:
    """The space in which a policy acts where ``space`` is the environment's: its Boxes hold real numbers, whatever
    :func:`env_action` makes of them."""
    match space:
        case Box():
            return replace(space, dtype="float32")
        case Dict():
            return Dict({name: acted(inner) for name, inner in space.spaces.items()})
        case Tuple():
            return Tuple(tuple(acted(inner) for inner in space.spaces))
    return space


def has_mask(space: Space) -> bool:
    """Whether observations of this space carry an action mask."""
    return isinstance(space, Dict) and MASK in space.spaces


def mask_space(space: Space) -> Space | None:
    """The space of the action mask that observations of this space carry, or None."""
    return space.spaces.get(MASK) if isinstance(space, Dict) else None


def env_action(space: Space, action: Tree) -> Tree:
    """The environment's action for a policy's: Discrete is shifted by its start; a bounded element of a Box is taken
    from ``[-1, 1]`` (what lies outside is clipped) to ``[low, high]``, and one with a single bound is clipped to it; of
    a Box of integers it is the nearest one, in its dtype. Everything else passes as it is."""
    if isinstance(action, dict):
        assert isinstance(space, Dict)
        return {name: env_action(inner, action[name]) for name, inner in space.spaces.items()}
    if isinstance(action, tuple):
        assert isinstance(space, Tuple)
        return tuple(env_action(inner, part) for inner, part in zip(space.spaces, action, strict=True))
    if isinstance(space, Discrete):
        return action + space.start if space.start else action
    if isinstance(space, Box) and space.is_integer:
        bounded = env_action(acted(space), action)
        assert isinstance(bounded, Tensor)
        dtype: torch.dtype = getattr(torch, space.dtype)
        most = torch.iinfo(dtype)  # which a bound may be that float32 rounds up
        return bounded.double().round().clamp(float(most.min), float(most.max)).to(dtype)
    if isinstance(space, Box) and (space.low, space.high) != (-math.inf, math.inf):
        low, high = (bound.to(action.device) for bound in space.bounds())
        scaled = torch.lerp(low, high, 0.5 * (action.clamp(-1.0, 1.0) + 1.0))  # lerp hits both bounds exactly
        if space.is_bounded:
            return scaled
        return torch.where(low.isfinite() & high.isfinite(), scaled, action.clamp(low, high))
    return action
