"""Proximal policy optimisation (Schulman et al. 2017), for any policy: an MLP, a convolution, an LSTM, a GPT.

From top to bottom: the config, the loss, the update, the loop. Of "The 37 Implementation Details of PPO" (Huang et al.
2022) the core ones stand where they act, marked [n] by their number there; those for Atari [14-22] and for
continuous actions [23-31] are the environment's, the network's and the shaping's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchward.config import ConfigError, verify_training
from torchward.data.intrinsic import ExplorationBonus, NoBonus, bonuses
from torchward.data.protocols import Policy, Shaping, Task, absorb, on_device
from torchward.data.random import derive, generator, seeded
from torchward.data.rollout import Batch
from torchward.data.shaping import RewardScale
from torchward.functional.advantages import gae, standardise
from torchward.functional.divergences import k3
from torchward.functional.policy_losses import clipped_surrogate, entropy_loss
from torchward.functional.reduction import masked_mean
from torchward.functional.value_losses import clipped_squared_error, squared_error
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.nets.adam import Adam
from torchward.nets.heap import keep_freed
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """PPO's settings, by the names of Stable-Baselines3."""

    total_timesteps: int = 100_000
    """Environment steps to learn from, over all environments together."""
    n_envs: int = 8
    """Environments that are stepped together."""
    n_steps: int = 256
    """Steps of each environment between two updates."""
    batch_size: int = 256
    """Steps in a minibatch."""
    n_epochs: int = 10
    """Passes over each rollout."""
    learning_rate: float = 3e-4
    """Adam's step size at the start."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """linear: down to 0 at the last step."""
    gamma: float = 0.99
    """Discount of the future, per step."""
    gae_lambda: float = 0.95
    """Trace of the advantage: 0 trusts the critic, 1 the returns."""
    clip_range: float = 0.2
    """How far a probability ratio may move from 1 before its gradient stops."""
    clip_range_high: float | None = None
    """The upper clip, if it is not clip_range (clip-higher)."""
    clip_range_schedule: Literal["constant", "linear"] = "constant"
    """linear: down to 0 at the last step."""
    clip_range_vf: float | None = None
    """How far a value may move from the old one before its gradient stops; None: no bound."""
    dual_clip: float | None = None
    """A bound on the loss of bad actions that have become likely (Ye et al. 2020), above 1; None: none."""
    normalize_advantage: bool = True
    """Bring the advantages of each minibatch to zero mean and unit deviation."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Norm to which the gradient of all parameters together is clipped."""
    target_kl: float | None = None
    """Stop the epochs of an update once its KL divergence is above 1.5 times this; None: never."""
    micro_batch_size: int | None = None
    """Steps whose activations are held at a time; the result does not depend on it. None: a whole minibatch."""
    exploration_bonus: ExplorationBonus = field(default_factory=NoBonus)
    """What is paid for the new, beside the rewards."""
    normalize_reward: bool = False
    """Divide rewards by the running deviation of the discounted return."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    network: Network = field(default_factory=Network)
    """The actor-critic."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the network lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_training(self)
        for name in ("total_timesteps", "n_envs", "n_steps", "batch_size", "n_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected {name} of at least 1, got {getattr(self, name)}")
        for name in ("gamma", "gae_lambda"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"expected {name} within [0, 1], got {getattr(self, name)}")
        if self.batch_size > self.n_envs * self.n_steps:
            raise ConfigError(
                f"expected batch_size of at most n_envs * n_steps = {self.n_envs * self.n_steps}, got {self.batch_size}"
            )

    @property
    def clip_high(self) -> float:
        """The upper clip."""
        return self.clip_range if self.clip_range_high is None else self.clip_range_high


METRICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


def measure(seen: list[tuple[Tensor, ...]]) -> Tensor:
    """The ``METRICS``, from what the losses of some minibatches saw: means over the steps chosen. Taken at once, they
    cost little; taken for each minibatch of a small network, a tenth of its time."""
    columns = (torch.cat([x.flatten() for x in column]) for column in zip(*seen, strict=True))
    loss, error, entropy, old_log_prob, log_prob, clipped, mask = columns
    divergence = k3(old_log_prob, log_prob)  # [12]
    each = torch.where(mask, torch.stack([loss, error, entropy, divergence, clipped.float()]), 0.0)
    return each.sum(1) / mask.sum().clamp_min(1)


