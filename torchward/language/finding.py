"""What a check of a language model has found; and what is right: one plain pass over a text that stands alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from torchward.nets.language_model import LanguageModel
from torchward.nets.sampling import Sampling

Texts: TypeAlias = Sequence[Sequence[int]]
"""Texts as tokens."""
WHOLE = Sampling()
"""Temperature 1, among all tokens."""
ABSOLUTE, RELATIVE = 1e-4, 1e-5
"""By how much two ways to compute one log-probability may differ in float32."""
MEAN = 0.02
"""By how much they may differ on average in half precision."""


class Finding(NamedTuple):
    """What a check says."""

    name: str
    ok: bool | None
    """None: it was not looked at, and the words say why."""
    words: str
    """Of what is right, how far it was looked at; of what is wrong, what and where it is, and what to do."""


class Gap(NamedTuple):
    """How far some numbers lie from those that they should be."""

    size: float
    """The largest distance; infinite where one is no number."""
    place: int | None
    """Where it is, counted over all of them; None where no distance is more than rounding."""


class Plain(NamedTuple):
    """A text of ``T + 1`` tokens, read alone and at once."""

    tokens: Tensor
    """``[T]`` What was seen."""
    action: Tensor
    """``[T]`` What came next."""
    hidden: Tensor
    """``[T, width]``"""
    logits: Tensor
    """``[T, vocab]`` float32, undivided."""


def gap(found: Tensor, known: Tensor, like: LanguageModel) -> Gap:
    """The gap between log-probabilities of one shape, which a model has computed in two ways. In half precision the
    mean of the distances decides."""
    off = (found.double() - known.double()).abs().nan_to_num(torch.inf, torch.inf).flatten()
    if not off.numel():
        return Gap(0.0, None)
    if like.body.token.weight.dtype in (torch.float32, torch.float64):
        wrong = bool((off > ABSOLUTE + RELATIVE * known.double().abs().flatten()).any())
    else:
        wrong = float(off.mean()) > MEAN
    return Gap(float(off.max()), int(off.argmax()) if wrong else None)


def plain(policy: LanguageModel, text: Sequence[int]) -> Plain:
    """A text of at least two tokens."""
    ids = torch.tensor([list(text)], device=device_of(policy))
    hidden = policy.body.forward(ids[:, :-1])[0]
    return Plain(ids[0, :-1], ids[0, 1:], hidden, policy.body.logits(hidden).float())


@contextmanager
def drawing(policy: LanguageModel, sampling: Sampling) -> Iterator[None]:
    """Within it the policy draws, and is judged, by another distribution."""
    was, policy.sampling = policy.sampling, sampling
    try:
        yield
    finally:
        policy.sampling = was


def device_of(policy: LanguageModel) -> torch.device:
    """Where the policy is."""
    return policy.body.token.weight.device
