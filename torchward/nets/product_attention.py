"""Attention in training on a CPU, by products of matrices and a backward pass of its own.

PyTorch's one operation computes the scores again in its backward pass, in blocks that two threads share badly; and in
bfloat16 that pass takes twice the time of float32's, where a product of matrices takes half. So the probabilities are
kept here, as many as there are pairs of tokens that may look at each other, and both passes are a few products:
docs/pytorch-2.md has the figures.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST = 2**24
"""Probabilities that a layer may keep; of more, PyTorch's operation, which keeps none."""
BLOCK = 64
"""So many queries are a product, where nobody looks ahead: the keys behind the last of them are left out."""


def is_quicker(query: Tensor, key: Tensor, bias: Tensor | None, causal: bool) -> bool:
    """Whether :func:`attend_by_products` takes these ``[B, heads, T, size]``, and is the quicker way: in bfloat16
    always, in float32 where blocks leave out a quarter or more."""
    if query.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if not (query.requires_grad or key.requires_grad) or query.shape[1] != key.shape[1]:
        return False
    if query.shape[:3].numel() * key.shape[2] > MOST or (bias is not None and bias.requires_grad):
        return False
    kind, in_blocks = _kind(query), causal and query.shape[2] == key.shape[2] >= 2 * BLOCK
    return kind == torch.bfloat16 or (kind == torch.float32 and in_blocks)


def attend_by_products(
    query: Float[Tensor, "batch heads time size"],
    key: Float[Tensor, "batch heads source size"],
    value: Float[Tensor, "batch heads source size"],
    bias: Float[Tensor, "..."] | None,
    causal: bool,
    scale: float,
) -> Float[Tensor, "batch heads time size"]:
    """``softmax(scale query key^T + bias) value`` for each head (Vaswani et al. 2017, equation 1); ``bias`` broadcasts
    to ``[B, heads, T, S]`` and learns nothing. With ``causal`` nobody looks ahead: a bias then has to forbid it, too.
    There is no second derivative.

    Scores and their softmax are of float32 where all else is bfloat16; under autocast all else is of its type."""
    kind = _kind(query)
    with torch.autocast("cpu", enabled=False):
        mixture: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
            query.to(kind), key.to(kind), value.to(kind), bias, causal, scale
        )
        return mixture


def _kind(query: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype


def _parts(time: int, source: int, causal: bool) -> Iterator[tuple[slice, slice]]:
    """Which queries are a product, and the keys that they look at; the last of them look at all."""
    if not causal or time != source:
        yield slice(0, time), slice(0, source)
        return
    for begin in range(0, time, BLOCK):
        end = min(begin + BLOCK, time)
        yield slice(begin, end), slice(0, end)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool, scale: float
    ) -> Tensor:
        batch, heads, time, size = query.shape
        source, kind = key.shape[2], query.dtype
        exact = torch.float32 if kind == torch.bfloat16 else kind
        query, key, value = (x.reshape(batch * heads, -1, size) for x in (query, key, value))
        scaled, wide = query.to(exact) * scale, key.to(exact)
        if bias is not None:
            bias = bias.to(exact).expand(batch, heads, time, source)
        mixture, kept = torch.empty_like(query), []
        for own, seen in _parts(time, source, causal):
            scores = torch.bmm(scaled[:, own], wide[:, seen].mT)
            if bias is not None:
                scores.view(batch, heads, -1, seen.stop).add_(bias[:, :, own, seen])
            elif causal:  # the keys before these queries' own are all behind them
                ahead = scores[:, :, own.start :]
                ahead += torch.full(ahead.shape[1:], torch.finfo(exact).min, dtype=exact).triu_(1)
            kept.append(scores.softmax(-1).to(kind))
            mixture[:, own] = torch.bmm(kept[-1], value[:, seen])
        ctx.save_for_backward(query, key, value, *kept)
        ctx.causal, ctx.scale = causal, scale
        return mixture.view(batch, heads, time, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        query, key, value, *kept = ctx.saved_tensors
        batch, heads, time, size = upstream.shape
        with torch.autocast("cpu", enabled=False):
            upstream = upstream.to(query.dtype).reshape(batch * heads, time, size)
            to_query = torch.empty_like(query)
            *before, (probs, (own, _)) = zip(kept, _parts(time, key.shape[1], ctx.causal), strict=True)
            to_query[:, own], to_key, to_value = _gradients(probs, upstream[:, own], query[:, own], key, value)
            for probs, (own, seen) in before:
                to_query[:, own], into_key, into_value = _gradients(
                    probs, upstream[:, own], query[:, own], key[:, seen], value[:, seen]
                )
                to_key[:, seen] += into_key
                to_value[:, seen] += into_value
            to_query, to_key = to_query.mul_(ctx.scale), to_key.mul_(ctx.scale)
        to_query, to_key, to_value = (x.view(batch, heads, -1, size) for x in (to_query, to_key, to_value))
        return to_query, to_key, to_value, None, None, None


def _gradients(
    probs: Tensor, upstream: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one part: by its queries, and what it adds to those by keys and values; none of them is scaled yet."""
    to_scores = torch._softmax_backward_data(torch.bmm(upstream, value.mT), probs, -1, probs.dtype)
    return torch.bmm(to_scores, key), torch.bmm(to_scores.mT, query), torch.bmm(probs.mT, upstream)
