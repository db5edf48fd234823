"""From one loss per element to one number: masked sums and means whose total may be given from outside.

A mean over a micro-batch, or over one worker's share, is wrong by the ratio of the counts. Give the count of the whole
batch (`total`, `sequences`) and the parts simply add up to the mean of the whole, however it was split.

Entries outside the mask are replaced, not multiplied by 0: a NaN or an infinity there reaches neither the value nor the
gradient of `x`. (What made them upstream must have a finite derivative: 0 * infinity is NaN again.)
"""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from torchward.functional._checks import positive, same_shape

Count = float | int | Shaped[Tensor, ""]


def masked_sum(x: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """The sum of the entries in `mask`. Raises ValueError where the shapes differ."""
    same_shape(x=x, mask=mask)
    return torch.where(mask, x, 0.0).sum()


def masked_mean(
    x: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"], total: Count | None = None
) -> Float[Tensor, ""]:
    """The sum of the entries in `mask` divided by `total`, the number of valid entries of the whole batch.

    Without a total the mask is counted, which waits for the device once; a hot loop counts its batch beforehand. Raises
    ValueError where the shapes differ, nothing is in the mask and no total is given, or the total is not above 0 (a
    total given as a tensor is not read).
    """
    return masked_sum(x, mask) / _count("total", total, mask, "entry")


def token_mean(
    x: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], total: Count | None = None
) -> Float[Tensor, ""]:
    """Every valid token weighs the same, so that long sequences weigh more: `masked_mean` over [batch, time].

    `total` is the number of valid tokens in the whole batch. Raises as `masked_mean`. Source: Yu et al. 2025 (DAPO),
    section 3.3.
    """
    return masked_mean(x, mask, total)


def sequence_mean(
    x: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], sequences: Count | None = None
) -> Float[Tensor, ""]:
    """Every sequence weighs the same: the mean over sequences of each one's mean over its valid tokens.

    `sequences` is their number in the whole batch; by default the rows that have a valid token, so that rows of padding
    change nothing. Raises ValueError where the shapes differ, no row has a valid token and no number is given, or the
    number is not above 0. Source: Shao et al. 2024 (GRPO), equation 3.
    """
    same_shape(x=x, mask=mask)
    means = x.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return means.sum() / _count("sequences", sequences, mask.any(dim=1), "sequence")


def constant_mean(
    x: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    length: float | int,
    sequences: Count | None = None,
) -> Float[Tensor, ""]:
    """The sum over valid tokens divided by length * sequences: no sequence's weight depends on how long it came out.

    `length` is a constant, such as the largest completion; `sequences` is their number in the whole batch, by default
    the rows of `x`, empty ones included. Raises ValueError where the shapes differ, or length or sequences is not above
    0. Source: Liu et al. 2025 (Dr. GRPO), section 3.2.
    """
    positive(length=length)
    if sequences is None:
        sequences = x.shape[0]
    if not isinstance(sequences, Tensor):
        positive(sequences=sequences)
    return masked_sum(x, mask) / (length * sequences)


def _count(name: str, given: Count | None, valid: Tensor, noun: str) -> Count:
    if given is None:
        if not bool(valid.any()):
            raise ValueError(f"The mask leaves no valid {noun} to average; check how it was built, or give {name}.")
        return valid.sum()
    if not isinstance(given, Tensor):
        positive(**{name: given})
    return given
