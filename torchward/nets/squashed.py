"""The tanh-Gaussian: a normal distribution with a mean and a deviation for each state, squashed into (-1, 1).

Its parameters are ``outputs`` ``[..., 2 C]`` of a network: means, then logarithms of deviations, held in [-20, 2]. A
sample is a function of them and of noise, so a gradient flows through it (Haarnoja et al. 2018b, appendix C):

    u = mean + std * noise,   a = tanh(u),   log pi(a) = log N(u; mean, std) - sum_i log(1 - tanh(u_i)^2)

The last logarithm is 2 (log 2 - u - softplus(-2u)), which is as exact where tanh has become 1 as where it is 0.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LOG_STD = (-20.0, 2.0)
"""Between which the logarithm of a deviation is held, as in Stable-Baselines3."""
_CONSTANT = 0.5 * math.log(2.0 * math.pi) + 2.0 * math.log(2.0)


def squashed_sample(outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The action ``[..., C]`` that ``outputs`` ``[..., 2 C]`` make of standard normal ``noise`` ``[..., C]`` (of zeros:
    the median), and its log-probability ``[...]``. Both have a gradient by ``outputs``, and none by the noise."""
    sample: tuple[Tensor, Tensor] = _Sample.apply(outputs, noise)  # type: ignore[no-untyped-call]
    return sample


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


class _Sample(torch.autograd.Function):
    """:func:`squashed_sample`. Autograd's own gradient has three times the operations, on a few numbers each."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = _parameters(outputs)
        spread = log_std.exp() * noise
        u = mean + spread
        action = u.tanh()
        each = torch.addcmul(log_std, noise, noise, value=0.5).sub_(F.softplus(-2.0 * u).add_(u), alpha=2.0)
        ctx.save_for_backward(outputs, log_std, spread, action)
        return action, torch.rsub(each.sum(-1), -_CONSTANT * noise.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_action: Tensor, by_log_prob: Tensor) -> tuple[Tensor, None]:
        outputs, log_std, spread, action = ctx.saved_tensors
        by_log_prob = by_log_prob.unsqueeze(-1)
        # da/du = 1 - a^2, and d log pi/du = 2 a: what the normal's exponent gives cancels, for the noise stays.
        by_u = torch.addcmul(by_action, action, 2.0 * by_log_prob - by_action * action)
        by_log_std = torch.addcmul(-by_log_prob, by_u, spread)
        by_log_std = by_log_std * (outputs[..., action.shape[-1] :] == log_std)  # none where it is held
        return torch.cat([by_u, by_log_std], -1), None
