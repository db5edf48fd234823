"""Tables against the exact optimum: dynamic programming, Q-learning and Sarsa on Gymnasium's toy-text problems.

    python -m benchmarks.tabular                                     all of it
    python -m benchmarks.tabular --case Taxi-q_learning --seeds 2    a part of it

Protocol: gamma 0.99. Dynamic programming: the largest difference between any two of value iteration, policy iteration
and a linear solve of the optimal policy, over all states. Learning: the policy after the last step, evaluated exactly
from the environment's own table of probabilities, as the expected return from the start; never by playing. Time limits
are no part of the problem (they are bootstrapped through). Budget and schedule of each case stand in `CASES`; one
thread a run.

Q-learning's policy is its greedy one, held against the optimum. Sarsa's is its epsilon-greedy one, held against the
best policy that takes a random action with probability epsilon. On CliffWalking its rate has to begin low and fall to
0: place 33, at the edge of the cliff, is visited once in 800 steps, and its second best action is only 0.65 worse under
a noise of 18 (docs/log.md).
"""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.common import MISSING, Results, Row, Work, child, conduct, options_of_runs

if TYPE_CHECKING:
    from torch import Tensor

    from torchward.algorithms.q_learning import Config
    from torchward.envs.models import Model

NAME = "tabular"
GAMMA, SEEDS = 0.99, 5
EXACT = 1e-9
"""A policy whose return is this near to the best one's, relatively, is a best one: the rest is rounding."""
MODELS = ("FrozenLake-v1", "FrozenLake8x8-v1", "Taxi", "CliffWalking-v1")
"""For dynamic programming. Taxi is Taxi-v4 or, before Gymnasium 1.3, Taxi-v3."""


class Case(NamedTuple):
    """A problem that is to be learnt, with what is asked for."""

    task: str
    within: float
    settings: dict[str, Any]


CASES = {
    "CliffWalking-q_learning": Case(
        "CliffWalking-v1",
        EXACT,
        {"total_timesteps": 50_000, "exploration": ("EpsilonGreedy", 0.1, 0.1), "learning_rate": ("Linear", 0.5, 0.5)},
    ),
    "Taxi-q_learning": Case(
        "Taxi",
        EXACT,
        {"total_timesteps": 300_000, "exploration": ("EpsilonGreedy", 0.5, 0.5), "learning_rate": ("Linear", 1.0, 1.0)},
    ),
    "FrozenLake-q_learning": Case(
        "FrozenLake-v1",
        0.02,
        {
            "total_timesteps": 100_000,
            "exploration": ("EpsilonGreedy", 1.0, 0.1),
            "learning_rate": ("VisitCount", 0.1, 0.8),
        },
    ),
    "FrozenLake8x8-q_learning": Case(
        "FrozenLake8x8-v1",
        0.02,
        {
            "total_timesteps": 500_000,
            "exploration": ("EpsilonGreedy", 0.1, 0.1),
            "learning_rate": ("VisitCount", 0.1, 0.8),
            "initial_q": 1.0,
        },
    ),
    "CliffWalking-sarsa": Case(
        "CliffWalking-v1",
        EXACT,
        {
            "method": "sarsa",
            "total_timesteps": 1_000_000,
            "exploration": ("EpsilonGreedy", 0.1, 0.1),
            "learning_rate": ("Linear", 0.02, 0.0),
        },
    ),
    "FrozenLake-sarsa": Case(
        "FrozenLake-v1",
        EXACT,
        {
            "method": "sarsa",
            "total_timesteps": 400_000,
            "exploration": ("EpsilonGreedy", 1.0, 0.1),
            "learning_rate": ("VisitCount", 0.01, 0.8),
        },
    ),
}


def config(case: Case, seed: int) -> "Config":
    """The case's config; its parts are written as their class and first fields."""
    from torchward.algorithms import q_learning

    made = {
        name: getattr(q_learning, value[0])(*value[1:]) if isinstance(value, tuple) else value
        for name, value in case.settings.items()
    }
    return q_learning.Config(**made, gamma=GAMMA, seed=seed)


def registered(task: str) -> str:
    """The id under which the installed Gymnasium has it."""
    import gymnasium as gym

    return task if task != "Taxi" else "Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3"


def learn(case: Case, seed: int) -> dict[str, Any]:
    """Train once and judge the policy exactly."""
    import time

    import torch

    from torchward.algorithms import q_learning
    from torchward.envs.task import Control
    from torchward.run import Run, RunOptions

    torch.set_num_threads(1)
    task, chosen = Control(registered(case.task)), config(case, seed)
    options = RunOptions(eval_freq=-1, checkpoint_freq=-1, tensorboard=False, progress=False)
    start, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as directory:
        run = Run(Path(directory) / "run", options, total=chosen.total_timesteps, manifest={"benchmark": NAME})
        policy = q_learning.train(chosen, task, run)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    epsilon = chosen.exploration.end if chosen.method == "sarsa" else 0.0
    got, best = start_value(task.model(), policy.probs), start_value(task.model(), best_soft(task.model(), epsilon))
    return {
        "task": task.name,
        "value": got,
        "optimum": best,
        "gap": (best - got) / abs(best),
        "steps": run.step,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "steps_per_second": round(run.step / seconds),
    }


