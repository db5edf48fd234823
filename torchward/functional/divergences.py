"""How far two distributions lie apart, and how undecided one is: exact where it can be summed, else from samples.

A categorical's forbidden actions have the logit -inf (or the dtype's lowest number, `torch.finfo(dtype).min`): they
have probability 0, add exactly 0 and receive no gradient. Every row needs one allowed action.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from torchward.functional._checks import same_shape

_LOG_2_PI_E = 2.8378770664093453  # log(2 pi) + 1


def categorical_kl(
    logits_p: Float[Tensor, "*batch actions"], logits_q: Float[Tensor, "*batch actions"]
) -> Float[Tensor, "*batch"]:
    """KL(p || q) = sum_a p(a) * (log p(a) - log q(a)), in nats; logits need not be normalised.

    Infinite where q forbids what p allows. Raises ValueError where the shapes differ. Source: Kullback and Leibler
    1951.
    """
    same_shape(logits_p=logits_p, logits_q=logits_q)
    log_p, log_q = logits_p.log_softmax(dim=-1), logits_q.log_softmax(dim=-1)
    probs = log_p.exp()
    impossible = probs == 0
    return (probs * (log_p.masked_fill(impossible, 0.0) - log_q.masked_fill(impossible, 0.0))).sum(dim=-1)


def categorical_entropy(logits: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch"]:
    """H(p) = -sum_a p(a) * log p(a), in nats; logits need not be normalised. Source: Shannon 1948."""
    log_p = logits.log_softmax(dim=-1)
    probs = log_p.exp()
    return -(probs * log_p.masked_fill(probs == 0, 0.0)).sum(dim=-1)


def gaussian_kl(
    mean_p: Float[Tensor, "*batch dim"],
    log_std_p: Float[Tensor, "*batch dim"],
    mean_q: Float[Tensor, "*batch dim"],
    log_std_q: Float[Tensor, "*batch dim"],
) -> Float[Tensor, "*batch"]:
    """KL(p || q) of Gaussians with diagonal covariance, in nats, summed over the last dimension.

        sum_i  log s_q - log s_p + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2

    Raises ValueError where the shapes differ; expand a log_std that all states share.
    """
    same_shape(mean_p=mean_p, log_std_p=log_std_p, mean_q=mean_q, log_std_q=log_std_q)
    log_ratio = log_std_p - log_std_q
    distance = (mean_p - mean_q) * (-log_std_q).exp()
    # expm1 keeps the digits where p and q nearly agree: the terms of order one cancel exactly.
    return (0.5 * (torch.expm1(2.0 * log_ratio) + distance.square()) - log_ratio).sum(dim=-1)


def gaussian_entropy(log_std: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """H = sum_i log s_i + log(2 pi e) / 2 of a Gaussian with diagonal covariance, in nats (not of its tanh)."""
    return log_std.sum(dim=-1) + 0.5 * _LOG_2_PI_E * log_std.shape[-1]


def k1(log_prob: Float[Tensor, "*batch"], reference_log_prob: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """log pi(x) - log ref(x), x drawn from pi: unbiased for KL(pi || ref), noisy, negative at times.

    For the reward, not for the loss: the expectation of its gradient is 0, whatever the reference. Off policy each of
    the three needs the importance weight pi(x) / mu(x). Raises ValueError where the shapes differ. Source: Schulman,
    "Approximating KL divergence" (2020).
    """
    same_shape(log_prob=log_prob, reference_log_prob=reference_log_prob)
    return log_prob - reference_log_prob


def k2(log_prob: Float[Tensor, "*batch"], reference_log_prob: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(log pi(x) - log ref(x))^2 / 2, x drawn from pi: biased in value, but as a loss its gradient is KL(pi || ref)'s.

    Raises ValueError where the shapes differ. Source: Schulman, "Approximating KL divergence" (2020).
    """
    same_shape(log_prob=log_prob, reference_log_prob=reference_log_prob)
    return 0.5 * (log_prob - reference_log_prob).square()


def k3(log_prob: Float[Tensor, "*batch"], reference_log_prob: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """r - 1 - log r with r = ref(x) / pi(x), x drawn from pi: unbiased for KL(pi || ref), never negative, less noisy.

    As a loss its gradient is that of the other direction, KL(ref || pi). Raises ValueError where the shapes differ.
    Source: Schulman, "Approximating KL divergence" (2020); the penalty of GRPO (Shao et al. 2024, equation 4).
    """
    same_shape(log_prob=log_prob, reference_log_prob=reference_log_prob)
    log_ratio = reference_log_prob - log_prob
    return torch.expm1(log_ratio) - log_ratio
