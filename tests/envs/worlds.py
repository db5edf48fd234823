"""Small worlds whose every step is known, and rollouts taken apart into the rows that a policy chose."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Generator, Tensor, nn

from torchward.data.rollout import Rollout
from torchward.data.tree import Tree, tree_leaves, tree_map
from torchward.envs.in_process import InProcess
from torchward.envs.native import Native
from torchward.envs.processes import Processes
from torchward.envs.worlds import Worlds
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.nets.spaces import Space

LIMIT = 6


def walk_start(world: int, episode: int) -> float:
    return float((3 * world + 2 * episode) % 5 - 2)


def walk_step(position: float, time: int, action: int) -> tuple[float, float, bool, bool]:
    """The next position, the reward, the end and the time limit (of which both may come at once)."""
    position += 1.0 if action == time % 2 else -1.0
    return position, 0.1 * position + time, abs(position) >= 3, time + 1 >= LIMIT


class Walk(gym.Env[np.ndarray[Any, Any], Any]):
    """Known dynamics, no randomness: the start depends on the world's number and on how often it began."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def __init__(self, world: int = 0) -> None:
        self.world, self.episode = world, -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        self.position, self.time = walk_start(self.world, self.episode), 0
        return self._see(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.position, reward, terminated, truncated = walk_step(self.position, self.time, int(action))
        self.time += 1
        return self._see(), reward, terminated, truncated, self._info()

    def _see(self) -> Any:
        return np.array([self.position, self.time / LIMIT], np.float32)

    def _info(self) -> dict[str, Any]:
        return {}


class Masked(Walk):
    """Its info allows, of three actions, those that its state says; the third goes nowhere. It refuses the others."""

    action_space = gym.spaces.Discrete(3)

    def allowed(self) -> Any:
        return allowed(self.position, self.time)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.allowed()[int(action)], "a forbidden action"
        return super().step(min(int(action), 1))

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.allowed()}


def allowed(position: float, time: int) -> np.ndarray[Any, Any]:
    """At least one of three actions, another set at each position and time."""
    bits = [(int(position) + time) % 2, (int(position) + 2 * time) % 3 == 0, 1 - (int(position) + time) % 2]
    return np.array(bits, np.int8)


class MaskedDict(Masked):
    """The same, with the mask in the observation."""

    observation_space: Any = gym.spaces.Dict(
        seen=gym.spaces.Box(-np.inf, np.inf, (2,)), action_mask=gym.spaces.Box(0, 1, (3,), np.int8)
    )

    def _see(self) -> Any:
        return {"seen": super()._see(), "action_mask": self.allowed()}

    def _info(self) -> dict[str, Any]:
        return {}


Kind = Callable[[Callable[[int], Any], int, bool], Worlds]


def in_process(make: Callable[[int], Any], n: int, mask: bool = False) -> Worlds:
    return InProcess("walk", [make(i) for i in range(n)], mask)


def processes(make: Callable[[int], Any], n: int, mask: bool = False) -> Worlds:
    return Processes("walk", [partial(make, i) for i in range(n)], mask)


def native(mode: AutoresetMode) -> Kind:
    def made(make: Callable[[int], Any], n: int, mask: bool = False) -> Worlds:
        return Native("walk", SyncVectorEnv([partial(make, i) for i in range(n)], autoreset_mode=mode), mask)

    return made


KINDS: dict[str, Kind] = {
    "in process": in_process,
    "processes": processes,
    "next step": native(AutoresetMode.NEXT_STEP),
    "same step": native(AutoresetMode.SAME_STEP),
    "disabled": native(AutoresetMode.DISABLED),
}


def lively(observation: Space, action: Space, recurrent: Any = "none", **network: Any) -> ActorCritic:
    """A policy that does this here and that there, and whose values differ."""
    torch.manual_seed(7)
    settings: dict[str, Any] = {"net_arch": (16,), "recurrent": recurrent, "lstm_hidden_size": 8, **network}
    policy = ActorCritic(observation, action, Network(**settings))
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=0.5)
    return policy


def always_the_mode(policy: ActorCritic) -> ActorCritic:
    """The same policy without noise: what it does depends on nothing but what it has seen."""
    draw = policy.noise

    def silent(batch: tuple[int, ...], generator: Generator) -> Tree:
        return tree_map(torch.zeros_like, draw(batch, generator))

    policy.noise = silent  # type: ignore[method-assign]
    return policy


class Row(NamedTuple):
    """One step that the policy chose."""

    observation: Tree
    action: Tree
    log_prob: Tensor
    reward: Tensor
    terminated: Tensor
    boundary: Tensor
    value: Tensor
    next_value: Tensor


def rows(rollouts: list[Rollout], world: int) -> list[Row]:
    """The steps of a world that its policy chose, in order."""
    found = []
    for rollout in rollouts:
        for t in torch.nonzero(rollout.loss_mask[world]).flatten().tolist():
            parts: list[Any] = [
                tree_map(lambda leaf: leaf[world, t], getattr(rollout, name))  # noqa: B023 (called at once)
                for name in Row._fields
            ]
            found.append(Row(*parts))
    return found


def close(left: Row, right: Row) -> bool:
    """Whether two rows agree, to the rounding of float32."""
    pairs = zip(tree_leaves(tuple(left)), tree_leaves(tuple(right)), strict=True)
    return all(a.dtype == b.dtype and torch.allclose(a, b, atol=2e-5, rtol=1e-5) for a, b in pairs)
