"""How much better an action was than expected: GAE, group baselines, leave-one-out, and standardising."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torchward.functional._checks import batch_time, in_unit_interval, positive, same_shape
from torchward.functional.returns import bootstrap, reverse_scan, trace_continues


def gae(
    reward: Float[Tensor, "batch time"],
    value: Float[Tensor, "batch time"],
    next_value: Float[Tensor, "batch time"],
    terminated: Bool[Tensor, "batch time"],
    boundary: Bool[Tensor, "batch time"],
    gamma: float,
    gae_lambda: float,
) -> Float[Tensor, "batch time"]:
    """Generalised advantage estimation: the discounted sum of temporal-difference errors.

        A_t = delta_t + gamma * lambda * A_{t+1},   delta_t = r_t + gamma * next_value_t - value_t

    No bootstrap after a termination; no A_{t+1} after a termination, at a boundary, or in the last column. lambda = 0
    gives the TD error, lambda = 1 the return minus the value. Raises ValueError where shapes differ, or gamma or
    gae_lambda lies outside [0, 1]. Source: Schulman et al. 2016, equations 11 to 16.
    """
    in_unit_interval(gamma=gamma, gae_lambda=gae_lambda)
    batch_time(reward=reward, value=value, next_value=next_value, terminated=terminated, boundary=boundary)
    delta = torch.add(reward, bootstrap(next_value, terminated), alpha=gamma) - value
    return reverse_scan(delta, trace_continues(terminated, boundary).to(delta.dtype) * (gamma * gae_lambda))


def group_relative(
    reward: Float[Tensor, " batch"], group: Int[Tensor, " batch"], scale: bool = True, epsilon: float = 1e-4
) -> Float[Tensor, " batch"]:
    """A completion's reward against the mean of its group, in the group's standard deviations.

        A_i = (r_i - mean(group)) / (std(group) + epsilon),   or the numerator alone with scale=False

    `group[i]` names the group of i; order and group sizes are free. The deviation has the divisor n - 1, as in TRL. A
    group whose rewards are all equal, or of one, gives exactly 0. Raises ValueError for an empty batch, differing
    shapes, or epsilon not above 0. Memory is batch^2. Source: Shao et al. 2024 (GRPO), section 4.1; scale=False: Liu et
    al. 2025 (Dr. GRPO).
    """
    positive(epsilon=epsilon)
    centred, same, count = _centred_by_group(reward, group)
    if not scale:
        return centred
    variance = _sum_by_group(centred.square(), same) / (count - 1).clamp(min=1)
    return centred / (variance.sqrt() + epsilon)


def leave_one_out(reward: Float[Tensor, " batch"], group: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """A completion's reward against the mean of the others in its group: a baseline that does not bias the gradient.

        A_i = r_i - mean_{j != i}(r_j) = n / (n - 1) * (r_i - mean(group))

    `group[i]` names the group of i. Rewards that are all equal give exactly 0. Raises ValueError for an empty batch,
    differing shapes, or a group of one, which has no others. Source: Kool et al. 2019; Ahmadian et al. 2024 (RLOO),
    equation 8.
    """
    centred, _, count = _centred_by_group(reward, group)
    if bool((count < 2).any()):
        alone = int(group[count < 2][0])
        raise ValueError(f"leave_one_out needs at least two members in every group, but group {alone} has one.")
    return centred * count / (count - 1)


def standardise(
    x: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"], epsilon: float = 1e-8, shift: bool = True
) -> Float[Tensor, "*batch"]:
    """Values divided by their standard deviation, after their mean is taken away (shift=True) or kept (shift=False).

        (x - mean) / (std + epsilon),   or x / (std + epsilon)

    Mean and deviation (divisor n - 1) are of the entries in `mask` alone; the others come out as 0 and may hold
    anything. Shift advantages; do not shift rewards, whose mean says whether living on is good. Values that are all
    equal, a single one, or an empty mask give exactly 0 with shift; without shift, equal values are divided by epsilon
    alone, so choose it no smaller than a deviation that matters. Raises ValueError where the shapes differ, there are
    no entries, or epsilon is not above 0.
    """
    positive(epsilon=epsilon)
    same_shape(x=x, mask=mask)
    if x.numel() == 0:
        raise ValueError(f"standardise needs at least one entry, got shape {list(x.shape)}.")
    outside = ~mask
    count = mask.sum(dtype=x.dtype)
    # Around the smallest entry, not around 0: the mean of equal numbers is then exact, however large they are.
    origin = x.masked_fill(outside, torch.inf).amin()
    from_origin = (x - origin).masked_fill_(outside, 0.0)
    centred = from_origin.sub_(from_origin.sum() / count).masked_fill_(outside, 0.0)
    deviation: Tensor = torch.linalg.vector_norm(centred) / (count - 1).clamp(min=1).sqrt()
    return (centred if shift else x.masked_fill(outside, 0.0)) / (deviation + epsilon)


def _sum_by_group(x: Tensor, same: Tensor) -> Tensor:
    # A [batch, batch] sum, not index_add: on a GPU that adds in a different order each time, and runs must repeat.
    return torch.where(same, x, 0.0).sum(dim=1)


def _centred_by_group(reward: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards less their group's mean, the [batch, batch] table of who shares a group, and the group sizes."""
    same_shape(reward=reward, group=group)
    if reward.dim() != 1 or reward.shape[0] == 0:
        raise ValueError(f"Expected rewards of shape [batch] with at least one entry, got {list(reward.shape)}.")
    same = group[:, None] == group[None, :]
    count = same.sum(dim=1)
    # Around the group's smallest reward, not around 0: equal rewards are then exactly 0, however large they are.
    from_smallest = reward - torch.where(same, reward, torch.inf).amin(dim=1)
    return from_smallest - _sum_by_group(from_smallest, same) / count, same, count
