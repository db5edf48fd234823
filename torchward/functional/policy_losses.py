"""Losses that move a policy towards what paid: REINFORCE, the clipped surrogate, the entropy bonus; and up its critic:
the soft and the deterministic policy loss.

Each gives one loss per element; `reduction` takes the mean. Advantages and old log-probabilities are weights: no
gradient flows into them.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchward.functional._checks import same_shape
from torchward.functional.value_losses import soft_value, soft_value_discrete

_LIMIT = 20.0  # e^20 = 5e8: a larger ratio is a fault elsewhere, and must not become an infinity here


def reinforce(log_prob: Float[Tensor, "*batch"], advantage: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The score-function loss, whose gradient is that of minus the expected return.

        loss = -log pi(a|s) * A

    `advantage` may be a return, a return less a baseline, or GAE. Raises ValueError where the shapes differ. Source:
    Williams 1992; Sutton and Barto, 2nd edition, section 13.3.
    """
    same_shape(log_prob=log_prob, advantage=advantage)
    return -(log_prob * advantage.detach())


class Surrogate(NamedTuple):
    """`loss` and `log_ratio` per element, and `clipped`: True where a clip is active, so that the gradient is 0."""

    loss: Float[Tensor, "*batch"]
    log_ratio: Float[Tensor, "*batch"]
    clipped: Bool[Tensor, "*batch"]


def clipped_surrogate(
    log_prob: Float[Tensor, "*batch"],
    old_log_prob: Float[Tensor, "*batch"],
    advantage: Float[Tensor, "*batch"],
    clip_low: float | Float[Tensor, ""],
    clip_high: float | Float[Tensor, ""],
    dual_clip: float | None = None,
) -> Surrogate:
    """PPO's pessimistic surrogate: no reward for moving the ratio further than the clip, in the direction that pays.

        loss = -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A),   ratio = pi(a|s) / pi_old(a|s)

    clip_high above clip_low leaves unlikely actions more room to grow ("clip-higher"). With `dual_clip` = c the loss of
    a negative advantage is at most -c * A, so that a large ratio cannot blow up the update. At ratio 1 the gradient is
    REINFORCE's. The log-ratio is held within +-20, so that nothing overflows.

    Raises ValueError where shapes differ, clip_low lies outside [0, 1], clip_high is negative, or dual_clip is not
    above 1 (clips given as tensors are not read). Source: Schulman et al. 2017, equation 7; Yu et al. 2025 (DAPO),
    section 3.1; Ye et al. 2020, equation 5.
    """
    same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    if not isinstance(clip_low, Tensor) and not 0.0 <= clip_low <= 1.0:
        raise ValueError(f"clip_low must lie in [0, 1], got {clip_low}.")
    if not isinstance(clip_high, Tensor) and not clip_high >= 0.0:
        raise ValueError(f"clip_high must not be negative, got {clip_high}.")
    if dual_clip is not None and not dual_clip > 1.0:
        raise ValueError(f"dual_clip must be above 1, got {dual_clip}; None turns it off.")
    cost = -advantage.detach()
    log_ratio = log_prob - old_log_prob.detach()
    # The minimum leaves each sign of A one bound: a good action's ratio is held from above, a bad one's from below (and
    # by the second clip from above). So one clamp of the logarithm does it, where each operation costs like a layer.
    bad = cost > 0
    good = ~bad
    lowest = torch.empty_like(cost).masked_fill_(good, -_LIMIT).masked_fill_(bad, _log(1.0 - clip_low))
    highest = torch.empty_like(cost).masked_fill_(good, _log(1.0 + clip_high))
    highest.masked_fill_(bad, _LIMIT if dual_clip is None else _log(dual_clip))
    bound = log_ratio.detach().clamp(lowest, highest)
    clipped = bound != log_ratio.detach()
    return Surrogate(cost * torch.where(clipped, bound, log_ratio).exp(), log_ratio, clipped)


def _log(bound: float | Tensor) -> float | Tensor:
    """The logarithm of a bound on the ratio, within the limit."""
    if isinstance(bound, Tensor):
        return bound.double().log().clamp(-_LIMIT, _LIMIT)  # as exact as that of a number
    return min(math.log(bound), _LIMIT) if bound > math.exp(-_LIMIT) else -_LIMIT


def entropy_loss(entropy: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Minus the entropy, so that a positive coefficient keeps the policy exploring. Source: Mnih et al. 2016 (A3C)."""
    return -entropy


def soft_policy_loss(
    log_prob: Float[Tensor, "*batch"], q: Float[Tensor, "*batch"], ent_coef: float | Float[Tensor, ""]
) -> Float[Tensor, "*batch"]:
    """SAC's policy loss, of an action a drawn from pi so that a gradient flows through it (reparameterised):

        loss = ent_coef * log pi(a|s) - Q(s, a)

    Its gradient is that of temperature * KL(pi || softmax(Q / ent_coef)), the KL step of soft policy iteration. No
    gradient flows into ent_coef. Raises ValueError where the shapes differ. Source: Haarnoja et al. 2018b (Soft
    Actor-Critic Algorithms and Applications), equation 7.
    """
    return -soft_value(q, log_prob, ent_coef)


def soft_policy_loss_discrete(
    log_probs: Float[Tensor, "*batch actions"], q: Float[Tensor, "*batch actions"], ent_coef: float | Float[Tensor, ""]
) -> Float[Tensor, "*batch"]:
    """SAC's policy loss with its expectation over the actions taken exactly, not from a sample:

        loss = sum_a pi(a|s) * (ent_coef * log pi(a|s) - Q(s, a))

    An action of probability 0 adds exactly 0 and has no gradient, whatever its Q. Raises ValueError where the shapes
    differ. Source: Christodoulou 2019 (Soft Actor-Critic for Discrete Action Settings), equation 12.
    """
    return -soft_value_discrete(q, log_probs, ent_coef)


def temperature_loss(
    log_ent_coef: Float[Tensor, ""], entropy: Float[Tensor, "*batch"], target_entropy: float | Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """The loss that moves SAC's temperature: down where the entropy is above its target, up where it is below.

        loss = log_ent_coef * (entropy - target_entropy)

    `entropy` may be a sample of it, -log pi(a|s); no gradient flows into it. The logarithm as the variable keeps the
    temperature above 0; the fixed point is that of the paper's loss in the temperature itself. Source: Haarnoja et al.
    2018b, equation 18, in the form of their published code.
    """
    return log_ent_coef * (entropy - target_entropy).detach()


def deterministic_policy_loss(q: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """-Q(s, mu(s)), of an action through which a gradient flows: the deterministic policy gradient.

    Source: Silver et al. 2014, equation 9; Lillicrap et al. 2016 (DDPG), equation 6.
    """
    return -q
