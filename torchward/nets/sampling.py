"""How a token is drawn from logits: temperature, top-k, top-p; and what it was drawn among."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from torchward.config import ConfigError

_ALMOST_ONE = 1.0 - 2.0**-22  # so that a rounded product with a uniform number stays below the sum of the probabilities


@dataclass(frozen=True)
class Sampling:
    """The distribution that tokens are drawn from; the same one judges them in training."""

    temperature: float = 1.0
    """What logits are divided by, wherever a log-probability is taken."""
    top_k: int | None = None
    """Draw among this many of the likeliest tokens; None: all."""
    top_p: float | None = None
    """Draw among the fewest of the likeliest tokens that have this probability together; None: all."""

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ConfigError(f"expected temperature above 0, got {self.temperature}; the mode is drawn without noise")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"expected top_k of at least 1, got {self.top_k}")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"expected top_p above 0 and at most 1, got {self.top_p}")

    @property
    def is_whole(self) -> bool:
        """Whether every token can be drawn."""
        return self.top_k is None and self.top_p in (None, 1.0)


class Drawn(NamedTuple):
    """One token for each row."""

    token: Int64[Tensor, " rows"]
    log_prob: Float[Tensor, " rows"]
    """Under the distribution that it was drawn from, float32."""
    support: UInt8[Tensor, "rows bytes"] | None
    """What it was drawn among, as bits; None: all tokens."""


def draw(logits: Float[Tensor, "rows vocab"], sampling: Sampling, noise: Float[Tensor, " rows"] | None) -> Drawn:
    """A token of each row, by inverting the distribution function at ``noise``, uniform in [0, 1); None: the mode."""
    logits = logits.float()
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    seen = None if sampling.is_whole else among(logits, sampling)
    if seen is not None:
        logits = logits.masked_fill(~seen, torch.finfo(torch.float32).min)
    log_probs = logits.log_softmax(1)
    if noise is None:
        token = log_probs.argmax(1, keepdim=True)
    else:
        below = log_probs.exp().cumsum(1)
        if seen is not None:  # a GPU adds in another order for each entry: no rounding may make a token possible
            below = below.masked_fill(~seen, 0.0).cummax(1).values
        token = torch.searchsorted(below, (noise * _ALMOST_ONE * below[:, -1]).unsqueeze(1), right=True)
    support = None if seen is None else packed(seen)
    return Drawn(token.squeeze(1), log_probs.gather(1, token).squeeze(1), support)


def among(logits: Float[Tensor, "rows vocab"], sampling: Sampling) -> Bool[Tensor, "rows vocab"]:
    """True where a token can be drawn: at least at the likeliest one, and exactly at ``top_k`` of them, however many
    are equally likely. Top-p (Holtzman et al. 2020, section 3.1) counts what top-k has left."""
    ordered, order = logits.sort(dim=1, descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if sampling.top_k is not None:
        keep[:, sampling.top_k :] = False
    if sampling.top_p not in (None, 1.0):
        probs = ordered.masked_fill(~keep, -torch.inf).softmax(1)
        keep &= probs.cumsum(1) - probs < sampling.top_p
    return torch.zeros_like(keep).scatter(1, order, keep)


def packed(seen: Bool[Tensor, "*rows vocab"]) -> UInt8[Tensor, "*rows bytes"]:
    """Eight entries in a byte, the first one lowest."""
    vocab = seen.shape[-1]
    bits = torch.nn.functional.pad(seen.to(torch.uint8), (0, -vocab % 8)).unflatten(-1, (-1, 8))
    return torch.sum(bits << _shifts(seen.device), -1, dtype=torch.uint8)


def unpacked(bits: UInt8[Tensor, "*rows bytes"], vocab: int) -> Bool[Tensor, "*rows vocab"]:
    """The ``vocab`` entries of :func:`packed`."""
    return ((bits.unsqueeze(-1) >> _shifts(bits.device)) & 1).flatten(-2)[..., :vocab].bool()


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)
