"""One way over tensors, dictionaries and tuples of them."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchward.nets.spaces import Tree

__all__ = ["Tree", "replace_rows", "stack", "tree_leaves", "tree_map", "unbind"]


def tree_map(function: Callable[..., Tensor], tree: Tree, *rest: Tree) -> Tree:
    """``function`` applied to the leaves of ``tree`` and to those at the same place in ``rest``."""
    if isinstance(tree, dict):
        return {name: tree_map(function, branch, *(other[name] for other in rest)) for name, branch in tree.items()}  # type: ignore[index, call-overload]
    if isinstance(tree, tuple):
        return tuple(tree_map(function, *branches) for branches in zip(tree, *rest, strict=True))
    return function(tree, *rest)


def tree_leaves(tree: Tree) -> Iterator[Tensor]:
    """The tensors of a tree, depth first."""
    if isinstance(tree, dict):
        for branch in tree.values():
            yield from tree_leaves(branch)
    elif isinstance(tree, tuple):
        for branch in tree:
            yield from tree_leaves(branch)
    else:
        yield tree


def stack(trees: list[Tree], dim: int) -> Tree:
    """Trees of one structure, stacked leaf by leaf along a new axis ``dim``."""
    return tree_map(lambda *leaves: torch.stack(leaves, dim), trees[0], *trees[1:])


def unbind(tree: Tree) -> list[Tree]:
    """A tree of leaves ``[T, ...]`` as ``T`` trees of leaves ``[...]``."""
    if isinstance(tree, dict):
        return [dict(zip(tree, parts, strict=True)) for parts in zip(*map(unbind, tree.values()), strict=True)]
    if isinstance(tree, tuple):
        return list(zip(*map(unbind, tree), strict=True))
    return list(tree.unbind(0))


def replace_rows(tree: Tree, where: Tensor, other: Tree) -> Tree:
    """A copy of ``tree`` (leaves ``[B, ...]``) with the rows of ``other`` where ``where`` ``[B]`` is True."""

    def replaced(leaf: Tensor, new: Tensor) -> Tensor:
        return torch.where(where.to(leaf.device).view(-1, *[1] * (leaf.ndim - 1)), new, leaf)

    return tree_map(replaced, tree, other)
