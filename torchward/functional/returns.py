"""What a step turned out to be worth: discounted, n-step and lambda returns, V-trace and Retrace.

All share one picture. A step's one-step target bootstraps `next_value`, the value of the observation that truly came
next, unless the step `terminated`. Longer returns replace that bootstrap with the return of the next row, as long as
the next row is this step's future: not after `terminated`, not at a `boundary`, not in the last column.
Gradients flow through every argument that asks for them; targets are usually computed under `torch.no_grad()`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchward.functional._checks import batch_time, in_unit_interval, positive


def reverse_scan(x: Float[Tensor, "batch time"], decay: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    """The linear recursion behind every return, from the last column to the first.

        y_t = x_t + decay_t * y_{t+1},   y_T = 0

    Computed by doubling: after k rounds y_t holds the first 2^k terms of its sum, and the product of their decays is
    at hand to append the next 2^k. That is log2(T) rounds of whole-tensor operations in place of T, and it is
    differentiable. Decays up to 1 are safe in float32 (a relative error near 1e-5 at a decay of 0.999 over 5,000
    steps). `x` must be finite: 0 * NaN is NaN.

    Raises ValueError where the shapes differ. Source: Hillis and Steele, "Data parallel algorithms" (1986).
    """
    batch_time(x=x, decay=decay)
    y, shift, time = x, 1, x.shape[1]
    while shift < time:
        kept = time - shift
        later = torch.addcmul(y[:, :kept], decay[:, :kept], y[:, shift:])
        y = torch.cat((later, y[:, kept:]), dim=1)
        needed = max(kept - shift, 0)  # columns of the next round
        decay = decay[:, :needed] * decay[:, shift : shift + needed]
        shift *= 2
    return y if y is not x else x.clone()


def bootstrap(
    next_value: Float[Tensor, "batch time"], terminated: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """`next_value`, but exactly 0 after a termination, whatever stands there (NaN and infinity included)."""
    return next_value.masked_fill(terminated, 0.0)


def trace_continues(
    terminated: Bool[Tensor, "batch time"], boundary: Bool[Tensor, "batch time"]
) -> Bool[Tensor, "batch time"]:
    """True where the next row is this step's future; False in the last column, which has no next row."""
    continues = torch.logical_or(terminated, boundary).logical_not_()
    continues[:, -1] = False
    return continues


def discounted_returns(
    reward: Float[Tensor, "batch time"],
    next_value: Float[Tensor, "batch time"],
    terminated: Bool[Tensor, "batch time"],
    boundary: Bool[Tensor, "batch time"],
    gamma: float,
) -> Float[Tensor, "batch time"]:
    """The discounted sum of rewards to the end of the episode, bootstrapped where the data end before it does.

        G_t = r_t + gamma * G_{t+1},   or r_t + gamma * next_value_t at a boundary, or r_t at a termination

    `next_value` is read only at boundaries and in the last column. Raises ValueError where shapes differ or gamma lies
    outside [0, 1]. Source: Sutton and Barto, 2nd edition, equations 3.8 and 3.9.
    """
    in_unit_interval(gamma=gamma)
    batch_time(reward=reward, next_value=next_value, terminated=terminated, boundary=boundary)
    continues = trace_continues(terminated, boundary)
    beyond = next_value.masked_fill(terminated | continues, 0.0)
    return reverse_scan(torch.add(reward, beyond, alpha=gamma), continues.to(reward.dtype) * gamma)


def n_step_returns(
    reward: Float[Tensor, "batch time"],
    next_value: Float[Tensor, "batch time"],
    terminated: Bool[Tensor, "batch time"],
    boundary: Bool[Tensor, "batch time"],
    gamma: float,
    n: int,
) -> Float[Tensor, "batch time"]:
    """At most n rewards, then the value of where they led; fewer where the trace stops earlier.

        G_t = r_t + gamma r_{t+1} + ... + gamma^{m-1} r_{t+m-1} + gamma^m next_value_{t+m-1},   m <= n

    The bootstrap is 0 after a termination. Raises ValueError where n is below 1, shapes differ, or gamma lies outside
    [0, 1]. Source: Sutton and Barto, 2nd edition, equation 7.1.
    """
    in_unit_interval(gamma=gamma)
    positive(n=n)
    batch_time(reward=reward, next_value=next_value, terminated=terminated, boundary=boundary)
    one_step = torch.add(reward, bootstrap(next_value, terminated), alpha=gamma)
    continues = trace_continues(terminated, boundary)[:, :-1]
    returns = one_step
    for _ in range(min(n, reward.shape[1]) - 1):
        longer = torch.add(reward[:, :-1], returns[:, 1:], alpha=gamma)
        returns = torch.cat((torch.where(continues, longer, one_step[:, :-1]), one_step[:, -1:]), dim=1)
    return returns


