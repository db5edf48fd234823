"""Whether probabilities are what they say: of what is given 0.7, seven in ten should come true."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


class Reliability(NamedTuple):
    """What was said and what came, in equally wide parts of [0, 1]."""

    said: Float[Tensor, " bins"]
    """The mean probability that was given within a part; 0 where there was none."""
    came: Float[Tensor, " bins"]
    """The share of them that came true; 0 where there was none."""
    size: Int64[Tensor, " bins"]
    """How many there were."""

    @property
    def error(self) -> float:
        """The expected calibration error: ``|said - came|``, by the parts' counts (Naeini et al. 2015)."""
        return float((self.size * (self.said - self.came).abs()).sum() / self.size.sum().clamp_min(1))


def reliability(
    probability: Float[Tensor, " *events"], outcome: Bool[Tensor, " *events"], bins: int = 10
) -> Reliability:
    """Probabilities and what came of each event, in ``bins`` parts of [0, 1] (Niculescu-Mizil and Caruana 2005).

    Raises ValueError for probabilities outside of it."""
    flat, came = probability.flatten().double(), outcome.flatten().double()
    if bins < 1 or not bool(((flat >= 0.0) & (flat <= 1.0)).all()):
        raise ValueError(f"expected at least 1 bin and probabilities within [0, 1], got {bins} and {probability}")
    which = (flat * bins).long().clamp_max(bins - 1)
    count = torch.bincount(which, minlength=bins)
    sums = [torch.zeros(bins, dtype=torch.float64, device=flat.device).index_add_(0, which, x) for x in (flat, came)]
    said, share = (x / count.clamp_min(1) for x in sums)
    return Reliability(said.float(), share.float(), count)
