"""How likely tokens were, from hidden states: in pieces, so that the logits of all never stand in memory.

The largest tensor of a language model in training is usually its logits, tokens times vocabulary, and their gradient is
a second one. Here those of a piece of the tokens are made, read and dropped; the backward pass makes them again.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from torchward.nets.sampling import unpacked

PIECE = 2**22
"""Logits that stand in memory at a time on a CPU: 16 MiB of them."""
LARGE_PIECE = 2**26
"""The same on any other device, which small pieces would leave idle: 256 MiB."""


class Head(NamedTuple):
    """What turns hidden states into logits: ``hidden @ weight.T + bias``."""

    weight: Float[Tensor, "vocab width"]
    bias: Float[Tensor, " vocab"] | None = None


class TokenScores(NamedTuple):
    """Of each token, in float32."""

    log_prob: Float[Tensor, "*tokens"]
    entropy: Float[Tensor, "*tokens"]
    """Of the distribution that the token came from."""


def token_scores(
    hidden: Float[Tensor, "tokens width"],
    head: Head,
    target: Int64[Tensor, " tokens"],
    temperature: float = 1.0,
    support: UInt8[Tensor, "tokens bytes"] | None = None,
    piece: int | None = None,
    with_entropy: bool = True,
) -> TokenScores:
    """``log softmax(logits / temperature)`` at ``target``, and the entropy of that distribution.

        d log p_t / d logit_j = (1[j = t] - p_j) / temperature,   d H / d logit_j = -p_j (log p_j + H) / temperature

    ``support`` holds the tokens that the sampler chose among, as bits (:func:`torchward.nets.sampling.packed`): the
    others then have probability 0. Of at most ``piece / vocab`` tokens, at least one, logits stand in memory at a time.
    Who needs no entropy saves its time with ``with_entropy`` False: it is 0 then. Under autocast products are taken in
    its type, in the backward pass too. There is no second derivative.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    rows = rows_of(piece, head)
    scores = _Scores.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, target, temperature, support, rows, with_entropy
    )
    return TokenScores(*scores)


def rows_of(piece: int | None, head: Head) -> int:
    """How many tokens have ``piece`` logits, at least one; None: as suits the device."""
    most = piece or (PIECE if head.weight.device.type == "cpu" else LARGE_PIECE)
    return max(1, most // head.weight.shape[0])


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        temperature: float,
        support: Tensor | None,
        rows: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        count = hidden.shape[0]
        log_prob = torch.empty(count, device=hidden.device)
        entropy = torch.zeros(count, device=hidden.device)
        kept, cast = None, weight.to(hidden.dtype)
        for begin in range(0, count, rows):
            part = slice(begin, begin + rows)
            log_probs = _log_probs(hidden[part], cast, bias, temperature, None if support is None else support[part])
            log_prob[part] = log_probs.gather(1, target[part, None]).squeeze(1)
            if with_entropy:
                entropy[part] = -(log_probs.exp() * log_probs).sum(1)
            kept = log_probs if count <= rows else None  # one piece is not made twice
        ctx.save_for_backward(hidden, weight, bias, target, support, entropy, kept)
        ctx.temperature, ctx.rows = temperature, rows
        ctx.set_materialize_grads(False)  # None, where nothing is asked of one of the two
        if not with_entropy:
            ctx.mark_non_differentiable(entropy)
        return log_prob, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_log_prob: Tensor | None, to_entropy: Tensor | None) -> Any:
        hidden, weight, bias, target, support, entropy, kept = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        to_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        cast = weight.to(hidden.dtype)
        for begin in range(0, hidden.shape[0], ctx.rows):
            part = slice(begin, begin + ctx.rows)
            log_probs = kept
            if log_probs is None:
                seen = None if support is None else support[part]
                log_probs = _log_probs(hidden[part], cast, bias, ctx.temperature, seen)
            probs = log_probs.exp()
            scale = torch.zeros_like(entropy[part, None]) if to_log_prob is None else to_log_prob[part, None]
            if to_entropy is None:
                to_logits = probs.mul_(-scale)
            else:  # 0 times the lowest number is 0, but a multiple of that may be infinite
                to_logits = (log_probs + entropy[part, None]).mul_(probs).mul_(-to_entropy[part, None])
                to_logits.addcmul_(probs, scale, value=-1.0)
            to_logits.scatter_add_(1, target[part, None], scale)
            to_logits = to_logits.div_(ctx.temperature).to(hidden.dtype)
            torch.mm(to_logits, cast, out=to_hidden[part])
            if to_weight is not None:
                to_weight += to_logits.T @ hidden[part]
            if to_bias is not None:
                to_bias += to_logits.sum(0)
        return to_hidden, to_weight, to_bias, None, None, None, None, None


def _log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, support: Tensor | None
) -> Tensor:
    """``[N, vocab]``, float32; ``weight`` is of the type of ``hidden``. What is outside the support has the lowest
    number, whose probability is 0 exactly."""
    logits = F.linear(hidden, weight, None if bias is None else bias.to(hidden.dtype)).float()
    if temperature != 1.0:
        logits = logits / temperature
    if support is not None:
        logits = logits.masked_fill(~unpacked(support, logits.shape[1]), torch.finfo(torch.float32).min)
    return logits.log_softmax(1)
