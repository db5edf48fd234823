"""The estimators as their books define them: explicit sums over one episode segment, one step at a time, in float64.

Nothing here runs backwards in time, and nothing is shared with the package.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class World(NamedTuple):
    """Random rows [batch, time] in float64 with many ends; inside a segment next_value is the next row's value."""

    reward: Tensor
    value: Tensor
    next_value: Tensor
    terminated: Tensor
    boundary: Tensor
    log_ratio: Tensor


def random_world(batch: int, time: int, seed: int) -> World:
    """Ends of all kinds, also a termination that nobody marked as a boundary; garbage where no future follows."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(batch, time, generator=generator, dtype=torch.float64)

    def chance(p: float) -> Tensor:
        return torch.rand(batch, time, generator=generator) < p

    terminated = chance(0.15)
    boundary = chance(0.15) | (terminated & chance(0.5))
    value, next_value = normal(), normal()
    inside = ~(terminated | boundary)
    inside[:, -1] = False
    next_value = torch.where(inside, value.roll(-1, dims=1), next_value)
    return World(normal(), value, next_value, terminated, boundary, 0.5 * normal())


class Segment:
    """What follows step t of row b, up to the end of its segment."""

    def __init__(self, world: World, b: int, t: int) -> None:
        last = t
        while not world.terminated[b, last] and not world.boundary[b, last] and last < world.reward.shape[1] - 1:
            last += 1
        self.steps = range(t, last + 1)
        self.reward: list[float] = world.reward[b].tolist()
        self.value: list[float] = world.value[b].tolist()
        self.future: list[float] = [
            0.0 if end else v for end, v in zip(world.terminated[b].tolist(), world.next_value[b].tolist(), strict=True)
        ]
        self.ratio: list[float] = world.log_ratio[b].exp().tolist()
        self.t = t

    def n_step(self, n: int, gamma: float) -> float:
        steps = self.steps[:n]
        rewards = sum(gamma ** (s - self.t) * self.reward[s] for s in steps)
        return rewards + gamma ** len(steps) * self.future[steps[-1]]

    def discounted(self, gamma: float) -> float:
        return self.n_step(len(self.steps), gamma)

    def lambda_return(self, gamma: float, lambda_: float) -> float:
        """Every n-step return, weighted by (1 - lambda) lambda^(n-1); the longest has all the weight that is left."""
        longest = len(self.steps)
        mixed = sum((1 - lambda_) * lambda_ ** (n - 1) * self.n_step(n, gamma) for n in range(1, longest))
        return mixed + lambda_ ** (longest - 1) * self.n_step(longest, gamma)

    def error(self, s: int, gamma: float) -> float:
        return self.reward[s] + gamma * self.future[s] - self.value[s]

    def gae(self, gamma: float, lambda_: float) -> float:
        return sum((gamma * lambda_) ** (s - self.t) * self.error(s, gamma) for s in self.steps)

    def vtrace(self, gamma: float, lambda_: float, rho_bar: float, c_bar: float) -> float:
        total = self.value[self.t]
        for s in self.steps:
            weight = min(rho_bar, self.ratio[s])
            for i in range(self.t, s):
                weight *= lambda_ * min(c_bar, self.ratio[i])
            total += gamma ** (s - self.t) * weight * self.error(s, gamma)
        return total

    def retrace(self, gamma: float, lambda_: float) -> float:
        total = self.value[self.t]
        for s in self.steps:
            weight = 1.0
            for i in range(self.t + 1, s + 1):
                weight *= lambda_ * min(1.0, self.ratio[i])
            total += gamma ** (s - self.t) * weight * self.error(s, gamma)
        return total


def everywhere(world: World, name: str, *arguments: float) -> Tensor:
    """The named definition at every step: [batch, time]."""
    batch, time = world.reward.shape
    return torch.tensor(
        [[getattr(Segment(world, b, t), name)(*arguments) for t in range(time)] for b in range(batch)],
        dtype=torch.float64,
    )
