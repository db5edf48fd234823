"""Soft Q-learning (Haarnoja et al. 2017; Fox et al. 2016): action values of a policy that is paid for its entropy.

From top to bottom: the config, the soft error, the loop. The policy is the Boltzmann policy of the values, at the
temperature of the values. What is done with an error, and everything else, is that of ``dqn``; its tabular form is a
method of ``q_learning``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from torchward.algorithms import dqn
from torchward.algorithms.dqn import Huber, Judged, Learner, Squared, begin
from torchward.config import ConfigError
from torchward.data.ahead import Ahead
from torchward.data.exploration import Boltzmann
from torchward.data.intrinsic import ExplorationBonus, NoBonus, bonuses
from torchward.data.memory import LOG_STEPS, replay_of, tell_if_idle, verify
from torchward.data.protocols import Policy, Shaping, Task, absorb
from torchward.data.random import derive
from torchward.data.replay import Prioritised, StackPadding, Transitions, Uniform
from torchward.functional.value_losses import n_step_target, soft_maximum
from torchward.nets.q_network import QNet
from torchward.nets.q_policy import QPolicy
from torchward.nets.uniform import UniformPolicy
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """Soft Q-learning's settings: those of DQN, and the temperature."""

    total_timesteps: int = 100_000
    """Environment steps to learn from, over all environments together."""
    temperature: float = 0.1
    """What a nat of entropy is worth in rewards, at the first step."""
    temperature_end: float | None = None
    """The temperature once it is annealed; None: it stays as it is."""
    temperature_fraction: float = 1.0
    """The part of the run over which it is annealed, linearly."""
    n_envs: int = 1
    """Environments that are stepped together."""
    train_freq: int = 4
    """Steps of each environment between two updates."""
    gradient_steps: int = 1
    """Minibatches of an update; -1: as many as steps were taken since the last one."""
    overlap: bool = False
    """Collect the next steps while learning from the last ones: the policy that acts is then one update old."""
    batch_size: int = 32
    """Steps in a minibatch."""
    buffer_size: int = 1_000_000
    """Rows that the replay keeps: the steps, and one for each episode that ends."""
    buffer_on_disk: bool = False
    """Keep what was observed in files of the run, not in memory."""
    replay: Uniform | Prioritised = field(default_factory=Uniform)
    """How steps are drawn from it."""
    frame_stack: int = 1
    """Frames that an observed image is a stack of: the replay keeps each of them once."""
    stack_padding: StackPadding = "first"
    """What a stack shows before an episode's first frame, as the environment does it: that frame again, or zeros."""
    learning_starts: int = 100
    """Environment steps at random before the first update."""
    learning_rate: float = 1e-4
    """Adam's step size at the start."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """linear: down to 0 at the last step."""
    gamma: float = 0.99
    """Discount of the future, per step."""
    tau: float = 1.0
    """How far the target network moves towards the network at a time: 1 copies it."""
    target_update_interval: int = 10_000
    """Environment steps between two moves of the target network."""
    loss: Huber | Squared = field(default_factory=Huber)
    """What an error costs."""
    exploration_bonus: ExplorationBonus = field(default_factory=NoBonus)
    """What is paid for the new, beside the rewards."""
    max_grad_norm: float = 10.0
    """Norm to which the gradient of all parameters together is clipped."""
    adam_eps: float = 1e-8
    """Adam's epsilon."""
    network: QNet = field(default_factory=QNet)
    """The network of action values."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the network and the replay live: cpu, cuda."""

    def __post_init__(self) -> None:
        verify(self, "target_update_interval")
        for name in ("temperature", "temperature_end"):
            if (value := getattr(self, name)) is not None and not value > 0.0:
                raise ConfigError(f"expected {name} above 0, got {value}; with 0 it would be dqn")
        if not 0.0 <= self.temperature_fraction <= 1.0:
            raise ConfigError(f"expected temperature_fraction within [0, 1], got {self.temperature_fraction}")
        if self.network.recurrent != "none":
            raise ConfigError(f"soft_q learns from single steps, got recurrent={self.network.recurrent!r}; dqn has it")

    @property
    def exploration(self) -> Boltzmann:
        """How actions are chosen while learning: by the policy whose values are learnt."""
        end = self.temperature if self.temperature_end is None else self.temperature_end
        return Boltzmann(self.temperature, end, self.temperature_fraction)

    @property
    def n_steps(self) -> int:
        """Of several steps the soft return holds the entropies in between, which no replay knows."""
        return 1


@torch.no_grad()
def goal(learner: Learner, batch: Transitions) -> Tensor:
    """What the values of steps ``[B]`` should become (Haarnoja et al. 2017, equations 5 and 7): behind a step lies the
    most that return and entropy can be together."""
    following = batch.next_observation
    q_next = learner.target.allowed(learner.target.forward(following, learner.noise()), following)
    return n_step_target(batch.reward, batch.discount, soft_maximum(q_next, learner.policy.temperature))


def judge(learner: Learner, batch: Transitions) -> Judged:
    """The soft temporal-difference errors of steps."""
    assert isinstance(learner.config, Config) and isinstance(batch.action, Tensor)
    aim = goal(learner, batch)
    q = learner.network.forward(batch.observation, learner.noise())
    q = q.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    return Judged(learner.config.loss(q, aim), (aim - q.detach()).abs(), q.detach())


def check(config: Config, task: Task, policy: Policy | None = None) -> None:
    """As :func:`torchward.algorithms.dqn.check`."""
    dqn.check(config, task, policy)


def train(
    config: Config, task: Task, run: Run, policy: Policy | None = None, shaping: Sequence[Shaping] = ()
) -> QPolicy:
    """Learn ``task`` and return the policy. ``policy`` is one to begin from; ``shaping`` is applied to each rollout in
    order before it is kept."""
    policy = begin(config, task, policy)
    learner = Learner(policy, config, judge, goal)
    replay = replay_of(config, task, run.path / "replay", run.checkpoint_period, shaping)
    source = task.source(config.n_envs, config.seed, config.device)
    source = Ahead(source) if config.overlap else source
    uniform = UniformPolicy(task.observation_space, task.action_space)
    shaping = [*shaping, *bonuses(config.exploration_bonus, task, config.gamma, config.seed, config.device)]
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
            if run.due("target", config.target_update_interval):
                learner.follow()
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
