"""What many tests need: one space of each kind, and observations and actions at random from any of them."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Generator, Tensor

from torchward.data.tree import stack, tree_map
from torchward.nets.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tree, Tuple, event_shape

HWC = Box((36, 40, 3), 0.0, 255.0, "uint8")
CHW = Box((3, 36, 40), 0.0, 255.0, "uint8")

OBSERVATIONS: dict[str, Space] = {
    "vector": Box((4,)),
    "scalar": Box(()),
    "matrix": Box((2, 3), -1.0, 1.0),
    "bytes": Box((5,), 0.0, 255.0, "uint8"),
    "discrete": Discrete(5, start=-2),
    "multidiscrete": MultiDiscrete((2, 4)),
    "multibinary": MultiBinary(3),
    "image": HWC,
    "nested": Dict({"a": Tuple((Discrete(3, 1), Box((2,)))), "b": Dict({"c": MultiBinary(2), "d": Box((), 0.0, 1.0)})}),
    "tuple": Tuple((Box((2,), -math.inf, (1.0, math.inf)), MultiDiscrete((3,)), HWC)),
}

DISCRETE_ACTIONS: dict[str, Space] = {
    "discrete": Discrete(5, start=3),
    "multidiscrete": MultiDiscrete((2, 3, 4)),
    "multibinary": MultiBinary(4),
    "nested": Dict({"a": Discrete(3), "b": Tuple((MultiBinary(2), MultiDiscrete((2, 2))))}),
}

ACTIONS: dict[str, Space] = {
    **DISCRETE_ACTIONS,
    "bounded": Box((2,), (-2.0, 0.0), (2.0, 10.0)),
    "unbounded": Box((1,)),
    "half bounded": Box((2, 1), (0.0, -1.0), (math.inf, 1.0)),
    "mixed": Tuple((Discrete(2, 1), Box((2,), 0.0, 1.0))),
}


def observations(space: Space, lead: tuple[int, ...], generator: Generator) -> Tree:
    """Elements of ``space`` with the leading axes ``lead``, as an environment would show them."""
    if isinstance(space, Dict):
        return {name: observations(inner, lead, generator) for name, inner in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(observations(inner, lead, generator) for inner in space.spaces)
    shape = (*lead, *event_shape(space))
    match space:
        case Box(dtype="uint8"):
            return torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        case Box():
            return torch.randn(shape, generator=generator)
        case Discrete():
            return torch.randint(space.n, shape, generator=generator) + space.start
        case MultiDiscrete():
            return torch.stack([torch.randint(n, lead, generator=generator) for n in space.nvec], -1)
    return torch.randint(2, shape, generator=generator)


def all_actions(space: Space) -> Tree:
    """Every action of a discrete space, ``[K, ...]``, as a policy counts them (from 0)."""
    return stack(list(_all_actions(space)), 0)


def _all_actions(space: Space) -> Iterator[Tree]:
    match space:
        case Discrete():
            yield from torch.arange(space.n)
        case MultiDiscrete():
            yield from (torch.tensor(choice) for choice in product(*map(range, space.nvec)))
        case MultiBinary():
            yield from (torch.tensor(bits) for bits in product(range(2), repeat=space.n))
        case Dict():
            for parts in product(*map(_all_actions, space.spaces.values())):
                yield dict(zip(space.spaces, parts, strict=True))
        case Tuple():
            yield from product(*map(_all_actions, space.spaces))


def row(tree: Tree, *index: Any) -> Tree:
    """``tree[index]``, leaf by leaf."""
    return tree_map(lambda leaf: leaf[index], tree)


def leaf(tree: Tree, *path: str | int) -> Tensor:
    """The tensor at a place in a tree."""
    found: Any = tree
    for key in path:
        found = found[key]
    assert isinstance(found, Tensor)
    return found


def equal(left: Tree, right: Tree) -> bool:
    """Whether two trees hold the same, bit for bit."""
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(equal(left[k], right[k]) for k in left)
    if isinstance(left, tuple):
        return isinstance(right, tuple) and len(left) == len(right) and all(map(equal, left, right))
    return isinstance(right, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
