"""Staying close to a reference policy, as shaping: what moves away pays for it, step by step."""

import copy
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from torchward.config import ConfigError
from torchward.data.protocols import Policy
from torchward.data.rollout import Rollout
from torchward.functional.divergences import k1

M = TypeVar("M", bound=nn.Module)


class KLToReference:
    """Each chosen step pays ``beta (log pi(a|s) - log ref(a|s))``, an estimate of the divergence KL(pi || ref).

    With a ``target``, ``beta`` follows it: up where the divergence of a whole row is above, down where it is below, by
    at most a fifth of ``horizon``'s share of rows (Ziegler et al. 2019, section 2.2). The reference's state is that
    of the row's beginning. Source: Jaques et al. 2017, equation 6."""

    def __init__(self, reference: Policy, beta: float, target: float | None = None, horizon: int = 10_000) -> None:
        if beta < 0.0 or (target is not None and target <= 0.0) or horizon < 1:
            raise ConfigError(
                f"expected beta of at least 0, a target above 0 and a horizon of at least 1, got {beta}, {target} and "
                f"{horizon}"
            )
        self.reference, self.beta, self.target, self.horizon = reference, beta, target, horizon

    @torch.no_grad()
    def shape(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor | float]]:
        """The rollout with what is paid taken from its rewards, and ``reference_log_prob``.

        Raises ConfigError where a learnt step has no finite price: the reference, or the policy itself, says that it
        never happens."""
        if isinstance(self.reference, nn.Module):
            self.reference.to(rollout.reward.device)  # the policy has gone there since
        state = rollout.context.get("state", ())
        reference = self.reference.evaluate_actions(rollout.observation, rollout.action, state, rollout.boundary)
        gap = torch.where(rollout.loss_mask, k1(rollout.log_prob, reference.log_prob), 0.0)
        if unpaid := int((~gap.isfinite()).sum()):
            raise ConfigError(
                f"expected a reference that gives each action that is taken some probability, got {unpaid} of "
                f"{int(rollout.loss_mask.sum())} steps whose log-probability, by it or by the policy, is not finite; "
                "begin from a policy that explores"
            )
        shaped = replace(rollout, reward=rollout.reward - self.beta * gap, reference_log_prob=reference.log_prob)
        beta, rows = self.beta, gap.shape[0]
        divergence = gap.sum() / rows
        if self.target is not None:
            error = min(max(float(divergence) / self.target - 1.0, -0.2), 0.2)
            self.beta *= 1.0 + error * rows / self.horizon
        return shaped, {"kl": gap.sum() / rollout.loss_mask.sum().clamp_min(1), "kl_row": divergence, "beta": beta}

    def state_dict(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.beta = float(state["beta"])


def frozen(policy: M) -> M:
    """A copy that does not learn: a reference."""
    return copy.deepcopy(policy).eval().requires_grad_(False)
