"""The keys and values of what a decoder has read: preallocated, written in place, each row at its own position.

A row's tokens lie in its slots ``0, 1, ...`` without gaps, whatever padding they came with. So a slot's number is the
position of what it holds, rows of all lengths stand side by side, and a row may leave and another enter in its place.
"""

from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from torchward.nets.transformer_config import TransformerConfig

Layers: TypeAlias = tuple[Tensor, ...]


class Cache(NamedTuple):
    """A tree of tensors ``[B, ...]``, which may be a policy's state; from a tuple of its parts it is ``Cache(*tree)``.

    What is read fills slots in place and gives a new cache with a new ``length``, which shares the slots. So the old
    one goes on being what it was, until something else is written behind its length."""

    slots: Layers
    """For each layer ``[B, groups, 2, L, head_size]``: keys, then values."""
    length: Tensor
    """``[B]`` int64: how many slots of each row are filled."""
    cross: Layers = ()
    """For each layer of an encoder-decoder's decoder, the keys and values of what its encoder read, as in ``slots``."""
    source: Layers = ()
    """Beside ``cross`` one tensor ``[B, S]``: True where the encoder's input was no padding."""

    @property
    def size(self) -> int:
        """The number of slots of a row."""
        return self.slots[0].shape[3]


def empty(config: TransformerConfig, batch: int, size: int, like: Tensor) -> Cache:
    """``batch`` rows of ``size`` slots with nothing in them, of the type and on the device of ``like``."""
    shape = (batch, config.key_value_heads, 2, size, config.head_size)
    slots = tuple(like.new_zeros(shape) for _ in range(config.num_hidden_layers))
    return Cache(slots, torch.zeros(batch, dtype=torch.int64, device=like.device))


def rows(cache: Cache, index: Int64[Tensor, " rows"]) -> Cache:
    """A copy of the rows at ``index``: so rows leave, and with an index repeated one prompt goes on in several ways."""
    slots, cross, source = (
        tuple(leaf.index_select(0, index) for leaf in leaves) for leaves in (cache.slots, cache.cross, cache.source)
    )
    return Cache(slots, cache.length.index_select(0, index), cross, source)


def enter(cache: Cache, index: Int64[Tensor, " rows"], other: Cache) -> Cache:
    """Put the rows of ``other`` in the place of those at ``index``, in the same memory, and return ``cache``. Raises
    ValueError where they have more slots than there are."""
    if other.size > cache.size:
        raise ValueError(f"expected rows of at most {cache.size} slots to enter a cache, got {other.size}")
    for mine, new in zip((*cache.slots, *cache.cross), (*other.slots, *other.cross), strict=True):
        mine[:, :, :, : new.shape[3]].index_copy_(0, index, new)
    for mine, new in zip(cache.source, other.source, strict=True):
        mine.index_fill_(0, index, False)
        mine[:, : new.shape[1]].index_copy_(0, index, new)
    cache.length.index_copy_(0, index, other.length)
    return cache


def closed_up(cache: Cache, stay: Bool[Tensor, " rows"], span: int) -> tuple[Cache, Int64[Tensor, " left"]]:
    """The rows that ``stay`` alone, in the same memory: the last ones move into the gaps, so that little is copied.
    Also where each of them stood. ``span`` is a bound on how many slots of them are filled."""
    kept = int(stay.sum())
    order = torch.arange(len(stay), device=stay.device)
    gaps, movers = order[:kept][~stay[:kept]], order[kept:][stay[kept:]]
    for leaf in (*(each[:, :, :, :span] for each in cache.slots), *cache.cross, *cache.source, cache.length, order):
        leaf[gaps] = leaf[movers]
    return first(cache, kept), order[:kept]


def first(cache: Cache, count: int) -> Cache:
    """The first ``count`` rows, in the same memory."""
    slots, cross, source = (tuple(leaf[:count] for leaf in each) for each in (cache.slots, cache.cross, cache.source))
    return Cache(slots, cache.length[:count], cross, source)


def vectors(cache: Cache, position: Int64[Tensor, "batch time"]) -> Int64[Tensor, "batch time two_groups"]:
    """Where tokens at these slots write: for each head its key, then for each its value, by the number of the vector
    among all vectors of a layer."""
    batch, groups, _, size, _ = cache.slots[0].shape
    device = position.device
    row = torch.arange(batch, device=device)[:, None, None] * groups
    group = torch.arange(groups, device=device)
    lane = torch.cat((group * 2, group * 2 + 1))
    return (row * 2 + lane) * size + position[:, :, None]
