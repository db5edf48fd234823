"""The tanh-Gaussian: a normal distribution with a mean and a deviation for each state, squashed into (-1, 1).

Its parameters are ``outputs`` ``[..., 2 C]`` of a network: means, then logarithms of deviations, held in [-20, 2]. A
sample is a function of them and of noise, so a gradient flows through it (Haarnoja et al. 2018b, appendix C):

    u = mean + std * noise,   a = tanh(u),   log pi(a) = log N(u; mean, std) - sum_i log(1 - tanh(u_i)^2)

The last logarithm is 2 (log 2 - u - softplus(-2u)), which is as exact where tanh has become 1 as where it is 0.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_STD = (-20.0, 2.0)
"""Between which the logarithm of a deviation is held, as in Stable-Baselines3."""
_CONSTANT = 0.5 * math.log(2.0 * math.pi) + 2.0 * math.log(2.0)


class Squashed(NamedTuple):
    """A sample, and what is needed to differentiate it."""

    action: Tensor
    """``[..., C]``"""
    log_prob: Tensor
    """``[...]``, of the action."""
    outputs: Tensor
    log_std: Tensor
    spread: Tensor
    """The deviation times the noise."""

    def rows(self, rows: slice) -> "Squashed":
        """Some of them."""
        return Squashed(*(part[rows] for part in self))

    @torch.no_grad()
    def by_outputs(self, by_action: Tensor, by_log_prob: Tensor | float) -> Tensor:
        """The gradient ``[..., 2 C]`` of a loss by the outputs, from those by action ``[..., C]`` and log-probability
        (one number for all, or ``[..., 1]``).

        da/du is 1 - a^2, and d log pi/du is 2 a: what the normal's exponent gives cancels, because the noise stays."""
        by_u = torch.addcmul(by_action, self.action, 2.0 * by_log_prob - by_action * self.action)
        by_log_std = by_u * self.spread - by_log_prob
        by_log_std *= self.outputs[..., self.action.shape[-1] :] == self.log_std  # none where it is held
        return torch.cat([by_u, by_log_std], -1)


def squash(outputs: Tensor, noise: Tensor) -> Squashed:
    """What ``outputs`` ``[..., 2 C]`` make of standard normal ``noise`` ``[..., C]``; of zeros, the median."""
    mean, log_std = _parameters(outputs)
    spread = log_std.exp() * noise
    u = mean + spread
    each = torch.addcmul(log_std, noise, noise, value=0.5).sub_(F.softplus(-2.0 * u) + u, alpha=2.0)
    return Squashed(u.tanh(), torch.rsub(each.sum(-1), -_CONSTANT * noise.shape[-1]), outputs, log_std, spread)


def squashed_log_prob(outputs: Tensor, action: Tensor) -> Tensor:
    """The log-density ``[...]`` of any ``action`` ``[..., C]`` within [-1, 1]. One at the very edge, where rounding
    takes a tanh of more than 9, is judged as the last number before it."""
    mean, log_std = _parameters(outputs)
    edge = 1.0 - 0.5 * torch.finfo(action.dtype).eps
    u = action.clamp(-edge, edge).atanh()
    z = (u - mean) * (-log_std).exp()
    return -(0.5 * z.square() + log_std - 2.0 * (u + F.softplus(-2.0 * u)) + _CONSTANT).sum(-1)


def squashed_entropy(outputs: Tensor) -> Tensor:
    """The differential entropy ``[...]``: the normal's, and the mean of log(1 - tanh(u)^2) by the trapezoidal rule. It
    is exact to 1e-4: for a function that is analytic around the axis the rule converges exponentially."""
    mean, log_std = _parameters(outputs)
    z = torch.arange(-64, 65, device=mean.device, dtype=mean.dtype) / 8.0
    density = torch.exp(-0.5 * z.square())
    u = mean.unsqueeze(-1) + log_std.exp().unsqueeze(-1) * z
    squash = (2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))) @ (density / density.sum())
    return (log_std + 0.5 * math.log(2.0 * math.pi * math.e) + squash).sum(-1)


def _parameters(outputs: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = outputs.chunk(2, -1)
    return mean, log_std.clamp(*LOG_STD)
