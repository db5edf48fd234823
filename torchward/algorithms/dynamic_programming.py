"""Value iteration and policy iteration: the optimum of an environment that carries its own model.

From top to bottom: the config, the sweep, the loop. One step of the run is one sweep over all states. What a sweep is
made of stands in functional/bellman.py; the model is Gymnasium's table `P` of transition probabilities.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from torchward.config import ConfigError, verify_seed
from torchward.data.protocols import Task
from torchward.data.random import derive
from torchward.functional.bellman import greedy_policy, policy_evaluation_exact, q_from_v
from torchward.functional.value_losses import greedy_value
from torchward.nets.spaces import Discrete, SpaceError, describe
from torchward.nets.tabular import TabularPolicy
from torchward.run import Run

ROUNDING = 8 * torch.finfo(torch.float64).eps
"""Values that agree within this times the largest of them are equal: float64 can say no more."""


@dataclass(frozen=True)
class Config:
    """The settings of dynamic programming."""

    method: Literal["value_iteration", "policy_iteration"] = "value_iteration"
    """value_iteration: many cheap sweeps; policy_iteration: few, each solving a linear system."""
    total_timesteps: int = 100_000
    """Sweeps over all states, at most; it ends as soon as the values are within the tolerance."""
    gamma: float = 0.99
    """Discount of the future, per step."""
    tolerance: float = 1e-10
    """How far a value may be from the optimum. (With gamma 1, where no bound is known: how far a sweep may move it.)"""
    seed: int = 0
    """The seed of the evaluation; the sweeps draw nothing."""
    device: str = "cpu"
    """Where the model lives: cpu, cuda."""

    def __post_init__(self) -> None:
        verify_seed(self.seed)
        if self.total_timesteps < 1:
            raise ConfigError(f"expected total_timesteps of at least 1, got {self.total_timesteps}")
        if not 0.0 <= self.gamma <= 1.0:
            raise ConfigError(f"expected gamma within [0, 1], got {self.gamma}")
        if not self.tolerance > 0.0:
            raise ConfigError(f"expected tolerance above 0, got {self.tolerance}")


class Model(Protocol):
    """A finite Markov decision process whose last state is the end of all episodes, as
    :class:`torchward.envs.models.Model` describes it."""

    @property
    def transition(self) -> Tensor: ...
    @property
    def reward(self) -> Tensor: ...
    @property
    def start(self) -> Tensor: ...


class ModelTask(Task, Protocol):
    """A task that knows its transition probabilities and rewards."""

    def model(self) -> Model: ...


def check(config: Config, task: ModelTask) -> None:
    """Raises SpaceError where states or actions are not numbered, ConfigError where the task has no model at all, and
    the task's own error where its environment has no table of probabilities."""
    for what, space in (("states", task.observation_space), ("actions", task.action_space)):
        if not isinstance(space, Discrete):
            raise SpaceError(
                f"dynamic_programming needs numbered {what}, but {task.name} has {describe(space)}; "
                "ppo takes any observation and action."
            )
    if not callable(getattr(task, "model", None)):
        raise ConfigError(f"dynamic_programming needs a model of {task.name}, which has none; q_learning needs none.")
    task.model()


class Solver:
    """The values so far, the policy that is greedy in them, and the sweep that improves both."""

    def __init__(self, model: Model, config: Config) -> None:
        self.config = config
        self.transition, self.reward = model.transition.to(config.device), model.reward.to(config.device)
        self.start = model.start.to(config.device)
        self.value = self.reward.new_zeros(self.reward.shape[0])
        # The uniform policy reaches an end wherever any policy does, so with gamma = 1 it has a value to improve on.
        self.policy = torch.full_like(self.reward, 1.0 / self.reward.shape[1])
        self.residual = float("inf")

    @property
    def settled(self) -> bool:
        """True when the values are within the tolerance of the optimum, or as near to it as float64 comes.

        If one more backup would move no value by more than r, none is farther than r / (1 - gamma) from the optimum
        (Puterman 1994, theorem 6.3.1)."""
        gamma, tolerance = self.config.gamma, self.config.tolerance
        bound = tolerance if gamma == 1.0 else tolerance * (1.0 - gamma)
        return self.residual <= max(bound, ROUNDING * float(self.value.abs().max()))

    def sweep(self) -> None:
        """One iteration: evaluate (exactly, or by a single backup), then improve."""
        gamma = self.config.gamma
        if self.config.method == "policy_iteration":
            self.value = policy_evaluation_exact(self.transition, self.reward, self.policy, gamma)
        q = q_from_v(self.transition, self.reward, self.value, gamma)
        best = greedy_value(q)
        gain = best - self.value
        self.residual = float(gain.abs().max())
        if self.config.method == "value_iteration":
            self.value, self.policy = best, greedy_policy(q)
        else:  # keep an action unless another is truly better: rounding must not make the policy run in circles
            better = gain > ROUNDING * float(best.abs().max())
            self.policy = torch.where(better[:, None], greedy_policy(q), self.policy)

    def metrics(self) -> dict[str, Tensor | float]:
        """The residual of the last sweep, and the expected return from the start as it is estimated now."""
        return {"residual": self.residual, "start_value": torch.dot(self.start, self.value)}

    def write(self, policy: TabularPolicy) -> None:
        """Bring the policy's table up to the solver; the state that stands for the end is left out."""
        q = q_from_v(self.transition, self.reward, self.value, self.config.gamma)
        policy.probs.copy_(self.policy[:-1])
        policy.q.copy_(q[:-1])

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "policy": self.policy, "residual": self.residual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.policy = state["value"].to(self.config.device), state["policy"].to(self.config.device)
        self.residual = float(state["residual"])


def train(config: Config, task: ModelTask, run: Run, policy: TabularPolicy | None = None) -> TabularPolicy:
    """Solve ``task`` and return the optimal policy, with its action values.

    The run ends when the values are within ``config.tolerance`` of the optimum. A ``policy`` to begin from gives value
    iteration its values and policy iteration its choices."""
    solver = Solver(task.model(), config)
    if policy is None:
        policy = TabularPolicy.empty(task.observation_space, task.action_space)
    elif not isinstance(policy, TabularPolicy):
        raise ConfigError(f"dynamic_programming begins from a TabularPolicy, got {type(policy).__name__}.")
    else:
        solver.value[:-1] = (policy.probs * policy.q).sum(-1).to(solver.value)
        solver.policy[:-1] = policy.probs.to(solver.policy)
    seed = derive(config.seed, "evaluation")
    with run:
        run.track(solver=solver)
        while not run.done and not solver.settled:
            solver.sweep()
            run.advance(1)
            run.log(solver.metrics())
            if run.due("evaluate") or (solver.settled and run.options.eval_freq >= 0):
                solver.write(policy)
                run.evaluation(task.evaluate(policy, run.options.n_eval_episodes, seed), policy)
            if run.due("checkpoint"):
                run.save()
        solver.write(policy)
        run.finish(policy)
    return policy
