"""REINFORCE (Williams 1992) with the return-to-go, and no, a mean or a learned baseline.

The policy gradient at its plainest: play whole episodes, weigh each choice by what came after it, take one step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchward.config import ConfigError, verify_training
from torchward.data.protocols import Policy, Shaping, Task, absorb, on_device
from torchward.data.random import derive, seeded
from torchward.data.rollout import Batch, Rollout
from torchward.functional.advantages import standardise
from torchward.functional.policy_losses import entropy_loss, reinforce
from torchward.functional.reduction import masked_mean
from torchward.functional.returns import discounted_returns
from torchward.functional.value_losses import squared_error
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.nets.adam import Adam
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """REINFORCE's settings."""

    total_timesteps: int = 200_000
    """Environment steps to learn from, over all environments together."""
    n_envs: int = 16
    """Whole episodes to play, side by side, for each update."""
    baseline: Literal["none", "mean", "learned"] = "learned"
    """What is taken from the return-to-go: nothing; the other episodes' mean at the same time; a critic's value."""
    learning_rate: float = 3e-3
    """Adam's step size at the start."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """linear: down to 0 at the last step."""
    gamma: float = 0.99
    """Discount of the future, per step."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss of a learned baseline."""
    max_grad_norm: float = 0.5
    """Norm to which the gradient of the policy's loss is clipped, and that of a learned baseline's, each by itself."""
    normalize_advantage: bool = True
    """Bring the weights of an update to unit deviation (and zero mean, which is a baseline too)."""
    network: Network = field(default_factory=Network)
    """The policy, and the critic of a learned baseline."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the network lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_training(self)
        least = 2 if self.baseline == "mean" else 1
        if self.n_envs < least:
            raise ConfigError(f"expected n_envs of at least {least} with baseline={self.baseline!r}, got {self.n_envs}")
        if self.total_timesteps < 1:
            raise ConfigError(f"expected total_timesteps of at least 1, got {self.total_timesteps}")
        if not 0.0 <= self.gamma <= 1.0:
            raise ConfigError(f"expected gamma within [0, 1], got {self.gamma}")


def credit(rollout: Rollout, config: Config) -> Batch:
    """Each step's return-to-go ``[B, T]`` less its baseline. After a time limit the return goes on with the critic's
    value, if there is a critic; else it ends there."""
    next_value = torch.zeros_like(rollout.reward) if rollout.next_value is None else rollout.next_value
    returns = discounted_returns(rollout.reward, next_value, rollout.terminated, rollout.boundary, config.gamma)
    return rollout.credited(returns - baseline(rollout, returns, config.baseline), returns)


def baseline(rollout: Rollout, returns: Tensor, kind: Literal["none", "mean", "learned"]) -> Tensor:
    """What does not depend on a step's action, and so may be taken from its return without a bias, ``[B, T]``.

    The mean leaves the episode itself out, for its own return does depend on the action; episodes that have ended count
    with 0, which is what they earn from then on. (Sutton and Barto, 2nd edition, section 13.4.)"""
    if kind == "none":
        return torch.zeros_like(returns)
    if kind == "mean":
        alive = torch.where(rollout.loss_mask, returns, 0.0)
        return (alive.sum(0, keepdim=True) - alive) / (len(alive) - 1)
    assert rollout.value is not None
    return rollout.value


class Learner:
    """The policy's optimiser, and the update."""

    def __init__(self, policy: Policy, config: Config) -> None:
        assert isinstance(policy, nn.Module)
        self.policy: Policy = policy
        self.config = config
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.optimizer = Adam(self.parameters, config.learning_rate)

    def anneal(self, remaining: float) -> None:
        """Set the schedule; ``remaining`` goes from 1 at the first step to 0 at the last."""
        linear = self.config.learning_rate_schedule == "linear"
        self.optimizer.lr = self.config.learning_rate * (remaining if linear else 1.0)

    def losses(self, batch: Batch) -> tuple[list[Tensor], dict[str, Tensor | float]]:
        """The losses of whole episodes: the policy's and, if the baseline is learnt, the critic's; and their parts."""
        config, mask = self.config, batch.loss_mask
        advantage = standardise(batch.advantage, mask) if config.normalize_advantage else batch.advantage
        log_prob, entropy, value = self.policy.evaluate_actions(
            batch.observation, batch.action, batch.state, batch.boundary
        )
        total = mask.sum(dtype=torch.float32)
        policy_loss = masked_mean(reinforce(log_prob, advantage), mask, total)
        mean_entropy = masked_mean(entropy, mask, total)
        losses = [policy_loss + config.ent_coef * entropy_loss(mean_entropy)]
        metrics: dict[str, Tensor | float] = {"policy_loss": policy_loss.detach(), "entropy": mean_entropy.detach()}
        if config.baseline == "learned":
            assert value is not None
            value_loss = masked_mean(squared_error(value, batch.target), mask, total)
            losses.append(config.vf_coef * value_loss)
            metrics["value_loss"] = value_loss.detach()
        return losses, metrics

    def update(self, batch: Batch) -> dict[str, Tensor | float]:
        """One step of the optimiser on whole episodes."""
        self.optimizer.zero_grad()
        losses, metrics = self.losses(batch)
        norms = [self.backward(loss, retain_graph=loss is not losses[-1]) for loss in losses]
        self.optimizer.step()
        return metrics | {"grad_norm": norms[0], "learning_rate": self.optimizer.lr}

    def backward(self, loss: Tensor, retain_graph: bool) -> Tensor:
        """Add a loss's gradient, clipped by itself, to the parameters', and return the norm that it had.

        A critic's gradient is many times its actor's while returns are large. Clipped together by their common norm,
        as A2C and PPO can afford with their many updates, nothing would be left for the policy (docs/log.md)."""
        gradients = torch.autograd.grad(loss, self.parameters, retain_graph=retain_graph, materialize_grads=True)
        norm: Tensor = nn.utils.get_total_norm(gradients)
        scale = (self.config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            # Of a convolution a gradient may lie in memory otherwise than its parameter; the optimiser's kernel, which
            # reads both from their beginning, would give each number another's gradient.
            clipped = torch.empty_like(parameter).copy_(gradient).mul_(scale)
            parameter.grad = clipped if parameter.grad is None else parameter.grad.add_(clipped)
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


def check(config: Config, task: Task) -> None:
    """Raise a SpaceError if no actor-critic takes the task's spaces: what is tried here is thrown away."""
    ActorCritic(task.observation_space, task.action_space, config.network)


def train(
    config: Config, task: Task, run: Run, policy: Policy | None = None, shaping: Sequence[Shaping] = ()
) -> Policy:
    """Learn ``task`` and return the policy; ``policy`` and ``shaping`` as for `torchward.algorithms.ppo.train`."""
    if policy is None:
        with seeded(config.seed, "policy"):
            critic = config.baseline == "learned"
            policy = ActorCritic(task.observation_space, task.action_space, config.network, critic=critic)
    policy = on_device(policy, config.device)
    source = task.source(config.n_envs, config.seed, config.device)
    learner = Learner(policy, config)
    with run:
        run.track(policy=policy, learner=learner, source=source, **{f"shaping{i}": s for i, s in enumerate(shaping)})
        while not run.done:
            learner.anneal(1.0 - run.step / run.total)
            rollout = source.collect(policy, None)
            metrics: dict[str, Tensor | float] = {}
            for each in shaping:
                rollout, shaped = each.shape(rollout)
                metrics |= shaped
            metrics |= learner.update(credit(rollout, config))
            absorb(policy, rollout)
            run.advance(rollout.steps, source.episodes())
            run.log(metrics)
            if run.due("evaluate"):
                seed = derive(config.seed, "evaluation")
                run.evaluation(task.evaluate(policy, run.options.n_eval_episodes, seed), policy)
            if run.due("checkpoint"):
                source.cut()
                run.save()
        run.finish(policy)
    source.close()
    return policy
