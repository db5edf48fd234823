"""Deep Q-learning (Mnih et al. 2015), with what was found since: double, duelling, n-step, prioritised, recurrent.

From top to bottom: the config, the errors of what was sampled, the update, the loop. Its neighbour ``rainbow`` has
other errors, and takes the update from here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from torchward.config import ConfigError
from torchward.data import memory
from torchward.data.ahead import Ahead
from torchward.data.exploration import Boltzmann, EpsilonGreedy, anneal
from torchward.data.hindsight import HER, Memory
from torchward.data.intrinsic import ExplorationBonus, NoBonus, bonuses
from torchward.data.means import Means
from torchward.data.memory import LOG_STEPS, MEASURED, check_replay, replay_of, tell_if_idle, updates_of, verify
from torchward.data.protocols import Policy, Shaping, Task, absorb, on_device
from torchward.data.random import derive, generator, seeded
from torchward.data.replay import Prioritised, Replay, Sequences, StackPadding, Transitions, Uniform
from torchward.data.tree import tree_map
from torchward.functional.returns import n_step_returns
from torchward.functional.value_losses import (
    double_q_value,
    greedy_value,
    huber_loss,
    n_step_target,
    squared_error,
)
from torchward.nets.adam import Adam
from torchward.nets.flat import Flat
from torchward.nets.q_network import Distribution, QNet
from torchward.nets.q_policy import QPolicy
from torchward.nets.target import follow, twin
from torchward.nets.uniform import UniformPolicy
from torchward.run import Run

MAX_SHARE = 0.9
"""Of the largest error in a sequence, beside the mean one, in its priority (Kapturowski et al. 2019, section 2.3)."""


@dataclass(frozen=True)
class Huber:
    """Quadratic up to an error of delta, and linear from there."""

    delta: float = 1.0
    """The error at which the one becomes the other."""

    def __post_init__(self) -> None:
        if not self.delta > 0.0:
            raise ConfigError(f"expected delta of Huber above 0, got {self.delta}")

    def __call__(self, value: Tensor, target: Tensor) -> Tensor:
        return huber_loss(value, target, self.delta)

    def slope(self, value: Tensor, target: Tensor) -> Tensor:
        """Its derivative by the value."""
        return (value - target).clamp_(-self.delta, self.delta)


@dataclass(frozen=True)
class Squared:
    """The square of the error."""

    def __call__(self, value: Tensor, target: Tensor) -> Tensor:
        return squared_error(value, target)

    def slope(self, value: Tensor, target: Tensor) -> Tensor:
        """Its derivative by the value."""
        return 2.0 * (value - target)


@dataclass(frozen=True)
class Config:
    """DQN's settings, by the names of Stable-Baselines3."""

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
    """Steps in a minibatch; with a recurrent network, sequences."""
    buffer_size: int = 1_000_000
    """Rows that the replay keeps: the steps, and one for each episode that ends."""
    buffer_on_disk: bool = False
    """Keep what was observed in files of the run, not in memory."""
    replay: Uniform | Prioritised | HER = field(default_factory=Uniform)
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
    n_steps: int = 1
    """Steps whose rewards are summed up before the target network takes over."""
    tau: float = 1.0
    """How far the target network moves towards the network at a time: 1 copies it."""
    target_update_interval: int = 10_000
    """Environment steps between two moves of the target network."""
    double_q: bool = False
    """Choose the best next action by the network, and judge it by the target network."""
    loss: Huber | Squared = field(default_factory=Huber)
    """What an error costs."""
    exploration: EpsilonGreedy | Boltzmann = field(default_factory=lambda: EpsilonGreedy(1.0, 0.05, 0.1))
    """How actions are chosen while learning."""
    exploration_bonus: ExplorationBonus = field(default_factory=NoBonus)
    """What is paid for the new, beside the rewards."""
    sequence_length: int = 40
    """Steps of a sequence that a recurrent network learns from."""
    burn_in: int = 20
    """Steps before these which only bring the recurrent state up."""
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
        for name, least in (("sequence_length", 1), ("burn_in", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"expected {name} of at least {least}, got {getattr(self, name)}")
        if isinstance(self.replay, HER) and self.network.recurrent != "none":
            raise ConfigError(
                f"hindsight changes single steps, got recurrent={self.network.recurrent!r}; leave one out"
            )


class Settings(memory.Settings, Protocol):
    """What the learner reads of the settings of DQN, and of its neighbours'."""

    @property
    def batch_size(self) -> int: ...
    @property
    def n_steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def learning_rate_schedule(self) -> Literal["constant", "linear"]: ...
    @property
    def exploration(self) -> EpsilonGreedy | Boltzmann: ...
    @property
    def max_grad_norm(self) -> float: ...
    @property
    def adam_eps(self) -> float: ...
    @property
    def network(self) -> QNet: ...


class Judged(NamedTuple):
    """What is thought of a minibatch ``[B]``."""

    loss: Tensor
    """What each step, or sequence, has in the loss, which is the mean."""
    error: Tensor
    """How far each value was from its target: the next priority."""
    value: Tensor
    """The value of each action that was taken."""


@torch.no_grad()
def goal(learner: "Learner", batch: Transitions) -> Tensor:
    """What the values of steps ``[B]`` should become (Mnih et al. 2015, equation 2; van Hasselt et al. 2016, equation
    4)."""
    network, target, config = learner.network, learner.target, learner.config
    assert isinstance(config, Config)
    following = batch.next_observation
    q_next = target.allowed(target.forward(following, learner.noise()), following)
    if not config.double_q:
        return n_step_target(batch.reward, batch.discount, greedy_value(q_next))
    select = network.allowed(network.forward(following, learner.noise()), following)
    return n_step_target(batch.reward, batch.discount, double_q_value(select, q_next))


def judge(learner: "Learner", batch: Transitions) -> Judged:
    """The temporal-difference errors of steps."""
    assert isinstance(learner.config, Config) and isinstance(batch.action, Tensor)
    aim = goal(learner, batch)
    q = learner.network.forward(batch.observation, learner.noise())
    q = q.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    return Judged(learner.config.loss(q, aim), (aim - q.detach()).abs(), q.detach())


def judge_sequences(learner: "Learner", batch: Sequences) -> Judged:
    """The same for rows ``[B, T]`` of a recurrent network, whose state was not kept: it begins at zero, and the first
    ``burn_in`` rows bring it up, without gradient (Kapturowski et al. 2019, section 2.3). The last ``n_steps`` rows are
    there to be looked ahead at."""
    network, target, config = learner.network, learner.target, learner.config
    assert isinstance(config, Config) and isinstance(batch.action, Tensor)
    begin, length = config.burn_in, config.sequence_length
    # The state ends with the row that shows the final observation, not with the last step before it.
    reset = batch.boundary & ~batch.loss_mask
    before = tree_map(lambda leaf: leaf[:, :begin], batch.observation)
    seen = tree_map(lambda leaf: leaf[:, begin:], batch.observation)
    noise = learner.noise()
    q = network.unroll(seen, network.burn_in(before, reset[:, :begin]), reset[:, begin:], noise)
    with torch.no_grad():
        state = target.burn_in(before, reset[:, :begin])
        q_next = target.allowed(target.unroll(seen, state, reset[:, begin:], learner.noise()), seen)
        value = double_q_value(network.allowed(q, seen), q_next) if config.double_q else greedy_value(q_next)
        reward, terminated, boundary = (x[:, begin:-1] for x in (batch.reward, batch.terminated, batch.boundary))
        goal = n_step_returns(reward, value[:, 1:], terminated, boundary, config.gamma, config.n_steps)[:, :length]
        mask = batch.loss_mask[:, begin : begin + length]
        count = mask.sum(1).clamp_min(1)
        whole = mask.sum().clamp_min(1) / len(mask)
    taken = batch.action[:, begin : begin + length].unsqueeze(-1)
    chosen = q[:, :length].gather(-1, taken).squeeze(-1)
    error = torch.where(mask, (goal - chosen.detach()).abs(), 0.0)
    return Judged(
        loss=torch.where(mask, config.loss(chosen, goal), 0.0).sum(1) / whole,  # every step weighs the same
        error=MAX_SHARE * error.amax(1) + (1.0 - MAX_SHARE) * error.sum(1) / count,
        value=torch.where(mask, chosen.detach(), 0.0).sum(1) / count,
    )


class Learner:
    """The network, its target, the optimiser, and the update.

    ``judge`` is what differs between neighbours. Where it holds values against a ``goal``, and that is given as well,
    a network of a few layers is differentiated by hand, which comes to the same."""

    def __init__(
        self,
        policy: QPolicy,
        config: Settings,
        judge: Callable[["Learner", Transitions], Judged] = judge,
        goal: Callable[["Learner", Transitions], Tensor] | None = None,
    ) -> None:
        self.policy, self.config, self.judge, self.goal = policy, config, judge, goal
        self.network, self.target = policy.q, twin(policy.q)
        pairs = list(zip(self.network.parameters(), self.target.parameters(), strict=True))
        self.parameters = Flat(own for own, _ in pairs if own.requires_grad)
        self.copies = Flat(copied for own, copied in pairs if own.requires_grad)
        self.optimizer = Adam([self.parameters.value], config.learning_rate, eps=config.adam_eps)
        self.dense = None if goal is None else self.network.dense()
        self.generator = generator(config.seed, "noisy weights", config.device)
        self.means, self.updates = Means("loss", "error", "q", device=config.device), 0
        self.anneal(0.0)

    def anneal(self, progress: float) -> None:
        """Set the schedules; ``progress`` goes from 0 at the first step to 1 at the last."""
        config = self.config
        self.progress = progress
        self.policy.epsilon, self.policy.temperature = config.exploration.at(progress)
        self.optimizer.lr = config.learning_rate * (1.0 - progress * (config.learning_rate_schedule == "linear"))

    def noise(self) -> Tensor | None:
        """Noise for the weights, one for a whole minibatch (Fortunato et al. 2018, section 3.1); None where there are
        no noisy ones."""
        return self.network.noise((1,), self.generator) if self.network.noisy else None

    def update(self, replay: Memory) -> None:
        """``gradient_steps`` minibatches out of the replay."""
        config = self.config
        if replay.prioritised is not None:  # Schaul et al. 2016, section 3.4
            replay.beta = anneal(replay.prioritised.beta, 1.0, 1.0, self.progress)
        weighted = replay.prioritised is not None
        for _ in range(updates_of(config)):
            measured = self.updates % MEASURED == 0 or not self.means.count
            if self.policy.history:
                assert isinstance(config, Config) and isinstance(replay, Replay)
                rows = replay.sample_sequences(config.batch_size, rows_of(config))
                judged, index = self.learn_rows(rows, rows.weight if weighted else None), rows.index
            else:
                batch = replay.sample(config.batch_size, config.gamma, config.n_steps)
                judged, index = self.learn(batch, batch.weight if weighted else None, weighted or measured), batch.index
            if judged is not None and weighted:
                replay.update_priorities(index, judged.error)
            if judged is not None and measured:
                self.means.add(*(each.detach().mean() for each in judged))
            self.updates += 1

    def learn(self, batch: Transitions, weight: Tensor | None, wanted: bool = True) -> Judged | None:
        """One step of the optimiser down the mean loss of a minibatch, in which each step has its ``weight``; and what
        was thought of it, if that is ``wanted``."""
        if self.dense is None or self.goal is None:
            judged = self.judge(self, batch)
            self.descend(judged.loss, weight)
            return judged
        assert isinstance(batch.action, Tensor) and hasattr(self.config, "loss")
        aim, taken, loss = self.goal(self, batch), batch.action.unsqueeze(-1), self.config.loss
        recorded = self.dense.record(self.network.encode(batch.observation))
        q = recorded.outputs.gather(-1, taken).squeeze(-1)
        slope = loss.slope(q, aim).mul_(1.0 / len(q) if weight is None else weight / len(q))
        recorded.backward(torch.zeros_like(recorded.outputs).scatter_(-1, taken, slope.unsqueeze(-1)))
        self.step()
        return Judged(loss(q, aim), (aim - q).abs_(), q) if wanted else None

    def learn_rows(self, batch: Sequences, weight: Tensor | None) -> Judged | None:
        """The same, from rows."""
        judged = judge_sequences(self, batch)
        self.descend(judged.loss, weight)
        return judged

    def descend(self, loss: Tensor, weight: Tensor | None = None) -> None:
        """One step of the optimiser down the mean of a loss ``[B]``."""
        self.parameters.zero_grad()
        (loss if weight is None else weight * loss).mean().backward()
        self.step()

    def step(self) -> None:
        """Move the parameters by the gradients that there are."""
        self.parameters.clip(self.config.max_grad_norm)
        self.optimizer.step()

    def follow(self) -> None:
        """Move the target network towards the network by ``tau``."""
        follow([self.copies.value], [self.parameters.value], self.config.tau)

    def metrics(self) -> dict[str, Tensor | float]:
        """The means over the updates since the last call, not yet read; and the schedules."""
        found: dict[str, Tensor | float] = {"learning_rate": self.optimizer.lr, "updates": float(self.updates)}
        found["temperature" if self.policy.temperature else "epsilon"] = self.policy.temperature or self.policy.epsilon
        return found | self.means.take()

    def state_dict(self) -> dict[str, Any]:
        return {
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "progress": self.progress,
            "means": self.means.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.target.load_state_dict(state["target"])
        self.generator.set_state(state["generator"])
        self.means.load_state_dict(state["means"])
        self.updates = int(state["updates"])
        self.anneal(float(state["progress"]))
        self.optimizer.load_state_dict(state["optimizer"])


def rows_of(config: Config) -> int:
    """The rows of a sequence: to burn in, to learn from, to look ahead at."""
    return config.burn_in + config.sequence_length + config.n_steps


def check(config: Settings, task: Task, policy: Policy | None = None, distribution: Distribution | None = None) -> None:
    """Raise a SpaceError if no network of action values, where no ``policy`` is given, or no replay takes the task's
    spaces: what is tried here is thrown away. A ConfigError if a recurrent one finds no whole sequence in the replay,
    where the row before its first step may be the end of another episode."""
    if policy is None:
        policy = QPolicy(task.observation_space, task.action_space, config.network, distribution)
    check_replay(config, task)
    if not isinstance(policy, QPolicy) or not policy.history or not isinstance(config, Config):
        return
    if config.buffer_size < (least := config.n_envs * (rows_of(config) + 1)):
        raise ConfigError(
            f"expected buffer_size of at least n_envs * (burn_in + sequence_length + n_steps + 1) = {least}, got "
            f"{config.buffer_size}"
        )


def begin(config: Settings, task: Task, policy: Policy | None, distribution: Distribution | None = None) -> QPolicy:
    """The policy to learn: a new one, or the one that is given. Raises ConfigError for one of another kind."""
    if policy is None:
        with seeded(config.seed, "policy"):
            policy = QPolicy(task.observation_space, task.action_space, config.network, distribution)
    if not isinstance(policy, QPolicy) or policy.distribution != distribution:
        kind = "no distribution" if distribution is None else f"the distribution {distribution}"
        raise ConfigError(f"expected to begin from a QPolicy with {kind}, got a {describe(policy)}")
    return on_device(policy, config.device)


def describe(policy: Policy) -> str:
    """A policy in words."""
    of = f" with {policy.distribution}" if isinstance(policy, QPolicy) else ""
    return f"{type(policy).__name__}{of}"


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
    shaping = [*shaping, *bonuses(config.exploration_bonus, task, config.gamma, config.seed, config.device)]
    uniform = UniformPolicy(task.observation_space, task.action_space, policy.initial_state)
    starts = max(config.learning_starts, config.n_envs * rows_of(config) if policy.history else 0)
    tell_if_idle(starts, config.total_timesteps, run.say)
    with run:
        tracked = {f"shaping{i}": each for i, each in enumerate(shaping)}
        run.track(policy=policy, learner=learner, source=source, replay=replay, **tracked)
        while not run.done:
            learner.anneal(run.step / run.total)
            warm = run.step < starts
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
