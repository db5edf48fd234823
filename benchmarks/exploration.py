"""MountainCar with PPO, which by itself never finds the goal: paid for the new by one bonus, another, or none.

    python -m benchmarks.exploration --jobs 2                               all of it
    python -m benchmarks.exploration --bonus random_distillation --seeds 2  a part of it

Protocol: `torchward train ppo MountainCar-v0 --seed N` with nothing else is the setting with random distillation; the
others replace its bonus. 300,000 steps; the final policy (not the best one) plays 100 fresh episodes deterministically,
whose returns are the environment's own; a seed's score is their mean. Reported are the interquartile mean of the 5
scores and its 95 % stratified bootstrap interval (Agarwal et al. 2021). One thread a run; an interrupted one is taken
up again. An episode is stopped after 200 steps, so -200 is a policy that never arrives.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import MISSING, RUNS, Results, Row, Work, child, markdown, measure, parser, verdict
from benchmarks.defaults import interval
from benchmarks.judged import preset, train_and_judge

if TYPE_CHECKING:
    from torchward.data.intrinsic import ExplorationBonus

NAME = "exploration"
TASK, EPISODES, SEEDS = "MountainCar-v0", 100, 5
ASKED, AIM = -130.0, -110.0
BONUSES = ("random_distillation", "curiosity", "counts", "none")


def bonus(name: str) -> "ExplorationBonus":
    """The bonus that is called so, with the weight that the setting has."""
    from torchward.data.counts import Counts
    from torchward.data.curiosity import Curiosity
    from torchward.data.intrinsic import NoBonus
    from torchward.data.random_distillation import RandomDistillation

    match name:
        case "random_distillation":
            return RandomDistillation(coef=10.0)
        case "curiosity":
            return Curiosity(coef=10.0)
        case "counts":
            return Counts(coef=10.0)
    return NoBonus()


def settings(name: str) -> dict[str, Any]:
    return {"environment": TASK, "episodes": EPISODES, "config": preset(TASK, {"exploration_bonus": bonus(name)})}


def one(name: str, seed: int, fresh: bool) -> dict[str, Any]:
    """One run, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{NAME}", "--one", "--bonus", name, "--seed", str(seed)]
    return child(command + (["--fresh"] if fresh else []), 1)


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    for name in BONUSES:
        setting = settings(name)
        there = [results.read(key(name, seed), setting) for seed in range(SEEDS)]
        scores = [one["mean"] for one in there if one is not None]
        steps, measured = setting["config"]["total_timesteps"], MISSING
        if scores:
            middle, low, high = interval(scores)
            each = ", ".join(f"{score:.1f}" for score in sorted(scores))
            measured = f"{middle:.1f} [{low:.1f}, {high:.1f}] at {steps // 1000} k, {len(scores)} seeds ({each})"
            if name == "random_distillation":
                done = len(scores) >= SEEDS
                measured += f"; {verdict(done and middle >= ASKED, done and middle >= AIM)}"
        flags = (
            "no flags: random distillation" if name == "random_distillation" else f"{name.replace('_', ' ')} instead"
        )
        what = f"PPO on {TASK} with {flags}: IQM [95 % interval]"
        asked, aim = (f"{ASKED:.0f}", f"{AIM:.0f}") if name == "random_distillation" else ("", "")
        found.append(Row(what, asked, aim, measured, f"python -m benchmarks.{NAME}"))
    return found


def key(name: str, seed: int) -> str:
    return f"{name}-seed-{seed}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--bonus", nargs="+", choices=BONUSES, default=list(BONUSES))
    options.add_argument("--seeds", type=int, default=SEEDS)
    options.add_argument("--jobs", type=int, default=1, help="runs at a time")
    options.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        name = given.bonus[0]
        path = RUNS / NAME / key(name, given.seed)
        changes = {"exploration_bonus": bonus(name), "seed": given.seed}
        print(json.dumps(train_and_judge(TASK, path, changes, EPISODES, given.fresh)))
        return
    if given.table:
        print(markdown(rows(given.results)))
        return
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
    works = [
        Work(
            key(name, seed), settings(name), partial(one, name, seed, given.fresh),
            lambda result: f"{result['mean']:.1f} ± {result['std']:.1f}",
        )
        for seed in range(given.seeds)
        for name in given.bonus
    ]  # fmt: skip
    measure(results, works, given.jobs)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
