"""Soft actor-critic (Haarnoja et al. 2018b): twin critics, a policy that is paid for its entropy, and a temperature
that finds itself. For real numbers, for choices (Christodoulou 2019), and for both at once (Delalleau et al. 2019).

From top to bottom: the config, the soft value, the two losses, the update, the loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.ahead import Ahead
from torchward.data.hindsight import HER, Memory
from torchward.data.intrinsic import ExplorationBonus, NoBonus, bonuses
from torchward.data.means import Means
from torchward.data.memory import LOG_STEPS, MEASURED, check_replay, replay_of, tell_if_idle, updates_of, verify
from torchward.data.protocols import Policy, Shaping, Task, absorb, on_device
from torchward.data.random import derive, generator, seeded
from torchward.data.replay import StackPadding, Transitions, Uniform
from torchward.functional.policy_losses import soft_policy_loss, soft_policy_loss_discrete
from torchward.functional.value_losses import (
    n_step_target,
    pessimistic_value,
    soft_value,
    soft_value_discrete,
    squared_error,
)
from torchward.nets.actor_body import ActorNet
from torchward.nets.adam import Adam
from torchward.nets.flat import Flat
from torchward.nets.heads import FORBIDDEN
from torchward.nets.heap import keep_freed
from torchward.nets.perceptrons import Recorded, without_autograd
from torchward.nets.q_function import q_function, value_of
from torchward.nets.soft_actor import Drawn, SoftActor
from torchward.nets.target import follow, twin
from torchward.nets.uniform import UniformPolicy
from torchward.run import Run


@dataclass(frozen=True)
class Auto:
    """The temperature falls while the entropy is above its target, and rises while it is below."""

    initial: float = 1.0
    """The temperature at the start."""
    target_entropy: float | None = None
    """The entropy to keep of the real numbers in an action, in nats; None: minus how many they are."""
    target_entropy_ratio: float = 0.5
    """The entropy to keep of the choices in an action, as a part of the largest there is where they are made."""

    def __post_init__(self) -> None:
        if not self.initial > 0.0:
            raise ConfigError(f"expected initial of Auto above 0, got {self.initial}")
        if not 0.0 <= self.target_entropy_ratio <= 1.0:
            raise ConfigError(f"expected target_entropy_ratio of Auto within [0, 1], got {self.target_entropy_ratio}")


@dataclass(frozen=True)
class Fixed:
    """A temperature that stays as it is."""

    value: float = 0.1
    """The temperature, in units of reward per nat."""

    def __post_init__(self) -> None:
        if not self.value >= 0.0:
            raise ConfigError(f"expected value of Fixed of at least 0, got {self.value}")


@dataclass(frozen=True)
class Config:
    """SAC's settings, by the names of Stable-Baselines3."""

    total_timesteps: int = 100_000
    """Environment steps to learn from, over all environments together."""
    n_envs: int = 1
    """Environments that are stepped together."""
    train_freq: int = 1
    """Steps of each environment between two updates."""
    gradient_steps: int = 1
    """Minibatches of an update; -1: as many as steps were taken since the last one."""
    overlap: bool = False
    """Collect the next steps while learning from the last ones: the policy that acts is then one update old."""
    batch_size: int = 256
    """Steps in a minibatch."""
    buffer_size: int = 1_000_000
    """Rows that the replay keeps: the steps, and one for each episode that ends."""
    buffer_on_disk: bool = False
    """Keep what was observed in files of the run, not in memory."""
    replay: Uniform | HER = field(default_factory=Uniform)
    """How steps are drawn from it."""
    frame_stack: int = 1
    """Frames that an observed image is a stack of: the replay keeps each of them once."""
    stack_padding: StackPadding = "first"
    """What a stack shows before an episode's first frame, as the environment does it: that frame again, or zeros."""
    learning_starts: int = 100
    """Environment steps at random before the first update."""
    learning_rate: float = 3e-4
    """Adam's step size at the start, of actor, critics and temperature."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """linear: down to 0 at the last step."""
    gamma: float = 0.99
    """Discount of the future, per step."""
    n_steps: int = 1
    """Steps whose rewards are summed up before the target critics take over; above 1 the entropies in between, which
    no replay knows, are left out."""
    tau: float = 0.005
    """How far the target critics move towards the critics at a time."""
    target_update_interval: int = 1
    """Minibatches between two moves of the target critics."""
    policy_delay: int = 1
    """Minibatches between two of which the actor and the temperature learn as well."""
    n_critics: int = 2
    """Critics, of which the lowest is believed."""
    ent_coef: Auto | Fixed = field(default_factory=Auto)
    """The temperature: what a nat of entropy is worth in rewards."""
    exploration_bonus: ExplorationBonus = field(default_factory=NoBonus)
    """What is paid for the new, beside the rewards."""
    adam_eps: float = 1e-8
    """Adam's epsilon."""
    network: ActorNet = field(default_factory=ActorNet)
    """The actor, and the critics beside it."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the networks and the replay live: cpu, cuda."""

    def __post_init__(self) -> None:
        verify(self, "policy_delay", "n_critics", "target_update_interval")


