"""Rainbow (Hessel et al. 2018): DQN that learns the distribution of the return, with all that was found beside it.

From top to bottom: the config, the errors of distributions, the loop. A distribution is that of C51 (Bellemare et al.
2017) or made of quantiles (Dabney et al. 2018); what is done with its errors, and everything else, is DQN's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from torchward.algorithms import dqn
from torchward.algorithms.dqn import Judged, Learner, begin
from torchward.config import ConfigError
from torchward.data.ahead import Ahead
from torchward.data.exploration import Boltzmann, EpsilonGreedy
from torchward.data.intrinsic import ExplorationBonus, NoBonus, bonuses
from torchward.data.memory import LOG_STEPS, replay_of, tell_if_idle, verify
from torchward.data.protocols import Policy, Shaping, Task, absorb
from torchward.data.random import derive
from torchward.data.replay import Prioritised, StackPadding, Transitions, Uniform
from torchward.functional.value_losses import (
    categorical_cross_entropy,
    categorical_value,
    project_categorical,
    quantile_huber_loss,
)
from torchward.nets.q_network import C51, QR, QNet
from torchward.nets.q_policy import QPolicy
from torchward.nets.uniform import UniformPolicy
from torchward.run import Run


@dataclass(frozen=True)
class Config:
    """Rainbow's settings: those of DQN, and the distribution."""

    total_timesteps: int = 100_000
    """Environment steps to learn from, over all environments together."""
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
    replay: Uniform | Prioritised = field(default_factory=lambda: Prioritised(0.5, 0.4))
    """How steps are drawn from it."""
    frame_stack: int = 1
    """Frames that an observed image is a stack of: the replay keeps each of them once."""
    stack_padding: StackPadding = "first"
    """What a stack shows before an episode's first frame, as the environment does it: that frame again, or zeros."""
    learning_starts: int = 1_000
    """Environment steps at random before the first update."""
    learning_rate: float = 1e-4
    """Adam's step size at the start."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """linear: down to 0 at the last step."""
    gamma: float = 0.99
    """Discount of the future, per step."""
    n_steps: int = 3
    """Steps whose rewards are summed up before the target network takes over."""
    tau: float = 1.0
    """How far the target network moves towards the network at a time: 1 copies it."""
    target_update_interval: int = 10_000
    """Environment steps between two moves of the target network."""
    double_q: bool = True
    """Choose the best next action by the network, and judge it by the target network."""
    distribution: C51 | QR = field(default_factory=C51)
    """What is learnt of the return: probabilities of fixed atoms, or quantiles."""
    exploration: EpsilonGreedy | Boltzmann = field(default_factory=lambda: EpsilonGreedy(0.0, 0.0))
    """How actions are chosen while learning, beside noisy weights."""
    exploration_bonus: ExplorationBonus = field(default_factory=NoBonus)
    """What is paid for the new, beside the rewards."""
    max_grad_norm: float = 10.0
    """Norm to which the gradient of all parameters together is clipped."""
    adam_eps: float = 1.5e-4
    """Adam's epsilon."""
    network: QNet = field(default_factory=lambda: QNet(dueling=True, noisy=True))
    """The network of action values."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the network and the replay live: cpu, cuda."""

    def __post_init__(self) -> None:
        verify(self, "target_update_interval")
        match self.distribution:
            case C51(n_atoms, v_min, v_max) if n_atoms < 2 or not v_min < v_max:
                raise ConfigError(f"expected at least 2 atoms and v_min below v_max, got {self.distribution}")
            case QR(n_quantiles, kappa) if n_quantiles < 1 or not kappa >= 0.0:
                raise ConfigError(f"expected at least 1 quantile and kappa of at least 0, got {self.distribution}")
        if self.network.recurrent != "none":
            raise ConfigError(f"rainbow learns from single steps, got recurrent={self.network.recurrent!r}; dqn has it")


def judge(learner: Learner, batch: Transitions) -> Judged:
    """How far the distributions of steps are from their targets: that of the best next action, moved by the rewards
    (Bellemare et al. 2017, algorithm 1; Dabney et al. 2018, algorithm 1; of n steps, and chosen by the network itself:
    Hessel et al. 2018, section "The Integrated Agent")."""
    network, target, config = learner.network, learner.target, learner.config
    assert isinstance(config, Config) and isinstance(batch.action, Tensor)
    following = batch.next_observation
    reward, discount = batch.reward.unsqueeze(-1), batch.discount.unsqueeze(-1)
    with torch.no_grad():
        there = target.forward(following, learner.noise())
        chooser, outputs = (
            (network, network.forward(following, learner.noise())) if config.double_q else (target, there)
        )
        best = chooser.allowed(chooser.values(outputs), following).argmax(-1)
        there = of_action(there, best)
    here = of_action(network.forward(batch.observation, learner.noise()), batch.action)
    match config.distribution:
        case C51():
            support = network.support
            goal = project_categorical(there.softmax(-1), reward + discount * support, support)
            loss = categorical_cross_entropy(here, goal)
            # The divergence is the priority (Hessel et al. 2018): the entropy of the target is no error.
            error = (loss.detach() - torch.special.entr(goal).sum(-1)).clamp_min(0.0)
            return Judged(loss, error, categorical_value(here.detach(), support))
        case QR():
            goal = reward + discount * there
            loss = quantile_huber_loss(here, goal, config.distribution.kappa)
            value = here.detach().mean(-1)
            return Judged(loss, (goal.mean(-1) - value).abs(), value)


def of_action(outputs: Tensor, action: Tensor) -> Tensor:
    """The distribution ``[B, n]`` of one action each, out of those of all ``[B, actions, n]``."""
    return outputs.gather(1, action.view(-1, 1, 1).expand(-1, 1, outputs.shape[-1])).squeeze(1)


def check(config: Config, task: Task, policy: Policy | None = None) -> None:
    """As :func:`torchward.algorithms.dqn.check`."""
    dqn.check(config, task, policy, config.distribution)


def train(
    config: Config, task: Task, run: Run, policy: Policy | None = None, shaping: Sequence[Shaping] = ()
) -> QPolicy:
    """Learn ``task`` and return the policy. ``policy`` is one to begin from; ``shaping`` is applied to each rollout in
    order before it is kept."""
    policy = begin(config, task, policy, config.distribution)
    learner = Learner(policy, config, judge)
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
