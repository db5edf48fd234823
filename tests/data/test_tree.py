"""One way over tensors, dictionaries and tuples of them."""

import torch

from tests.nets.examples import equal
from torchward.data.tree import Tree, replace_rows, stack, tree_leaves, tree_map, unbind

BRANCH: Tree = (torch.ones(2), {"c": torch.zeros(2, 1, 2)})
TREE: Tree = {"a": torch.arange(6).reshape(2, 3), "b": BRANCH, "d": ()}


def test_map_keeps_the_structure() -> None:
    doubled = tree_map(lambda x: 2 * x, TREE)
    assert isinstance(doubled, dict) and list(doubled) == ["a", "b", "d"] and doubled["d"] == ()
    assert equal(doubled, tree_map(torch.add, TREE, TREE))
    assert equal(tree_map(lambda x: x, TREE), TREE)


def test_leaves_are_depth_first() -> None:
    assert [tuple(leaf.shape) for leaf in tree_leaves(TREE)] == [(2, 3), (2,), (2, 1, 2)]
    assert list(tree_leaves(())) == [] and list(tree_leaves(torch.ones(1))) == [torch.ones(1)]


def test_unbind_undoes_stack() -> None:
    rows = unbind(BRANCH)
    assert len(rows) == 2 and equal(stack(rows, 0), BRANCH)
    late = stack([TREE, TREE, TREE], 1)
    assert [tuple(leaf.shape) for leaf in tree_leaves(late)] == [(2, 3, 3), (2, 3), (2, 3, 1, 2)]


def test_rows_are_replaced_where_asked_and_nowhere_else() -> None:
    where = torch.tensor([False, True])
    other = tree_map(lambda x: x + 7, TREE)
    replaced = replace_rows(TREE, where, other)
    for old, new, got in zip(tree_leaves(TREE), tree_leaves(other), tree_leaves(replaced), strict=True):
        assert torch.equal(got[0], old[0]) and torch.equal(got[1], new[1]) and got.dtype == old.dtype
    assert torch.equal(next(tree_leaves(TREE)), torch.arange(6).reshape(2, 3))  # a copy
