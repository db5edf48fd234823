"""Losses that move a value towards its target, and the targets and choices that are made of action values.

Losses are per element; `reduction` takes the mean. Targets and old values are held fixed: no gradient flows into them.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from torchward.functional._checks import in_unit_interval, positive, same_shape


def squared_error(value: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(value - target)^2, without the half: Stable-Baselines3's scale. Raises ValueError where the shapes differ."""
    same_shape(value=value, target=target)
    return F.mse_loss(value, target.detach(), reduction="none")


def huber_loss(
    value: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"], delta: float = 1.0
) -> Float[Tensor, "*batch"]:
    """Quadratic near the target and linear beyond `delta`, so that one outlier cannot dominate.

        e^2 / 2 where |e| <= delta,   delta * (|e| - delta / 2) elsewhere,   e = value - target

    Raises ValueError where the shapes differ or delta is not above 0. Source: Huber 1964; Mnih et al. 2015 (DQN), with
    delta = 1, clip the error's derivative to the same effect.
    """
    positive(delta=delta)
    same_shape(value=value, target=target)
    return F.huber_loss(value, target.detach(), reduction="none", delta=delta)


def clipped_squared_error(
    value: Float[Tensor, "*batch"],
    old_value: Float[Tensor, "*batch"],
    target: Float[Tensor, "*batch"],
    clip_range: float | Float[Tensor, ""],
) -> Float[Tensor, "*batch"]:
    """PPO's clipped value loss: the worse of the plain error and that of a value that stays near the old one.

        max((v - target)^2, (old + clip(v - old, -clip_range, clip_range) - target)^2)

    Raises ValueError where shapes differ or clip_range is not above 0 (a tensor is not read). Source: OpenAI Baselines'
    PPO2; Andrychowicz et al. 2021, appendix B.2.
    """
    if not isinstance(clip_range, Tensor):
        positive(clip_range=clip_range)
    same_shape(value=value, old_value=old_value, target=target)
    old_value, target = old_value.detach(), target.detach()
    near = old_value + (value - old_value).clamp(min=-clip_range).clamp(max=clip_range)
    return torch.maximum((value - target).square(), (near - target).square())


def td_target(
    reward: Float[Tensor, "*batch"],
    terminated: Bool[Tensor, "*batch"],
    next_value: Float[Tensor, "*batch"],
    gamma: float,
) -> Float[Tensor, "*batch"]:
    """The one-step target r + gamma * next_value, or r alone after a termination (a time limit is none).

    Raises ValueError where shapes differ or gamma lies outside [0, 1]. Source: Sutton and Barto, 2nd edition, equation
    6.2.
    """
    in_unit_interval(gamma=gamma)
    same_shape(reward=reward, terminated=terminated, next_value=next_value)
    return torch.add(reward, next_value.masked_fill(terminated, 0.0), alpha=gamma)


def greedy_value(q: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch"]:
    """max_a Q(s, a): the value under the greedy policy (Q-learning; Watkins 1989)."""
    return q.amax(dim=-1)


def expected_value(
    q: Float[Tensor, "*batch actions"], probs: Float[Tensor, "*batch actions"]
) -> Float[Tensor, "*batch"]:
    """sum_a pi(a|s) Q(s, a): the value under a policy (expected Sarsa; Sutton and Barto, 2nd edition, equation 6.9).

    An action of probability 0 adds exactly 0, even where its Q is -inf. Raises ValueError where the shapes differ.
    """
    same_shape(q=q, probs=probs)
    return (probs * q.masked_fill(probs == 0, 0.0)).sum(dim=-1)


def double_q_value(
    q_select: Float[Tensor, "*batch actions"], q_evaluate: Float[Tensor, "*batch actions"]
) -> Float[Tensor, "*batch"]:
    """Q_evaluate(s, argmax_a Q_select(s, a)): one network chooses and another judges, so that noise is not maximised.

    Raises ValueError where the shapes differ. Source: van Hasselt, Guez and Silver 2016, equation 4.
    """
    same_shape(q_select=q_select, q_evaluate=q_evaluate)
    return q_evaluate.gather(-1, q_select.argmax(dim=-1, keepdim=True)).squeeze(-1)


def epsilon_greedy_probs(q: Float[Tensor, "*batch actions"], epsilon: float) -> Float[Tensor, "*batch actions"]:
    """The epsilon-greedy policy: epsilon shared by all actions, the rest by the best ones, equally where they tie.

    Actions whose Q is -inf (or the dtype's lowest number) are forbidden and have probability 0. Raises ValueError where
    epsilon lies outside [0, 1]. Source: Sutton and Barto, 2nd edition, sections 2.2 and 5.4.
    """
    in_unit_interval(epsilon=epsilon)
    allowed = (q > torch.finfo(q.dtype).min).to(q.dtype)
    best = (q == q.amax(dim=-1, keepdim=True)).to(q.dtype)
    share, greedy = (x / x.sum(dim=-1, keepdim=True) for x in (allowed, best))
    return torch.lerp(greedy, share, epsilon)


def boltzmann_probs(q: Float[Tensor, "*batch actions"], temperature: float) -> Float[Tensor, "*batch actions"]:
    """softmax(Q / temperature): greedy as the temperature falls to 0, uniform as it grows.

    Raises ValueError where temperature is not above 0. Source: Sutton and Barto, 2nd edition, equation 13.2.
    """
    positive(temperature=temperature)
    return torch.softmax(q / temperature, dim=-1)
