"""The keys and values of what a decoder has read: preallocated, written in place, each row at its own position.

A row's tokens lie in its slots ``0, 1, ...`` without gaps, whatever padding they came with. So a slot's number is the
position of what it holds, rows of all lengths stand side by side, and a row may leave and another enter in its place.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchward.nets.transformer_config import TransformerConfig

Layers: TypeAlias = tuple[Tensor, ...]
Pair: TypeAlias = tuple[Tensor, Tensor]
"""Keys and values of a layer: each ``[B, groups, S, head_size]``."""


class Cache(NamedTuple):
    """A tree of tensors ``[B, ...]``, which may be a policy's state; from a tuple of its parts it is ``Cache(*tree)``.

    What is read fills slots in place and gives a new cache with a new ``length``, which shares the slots. So the old
    one goes on being what it was, until something else is written behind its length."""

    keys: Layers
    """For each layer ``[B, groups, L, head_size]``."""
    values: Layers
    """As ``keys``."""
    length: Tensor
    """``[B]`` int64: how many slots of each row are filled."""
    cross_keys: Layers = ()
    """For each layer of an encoder-decoder's decoder, the keys of what its encoder read: ``[B, groups, S, size]``."""
    cross_values: Layers = ()
    """As ``cross_keys``."""
    source: Layers = ()
    """Beside them one tensor ``[B, S]``: True where the encoder's input was no padding."""

    @property
    def slots(self) -> list[Pair]:
        """For each layer, its keys and values."""
        return list(zip(self.keys, self.values, strict=True))

    @property
    def cross(self) -> list[Pair]:
        """For each layer, the keys and values of an encoder's; empty where there is none."""
        return list(zip(self.cross_keys, self.cross_values, strict=True))

    @property
    def size(self) -> int:
        """The number of slots of a row."""
        return self.keys[0].shape[2]


def empty(config: TransformerConfig, batch: int, size: int, like: Tensor) -> Cache:
    """``batch`` rows of ``size`` slots with nothing in them, of the type and on the device of ``like``."""
    shape = (batch, config.key_value_heads, size, config.head_size)
    keys, values = (tuple(like.new_zeros(shape) for _ in range(config.num_hidden_layers)) for _ in range(2))
    return Cache(keys, values, torch.zeros(batch, dtype=torch.int64, device=like.device))


def _of_each(cache: Cache, change: Callable[[Tensor], Tensor]) -> Cache:
    def every(leaves: Layers) -> Layers:
        return tuple(map(change, leaves))

    beside = every(cache.cross_keys), every(cache.cross_values), every(cache.source)
    return Cache(every(cache.keys), every(cache.values), change(cache.length), *beside)


def rows(cache: Cache, index: Int64[Tensor, " rows"]) -> Cache:
    """A copy of the rows at ``index``: so rows leave, and with an index repeated one prompt goes on in several ways."""
    return _of_each(cache, lambda leaf: leaf.index_select(0, index))


def enter(cache: Cache, index: Int64[Tensor, " rows"], other: Cache) -> Cache:
    """Put the rows of ``other`` in the place of those at ``index``, in the same memory, and return ``cache``. Raises
    ValueError where they have more slots than there are."""
    if other.size > cache.size:
        raise ValueError(f"expected rows of at most {cache.size} slots to enter a cache, got {other.size}")
    parts = [(*each.keys, *each.values, *each.cross_keys, *each.cross_values) for each in (cache, other)]
    for mine, new in zip(*parts, strict=True):
        mine[:, :, : new.shape[2]].index_copy_(0, index, new)
    for mine, new in zip(cache.source, other.source, strict=True):
        mine.index_fill_(0, index, False)
        mine[:, : new.shape[1]].index_copy_(0, index, new)
    cache.length.index_copy_(0, index, other.length)
    return cache


def grown(cache: Cache, size: int) -> Cache:
    """A copy with at least as many slots, ``size``: what is filled stays where it stood in its row."""

    def longer(leaf: Tensor) -> Tensor:
        made = leaf.new_empty(*leaf.shape[:2], size, leaf.shape[3])
        made[:, :, : leaf.shape[2]] = leaf
        made[:, :, leaf.shape[2] :] = 0.0
        return made

    return cache._replace(keys=tuple(map(longer, cache.keys)), values=tuple(map(longer, cache.values)))


def closed_up(cache: Cache, stay: Bool[Tensor, " rows"], span: int) -> tuple[Cache, Int64[Tensor, " left"]]:
    """The rows that ``stay`` alone, in the same memory: the last ones move into the gaps, so that little is copied.
    Also where each of them stood. ``span`` is a bound on how many slots of them are filled."""
    kept = int(stay.sum())
    order = torch.arange(len(stay), device=stay.device)
    gaps, movers = order[:kept][~stay[:kept]], order[kept:][stay[kept:]]
    # To copy whole rows costs half of what it costs to leave out their ends: those that are long are cut.
    whole = 2 * span >= cache.size
    own = (each if whole else each[:, :, :span] for each in (*cache.keys, *cache.values))
    for leaf in (*own, *cache.cross_keys, *cache.cross_values, *cache.source, cache.length, order):
        leaf.index_copy_(0, gaps, leaf.index_select(0, movers))
    return first(cache, kept), order[:kept]


def first(cache: Cache, count: int) -> Cache:
    """The first ``count`` rows, in the same memory."""
    return _of_each(cache, lambda leaf: leaf[:count])


def write(slots: Tensor, into: tuple[Tensor, Tensor], new: Float[Tensor, "tokens groups size"]) -> None:
    """Put keys, or values, of ``N`` tokens into a layer's; ``into`` are the row and the slot of each."""
    slots.transpose(1, 2).index_put_(into, new.to(slots.dtype))
