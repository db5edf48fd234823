"""How far a student's distribution lies from its teacher's: forward and reverse KL, and what lies between them.

With the teacher p and the student q, one family holds all three, by Agarwal et al. 2023 (GKD), section 3:

    D_beta = beta KL(p || m) + (1 - beta) KL(q || m),   m = beta p + (1 - beta) q,   0 < beta < 1

    lim_{beta -> 0} D_beta / beta = KL(p || q), the forward KL: the student covers the teacher
    lim_{beta -> 1} D_beta / (1 - beta) = KL(q || p), the reverse KL: the student keeps to the teacher's

``beta`` of 0 and of 1 stand for these two limits, as in TRL; unscaled, D_beta itself would be 0 there.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from torchward.functional._checks import in_unit_interval, same_shape


def divergence(
    log_p: Float[Tensor, "*batch actions"], log_q: Float[Tensor, "*batch actions"], beta: float
) -> Float[Tensor, "*batch"]:
    """D_beta of the teacher ``log_p`` and the student ``log_q``, in nats; both are log-probabilities, normalised.

    All of them have to be finite, as those of a softmax of finite logits are. Between 0 and the entropy of beta for
    0 < beta < 1. Raises ValueError where the shapes differ or ``beta`` lies outside [0, 1].
    """
    in_unit_interval(beta=beta)
    same_shape(log_p=log_p, log_q=log_q)
    if beta == 0.0:
        return (log_p.exp() * (log_p - log_q)).sum(-1)
    if beta == 1.0:
        return (log_q.exp() * (log_q - log_p)).sum(-1)
    log_m = mixture(log_p, log_q, beta)
    of_teacher = (log_p.exp() * (log_p - log_m)).sum(-1)
    of_student = (log_q.exp() * (log_q - log_m)).sum(-1)
    return beta * of_teacher + (1.0 - beta) * of_student


def divergence_gradient(
    log_p: Float[Tensor, "*batch actions"], log_q: Float[Tensor, "*batch actions"], beta: float
) -> Float[Tensor, "*batch actions"]:
    """The gradient of :func:`divergence` by the logits that ``log_q`` is the log-softmax of.

        beta = 0:  q_j - p_j,      else  c q_j (l_j - sum_k q_k l_k),   l = log q - log m,   c = 1 - beta

    with m = p and c = 1 for beta = 1: of D_beta, the parts that come through m cancel. Exactly 0 where the two are
    equal. Raises as :func:`divergence`.
    """
    in_unit_interval(beta=beta)
    same_shape(log_p=log_p, log_q=log_q)
    probs = log_q.exp()
    if beta == 0.0:
        return probs - log_p.exp()
    log_m, scale = (log_p, 1.0) if beta == 1.0 else (mixture(log_p, log_q, beta), 1.0 - beta)
    surplus = log_q - log_m
    return (surplus - (probs * surplus).sum(-1, keepdim=True)).mul_(probs).mul_(scale)


def mixture(
    log_p: Float[Tensor, "*batch actions"], log_q: Float[Tensor, "*batch actions"], beta: float
) -> Float[Tensor, "*batch actions"]:
    """log(beta p + (1 - beta) q) for 0 < beta < 1; where the two are equal, they themselves to the last bit."""
    # Around q: log(1 + beta (p / q - 1)) is exactly 0 for p = q. Where p is far larger, around p.
    rise = log_p - log_q
    near = torch.log1p(beta * torch.expm1(rise.clamp_max(0.0)))
    far = torch.log1p((1.0 - beta) * torch.expm1(-rise.clamp_min(0.0)))
    return torch.where(rise > 0.0, log_p + far, log_q + near)
