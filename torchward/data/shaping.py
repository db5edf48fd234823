"""Reward scaling as shaping: called in the loop, where a reader sees it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchward.data.rollout import Rollout


class RewardScale:
    """Divides rewards by the standard deviation of the discounted return, and does not move their mean: subtracting
    one would change what is worth living for. What is scaled is clipped to ``[-clip, clip]``.

    The return is that of the past, ``R_t = gamma R_{t-1} + r_t``, which begins anew after every boundary (Engstrom et
    al. 2020, section 3; one of the details for continuous control in Huang et al.
    2022)."""

    def __init__(self, gamma: float, clip: float = 10.0, epsilon: float = 1e-8) -> None:
        self.gamma, self.clip, self.epsilon = gamma, clip, epsilon
        self.past: Tensor | None = None
        self.count, self.mean, self.square = 0.0, 0.0, 0.0

    def shape(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor | float]]:
        """The rollout with scaled rewards ``[B, T]``; and the scale."""
        reward = rollout.reward.double().cpu()
        going_on = (~rollout.boundary).double().cpu()
        past = torch.zeros_like(reward[:, 0]) if self.past is None or rollout.begun_anew else self.past
        returns = torch.empty_like(reward)
        for t in range(reward.shape[1]):
            returns[:, t] = self.gamma * past + reward[:, t]
            past = returns[:, t] * going_on[:, t]
        self.past = past
        self._absorb(returns[rollout.loss_mask.cpu()])
        scale = (self.square / max(self.count, 1.0) + self.epsilon) ** 0.5
        scaled = (rollout.reward / scale).clamp(-self.clip, self.clip)
        return replace(rollout, reward=scaled), {"reward_scale": scale}

    def _absorb(self, returns: Tensor) -> None:
        """Chan et al. (1979): merge the count, mean and sum of squared deviations of two samples."""
        count = float(returns.numel())
        if count == 0:
            return
        mean = float(returns.mean())
        delta, total = mean - self.mean, self.count + count
        self.square += float((returns - mean).square().sum()) + delta * delta * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    def state_dict(self) -> dict[str, Any]:
        return {"past": self.past, "count": self.count, "mean": self.mean, "square": self.square}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.past, self.count, self.mean, self.square = (state[key] for key in ("past", "count", "mean", "square"))
