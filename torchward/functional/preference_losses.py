"""Losses of preferences: reward models, and policies that learn from pairs of answers or from answers judged alone.

All are unreduced: one number for each pair or answer. Log-probabilities are sums over an answer's own tokens where a
name says ``log_ratio`` or ``log_prob``, and means over them where it says ``mean_log_prob``.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

Each = Float[Tensor, " *pairs"]


def bradley_terry(chosen: Each, rejected: Each, margin: Each | None = None) -> Each:
    """``-log sigmoid(r(chosen) - r(rejected) - margin)``: the preference's negative log-likelihood where answers win by
    the logistic of their rewards' difference (Bradley and Terry 1952; Ouyang et al. 2022, equation 1; the margin is
    that of Touvron et al. 2023, equation 2)."""
    difference = chosen - rejected
    return -F.logsigmoid(difference if margin is None else difference - margin)


def centring(chosen: Each, rejected: Each) -> Each:
    """``(r(chosen) + r(rejected))^2``: pairs say nothing of what rewards are about, and this holds them about 0
    (Eisenstein et al. 2023, equation 2)."""
    return (chosen + rejected).square()


def dpo(chosen_log_ratio: Each, rejected_log_ratio: Each, beta: float, label_smoothing: float = 0.0) -> Each:
    """``-log sigmoid(beta (log pi/ref of chosen - log pi/ref of rejected))`` (Rafailov et al. 2023, equation 7).

    ``label_smoothing`` is the probability that a label is the wrong way round: the loss is then that of conservative
    DPO (Mitchell 2023), ``-(1 - e) log sigmoid(x) - e log sigmoid(-x)``, whose minimum is at a finite ``x``."""
    logit = beta * (chosen_log_ratio - rejected_log_ratio)
    if label_smoothing == 0.0:
        return -F.logsigmoid(logit)
    return -(1.0 - label_smoothing) * F.logsigmoid(logit) - label_smoothing * F.logsigmoid(-logit)


def ipo(chosen_log_ratio: Each, rejected_log_ratio: Each, beta: float) -> Each:
    """``(log pi/ref of chosen - log pi/ref of rejected - 1 / (2 beta))^2`` (Azar et al. 2024, equation 17)."""
    return (chosen_log_ratio - rejected_log_ratio - 1.0 / (2.0 * beta)).square()


def odds_ratio(chosen_mean_log_prob: Each, rejected_mean_log_prob: Each) -> Each:
    """``-log sigmoid(log odds(chosen) - log odds(rejected))``, where ``odds(p) = p / (1 - p)`` of an answer's geometric
    mean probability (Hong et al. 2024, equations 4 to 7)."""

    def log_odds(x: Tensor) -> Tensor:
        # log(1 - e^x), without loss near 0; an answer that is certain has a large number in place of infinite odds.
        return x - torch.log(-torch.expm1(x.clamp_max(-1e-6)))

    return -F.logsigmoid(log_odds(chosen_mean_log_prob) - log_odds(rejected_mean_log_prob))


def simpo(chosen_mean_log_prob: Each, rejected_mean_log_prob: Each, beta: float, gamma: float) -> Each:
    """``-log sigmoid(beta (mean log pi(chosen) - mean log pi(rejected)) - gamma)``, without a reference (Meng et al.
    2024, equation 6)."""
    return -F.logsigmoid(beta * (chosen_mean_log_prob - rejected_mean_log_prob) - gamma)


def kto(
    log_ratio: Each,
    desirable: Bool[Tensor, " *pairs"],
    reference_point: Float[Tensor, ""],
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Each:
    """``w (1 - sigmoid(beta (log pi/ref - z)))`` for a desirable answer, ``w (1 - sigmoid(beta (z - log pi/ref)))`` for
    another (Ethayarajh et al. 2024, equation 8). ``z``, the reference point, is not differentiated."""
    gain = beta * (log_ratio - reference_point.detach())
    return torch.where(desirable, desirable_weight * torch.sigmoid(-gain), undesirable_weight * torch.sigmoid(gain))
