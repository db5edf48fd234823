"""An actor-critic that learns several times from each rollout, corrected by V-trace (Espeholt et al. 2018)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from torchward.data.protocols import Policy, Task, absorb
from torchward.data.random import derive, seeded
from torchward.data.rollout import Rollout
from torchward.functional.policy_losses import entropy_loss, reinforce
from torchward.functional.reduction import masked_mean
from torchward.functional.returns import trace_continues, vtrace
from torchward.functional.value_losses import squared_error
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """What can be set: each field with its default and its help."""

    total_timesteps: int = 100_000
    """Environment steps to learn from, over all environments together."""
    n_envs: int = 8
    """Environments that are stepped together."""
    n_steps: int = 32
    """Steps of each environment between two updates."""
    n_epochs: int = 4
    """Steps of the optimiser on each rollout."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    gamma: float = 0.98
    """Discount of the future, per step."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    network: Network = field(default_factory=Network)
    """The actor-critic."""
    seed: int = 0
    """Everything random follows from it."""


def loss(policy: ActorCritic, rollout: Rollout, config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the policy as it is now, on steps of the policy as it was; and what is worth a line in the log."""
    state, facts = rollout.context.get("state", ()), (rollout.terminated, rollout.boundary)
    now = policy.evaluate_actions(rollout.observation, rollout.action, state, rollout.boundary)
    assert now.value is not None and rollout.next_value is not None
    with torch.no_grad():
        next_value = torch.where(trace_continues(*facts), now.value.roll(-1, 1), rollout.next_value)
        log_ratio = now.log_prob - rollout.log_prob
        credit = vtrace(log_ratio, rollout.reward, now.value, next_value, *facts, config.gamma)
    policy_loss = masked_mean(reinforce(now.log_prob, credit.advantage), rollout.loss_mask)
    value_loss = masked_mean(squared_error(now.value, credit.target), rollout.loss_mask)
    entropy = masked_mean(now.entropy, rollout.loss_mask)
    metrics = {"policy_loss": policy_loss.detach(), "value_loss": value_loss.detach(), "entropy": entropy.detach()}
    return policy_loss + 0.5 * value_loss + config.ent_coef * entropy_loss(entropy), metrics


def train(config: Config, task: Task, run: Run, policy: ActorCritic | None = None) -> Policy:
    """Learn the task, from a new policy or from one that is given, and return it."""
    if policy is None:
        with seeded(config.seed, "policy"):
            policy = ActorCritic(task.observation_space, task.action_space, config.network)
    optimizer = torch.optim.Adam(policy.parameters(), config.learning_rate)
    source = task.source(config.n_envs, config.seed)
    with run:
        run.track(policy=policy, optimizer=optimizer, source=source)
        while not run.done:
            rollout = source.collect(policy, config.n_steps)
            for _ in range(config.n_epochs):
                total, metrics = loss(policy, rollout, config)
                optimizer.zero_grad()
                total.backward()
                nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
                optimizer.step()
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
