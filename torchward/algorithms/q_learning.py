"""Q-learning (Watkins 1989) on a table, and its kin: Sarsa, expected Sarsa, double Q-learning, soft Q-learning.

From top to bottom: the config, the update, the worlds, the loop. They differ in one thing, the value of what comes
next: see :meth:`Learner.next_value`. Its parts are the functions that the deep algorithms use as well.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchward.config import ConfigError, verify_seed
from torchward.data.exploration import Boltzmann, EpsilonGreedy, anneal, within_unit
from torchward.data.protocols import Episode, Task
from torchward.data.random import derive, generator
from torchward.functional.value_losses import (
    double_q_value,
    epsilon_greedy_probs,
    expected_value,
    greedy_value,
    soft_maximum,
    td_target,
)
from torchward.nets.spaces import Discrete, SpaceError, describe
from torchward.nets.tabular import TabularPolicy
from torchward.run import Run, RunError

CHUNK = 128
"""Steps of each world between two looks at the clocks. Learning happens at every step."""


@dataclass(frozen=True)
class Linear:
    """A step size that falls (or not) in a straight line over the run."""

    start: float = 0.1
    """The step size at the first step."""
    end: float = 0.1
    """The step size at the last step."""

    def __post_init__(self) -> None:
        within_unit("Linear", start=self.start, end=self.end)

    def rate(self, visits: Tensor, progress: float) -> Tensor:
        """The step size of each update, here whatever the number of ``visits`` before it."""
        return torch.full_like(visits, anneal(self.start, self.end, 1.0, progress))


@dataclass(frozen=True)
class VisitCount:
    """The step size (1 + scale * N)^-power of a state and action that N updates were made of before.

    Where the power is above 1/2 and at most 1 the table converges with probability 1 (Jaakkola et al. 1994); with scale
    and power 1 it holds the mean of its targets."""

    scale: float = 0.1
    """How soon it falls."""
    power: float = 0.8
    """How steeply it falls; above 1 it may stop before it is there."""

    def __post_init__(self) -> None:
        for name in ("scale", "power"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"expected {name} of VisitCount of at least 0, got {getattr(self, name)}")

    def rate(self, visits: Tensor, progress: float) -> Tensor:
        """The step size of each update, after so many ``visits`` before it."""
        return (1.0 + self.scale * visits) ** -self.power


@dataclass(frozen=True)
class Config:
    """The settings of tabular learning."""

    method: Literal["q_learning", "sarsa", "expected_sarsa", "double_q", "soft_q"] = "q_learning"
    """What the next state is worth: that of its best action (q_learning), of the action taken there (sarsa), of the
    policy's actions on average (expected_sarsa), of the best action by another table's judgement (double_q), of the
    policy's actions and its entropy, at the temperature of boltzmann exploration (soft_q)."""
    exploration: EpsilonGreedy | Boltzmann = field(default_factory=EpsilonGreedy)
    """How actions are chosen while learning."""
    learning_rate: Linear | VisitCount = VisitCount()
    """How far a value moves towards its target."""
    total_timesteps: int = 300_000
    """Environment steps to learn from, over all environments together."""
    n_envs: int = 32
    """Environments that are stepped together; with 1 it is the textbook's algorithm to the letter."""
    gamma: float = 0.99
    """Discount of the future, per step."""
    initial_q: float = 0.0
    """The value of all actions before anything is known; if above what is possible, the untried is tried first."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "cpu"
    """Where the table lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_seed(self.seed)
        for name in ("total_timesteps", "n_envs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected {name} of at least 1, got {getattr(self, name)}")
        within_unit("Config", gamma=self.gamma)
        if self.method == "soft_q" and not isinstance(self.exploration, Boltzmann):
            raise ConfigError(
                "soft_q needs the temperature of boltzmann exploration, which is that of its values; got "
                f"{type(self.exploration).__name__}"
            )


class Worlds(Protocol):
    """Many environments stepped at once, as :class:`torchward.envs.worlds.Worlds` describes them."""

    resumable: bool

    def reset(self, seed: int) -> Any: ...
    def step(self, action: Any) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...
    def close(self) -> None: ...


class WorldsTask(Task, Protocol):
    """A task whose worlds can be stepped by hand."""

    def worlds(self, n_envs: int) -> Worlds: ...


def check(config: Config, task: Task) -> None:
    """Raises SpaceError where states or actions are not numbered, ConfigError where there are no worlds to step."""
    for what, space in (("observations", task.observation_space), ("actions", task.action_space)):
        if not isinstance(space, Discrete):
            raise SpaceError(
                f"q_learning keeps a table and needs Discrete {what}, but {task.name} has {describe(space)}; "
                "ppo takes any observation and action."
            )
    if not callable(getattr(task, "worlds", None)):
        raise ConfigError(f"q_learning steps environments, but {task.name} has no worlds.")


class Transition(NamedTuple):
    """One step of ``n`` worlds, as row numbers of the table. ``following`` is what truly came next: where a time limit
    ended the episode, the observation that it ended in, and not the first of the next one."""

    state: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    following: Tensor
    chose: Tensor
    """False where a world ignored its action because it was only starting anew (next-step autoreset)."""