def lambda_returns(
    reward: Float[Tensor, "batch time"],
    next_value: Float[Tensor, "batch time"],
    terminated: Bool[Tensor, "batch time"],
    boundary: Bool[Tensor, "batch time"],
    gamma: float,
    lambda_: float,
) -> Float[Tensor, "batch time"]:
    """The geometric mixture of all n-step returns: TD(lambda)'s target.

        G_t = r_t + gamma * ((1 - lambda) * next_value_t + lambda * G_{t+1})

    with lambda = 0 where the trace stops, and no bootstrap after a termination. lambda = 0 gives one-step targets,
    lambda = 1 the discounted return. Raises ValueError where shapes differ, or gamma or lambda_ lies outside [0, 1].
    Source: Sutton and Barto, 2nd edition, equation 12.2, in the recursive form of its exercise 12.1.
    """
    in_unit_interval(gamma=gamma, lambda_=lambda_)
    batch_time(reward=reward, next_value=next_value, terminated=terminated, boundary=boundary)
    mixing = trace_continues(terminated, boundary).to(reward.dtype) * lambda_
    one_step = bootstrap(next_value, terminated) * (1.0 - mixing)
    return reverse_scan(torch.add(reward, one_step, alpha=gamma), mixing * gamma)


class VTrace(NamedTuple):
    """`target`: what the value should become. `advantage`: the weight of the policy gradient. Both [batch, time]."""

    target: Float[Tensor, "batch time"]
    advantage: Float[Tensor, "batch time"]


def vtrace(
    log_ratio: Float[Tensor, "batch time"],
    reward: Float[Tensor, "batch time"],
    value: Float[Tensor, "batch time"],
    next_value: Float[Tensor, "batch time"],
    terminated: Bool[Tensor, "batch time"],
    boundary: Bool[Tensor, "batch time"],
    gamma: float,
    lambda_: float = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> VTrace:
    """Off-policy value targets and advantages with truncated importance weights.

        v_t = V_t + delta_t + gamma * c_t * (v_{t+1} - V_{t+1}),   delta_t = rho_t * (r_t + gamma * V_{t+1} - V_t)
        A_t = rho_t * (r_t + gamma * ((1 - lambda) * V_{t+1} + lambda * v_{t+1}) - V_t)
        rho_t = min(rho_bar, ratio_t),   c_t = lambda * min(c_bar, ratio_t)

    `log_ratio` is log pi(a|s) - log mu(a|s), of the policy learnt over the policy that acted. On policy (log_ratio 0)
    the target is the lambda return and the advantage is GAE's. Where the trace stops, v_{t+1} is `next_value` (0 after
    a termination); elsewhere `next_value[t]` should be `value[t+1]`. Raises ValueError where shapes differ, gamma or
    lambda_ lies outside [0, 1], or a bar is not above 0. Source: Espeholt et al. 2018 (IMPALA), equation 1, remarks 1
    and 2, and section 4.2; the advantage's lambda as in rlax.
    """
    in_unit_interval(gamma=gamma, lambda_=lambda_)
    positive(rho_bar=rho_bar, c_bar=c_bar)
    batch_time(
        log_ratio=log_ratio,
        reward=reward,
        value=value,
        next_value=next_value,
        terminated=terminated,
        boundary=boundary,
    )
    ratio = log_ratio.exp()
    rho = ratio.clamp(max=rho_bar)
    future = bootstrap(next_value, terminated)
    continues = trace_continues(terminated, boundary)
    delta = rho * (torch.add(reward, future, alpha=gamma) - value)
    correction = reverse_scan(delta, ratio.clamp(max=c_bar) * continues * (gamma * lambda_))
    target = value + correction
    next_target = torch.cat((target[:, 1:], target[:, -1:]), dim=1)
    mixed = torch.where(continues, torch.lerp(future, next_target, lambda_), future)
    return VTrace(target, rho * (torch.add(reward, mixed, alpha=gamma) - value))


def retrace(
    log_ratio: Float[Tensor, "batch time"],
    reward: Float[Tensor, "batch time"],
    q_value: Float[Tensor, "batch time"],
    next_value: Float[Tensor, "batch time"],
    terminated: Bool[Tensor, "batch time"],
    boundary: Bool[Tensor, "batch time"],
    gamma: float,
    lambda_: float = 1.0,
) -> Float[Tensor, "batch time"]:
    """The Retrace(lambda) target for Q(s_t, a_t): safe for any behaviour, and efficient near the policy.

        target_t = Q_t + delta_t + gamma * c_{t+1} * (target_{t+1} - Q_{t+1})
        delta_t = r_t + gamma * next_value_t - Q_t,   c_t = lambda * min(1, ratio_t)

    `q_value` is Q(s_t, a_t) of the action taken, `next_value` is the expectation of Q(s_{t+1}, .) under the policy
    learnt, and `log_ratio` is log pi(a|s) - log mu(a|s). The first action of a trace needs no weight, for it is given.
    Raises ValueError where shapes differ, or gamma or lambda_ lies outside [0, 1]. Source: Munos et al. 2016,
    equation 3.
    """
    in_unit_interval(gamma=gamma, lambda_=lambda_)
    batch_time(
        log_ratio=log_ratio,
        reward=reward,
        q_value=q_value,
        next_value=next_value,
        terminated=terminated,
        boundary=boundary,
    )
    delta = torch.add(reward, bootstrap(next_value, terminated), alpha=gamma) - q_value
    trace = log_ratio.clamp(max=0.0).exp() * (gamma * lambda_)
    next_trace = torch.cat((trace[:, 1:], trace[:, -1:]), dim=1)
    return q_value + reverse_scan(delta, next_trace * trace_continues(terminated, boundary))
