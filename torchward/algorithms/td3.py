"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018): a deterministic policy, and three remedies
against critics that think too much of it. The neighbour of ``sac``, which needs none of its noise.

From top to bottom: the config, the update, the loop. The three remedies are marked [1] to [3].
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
from torchward.functional.policy_losses import deterministic_policy_loss
from torchward.functional.value_losses import n_step_target, pessimistic_value, squared_error
from torchward.nets.actor_body import ActorNet
from torchward.nets.adam import Adam
from torchward.nets.deterministic_actor import DeterministicActor
from torchward.nets.flat import Flat
from torchward.nets.heap import keep_freed
from torchward.nets.perceptrons import without_autograd
from torchward.nets.q_function import q_function
from torchward.nets.target import follow, twin
from torchward.nets.uniform import UniformPolicy
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """TD3's settings, by the names of Stable-Baselines3."""

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
    learning_rate: float = 1e-3
    """Adam's step size at the start, of actor and critics."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """linear: down to 0 at the last step."""
    gamma: float = 0.99
    """Discount of the future, per step."""
    n_steps: int = 1
    """Steps whose rewards are summed up before the target critics take over."""
    tau: float = 0.005
    """How far the targets move towards actor and critics at a time."""
    policy_delay: int = 2
    """Minibatches between two of which the actor learns as well, and the targets move."""
    target_policy_noise: float = 0.2
    """Deviation of the noise on the target's actions."""
    target_noise_clip: float = 0.5
    """How large that noise may be."""
    noise_std: float = 0.1
    """Deviation of the normal noise on the actions that explore; a bounded action space is [-1, 1]."""
    n_critics: int = 2
    """Critics, of which the lowest is believed."""
    exploration_bonus: ExplorationBonus = field(default_factory=NoBonus)
    """What is paid for the new, beside the rewards."""
    adam_eps: float = 1e-8
    """Adam's epsilon."""
    network: ActorNet = field(default_factory=lambda: ActorNet(net_arch=(400, 300)))
    """The actor, and the critics beside it."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the networks and the replay live: cpu, cuda."""

    def __post_init__(self) -> None:
        verify(self, "policy_delay", "n_critics")
        for name in ("target_policy_noise", "target_noise_clip", "noise_std"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"expected {name} of at least 0, got {getattr(self, name)}")


