"""Decoding steps that are recorded once and replayed: CUDA graphs.

On a GPU a step of a transformer by one token is dozens of launches, and to launch them takes longer than to compute
them. A graph is one launch, of the same work at the same addresses: its shapes are fixed. So rows are rounded up to a
power of two, and the slots that are looked at to a multiple of 64; what is too much of both is masked, as padding is.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchward.nets import kv_cache
from torchward.nets.body import Body
from torchward.nets.kv_cache import Cache

SLOTS = 64
"""What the number of slots that are looked at is a multiple of."""

Work: TypeAlias = Callable[[], Tensor]
Record: TypeAlias = Callable[[Work], tuple[Tensor, Callable[[], object]]]
"""From work to the tensor that it writes, and what does the work again, writing there. Work reads and writes memory
that stays where it is, and nothing in it depends on what stands there."""


class _Recorded(NamedTuple):
    """A step of some shape."""

    tokens: Tensor
    length: Tensor
    hidden: Tensor
    replay: Callable[[], object]


class ReplayedSteps:
    """:meth:`~torchward.nets.transformer.Transformer.step` in the memory of one cache, and by the parameters where they
    lie now. A shape is recorded where it first comes by, which takes as long as two steps that are not replayed."""

    def __init__(self, body: Body, whole: Cache, record: Record) -> None:
        """``whole`` is all the cache that there will be; its rows enter and leave in place."""
        self.body, self.whole, self.record = body, whole, record
        self.known: dict[tuple[int, int], _Recorded] = {}
        """By rows and slots."""

    def __call__(
        self, tokens: Int64[Tensor, " batch"], cache: Cache, span: int
    ) -> tuple[Float[Tensor, "batch width"], Cache]:
        """One token behind what each of the first rows holds: ``cache`` is
        :func:`~torchward.nets.kv_cache.first` of the whole one. What comes back is good until the next call."""
        rows = len(tokens)
        shape = (
            min(1 << (rows - 1).bit_length(), len(self.whole.length)),
            min(-(-span // SLOTS) * SLOTS, self.whole.size),
        )
        recorded = self.known.get(shape)
        if recorded is None:
            held = (tokens.new_zeros(shape[0]), cache.length.new_zeros(shape[0]))
        else:
            held = (recorded.tokens, recorded.length)
        # Rows that are not there write into their first slot, which whoever enters there writes again.
        for each, given in zip(held, (tokens, cache.length), strict=True):
            each[:rows].copy_(given)
            each[rows:].zero_()
        if recorded is None:
            recorded = self.known[shape] = self._recorded(*held, *shape)
        recorded.replay()
        return recorded.hidden[:rows], cache._replace(length=cache.length + 1)

    def _recorded(self, tokens: Tensor, length: Tensor, rows: int, slots: int) -> _Recorded:
        cache = kv_cache.first(self.whole, rows)._replace(length=length)
        return _Recorded(tokens, length, *self.record(lambda: self.body.step(tokens, cache, slots)[0]))


def cuda_graphs(device: torch.device) -> Record:
    """What records on a GPU; the graphs share their memory, since one is over before the next begins.

    What it gives raises RuntimeError where a graph does not compute what the work itself did."""
    torch.cuda.empty_cache()  # the memory of graphs that are no more goes to nobody else before
    pool = torch.cuda.graph_pool_handle()

    def record(work: Work) -> tuple[Tensor, Callable[[], object]]:
        with torch.cuda.device(device):
            # Once as it is, beside the stream that records: libraries get their memory when they are called first.
            side, here = _side(device), torch.cuda.current_stream()
            graph = torch.cuda.CUDAGraph()
            side.wait_stream(here)
            with torch.cuda.stream(side):
                wanted = work()
                side.synchronize()
                # Not torch.cuda.graph, which collects garbage and empties PyTorch's store of memory at each recording.
                graph.capture_begin(pool=pool)
                try:
                    made = work()
                except BaseException:
                    with suppress(RuntimeError):  # a stream that records lets nobody read, not even to tell what failed
                        graph.capture_end()
                    raise
                graph.capture_end()
            here.wait_stream(side)
            made.fill_(math.nan)  # so that it is the graph that writes
            graph.replay()
            if not torch.allclose(made, wanted, rtol=1e-2, atol=1e-2):
                raise RuntimeError(
                    "expected a CUDA graph to compute what was recorded, got other numbers: leave it out"
                )
        return made, graph.replay

    return record


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """The stream that records: one, for libraries keep memory for each."""
    return torch.cuda.Stream(device)