class Learner:
    """Critics and their targets, the temperature, the optimisers, and the update.

    Gradients are written out. Of losses as simple as these autograd's bookkeeping would be a tenth of the time of an
    update (docs/log.md); only through an encoder, of images or of the user's own, it is autograd that goes on."""

    def __init__(self, policy: SoftActor, config: Config) -> None:
        self.policy, self.config, self.parts = policy, config, policy.parts
        with seeded(config.seed, "critics"):
            self.critic = q_function(policy.body.size, policy.parts, policy.network, config.n_critics)
        self.critic.to(config.device)
        self.target = twin(self.critic)
        self.leading, self.following = Flat(self.critic.parameters()), Flat(self.target.parameters())
        # A temperature for the reals and one for the choices: their entropies are not of one kind.
        kinds = {"reals": bool(policy.parts.reals), "choices": bool(policy.parts.factors)}
        start = config.ent_coef.initial if isinstance(config.ent_coef, Auto) else config.ent_coef.value
        self.log_ent_coef = {kind: torch.tensor(start, device=config.device).log() for kind in kinds if kinds[kind]}
        learnt = [Flat(policy.body.perceptron.parameters()).value]
        learnt += self.log_ent_coef.values() if isinstance(config.ent_coef, Auto) else ()
        self.actor_optimizer = Adam(learnt, config.learning_rate, eps=config.adam_eps)
        # An encoder is the critics' to train (Yarats et al. 2021, section 4).
        self.encoder: list[Tensor] = list(policy.body.encoder_parameters())
        self.critic_optimizer = Adam([self.leading.value, *self.encoder], config.learning_rate, eps=config.adam_eps)
        self.generator = generator(config.seed, "minibatches", config.device)
        self.critic_means = Means("critic_loss", "q", device=config.device)
        ending = [f"_{kind}" for kind in self.log_ent_coef] if len(self.log_ent_coef) > 1 else [""]
        names = [what + end for what in ("entropy", "ent_coef") for end in ending]
        self.actor_means = Means("actor_loss", *names, device=config.device)
        self.updates = 0

    def anneal(self, progress: float) -> None:
        """Set the schedules; ``progress`` goes from 0 at the first step to 1 at the last."""
        config = self.config
        rate = config.learning_rate * (1.0 - progress * (config.learning_rate_schedule == "linear"))
        self.actor_optimizer.lr = self.critic_optimizer.lr = rate

    def soft_value(self, q: Tensor, drawn: Drawn, ent_coef: dict[str, Tensor]) -> Tensor:
        """What states ``[N]`` are worth to the policy, its entropy included, by the values ``[N, choices]`` there."""
        value = q.squeeze(-1)
        if drawn.log_probs is not None:
            value = soft_value_discrete(q, drawn.log_probs, ent_coef["choices"])
        return soft_value(value, drawn.reals.log_prob, ent_coef["reals"]) if self.parts.reals else value

    def policy_loss(self, q: Tensor, drawn: Drawn, ent_coef: dict[str, Tensor]) -> Tensor:
        """The policy's loss ``[N]``: with reals and choices, the sum of what either adds."""
        if drawn.log_probs is None:
            return soft_policy_loss(drawn.reals.log_prob, q.squeeze(-1), ent_coef["reals"])
        loss = soft_policy_loss_discrete(drawn.log_probs, q, ent_coef["choices"])
        return loss + ent_coef["reals"] * drawn.reals.log_prob if self.parts.reals else loss

    def entropies(self, drawn: Drawn) -> dict[str, tuple[Tensor, Tensor | float]]:
        """The entropies ``[N]``, of reals by the sample that there is and of choices exactly; and their targets."""
        auto = self.config.ent_coef if isinstance(self.config.ent_coef, Auto) else Auto()
        found: dict[str, tuple[Tensor, Tensor | float]] = {}
        if self.parts.reals:
            target = -float(self.parts.reals) if auto.target_entropy is None else auto.target_entropy
            found["reals"] = (-drawn.reals.log_prob, target)
        if drawn.log_probs is not None:
            most = (drawn.log_probs > 0.5 * FORBIDDEN).sum(-1).log()
            entropy = -(drawn.log_probs.exp() * drawn.log_probs).sum(-1)
            found["choices"] = (entropy, auto.target_entropy_ratio * most)
        return found

    def update(self, replay: Memory) -> None:
        """``gradient_steps`` minibatches out of the replay."""
        config = self.config
        for _ in range(updates_of(config)):
            self.step(replay.sample(config.batch_size, config.gamma, config.n_steps))

    def step(self, batch: Transitions) -> None:
        """Learn from one minibatch: the critics, now and then the policy and the temperature, and the targets."""
        with without_autograd(bool(self.encoder)):
            self.learn(batch)

    def learn(self, batch: Transitions) -> None:
        """:meth:`step`, where autograd is off."""
        config, policy, body = self.config, self.policy, self.policy.body
        n, acts = len(batch.reward), self.updates % config.policy_delay == 0
        with torch.set_grad_enabled(bool(self.encoder)):
            features = body.encode(batch.observation)
        following, allowed = body.encode(batch.next_observation), policy.allowed(batch.next_observation)
        ent_coef = {kind: value.exp() for kind, value in self.log_ent_coef.items()}
        seen = following
        if acts:  # what the policy does now and what it does next, in one pass
            seen = torch.cat([features, following])
            if allowed is not None:
                now_allowed = policy.allowed(batch.observation)
                assert now_allowed is not None
                allowed = torch.cat([now_allowed, allowed])
        actor = body.perceptron.record(seen)
        noise = torch.randn(len(seen), self.parts.reals, generator=self.generator, device=seen.device)
        drawn = policy.draw(actor.outputs[0], allowed, noise)
        self.learn_values(batch, features, following, drawn.rows(slice(-n, None)), ent_coef)
        if acts:
            self.learn_policy(features, actor.rows(slice(n)), drawn.rows(slice(n)), ent_coef)
        self.updates += 1
        if self.updates % config.target_update_interval == 0:
            follow([self.following.value], [self.leading.value], config.tau)

    def learn_values(
        self, batch: Transitions, features: Tensor, following: Tensor, after: Drawn, ent_coef: dict[str, Tensor]
    ) -> None:
        """One step of the critics down their mean squared error from what they and the policy's entropy promise
        (Haarnoja et al. 2018b, equations 3 and 5)."""
        q_next = pessimistic_value(self.target.forward(following, after.reals.action))
        goal = n_step_target(batch.reward, batch.discount, self.soft_value(q_next, after, ent_coef))
        reals, choice = self.parts.split(batch.action)
        critic = self.critic.record(features, reals)
        q = value_of(critic.outputs, choice)
        by_q = (q - goal) * (2.0 / q.numel())  # with two critics this is Stable-Baselines3's half of the sum over them
        by_outputs = by_q.unsqueeze(-1)
        if choice is not None:
            where = choice.expand_as(q).unsqueeze(-1)
            by_outputs = torch.zeros_like(critic.outputs).scatter_(-1, where, by_outputs)
        by_features = critic.backward(by_outputs, slice(features.shape[-1]) if self.encoder else None)
        if by_features is not None:
            for parameter in self.encoder:
                parameter.grad = None
            features.backward(by_features)
        self.critic_optimizer.step()
        if self.updates % MEASURED == 0:
            self.critic_means.add(squared_error(q, goal.expand_as(q)).mean(), q.mean())

    def learn_policy(self, features: Tensor, actor: Recorded, now: Drawn, ent_coef: dict[str, Tensor]) -> None:
        """One step of the policy down its loss, and of the temperature (equations 7 and 18). The critics are constants:
        what is asked of them is their gradient by the reals alone."""
        critic = self.critic.record(features, now.reals.action)
        q, lowest = critic.outputs.min(0)
        share = 1.0 / len(q)
        by_q, by_log_probs = torch.full_like(q, -share), None
        if now.log_probs is not None:
            by_q *= now.log_probs.exp()
            by_log_probs = by_q * (q - ent_coef["choices"] * now.log_probs)
        by_reals = now.reals.action  # of width 0, where there are none
        if self.parts.reals:
            by_outputs = torch.zeros_like(critic.outputs).scatter_(0, lowest.unsqueeze(0), by_q.unsqueeze(0))
            by_reals = critic.by_inputs(by_outputs, slice(features.shape[-1], None))
        by_log_prob = share * ent_coef["reals"] if self.parts.reals else 0.0
        actor.backward(now.by_outputs(by_reals, by_log_prob, by_log_probs).unsqueeze(0))
        entropies = self.entropies(now)
        for kind, (entropy, target) in entropies.items():
            self.log_ent_coef[kind].grad = (entropy - target).mean()
        self.actor_optimizer.step()
        if self.updates % MEASURED == 0:
            means = [entropy.mean() for entropy, _ in entropies.values()]
            self.actor_means.add(self.policy_loss(q, now, ent_coef).mean(), *means, *ent_coef.values())

    def metrics(self) -> dict[str, Tensor | float]:
        """The means over the updates since the last call, not yet read."""
        steps = {"learning_rate": self.actor_optimizer.lr, "updates": float(self.updates)}
        return {**self.critic_means.take(), **self.actor_means.take(), **steps}

    def state_dict(self) -> dict[str, Any]:
        held = ("critic", "target", "actor_optimizer", "critic_optimizer", "critic_means", "actor_means")
        return {
            **{name: getattr(self, name).state_dict() for name in held},
            "log_ent_coef": self.log_ent_coef,
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("critic", "target", "actor_optimizer", "critic_optimizer", "critic_means", "actor_means"):
            getattr(self, name).load_state_dict(state[name])
        for kind, value in self.log_ent_coef.items():
            value.copy_(state["log_ent_coef"][kind])
        self.generator.set_state(state["generator"])
        self.updates = int(state["updates"])


def check(config: Config, task: Task, policy: Policy | None = None) -> None:
    """Raise a SpaceError if no policy, where none is given, or no replay takes the task's spaces: what is tried here is
    thrown away."""
    if policy is None:
        SoftActor(task.observation_space, task.action_space, config.network)
    check_replay(config, task)


def train(
    config: Config, task: Task, run: Run, policy: Policy | None = None, shaping: Sequence[Shaping] = ()
) -> SoftActor:
    """Learn ``task`` and return the policy. ``policy`` is a SoftActor to begin from; ``shaping`` is applied to each
    rollout in order before it is kept."""
    if policy is None:
        with seeded(config.seed, "policy"):
            policy = SoftActor(task.observation_space, task.action_space, config.network)
    if not isinstance(policy, SoftActor):
        raise ConfigError(f"sac begins from a SoftActor, got {type(policy).__name__}")
    keep_freed()
    policy = on_device(policy, config.device)
    learner = Learner(policy, config)
    replay = replay_of(config, task, run.path / "replay", run.checkpoint_period, shaping)
    source = task.source(config.n_envs, config.seed, config.device)
    source = Ahead(source) if config.overlap else source
    shaping = [*shaping, *bonuses(config.exploration_bonus, task, config.gamma, config.seed, config.device)]
    uniform = UniformPolicy(task.observation_space, task.action_space)
    tell_if_idle(config.learning_starts, config.total_timesteps, run.say)
    with run:
        tracked = {f"shaping{i}": each for i, each in enumerate(shaping)}
        run.track(policy=policy, learner=learner, source=source, replay=replay, **tracked)
        while not run.done:
            learner.anneal(run.step / run.total)
            warm = run.step < config.learning_starts
            rollout = source.collect(uniform if warm else policy, config.train_freq)
            shaped: dict[str, Tensor | float] = {}
            for each in shaping:
                rollout, metrics = each.shape(rollout)
                shaped |= metrics
            replay.add(rollout)
            if not warm:
                learner.update(replay)
            absorb(policy, rollout)
            run.advance(config.n_envs * config.train_freq, source.episodes())
            if run.due("log", LOG_STEPS):
                run.log(learner.metrics() | shaped)
            if run.due("evaluate"):
                seed = derive(config.seed, "evaluation")
                run.evaluation(task.evaluate(policy, run.options.n_eval_episodes, seed), policy)
            if run.due("checkpoint"):
                if source.cut():
                    replay.cut()
                run.save()
        run.finish(policy)
    source.close()
    return policy
