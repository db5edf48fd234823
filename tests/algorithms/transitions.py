"""Minibatches at random for any spaces, as a replay would give them."""

from typing import Any

import torch
from torch import Generator, Tensor, nn

from tests.nets.examples import observations
from torchward.data.replay import Transitions
from torchward.data.tree import tree_map
from torchward.nets.spaces import Space, Tree
from torchward.nets.uniform import UniformPolicy

ROWS = 12


def transitions(
    observation: Space, action: Space, masks: tuple[Tree, Tree] | None = None, seed: int = 0
) -> Transitions:
    """``ROWS`` steps of which every fourth ended; ``masks`` are those of the observations and of the following ones."""
    generator = Generator().manual_seed(seed)
    seen: list[Any] = [observations(observation, (ROWS,), generator) for _ in range(2)]
    if masks is not None:
        for one, mask in zip(seen, masks, strict=True):
            one["action_mask"] = tree_map(lambda row: row.expand(ROWS, *row.shape), mask)
    policy = UniformPolicy(observation, action)
    acted = policy.act(seen[0], (), policy.noise((ROWS,), generator)).action
    return Transitions(
        observation=seen[0],
        action=acted,
        reward=torch.randn(ROWS, generator=generator),
        next_observation=seen[1],
        discount=torch.where(torch.arange(ROWS) % 4 == 3, 0.0, 0.9),
        weight=torch.ones(ROWS),
        index=torch.arange(ROWS),
    )


def values(tensors: Any) -> list[Tensor]:
    """Copies of tensors as they are now."""
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def wander(network: nn.Module) -> None:
    """Move its parameters a little, so that it is no copy of another any more."""
    generator = Generator().manual_seed(7)
    for parameter in network.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
