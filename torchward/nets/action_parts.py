"""An action of any space as two parts: real numbers, and one choice among all combinations of what is to be chosen.

So one policy and one critic serve a Box, a Discrete, and a Dict of both. The reals are flat and within [-1, 1]; a
choice is a number below ``choices``, the product of the sizes of its factors: a MultiDiscrete has several, and a
MultiBinary one of two for each bit. The last factor counts fastest.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from torchward.nets import spaces
from torchward.nets.spaces import Box, Space, SpaceError, Tree

MOST_CHOICES = 4096
"""Each of them has an output of its own in policy and critic."""


class ActionParts:
    """How the actions of a space are made of ``reals`` numbers and one of ``choices`` (1: nothing is to be chosen).

    Raises :class:`~torchward.nets.spaces.SpaceError` for a Box without bounds, which [-1, 1] cannot stand for, and for
    more than ``MOST_CHOICES`` combinations."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.plain = isinstance(space, Box) and len(space.shape) == 1
        boxes = [leaf for leaf in spaces.leaves(space) if isinstance(leaf, Box)]
        if not all(box.is_bounded for box in boxes):
            raise SpaceError(f"expected a Box of actions with bounds, got {spaces.describe(space)} with infinite ones")
        self.reals = sum(box.size for box in boxes)
        self.factors = [n for leaf in spaces.leaves(space) for n in _factors(leaf)]
        self.choices = math.prod(self.factors)
        if self.choices > MOST_CHOICES:
            raise SpaceError(
                f"expected actions with at most {MOST_CHOICES} combinations of choices, as each is valued by itself; "
                f"got {self.choices} in {spaces.describe(space)}"
            )

    def split(self, action: Tree) -> tuple[Tensor, Tensor | None]:
        """An action's reals ``[..., reals]``, and the number of its choice ``[...]``, or None where there is none."""
        if self.plain:
            assert isinstance(action, Tensor)
            return action, None
        reals: list[Tensor] = []
        choice: Tensor | None = None
        for space, leaf in _leaves(self.space, action):
            lead = leaf.shape[: leaf.ndim - len(spaces.event_shape(space))]
            if isinstance(space, Box):
                reals.append(leaf.reshape(*lead, space.size))
                continue
            digits = leaf.reshape(*lead, -1).unbind(-1)
            for n, digit in zip(_factors(space), digits, strict=True):
                choice = digit if choice is None else choice * n + digit
        if not reals:
            assert choice is not None
            return torch.empty(*choice.shape, 0, device=choice.device), choice
        return torch.cat(reals, -1), choice

    def join(self, reals: Tensor, choice: Tensor | None) -> Tree:
        """The action that :meth:`split` takes apart like this."""
        if self.plain:
            return reals
        digits: list[Tensor] = []
        if choice is not None:
            for n in reversed(self.factors[1:]):
                digits.insert(0, choice % n)
                choice = choice // n
            digits.insert(0, choice)
        return self._build(self.space, list(reals.unbind(-1)), digits)

    def allowed(self, mask: Tree | None) -> Tensor | None:
        """Which choices a mask allows, ``[..., choices]``; None where there is no mask. One that forbids everything, as
        that of a final observation may, is none."""
        if mask is None:
            return None
        masks = _masks(self.space, mask)
        shown = next(part for part in masks if isinstance(part, Tensor))
        allowed = shown.new_ones(*shown.shape[:-1], 1, dtype=torch.bool)
        for n, part in zip(self.factors, masks, strict=True):
            factor = allowed.new_ones(n) if part is None else part != 0
            allowed = (allowed.unsqueeze(-1) & factor.unsqueeze(-2)).flatten(-2)
        return allowed | ~allowed.any(-1, keepdim=True)

    def _build(self, space: Space, reals: list[Tensor], digits: list[Tensor]) -> Tree:
        """The element of ``space`` made of the first of ``reals`` and ``digits``, which are taken out of them."""
        if isinstance(space, spaces.Dict):
            return {name: self._build(inner, reals, digits) for name, inner in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self._build(inner, reals, digits) for inner in space.spaces)
        if isinstance(space, spaces.Discrete):
            return digits.pop(0)
        if isinstance(space, Box):
            taken, reals[:] = reals[: space.size], reals[space.size :]
            return torch.stack(taken, -1).reshape(*taken[0].shape, *space.shape)
        count = len(_factors(space))
        chosen, digits[:] = digits[:count], digits[count:]
        return torch.stack(chosen, -1)


def _factors(space: Space) -> tuple[int, ...]:
    """The numbers of choices that a leaf asks for one after the other."""
    match space:
        case spaces.Discrete():
            return (space.n,)
        case spaces.MultiDiscrete():
            return space.nvec
        case spaces.MultiBinary():
            return (2,) * space.n
    return ()


def _leaves(space: Space, tree: Tree) -> Iterator[tuple[Space, Tensor]]:
    """The leaves of a tree with their spaces, in the order of the space."""
    if isinstance(space, spaces.Dict):
        assert isinstance(tree, dict)
        for name, inner in space.spaces.items():
            yield from _leaves(inner, tree[name])
    elif isinstance(space, spaces.Tuple):
        assert isinstance(tree, tuple)
        for inner, branch in zip(space.spaces, tree, strict=True):
            yield from _leaves(inner, branch)
    else:
        assert isinstance(tree, Tensor)
        yield space, tree


def _masks(space: Space, mask: Tree | None) -> list[Tensor | None]:
    """What a mask says of each factor, ``[..., n]``; None of those that it leaves out."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = space.spaces if isinstance(space, spaces.Dict) else {str(i): s for i, s in enumerate(space.spaces)}
        assert mask is None or isinstance(mask, dict)
        return [part for name, inner in named.items() for part in _masks(inner, mask.get(name) if mask else None)]
    sizes = _factors(space)
    if mask is None:
        return [None] * len(sizes)
    assert isinstance(mask, Tensor)
    if isinstance(space, spaces.MultiBinary):  # a bit that is forbidden stays 0
        return [torch.stack([torch.ones_like(bit), bit], -1) for bit in mask.unbind(-1)]
    return list(mask.split(list(sizes), -1))