def start_value(model: "Model", probs: "Tensor") -> float:
    """The expected return of a policy, from the linear equation."""
    import torch

    from torchward.functional.bellman import policy_evaluation_exact

    end = torch.full((model.reward.shape[0] - len(probs), probs.shape[1]), 1.0 / probs.shape[1], dtype=probs.dtype)
    value = policy_evaluation_exact(model.transition, model.reward, torch.cat([probs, end]), GAMMA)
    return float(model.start @ value)


def best_soft(model: "Model", epsilon: float) -> "Tensor":
    """The best of all policies that take a random action with probability epsilon: policy iteration among them."""
    import torch

    from torchward.functional.bellman import policy_evaluation_exact, q_from_v
    from torchward.functional.value_losses import epsilon_greedy_probs

    policy, before = torch.full_like(model.reward, 1.0 / model.reward.shape[1]), -float("inf")
    while True:
        value = policy_evaluation_exact(model.transition, model.reward, policy, GAMMA)
        if float(value.sum()) <= before + 1e-9:
            return policy
        before = float(value.sum())
        q = q_from_v(model.transition, model.reward, value, GAMMA)
        policy = epsilon_greedy_probs(q, epsilon)


def plan(name: str) -> dict[str, Any]:
    """Value iteration, policy iteration and the linear solve on one model."""
    import torch

    from torchward.algorithms import dynamic_programming as dp
    from torchward.envs.task import Control
    from torchward.functional.bellman import policy_evaluation_exact
    from torchward.run import Run, RunOptions

    torch.set_num_threads(1)
    task = Control(registered(name))
    model, options = task.model(), RunOptions(eval_freq=-1, checkpoint_freq=-1, tensorboard=False, progress=False)
    values, sweeps = [], []
    for method in ("value_iteration", "policy_iteration"):
        chosen = dp.Config(method=method, gamma=GAMMA)
        with tempfile.TemporaryDirectory() as directory:
            run = Run(Path(directory) / "run", options, total=chosen.total_timesteps, manifest={"benchmark": NAME})
            policy = dp.train(chosen, task, run)
        sweeps.append(run.step)
        values.append((policy.probs * policy.q).sum(-1))
        whole = torch.cat([policy.probs, policy.probs[:1]])  # what is done after the end does not matter
        values.append(policy_evaluation_exact(model.transition, model.reward, whole, GAMMA)[:-1])
    difference = max(float((one - other).abs().max()) for one in values for other in values)
    return {
        "task": task.name,
        "difference": difference,
        "sweeps": sweeps,
        "optimum": float(model.start[:-1] @ values[0]),
    }


def settings(name: str) -> dict[str, Any]:
    return {"gamma": GAMMA, "model": name} if name in MODELS else {"gamma": GAMMA, **CASES[name].settings}


def key(name: str, seed: int) -> str:
    return name if name in MODELS else f"{name}-seed-{seed}"


def summary(result: dict[str, Any]) -> str:
    if "difference" in result:
        return f"differ by {result['difference']:.1e}"
    return f"{result['value']:.6f} of {result['optimum']:.6f}, {result['steps_per_second']} steps/s"


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    command = f"python -m benchmarks.{NAME}"
    plans = [results.read(key(name, 0), settings(name)) for name in MODELS]
    there = [one for one in plans if one is not None]
    measured = MISSING
    if there:
        worst = max(one["difference"] for one in there)
        each = ", ".join(f"{one['task']} {one['difference']:.0e}" for one in there)
        met = "reached" if len(there) == len(MODELS) and worst <= 1e-10 else "**missed**"
        measured = f"{worst:.0e} ({each}); {met}"
    found.append(Row("value iteration = policy iteration = linear solve, all states", "1e-10", "", measured, command))
    for name, case in CASES.items():
        runs = [results.read(key(name, seed), settings(name)) for seed in range(SEEDS)]
        done = [one for one in runs if one is not None]
        measured = MISSING
        if done:
            gaps = [one["gap"] for one in done]
            met = "reached" if len(done) == SEEDS and max(gaps) <= case.within else "**missed**"
            exact = sum(gap <= EXACT for gap in gaps)
            speed = sorted(one["steps_per_second"] for one in done)[len(done) // 2]
            measured = (
                f"largest gap {max(max(gaps), 0.0):.2%}, {exact} of {len(done)} seeds exactly optimal "
                f"({done[0]['optimum']:.4f}), {speed} steps/s; {met}"
            )
        task, method = name.split("-")
        best = "the best epsilon-soft policy" if method == "sarsa" else "the optimum"
        what = f"{method} on {task}, {case.settings['total_timesteps'] // 1000} k steps, against {best}"
        found.append(Row(what, "equal" if case.within == EXACT else f"{case.within:.0%}", "", measured, command))
    return found


def main() -> None:
    options = options_of_runs(NAME, __doc__ or "", SEEDS)
    options.add_argument("--case", nargs="+", choices=[*MODELS, *CASES], default=[*MODELS, *CASES])
    given = options.parse_args()

    def works() -> list[Work]:
        command = [sys.executable, "-m", f"benchmarks.{NAME}", "--one", "--case"]
        return [
            Work(key(name, seed), settings(name), partial(child, [*command, name, "--seed", str(seed)], 1), summary)
            for name in given.case
            for seed in range(1 if name in MODELS else given.seeds)
        ]

    def run() -> dict[str, Any]:
        name = given.case[0]
        return plan(name) if name in MODELS else learn(CASES[name], given.seed)

    conduct(given, NAME, rows, works, run)


if __name__ == "__main__":
    main()
