"""From the hidden states of a text's tokens to one vector for the text."""

from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Pooling: TypeAlias = Literal["mean", "first", "last"]
"""The mean of all tokens; the first one, by which BERT judges a text (Devlin et al. 2019, section 3.2); or the last,
which is the only one that has read all of it where a token sees those before it alone."""


def pool(
    hidden: Float[Tensor, "batch time width"], mask: Bool[Tensor, "batch time"], pooling: Pooling
) -> Float[Tensor, "batch width"]:
    """A vector of each row of ``hidden`` ``[B, T, width]``, of whose tokens those count where ``mask`` is True. Rows
    are padded at the right; one of padding alone has a mean of 0."""
    match pooling:
        case "mean":
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1.0)
        case "first":
            return hidden[:, 0]
        case "last":
            last = (mask.sum(1) - 1).clamp_min(0)
            return hidden[torch.arange(len(hidden), device=hidden.device), last]