class Learner:
    """The policy's optimiser, and the update."""

    def __init__(self, policy: Policy, config: Config) -> None:
        assert isinstance(policy, nn.Module)
        self.policy: Policy = policy
        self.config = config
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.optimizer = Adam(self.parameters, config.learning_rate, eps=config.adam_eps)  # [3]
        self.generator = generator(config.seed, "minibatches")
        self.clip = 1.0

    def anneal(self, remaining: float) -> None:
        """Set the schedules; ``remaining`` goes from 1 at the first step to 0 at the last. [4]"""
        config = self.config
        self.optimizer.lr = config.learning_rate * (remaining if config.learning_rate_schedule == "linear" else 1.0)
        self.clip = remaining if config.clip_range_schedule == "linear" else 1.0

    def loss(self, batch: Batch, total: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss of a piece of a minibatch, its share of a mean over ``total`` steps; and what ``measure`` takes."""
        config, mask = self.config, batch.loss_mask
        log_prob, entropy, value = self.policy.evaluate_actions(
            batch.observation, batch.action, batch.state, batch.boundary
        )
        assert value is not None and batch.value is not None
        low, high = self.clip * config.clip_range, self.clip * config.clip_high
        surrogate = clipped_surrogate(log_prob, batch.log_prob, batch.advantage, low, high, config.dual_clip)  # [8]
        if config.clip_range_vf is None:
            error = squared_error(value, batch.target)
        else:
            error = clipped_squared_error(value, batch.value, batch.target, self.clip * config.clip_range_vf)  # [9]
        loss = torch.add(surrogate.loss, error, alpha=config.vf_coef)
        if config.ent_coef:
            loss = loss + config.ent_coef * entropy_loss(entropy)  # [10]
        seen = (surrogate.loss, error, entropy, batch.log_prob, log_prob, surrogate.clipped, mask)
        return masked_mean(loss, mask, total), tuple(each.detach() for each in seen)

    def update(self, batch: Batch) -> dict[str, Tensor | float]:
        """Some epochs of minibatches over a batch. [6]"""
        config = self.config
        batch = batch if self.policy.history else batch.steps()
        seen: list[tuple[Tensor, ...]] = []
        updates = 0
        for _ in range(config.n_epochs):
            begun = len(seen)
            for minibatch in batch.minibatches(config.batch_size, self.generator, self.policy.history):
                seen += self.step(minibatch)
                updates += 1
            if config.target_kl is not None:
                divergence = measure(seen[begun:])[METRICS.index("approx_kl")]
                if float(divergence) > 1.5 * config.target_kl:
                    break
        metrics: dict[str, Tensor | float] = dict(zip(METRICS, measure(seen).unbind(), strict=True))
        return metrics | {"learning_rate": self.optimizer.lr, "updates": float(updates)}

    def step(self, minibatch: Batch) -> list[tuple[Tensor, ...]]:
        """One step of the optimiser; what ``measure`` takes."""
        config, mask = self.config, minibatch.loss_mask
        advantage = standardise(minibatch.advantage, mask) if config.normalize_advantage else minibatch.advantage  # [7]
        total = mask.sum(dtype=torch.float32).clamp_min(1.0)
        rows = None if config.micro_batch_size is None else max(1, config.micro_batch_size // mask.shape[1])
        self.optimizer.zero_grad()
        seen: list[tuple[Tensor, ...]] = []
        for piece in replace(minibatch, advantage=advantage).microbatches(rows):
            loss, each = self.loss(piece, total)
            loss.backward()
            seen.append(each)
        self.optimizer.step(config.max_grad_norm)  # [11]
        return seen

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])


def check(config: Config, task: Task) -> None:
    """Raise a SpaceError if no actor-critic takes the task's spaces: what is tried here is thrown away."""
    ActorCritic(task.observation_space, task.action_space, config.network)


def train(
    config: Config, task: Task, run: Run, policy: Policy | None = None, shaping: Sequence[Shaping] = ()
) -> Policy:
    """Learn ``task`` and return the policy.

    ``policy`` may be any :class:`~torchward.data.protocols.Policy` with a critic; by default it is built for the task's
    spaces. ``shaping`` is applied to each rollout in order, before the reward scale."""
    if policy is None:
        with seeded(config.seed, "policy"):
            policy = ActorCritic(task.observation_space, task.action_space, config.network)  # [2]
    keep_freed()
    policy = on_device(policy, config.device)
    source = task.source(config.n_envs, config.seed, config.device)  # [1]
    learner = Learner(policy, config)
    shaping = [*shaping, *bonuses(config.exploration_bonus, task, config.gamma, config.seed, config.device)]
    shapings = [*shaping, *([RewardScale(config.gamma)] if config.normalize_reward else [])]
    with run:
        tracked = {f"shaping{i}": each for i, each in enumerate(shapings)}
        run.track(policy=policy, learner=learner, source=source, **tracked)
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
            )  # [5]  # fmt: skip
            target = advantage + value
            metrics |= learner.update(rollout.credited(advantage, target))
            metrics["explained_variance"] = explained_variance(value, target, rollout.loss_mask)
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


def explained_variance(value: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - Var[target - value] / Var[target]: 1 is a perfect critic, 0 one that knows no more than the mean."""
    error, target = (target - value)[mask], target[mask]
    return 1.0 - error.var() / target.var().clamp_min(1e-12)
