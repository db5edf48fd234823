"""Losses that move a value towards its target, and the targets and choices that are made of action values.

Losses are per element; `reduction` takes the mean. Targets and old values are held fixed: no gradient flows into them.
A value may be a number, or the whole distribution of the return: probabilities of fixed atoms, or quantiles.
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


def n_step_target(
    reward: Float[Tensor, "*batch"], discount: Float[Tensor, "*batch"], next_value: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """The target of n steps, R + discount * next_value, from what was summed up beforehand.

        R = r_t + gamma r_{t+1} + ... + gamma^{k-1} r_{t+k-1},   discount = gamma^k, or 0 after a termination

    Where the discount is 0, next_value is not looked at, be it infinite. Raises ValueError where the shapes differ.
    Source: Sutton and Barto, 2nd edition, equation 7.1.
    """
    same_shape(reward=reward, discount=discount, next_value=next_value)
    return torch.addcmul(reward, discount, next_value.masked_fill(discount == 0, 0.0))


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


def categorical_value(
    logits: Float[Tensor, "*batch atoms"], support: Float[Tensor, " atoms"]
) -> Float[Tensor, "*batch"]:
    """The mean of a distribution over fixed atoms: sum_i softmax(logits)_i z_i (Bellemare et al. 2017, section 4.1)."""
    return logits.softmax(dim=-1) @ support


def project_categorical(
    probs: Float[Tensor, "*batch atoms"], atoms: Float[Tensor, "*batch atoms"], support: Float[Tensor, " support"]
) -> Float[Tensor, "*batch support"]:
    """A distribution over any atoms, carried over to those of `support`, which are equally spaced.

        m_i = sum_j p_j max(0, 1 - |clip(y_j, z_1, z_n) - z_i| / (z_2 - z_1))

    Each atom gives its mass to the two neighbours that it lies between, the nearer one getting more. So the mass stays
    1, and the mean stays what it is wherever no atom lies outside of the support. Raises ValueError where the shapes
    differ or the support has less than two atoms. Source: Bellemare, Dabney and Munos 2017 (C51), equation 7.
    """
    same_shape(probs=probs, atoms=atoms)
    last = support.shape[0] - 1
    if last < 1:
        raise ValueError(f"Expected a support of at least two atoms, got {last + 1}.")
    low, high = support[0], support[-1]
    place = ((atoms - low) * (last / (high - low))).clamp(0.0, float(last))
    lower = place.floor().clamp(max=last - 1)
    share = place - lower
    index = lower.long()
    projected = probs.new_zeros(*probs.shape[:-1], last + 1)
    projected.scatter_add_(-1, index, probs * (1.0 - share))
    return projected.scatter_add_(-1, index + 1, probs * share)


def categorical_cross_entropy(
    logits: Float[Tensor, "*batch atoms"], target: Float[Tensor, "*batch atoms"]
) -> Float[Tensor, "*batch"]:
    """-sum_i m_i log softmax(logits)_i: the KL divergence from the target m, but for m's entropy, which is constant.

    Raises ValueError where the shapes differ. Source: Bellemare, Dabney and Munos 2017 (C51), algorithm 1.
    """
    same_shape(logits=logits, target=target)
    return -(target.detach() * logits.log_softmax(dim=-1)).sum(dim=-1)


def quantile_huber_loss(
    quantiles: Float[Tensor, "*batch quantiles"], target: Float[Tensor, "*batch samples"], kappa: float = 1.0
) -> Float[Tensor, "*batch"]:
    """The loss whose minimum has `quantiles` at the levels tau_i = (2i - 1) / 2N of the distribution of `target`.

        sum_i mean_j |tau_i - 1{u_ij < 0}| L(u_ij) / kappa,   u_ij = y_j - theta_i,   L Huber's loss with delta = kappa

    With kappa = 0 it is the plain quantile loss, |tau_i - 1{u_ij < 0}| |u_ij|. Raises ValueError where the leading
    axes differ or kappa is below 0. Source: Dabney et al. 2018 (QR-DQN), equations 9 and 10 and algorithm 1 (the
    division by kappa, of which the paper's kappa = 1 says nothing, makes the limit kappa -> 0 the plain loss).
    """
    same_shape(quantiles=quantiles[..., 0], target=target[..., 0])
    if not kappa >= 0:
        raise ValueError(f"kappa must be at least 0, got {kappa}.")
    n = quantiles.shape[-1]
    tau = (torch.arange(n, dtype=quantiles.dtype, device=quantiles.device).unsqueeze(-1) + 0.5) / n
    error = target.detach().unsqueeze(-2) - quantiles.unsqueeze(-1)
    size = error.abs()
    if kappa > 0:
        size = torch.where(size <= kappa, size.square() * (0.5 / kappa), size - 0.5 * kappa)
    weight = (tau - (error.detach() < 0).to(tau)).abs()
    return (weight * size).mean(dim=-1).sum(dim=-1)


# Soft values: a policy's return plus its entropy


def pessimistic_value(q: Float[Tensor, "critics *batch"]) -> Float[Tensor, "*batch"]:
    """min_i Q_i: the lowest of several critics, so that their noise is not taken for worth (clipped double Q).

    The gradient flows into the lowest alone, in equal parts where several are. Source: Fujimoto et al. 2018 (TD3),
    equation 10.
    """
    return q.amin(dim=0)


def soft_maximum(q: Float[Tensor, "*batch actions"], temperature: float) -> Float[Tensor, "*batch"]:
    """The soft value of the best policy there is, max_pi sum_a pi(a) Q(s, a) + temperature * H(pi).

        temperature * log sum_a exp(Q(s, a) / temperature)

    It lies between max_a Q and that plus temperature * log(actions); its gradient is the policy that attains it,
    `boltzmann_probs`. An action with a Q of -inf is forbidden. Raises ValueError where temperature is not above 0.
    Source: Haarnoja et al. 2017 (Reinforcement Learning with Deep Energy-Based Policies), equation 5.
    """
    positive(temperature=temperature)
    best = q.amax(dim=-1, keepdim=True)  # taken out first, so that nothing overflows, however low the temperature
    return best.squeeze(-1) + temperature * torch.logsumexp((q - best) / temperature, dim=-1)


def soft_value(
    q: Float[Tensor, "*batch"], log_prob: Float[Tensor, "*batch"], ent_coef: float | Float[Tensor, ""]
) -> Float[Tensor, "*batch"]:
    """A sample of a policy's soft value, of an action a that was drawn from it: Q(s, a) - ent_coef * log pi(a|s).

    No gradient flows into ent_coef. Raises ValueError where the shapes differ. Source: Haarnoja et al. 2018b (Soft
    Actor-Critic Algorithms and Applications), equation 3.
    """
    same_shape(q=q, log_prob=log_prob)
    return q - _held(ent_coef) * log_prob


def soft_value_discrete(
    q: Float[Tensor, "*batch actions"], log_probs: Float[Tensor, "*batch actions"], ent_coef: float | Float[Tensor, ""]
) -> Float[Tensor, "*batch"]:
    """A policy's soft value exactly: sum_a pi(a|s) (Q(s, a) - ent_coef * log pi(a|s)).

    An action of probability 0 adds exactly 0 and has no gradient, whatever its Q. No gradient flows into ent_coef.
    Raises ValueError where the shapes differ. Source: Christodoulou 2019 (Soft Actor-Critic for Discrete Action
    Settings), equation 10.
    """
    same_shape(q=q, log_probs=log_probs)
    probs = log_probs.exp()
    return (probs * (q - _held(ent_coef) * log_probs).masked_fill(probs == 0, 0.0)).sum(dim=-1)


def _held(coefficient: float | Tensor) -> float | Tensor:
    return coefficient.detach() if isinstance(coefficient, Tensor) else coefficient