class Learner:
    """Critics, the targets of critics and actor, the optimisers, and the update. Gradients are written out, as in
    ``sac``."""

    def __init__(self, policy: DeterministicActor, config: Config) -> None:
        self.policy, self.config = policy, config
        policy.noise_std = config.noise_std
        with seeded(config.seed, "critics"):
            self.critic = q_function(policy.body.size, policy.parts, policy.network, config.n_critics)
        self.critic.to(config.device)
        self.target, self.target_actor = twin(self.critic), twin(policy.body.perceptron)
        self.leading = [Flat(self.critic.parameters()).value, Flat(policy.body.perceptron.parameters()).value]
        self.following = [Flat(self.target.parameters()).value, Flat(self.target_actor.parameters()).value]
        self.actor_optimizer = Adam(self.leading[1:], config.learning_rate, eps=config.adam_eps)
        # An encoder is the critics' to train (Yarats et al. 2021, section 4).
        self.encoder: list[Tensor] = list(policy.body.encoder_parameters())
        self.critic_optimizer = Adam([self.leading[0], *self.encoder], config.learning_rate, eps=config.adam_eps)
        self.generator = generator(config.seed, "minibatches", config.device)
        self.critic_means = Means("critic_loss", "q", device=config.device)
        self.actor_means = Means("actor_loss", device=config.device)
        self.updates = 0

    def anneal(self, progress: float) -> None:
        """Set the schedules; ``progress`` goes from 0 at the first step to 1 at the last."""
        config = self.config
        rate = config.learning_rate * (1.0 - progress * (config.learning_rate_schedule == "linear"))
        self.actor_optimizer.lr = self.critic_optimizer.lr = rate

    def update(self, replay: Memory) -> None:
        """``gradient_steps`` minibatches out of the replay."""
        config = self.config
        for _ in range(updates_of(config)):
            self.step(replay.sample(config.batch_size, config.gamma, config.n_steps))

    def step(self, batch: Transitions) -> None:
        """Learn from one minibatch: the critics, now and then the actor and with it the targets (algorithm 1)."""
        with without_autograd(bool(self.encoder)):
            self.learn(batch)

    def learn(self, batch: Transitions) -> None:
        """:meth:`step`, where autograd is off."""
        body = self.policy.body
        with torch.set_grad_enabled(bool(self.encoder)):
            features = body.encode(batch.observation)
        self.learn_values(batch, features, body.encode(batch.next_observation))
        self.updates += 1
        if self.updates % self.config.policy_delay == 0:  # [2] Delayed policy updates.
            self.learn_policy(features)
            follow(self.following, self.leading, self.config.tau)

    def learn_values(self, batch: Transitions, features: Tensor, following: Tensor) -> None:
        """One step of the critics down their mean squared error."""
        mode = self.target_actor.forward(following)[0].tanh()
        # [3] Target policy smoothing: actions that are alike are worth alike.
        noise = torch.randn(mode.shape, generator=self.generator, device=mode.device)
        bound = self.config.target_noise_clip
        smooth = mode + (noise * self.config.target_policy_noise).clamp(-bound, bound)
        q_next = self.target.forward(following, smooth.clamp(-1.0, 1.0)).squeeze(-1)
        goal = n_step_target(batch.reward, batch.discount, pessimistic_value(q_next))  # [1] Clipped double Q.
        reals, _ = self.policy.parts.split(batch.action)
        critic = self.critic.record(features, reals)
        q = critic.outputs.squeeze(-1)
        by_outputs = ((q - goal) * (2.0 / q.numel())).unsqueeze(-1)
        by_features = critic.backward(by_outputs, slice(features.shape[-1]) if self.encoder else None)
        if by_features is not None:
            for parameter in self.encoder:
                parameter.grad = None
            features.backward(by_features)
        self.critic_optimizer.step()
        if self.updates % MEASURED == 0:
            self.critic_means.add(squared_error(q, goal.expand_as(q)).mean(), q.mean())

    def learn_policy(self, features: Tensor) -> None:
        """One step of the actor up the first critic, which is a constant here: what is asked of it is its gradient by
        the action alone."""
        actor = self.policy.body.perceptron.record(features)
        action = actor.outputs[0].tanh()
        critic = self.critic.record(features, action, count=1)
        by_outputs = torch.full_like(critic.outputs, -1.0 / len(action))
        by_action = critic.by_inputs(by_outputs, slice(features.shape[-1], None))
        actor.backward((by_action * (1.0 - action.square())).unsqueeze(0))
        self.actor_optimizer.step()
        if self.updates % MEASURED == 0:
            self.actor_means.add(deterministic_policy_loss(critic.outputs).mean())

    def metrics(self) -> dict[str, Tensor | float]:
        """The means over the updates since the last call, not yet read."""
        steps = {"learning_rate": self.actor_optimizer.lr, "updates": float(self.updates)}
        return {**self.critic_means.take(), **self.actor_means.take(), **steps}

    def state_dict(self) -> dict[str, Any]:
        held = {name: getattr(self, name).state_dict() for name in _HELD}
        return {**held, "generator": self.generator.get_state(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _HELD:
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.updates = int(state["updates"])


_HELD = ("critic", "target", "target_actor", "actor_optimizer", "critic_optimizer", "critic_means", "actor_means")


def check(config: Config, task: Task, policy: Policy | None = None) -> None:
    """Raise a SpaceError if no policy, where none is given, or no replay takes the task's spaces: what is tried here is
    thrown away."""
    if policy is None:
        DeterministicActor(task.observation_space, task.action_space, config.network)
    check_replay(config, task)


def train(
    config: Config, task: Task, run: Run, policy: Policy | None = None, shaping: Sequence[Shaping] = ()
) -> DeterministicActor:
    """Learn ``task`` and return the policy. ``policy`` is a DeterministicActor to begin from; ``shaping`` is applied to
    each rollout in order before it is kept."""
    if policy is None:
        with seeded(config.seed, "policy"):
            policy = DeterministicActor(task.observation_space, task.action_space, config.network)
    if not isinstance(policy, DeterministicActor):
        raise ConfigError(f"td3 begins from a DeterministicActor, got {type(policy).__name__}")
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