class Learner:
    """The table (double Q-learning has two), and the update."""

    def __init__(self, states: int, actions: int, config: Config) -> None:
        self.config = config
        shape = (2 if config.method == "double_q" else 1, states, actions)
        self.q = torch.full(shape, config.initial_q, dtype=torch.float64, device=config.device)
        self.visits = torch.zeros_like(self.q)
        self.generator = generator(config.seed, "actions", config.device)
        self.progress = 0.0

    def behaviour(self, state: Tensor) -> Tensor:
        """The probabilities of the actions in each state; of two tables, by their mean."""
        q = self.q[0, state] if len(self.q) == 1 else self.q[:, state].mean(0)
        return self.config.exploration.probs(q, self.progress)

    def choose(self, state: Tensor, noise: Tensor) -> Tensor:
        """An action by these probabilities: the first of exponential clocks with these rates to ring."""
        return (self.behaviour(state) / noise).argmax(-1)

    def draw(self, steps: int, n: int) -> tuple[Tensor, Tensor]:
        """All the randomness of ``steps`` steps: clocks for :meth:`choose` (Sarsa chooses twice where an episode
        ends), and the table that each world moves."""
        noise = self.q.new_empty(steps, 2 if self.config.method == "sarsa" else 1, n, self.q.shape[2])
        noise.exponential_(generator=self.generator)
        tables = torch.zeros(steps, n, dtype=torch.int64, device=self.q.device)
        return noise, tables.random_(2, generator=self.generator) if len(self.q) == 2 else tables

    def next_value(self, following: Tensor, chosen: Tensor, table: Tensor) -> Tensor:
        """What the next state is worth: the whole difference between the methods. ``chosen`` is Sarsa's next action."""
        match self.config.method:
            case "q_learning":
                return greedy_value(self.q[0, following])
            case "sarsa":
                return self.q[0, following, chosen]
            case "expected_sarsa":
                return expected_value(self.q[0, following], self.behaviour(following))
            case "double_q":
                return double_q_value(self.q[table, following], self.q[1 - table, following])
            case "soft_q":  # Haarnoja et al. 2017, equations 5 and 7; Fox et al. 2016 call it G-learning
                return soft_maximum(self.q[0, following], self.config.exploration.at(self.progress)[1])

    def update(self, step: Transition, chosen: Tensor, table: Tensor) -> Tensor:
        """Move Q(state, action) towards its target, and return the errors that there were.

        Where worlds stand at one state and action together, the value moves as if they had come one after the other,
        in the order of the worlds: adding up their steps would overshoot, and their mean would make one visit of many.
        """
        target = td_target(
            step.reward, step.terminated, self.next_value(step.following, chosen, table), self.config.gamma
        )
        entry = (table, step.state, step.action)
        place = (table * self.q.shape[1] + step.state) * self.q.shape[2] + step.action
        # [i, j]: world j moves what world i has moved before it
        later = ((place[:, None] == place) & step.chose[:, None]).triu(1)
        rate = self.config.learning_rate.rate(self.visits[entry] + later.sum(0, dtype=torch.float64), self.progress)
        rate = rate * step.chose  # nothing is learnt from a world that was only starting anew
        kept = torch.where(later, 1.0 - rate, 1.0).prod(1)  # what the later ones leave of an earlier one's move
        error = (target - self.q[entry]) * step.chose
        self.q.view(-1).index_add_(0, place, rate * kept * error)
        self.visits.view(-1).index_add_(0, place, step.chose.to(self.visits))
        return error

    def write(self, policy: TabularPolicy) -> None:
        """Bring the policy up to the table. It is the one that the values are of: the greedy policy; for Sarsa, which
        learns the worth of what it does, and for soft values, the exploring one."""
        q = self.q.mean(0)
        on_policy = self.config.method in ("sarsa", "expected_sarsa", "soft_q")
        probs = self.config.exploration.probs(q, self.progress) if on_policy else epsilon_greedy_probs(q, 0.0)
        policy.q.copy_(q)
        policy.probs.copy_(probs)

    def state_dict(self) -> dict[str, Any]:
        return {"q": self.q, "visits": self.visits, "generator": self.generator.get_state(), "progress": self.progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.q.copy_(state["q"])
        self.visits.copy_(state["visits"])
        self.generator.set_state(state["generator"])
        self.progress = float(state["progress"])


class Walk:
    """The worlds, where they stand, and the actions that are already chosen there: Sarsa chooses before it learns."""

    def __init__(self, task: WorldsTask, config: Config) -> None:
        assert isinstance(task.observation_space, Discrete) and isinstance(task.action_space, Discrete)
        self.worlds, self.name = task.worlds(config.n_envs), task.name
        self.resumable = self.worlds.resumable
        self.n, self.seed, self.device = config.n_envs, config.seed, config.device
        self.first_state, self.first_action = task.observation_space.start, task.action_space.start
        self.cuts = 0
        self.finished: list[Episode] = []
        self._begin()

    def _begin(self) -> None:
        self.state = self._rows(self.worlds.reset(derive(self.seed, f"worlds/{self.cuts}") % 2**31))
        self.chosen = torch.zeros(self.n, dtype=torch.int64, device=self.device)
        self.fresh = np.ones(self.n, bool)  # worlds at the start of an episode, where nothing is chosen yet
        self.returns, self.lengths = np.zeros(self.n), np.zeros(self.n, np.int64)

    def _rows(self, observation: NDArray[Any]) -> Tensor:
        return torch.from_numpy(observation - self.first_state).to(self.device)

    def step(self, action: Tensor) -> Transition:
        """Step every world; ``self.state`` is then where they stand, at the start of the next episode if one ended.
        Raises RunError where a reward is NaN or infinite."""
        result = self.worlds.step(action.cpu().numpy() + self.first_action)
        if not (sound := np.isfinite(result.reward)).all():
            world = int(np.flatnonzero(~sound)[0])
            raise RunError(
                f"{self.name} returned NaN or infinity as reward of world {world}; nothing was learnt from it"
            )
        before, self.state = self.state, self._rows(result.observation)
        ended = result.terminated | result.truncated
        within = result.final is not None  # a world that ended has begun anew within this step, not in the next one
        following = self._rows(np.where(ended, result.final, result.observation)) if within else self.state
        self.fresh = ended | result.reset if within else result.reset
        self.returns += result.reward
        self.lengths += ~result.reset
        for i in np.flatnonzero(ended):
            self.finished.append(Episode(float(self.returns[i]), int(self.lengths[i])))
            self.returns[i], self.lengths[i] = 0.0, 0
        facts = (result.reward.astype(np.float64), result.terminated, ~result.reset)
        reward, terminated, chose = (torch.from_numpy(fact).to(self.device) for fact in facts)
        return Transition(before, action, reward, terminated, following, chose)

    def episodes(self) -> list[Episode]:
        """The episodes that have ended since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def cut(self) -> None:
        """Begin every world anew if they cannot be brought back; their running episodes enter no statistics."""
        if not self.resumable:
            self.cuts += 1
            self._begin()

    def state_dict(self) -> dict[str, Any]:
        worlds = self.worlds.state_dict() if self.resumable else None
        arrays = {"fresh": self.fresh.copy(), "returns": self.returns.copy(), "lengths": self.lengths.copy()}
        return {"cuts": self.cuts, "worlds": worlds, "chosen": self.chosen, **arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cuts = int(state["cuts"])
        self._begin()
        if self.resumable:
            self.state = self._rows(self.worlds.load_state_dict(state["worlds"]))
            self.chosen = state["chosen"].to(self.device)
            self.fresh, self.returns, self.lengths = (np.array(state[name]) for name in ("fresh", "returns", "lengths"))


def learn(learner: Learner, walk: Walk, steps: int, progress: Callable[[int], float]) -> dict[str, Tensor | float]:
    """Step each world ``steps`` times, learning at every step; ``progress(t)`` is the part of the run that is over."""
    sarsa = learner.config.method == "sarsa"
    noise, tables = learner.draw(steps, walk.n)
    errors = []
    for t in range(steps):
        learner.progress = progress(t)
        if not sarsa:
            action = learner.choose(walk.state, noise[t, 0])
        elif walk.fresh.any():
            fresh = torch.from_numpy(walk.fresh).to(walk.chosen.device)
            action = torch.where(fresh, learner.choose(walk.state, noise[t, 0]), walk.chosen)
        else:
            action = walk.chosen
        step = walk.step(action)
        if sarsa:
            walk.chosen = learner.choose(step.following, noise[t, 1])
        errors.append(learner.update(step, walk.chosen, tables[t]))
    return {"td_error": torch.stack(errors).abs().mean()}


def train(config: Config, task: WorldsTask, run: Run, policy: TabularPolicy | None = None) -> TabularPolicy:
    """Learn ``task`` and return the policy, with its action values. A ``policy`` to begin from gives its values."""
    initial, policy = policy, TabularPolicy.empty(task.observation_space, task.action_space)
    learner = Learner(policy.q.shape[0], policy.q.shape[1], config)
    if initial is not None and not isinstance(initial, TabularPolicy):
        raise ConfigError(f"q_learning begins from a TabularPolicy, got {type(initial).__name__}.")
    if initial is not None:
        learner.q[:] = initial.q.to(learner.q)
    walk = Walk(task, config)
    with run:
        run.track(learner=learner, walk=walk)
        while not run.done:
            steps = min(CHUNK, -(-(run.total - run.step) // walk.n))
            metrics = learn(learner, walk, steps, lambda t: (run.step + t * walk.n) / run.total)
            run.advance(steps * walk.n, walk.episodes())
            run.log(metrics)
            if run.due("evaluate"):
                learner.write(policy)
                seed = derive(config.seed, "evaluation")
                run.evaluation(task.evaluate(policy, run.options.n_eval_episodes, seed), policy)
            if run.due("checkpoint"):
                walk.cut()
                run.save()
        learner.write(policy)
        run.finish(policy)
    walk.worlds.close()
    return policy
