"""How far a student's next token lies from its teacher's, from the hidden states of both, in pieces: the distributions
of all tokens, of which there would be two ``[tokens, vocab]`` and a gradient, never stand in memory.

The pieces are those of :mod:`torchward.nets.token_scores`; so is what the student says of the tokens themselves.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from torchward.functional.distillation import divergence, divergence_gradient
from torchward.nets.token_scores import Head, rows_of


class Against(NamedTuple):
    """What the student is held against: the teacher's hidden states, and what turns them into logits."""

    hidden: Float[Tensor, "tokens teacher_width"]
    head: Head


class TokenDivergences(NamedTuple):
    """Of each token, in float32 (in float64 for a student in float64)."""

    divergence: Float[Tensor, "*tokens"]
    """D_beta of the teacher's and the student's whole distributions."""
    log_prob: Float[Tensor, "*tokens"]
    """The student's, of the token that came."""


def token_divergences(
    hidden: Float[Tensor, "tokens width"],
    head: Head,
    teacher: Against,
    target: Int64[Tensor, " tokens"],
    beta: float,
    temperature: float = 1.0,
    piece: int | None = None,
) -> TokenDivergences:
    """:func:`torchward.functional.distillation.divergence` between ``softmax(logits / temperature)`` of both, and
    ``log softmax(logits / temperature)`` of the student at ``target``.

    Of at most ``piece / vocab`` tokens, at least one, logits stand in memory at a time. The widths may differ, the
    vocabulary may not; the teacher receives no gradient. Under autocast products are taken in its type. There is no
    second derivative. Raises ValueError where the vocabularies differ.
    """
    if head.weight.shape[0] != teacher.head.weight.shape[0]:
        raise ValueError(
            f"expected heads over one vocabulary, got the student's over {head.weight.shape[0]} tokens and the "
            f"teacher's over {teacher.head.weight.shape[0]}"
        )
    device, known = hidden.device.type, teacher.hidden.detach()
    if torch.is_autocast_enabled(device):
        hidden, known = (x.to(torch.get_autocast_dtype(device)) for x in (hidden, known))
    rows = rows_of(piece, head)
    fixed = _Teacher(known, teacher.head, temperature)
    made = _Divergences.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, fixed, target, beta, rows
    )
    return TokenDivergences(*made)


class _Teacher(NamedTuple):
    hidden: Tensor
    head: Head
    temperature: float

    def log_probs(self, part: slice) -> Tensor:
        return _log_probs(self.hidden[part], self.head, self.temperature)


class _Divergences(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher: _Teacher,
        target: Tensor,
        beta: float,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        count, kind = hidden.shape[0], torch.float64 if hidden.dtype == torch.float64 else torch.float32
        apart, log_prob = (torch.empty(count, device=hidden.device, dtype=kind) for _ in range(2))
        kept: tuple[Tensor | None, Tensor | None] = None, None
        for begin in range(0, count, rows):
            part = slice(begin, begin + rows)
            log_p = teacher.log_probs(part).to(kind)
            log_q = _log_probs(hidden[part], Head(weight, bias), teacher.temperature)
            apart[part] = divergence(log_p, log_q, beta)
            log_prob[part] = log_q.gather(1, target[part, None]).squeeze(1)
            kept = (log_p, log_q) if count <= rows else (None, None)  # one piece is not made twice
        ctx.save_for_backward(hidden, weight, bias, target, *kept)
        ctx.teacher, ctx.beta, ctx.rows = teacher, beta, rows
        ctx.set_materialize_grads(False)  # None, where nothing is asked of one of the two
        return apart, log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_apart: Tensor | None, to_log_prob: Tensor | None) -> Any:
        hidden, weight, bias, target, *kept = ctx.saved_tensors
        teacher: _Teacher = ctx.teacher
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        to_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        cast = weight.to(hidden.dtype)
        for begin in range(0, hidden.shape[0], ctx.rows):
            part = slice(begin, begin + ctx.rows)
            log_p, log_q = kept
            if log_q is None:
                log_q = _log_probs(hidden[part], Head(weight, bias), teacher.temperature)
            to_logits = torch.zeros_like(log_q)
            if to_apart is not None:
                log_p = teacher.log_probs(part).to(log_q) if log_p is None else log_p
                to_logits.addcmul_(divergence_gradient(log_p, log_q, ctx.beta), to_apart[part, None])
            if to_log_prob is not None:
                scale = to_log_prob[part, None]
                to_logits.addcmul_(log_q.exp(), scale, value=-1.0).scatter_add_(1, target[part, None], scale)
            to_logits = to_logits.div_(teacher.temperature).to(hidden.dtype)
            torch.mm(to_logits, cast, out=to_hidden[part])
            if to_weight is not None:
                to_weight += to_logits.T @ hidden[part]
            if to_bias is not None:
                to_bias += to_logits.sum(0)
        return to_hidden, to_weight, to_bias, None, None, None, None


def _log_probs(hidden: Tensor, head: Head, temperature: float) -> Tensor:
    """``[N, vocab]``, in float32 at least."""
    bias = None if head.bias is None else head.bias.detach().to(hidden.dtype)
    logits = F.linear(hidden, head.weight.detach().to(hidden.dtype), bias)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return (logits if temperature == 1.0 else logits / temperature).log_softmax(1)
