"""Where a token stands, told to a transformer in four ways: learned, sinusoidal, rotary and relative."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Learned:
    """One learned vector for each position, added to the embedding (Gehring et al. 2017; GPT-2, BERT)."""


@dataclass(frozen=True)
class Sinusoidal:
    """Sines and cosines of the position, added to the embedding (Vaswani et al. 2017, section 3.5)."""


@dataclass(frozen=True)
class Rotary:
    """Queries and keys turned by an angle that grows with the position (Su et al. 2021, equation 34; Llama)."""

    rope_theta: float = 10000.0
    """The base of the wavelengths: the slowest pair of dimensions turns once in about 2 pi times this many tokens."""


@dataclass(frozen=True)
class Relative:
    """A learned bias of the attention for each head and bucket of distances (Raffel et al. 2020, section 2.1; T5)."""

    num_buckets: int = 32
    """Half of them hold one distance each, the other half grow logarithmically. Bidirectional attention has half of
    the buckets for each direction."""
    max_distance: int = 128
    """From this distance on all are in the last bucket."""

    def __post_init__(self) -> None:
        if self.num_buckets < 4 or self.num_buckets % 4 or self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                "expected num_buckets a multiple of 4, and max_distance above half of it, got "
                f"num_buckets={self.num_buckets} and max_distance={self.max_distance}"
            )


Positions: TypeAlias = Learned | Sinusoidal | Rotary | Relative


def sinusoids(length: int, width: int) -> Float[Tensor, "length width"]:
    """The table of Vaswani et al. 2017: dimension ``2 i`` is ``sin(t / 10000^(2 i / width))``, the next its cosine."""
    angle = _angles(length, width, 10000.0)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]


def rotary_table(length: int, size: int, rope_theta: float) -> Float[Tensor, "length two_size"]:
    """What :func:`rotate` multiplies with, ``[length, 2 size]``: cosines, then sines, of the angles of heads of
    ``size`` dimensions. The first half of the sines is negative."""
    angle = _angles(length, size, rope_theta)
    return torch.cat([angle.cos(), angle.cos(), -angle.sin(), angle.sin()], -1)


def rotate(x: Float[Tensor, "*batch size"], table: Float[Tensor, "... two_size"]) -> Float[Tensor, "*batch size"]:
    """Turn each pair of dimensions ``(i, i + size / 2)`` of ``x`` by its angle in ``table``, which broadcasts with it:
    ``(a, b) -> (a cos - b sin, b cos + a sin)``. The product of two rotated vectors depends on the difference of
    their positions alone."""
    size = x.shape[-1]
    return torch.addcmul(x * table[..., :size], x.roll(size // 2, -1), table[..., size:])


def buckets(distance: Int64[Tensor, "*shape"], relative: Relative, causal: bool) -> Int64[Tensor, "*shape"]:
    """The bucket of each ``distance`` = position of the key - position of the query, in ``[0, num_buckets)``.

    With ``causal``, keys behind the query share the first bucket; else they have the upper half of the buckets."""
    count = relative.num_buckets if causal else relative.num_buckets // 2
    side = torch.zeros_like(distance) if causal else (distance > 0) * count
    far = (-distance).clamp_min(0) if causal else distance.abs()
    exact = count // 2
    growth = torch.log(far.clamp_min(exact) / exact) / math.log(relative.max_distance / exact)
    logarithmic = (exact + (growth * (count - exact)).long()).clamp_max(count - 1)
    return side + torch.where(far < exact, far, logarithmic)


def _angles(length: int, width: int, base: float) -> Tensor:
    """``t / base^(2 i / width)``, ``[length, ceil(width / 2)]``."""
    rate = 1.0 / base ** (torch.arange(0, width, 2).float() / width)
    return torch.arange(length).float()[:, None] * rate
