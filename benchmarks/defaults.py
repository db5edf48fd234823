"""What PPO learns when no flag is given: four environments, 5 seeds, beside what others publish.

    python -m benchmarks.defaults --jobs 2                                  all of it
    python -m benchmarks.defaults --env CartPole-v1 Pendulum-v1 --seeds 2   a part of it

Protocol: `torchward train ppo ENVIRONMENT --seed N` with nothing else that concerns learning; the final policy (not
the best one) plays 100 fresh episodes deterministically; a seed's score is their mean. Reported are the interquartile
mean of the 5 scores and its 95 % stratified bootstrap interval (Agarwal et al. 2021). One thread a run.

Others' figures: Z is benchmark.md of rl-baselines3-zoo (one run, deterministic evaluation, mean and deviation of its
episodes; LunarLander is its v2), C the documentation of CleanRL (3 seeds, training returns at 500,000 steps). Asked for
is that the lower bound is not below any of them less its spread, aimed at that the interquartile mean is below none.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import MISSING, RUNS, Results, Row, Work, child, conduct, options_of_runs, verdict
from benchmarks.judged import preset, train_and_judge

NAME = "defaults"
EPISODES, SEEDS = 100, 5


class Figure(NamedTuple):
    """What somebody publishes."""

    source: str
    mean: float
    spread: float
    steps: str


PUBLISHED = {
    "CartPole-v1": (Figure("Z", 500.0, 0.0, "100 k"), Figure("C", 490.0, 6.1, "500 k")),
    "Acrobot-v1": (Figure("Z", -73.5, 18.2, "1 M"), Figure("C", -86.4, 1.3, "500 k")),
    "LunarLander-v3": (Figure("Z", 242.1, 31.8, "1 M"),),
    "Pendulum-v1": (Figure("Z", -172.2, 104.2, "100 k"),),
}


def settings(environment: str) -> dict[str, Any]:
    return {"environment": environment, "episodes": EPISODES, "config": preset(environment)}


def one(environment: str, seed: int, fresh: bool) -> dict[str, Any]:
    """One run, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{NAME}", "--one", "--env", environment, "--seed", str(seed)]
    return child(command + (["--fresh"] if fresh else []), 1)


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    for environment, published in PUBLISHED.items():
        setting = settings(environment)
        there = [results.read(key(environment, seed), setting) for seed in range(SEEDS)]
        scores = [one["mean"] for one in there if one is not None]
        others = ", ".join(f"{f.source} {f.mean:g} ± {f.spread:g} at {f.steps}" for f in published)
        measured = MISSING
        if scores:
            middle, low, high = interval(scores)
            asked = len(scores) >= SEEDS and all(low >= f.mean - f.spread for f in published)
            aim = all(middle >= f.mean for f in published)
            steps = setting["config"]["total_timesteps"]
            each = ", ".join(f"{score:.1f}" for score in sorted(scores))
            measured = (
                f"{middle:.1f} [{low:.1f}, {high:.1f}] at {steps // 1000} k, {len(scores)} seeds ({each}); "
                f"{verdict(asked, aim)}"
            )
        bar = max(f.mean - f.spread for f in published)
        what = f"PPO with no flags on {environment}: IQM [95 % interval]; published: {others}"
        best = max(f.mean for f in published)
        found.append(Row(what, f"lower bound {bar:.1f}", f"{best:g}", measured, f"python -m benchmarks.{NAME}"))
    return found


def interval(scores: list[float]) -> tuple[float, float, float]:
    """The interquartile mean of the runs' scores, and its 95 % stratified bootstrap interval."""
    import numpy as np

    from torchward.cli.statistics import bootstrap

    value, low, high = bootstrap(np.array(scores)[:, None])
    return value, low, high


def key(environment: str, seed: int) -> str:
    return f"{environment}-seed-{seed}"


def main() -> None:
    options = options_of_runs(NAME, __doc__ or "", SEEDS)
    options.add_argument("--env", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    given = options.parse_args()

    def works() -> list[Work]:
        return [
            Work(
                key(environment, seed), settings(environment), partial(one, environment, seed, given.fresh),
                lambda result: f"{result['mean']:.1f} ± {result['std']:.1f}",
            )
            for seed in range(given.seeds)
            for environment in given.env
        ]  # fmt: skip

    def run() -> dict[str, Any]:
        path = RUNS / NAME / key(given.env[0], given.seed)
        return train_and_judge(given.env[0], path, {"seed": given.seed}, EPISODES, given.fresh)

    conduct(given, NAME, rows, works, run)


if __name__ == "__main__":
    main()
