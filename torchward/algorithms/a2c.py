"""Advantage actor-critic (Mnih et al. 2016), the synchronous form: a short rollout of many worlds, one step, again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchward.config import ConfigError, verify_training
from torchward.data.protocols import Policy, Shaping, Task, absorb, on_device
from torchward.data.random import derive, seeded
from torchward.data.rollout import Batch
from torchward.data.shaping import RewardScale
from torchward.functional.advantages import gae, standardise
from torchward.functional.policy_losses import entropy_loss, reinforce
from torchward.functional.reduction import masked_mean
from torchward.functional.value_losses import squared_error
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """A2C's settings, by the names of Stable-Baselines3."""

    total_timesteps: int = 200_000
    """Environment steps to learn from, over all environments together."""
    n_envs: int = 16
    """Environments that are stepped together."""
    n_steps: int = 5
    """Steps of each environment between two updates."""
    learning_rate: float = 7e-4
    """The optimiser's step size at the start."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """linear: down to 0 at the last step."""
    gamma: float = 0.99
    """Discount of the future, per step."""
    gae_lambda: float = 1.0
    """Trace of the advantage: 1 is the return of the rollout, bootstrapped at its end, less the value."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Norm to which the gradient of all parameters together is clipped."""
    use_rms_prop: bool = True
    """RMSprop as in the paper; else Adam."""
    rms_prop_eps: float = 1e-5
    """The optimiser's epsilon."""
    normalize_advantage: bool = False
    """Bring the advantages of a rollout to zero mean and unit deviation."""
    normalize_reward: bool = False
    """Divide rewards by the running deviation of the discounted return."""
    network: Network = field(default_factory=Network)
    """The actor-critic."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the network lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_training(self)
        for name in ("total_timesteps", "n_envs", "n_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected {name} of at least 1, got {getattr(self, name)}")
        for name in ("gamma", "gae_lambda"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"expected {name} within [0, 1], got {getattr(self, name)}")


class Learner:
    """The policy's optimiser, and the update."""

    def __init__(self, policy: Policy, config: Config) -> None:
        assert isinstance(policy, nn.Module)
        self.policy: Policy = policy
        self.config = config
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer
        if config.use_rms_prop:
            self.optimizer = torch.optim.RMSprop(
                self.parameters, config.learning_rate, alpha=0.99, eps=config.rms_prop_eps
            )
        else:
            self.optimizer = torch.optim.Adam(
                self.parameters, config.learning_rate, eps=config.rms_prop_eps, fused=True
            )

    def anneal(self, remaining: float) -> None:
        """Set the schedule; ``remaining`` goes from 1 at the first step to 0 at the last."""
        linear = self.config.learning_rate_schedule == "linear"
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * (remaining if linear else 1.0)

    def update(self, batch: Batch) -> dict[str, Tensor | float]:
        """One step of the optimiser on a whole rollout."""
        config, mask = self.config, batch.loss_mask
        if not self.policy.history:
            batch = batch.steps()
            mask = batch.loss_mask
        log_prob, entropy, value = self.policy.evaluate_actions(
            batch.observation, batch.action, batch.state, batch.boundary
        )
        assert value is not None
        advantage = standardise(batch.advantage, mask) if config.normalize_advantage else batch.advantage
        total = mask.sum(dtype=torch.float32).clamp_min(1.0)
        policy_loss = masked_mean(reinforce(log_prob, advantage), mask, total)
        value_loss = masked_mean(squared_error(value, batch.target), mask, total)
        mean_entropy = masked_mean(entropy, mask, total)
        self.optimizer.zero_grad()
        (policy_loss + config.vf_coef * value_loss + config.ent_coef * entropy_loss(mean_entropy)).backward()
        nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm)
        self.optimizer.step()
        return {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": mean_entropy.detach(),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

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
            policy = ActorCritic(task.observation_space, task.action_space, config.network)
    policy = on_device(policy, config.device)
    source = task.source(config.n_envs, config.seed, config.device)
    learner = Learner(policy, config)
    shapings = [*shaping, *([RewardScale(config.gamma)] if config.normalize_reward else [])]
    with run:
        run.track(policy=policy, learner=learner, source=source, **{f"shaping{i}": s for i, s in enumerate(shapings)})
        while not run.done:
            learner.anneal(1.0 - run.step / run.total)
            rollout = source.collect(policy, config.n_steps)
            metrics: dict[str, Tensor | float] = {}
            for each in shapings:
                rollout, shaped = each.shape(rollout)
                metrics |= shaped
            value, next_value = rollout.values()
            advantage = gae(
                rollout.reward, value, next_value, rollout.terminated, rollout.boundary,
                config.gamma, config.gae_lambda,
            )  # fmt: skip
            metrics |= learner.update(rollout.credited(advantage, advantage + value))
            absorb(policy, rollout)
            run.advance(config.n_envs * config.n_steps, source.episodes())
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
