"""A hint in the reward that cannot mislead: the difference of a potential, as shaping.

Ng, Harada and Russell 1999, theorem 1: with ``F = gamma phi(s') - phi(s)`` beside the reward, whatever phi is, the
optimal policies are those of the reward alone, and Q' = Q - phi. Of additions that know states and actions alone they
are the only ones of which this is so in every world. What a loop is paid on its way out, it pays on its way back.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.bonus import arrived
from torchward.data.rollout import Rollout
from torchward.data.tree import Tree, tree_map


class Potential:
    """A :class:`~torchward.data.protocols.Shaping` that adds ``gamma phi(s') - phi(s)`` to the reward of each step.

    ``potential`` gives a number for each of ``N`` observations, leaves ``[N, ...]``: about how much can still be earned
    from there. ``gamma`` has to be the discount that is learnt with; with another the theorem does not hold.

    What truly came next is judged. Behind an end that is none: phi is 0 there, so the step that ends pays back all that
    the way has brought, but for a number that no policy changes. A time limit is no end: phi of the final observation
    stands, and what learns bootstraps from there, whose value is less by the same phi. Returns that are reported hold
    nothing of this."""

    def __init__(self, potential: Callable[[Tree], Tensor], gamma: float) -> None:
        if not 0.0 <= gamma <= 1.0:
            raise ConfigError(f"expected gamma within [0, 1], got {gamma}")
        self.potential, self.gamma = potential, gamma

    @torch.no_grad()
    def shape(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor | float]]:
        """The rollout with the difference in its rewards ``[B, T]``; and the mean of it over the steps. Raises
        ConfigError for a potential that is no number for each observation."""
        here = self._of(rollout.observation, rollout.reward)
        there = torch.where(rollout.terminated, 0.0, self._of(arrived(rollout), rollout.reward))
        paid = torch.where(rollout.loss_mask, self.gamma * there - here, 0.0)
        mean = paid.sum() / rollout.loss_mask.sum().clamp_min(1)
        return replace(rollout, reward=rollout.reward + paid), {"potential": mean}

    def _of(self, observation: Tree, like: Tensor) -> Tensor:
        found = self.potential(tree_map(lambda leaf: leaf.flatten(0, 1), observation))
        if found.shape != (like.numel(),):
            raise ConfigError(
                f"expected a potential of {like.numel()} observations as shape [{like.numel()}], got "
                f"{list(found.shape)}"
            )
        return found.to(like).view_as(like)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a potential does not learn."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
