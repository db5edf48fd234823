"""How a policy acts in worlds for some steps: on tensors, or on arrays, if it is a small one that offers to."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from torchward.data.protocols import InArrays, Policy
from torchward.data.tree import Tree, tree_map, unbind
from torchward.envs import spaces as sp
from torchward.envs.spaces import Arrays
from torchward.nets import spaces
from torchward.nets.spaces import Space


class OnTensors:
    """Any policy. ``seen`` ``[T, n, ...]`` is where observations are going to be."""

    def __init__(
        self, policy: Policy, space: Space, seen: Arrays, noise: Tree, state: Tree, device: torch.device
    ) -> None:
        self.policy, self.space, self.state, self.device = policy, space, state, device
        self.observations, self.noises = unbind(sp.tensors(seen)), unbind(noise)
        self.actions: list[Tree] = []
        self.log_probs: list[Tensor] = []
        self.values: list[Tensor | None] = []

    def act(self, t: int) -> Arrays:
        """What the worlds are to do at step ``t``."""
        observation = self.observations[t]
        if self.device.type != "cpu":
            observation = tree_map(lambda leaf: leaf.to(self.device), observation)
        action, log_prob, value, self.state = self.policy.act(observation, self.state, self.noises[t])
        self.actions.append(action)
        self.log_probs.append(log_prob)
        self.values.append(value)
        return sp.numpy(spaces.env_action(self.space, action))

    def action(self) -> Tree:
        """All that was done, ``[n, T, ...]``."""
        return tree_map(lambda *leaves: torch.stack(leaves, 1), self.actions[0], *self.actions[1:])

    def log_prob(self) -> Tensor:
        """How likely it was, ``[n, T]``."""
        return torch.stack(self.log_probs, 1)


class OnArrays:
    """A policy of Discrete actions by ``choose(t, observation)``, see :class:`~torchward.data.protocols.InArrays`."""

    def __init__(
        self, choose: Callable[[int, NDArray[Any]], tuple[Any, Any]], space: Space, seen: NDArray[Any], state: Tree
    ) -> None:
        assert isinstance(space, spaces.Discrete)
        self.choose, self.seen, self.first, self.state = choose, seen, space.start, state
        self.actions: NDArray[np.int64] = np.empty(seen.shape[:2], np.int64)
        self.log_probs: NDArray[np.float32] = np.empty(seen.shape[:2], np.float32)
        self.values: list[Tensor | None] = []

    def act(self, t: int) -> Arrays:
        self.actions[t], self.log_probs[t] = self.choose(t, self.seen[t])
        action: NDArray[np.int64] = self.actions[t] + self.first
        return action

    def action(self) -> Tree:
        return torch.from_numpy(self.actions.T)

    def log_prob(self) -> Tensor:
        return torch.from_numpy(self.log_probs.T)


def acting(
    policy: Policy, space: Space, seen: Arrays, lead: tuple[int, int], state: Tree, generator: Generator
) -> OnTensors | OnArrays:
    """The way in which ``policy`` acts for ``lead`` = ``(T, n)`` steps; all their randomness is drawn now."""
    noise, device = policy.noise(lead, generator), generator.device
    if isinstance(seen, np.ndarray) and device.type == "cpu":
        offer: InArrays | None = getattr(policy, "in_arrays", None)
        choose = None if offer is None else offer(noise, lead[1])
        if choose is not None:
            return OnArrays(choose, space, seen, state)
    return OnTensors(policy, space, seen, noise, state, device)
