"""Attention in training on a CPU, by products of matrices and a backward pass of its own.

PyTorch's one operation computes the scores again in its backward pass, in blocks that two threads share badly; and in
bfloat16 that pass takes twice the time of float32's, where a product of matrices takes half. So the probabilities are
kept here, as many as there are pairs of tokens, and both passes are a few products: docs/pytorch-2.md has the figures.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST = 2**24
"""Probabilities that a layer may keep; of more, PyTorch's operation, which keeps none."""


def is_quicker(query: Tensor, key: Tensor, bias: Tensor | None) -> bool:
    """Whether :func:`attend_by_products` takes these ``[B, heads, T, size]``, and is the quicker way."""
    if query.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if not (query.requires_grad or key.requires_grad) or query.shape[1] != key.shape[1]:
        return False
    if query.shape[:3].numel() * key.shape[2] > MOST or (bias is not None and bias.requires_grad):
        return False
    return _kind(query) == torch.bfloat16


def attend_by_products(
    query: Float[Tensor, "batch heads time size"],
    key: Float[Tensor, "batch heads source size"],
    value: Float[Tensor, "batch heads source size"],
    bias: Float[Tensor, "..."] | None,
    causal: bool,
    scale: float,
) -> Float[Tensor, "batch heads time size"]:
    """``softmax(scale query key^T + bias) value`` for each head (Vaswani et al. 2017, equation 1); ``bias`` broadcasts
    to ``[B, heads, T, S]``, learns nothing, and is None where ``causal``. There is no second derivative.

    Scores and their softmax are of float32 where all else is bfloat16; under autocast all else is of its type."""
    kind = _kind(query)
    with torch.autocast("cpu", enabled=False):
        if causal:
            size = query.shape[2], key.shape[2]
            lowest = torch.finfo(torch.float32).min
            bias = torch.full(size, lowest, dtype=_exact(kind)).triu_(1)
        mixture: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
            query.to(kind), key.to(kind), value.to(kind), bias, scale
        )
        return mixture


def _kind(query: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype


def _exact(kind: torch.dtype) -> torch.dtype:
    return torch.float32 if kind == torch.bfloat16 else kind


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        batch, heads, time, size = query.shape
        query, key, value = (x.reshape(batch * heads, -1, size) for x in (query, key, value))
        exact = _exact(query.dtype)
        if bias is None:
            scores = torch.bmm(query.to(exact) * scale, key.to(exact).mT)
        else:
            scores = bias.to(exact).expand(batch, heads, time, -1).reshape(batch * heads, time, -1)
            scores = torch.baddbmm(scores, query.to(exact), key.to(exact).mT, alpha=scale)
        probs = scores.softmax(-1).to(query.dtype)
        ctx.save_for_backward(query, key, value, probs)
        ctx.scale = scale
        return torch.bmm(probs, value).view(batch, heads, time, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        query, key, value, probs = ctx.saved_tensors
        batch, heads, time, size = upstream.shape
        with torch.autocast("cpu", enabled=False):
            upstream = upstream.to(query.dtype).reshape(batch * heads, time, size)
            to_value = torch.bmm(probs.mT, upstream)
            to_probs = torch.bmm(upstream, value.mT)
            to_scores = torch._softmax_backward_data(to_probs, probs, -1, probs.dtype)
            to_query = torch.bmm(to_scores, key).mul_(ctx.scale)
            to_key = torch.bmm(to_scores.mT, query).mul_(ctx.scale)
        to_query, to_key, to_value = (x.view(batch, heads, -1, size) for x in (to_query, to_key, to_value))
        return to_query, to_key, to_value, None, None
