"""PPO on CartPole: environment steps a second of the whole loop, beside Stable-Baselines3.

    python -m benchmarks.ppo_speed            10 pairs with one thread and 10 with two, in the order A B A B

Both sides: 8 environments x 128 steps, minibatches of 256, 4 epochs, two separate networks of two layers of 64 with
tanh, Adam at 3e-4; a process of its own for every measurement, whose first iterations do not count; nothing is
evaluated, saved or drawn. On our side the whole loop of a run is on, with a line of metrics for every iteration; on
theirs the logger and the monitor, as they are by default. Rows in which an environment of ours only resets itself are
not counted as steps.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import (
    MISSING,
    PEERS,
    ROOT,
    Results,
    Row,
    Work,
    child,
    markdown,
    measure,
    parser,
    require_peers,
    spread,
    verdict,
)

NAME = "ppo_speed"
SETTING: dict[str, Any] = {"n_envs": 8, "n_steps": 128, "batch_size": 256, "n_epochs": 4}
ASKED, AIM = 2.5, 3.0


def settings(warm: int = 10, iterations: int = 100) -> dict[str, Any]:
    return {**SETTING, "warm": warm, "iterations": iterations}


def ours(threads: int, seed: int, warm: int, iterations: int) -> dict[str, Any]:
    """One measurement of torchward, in this process. The two moments are those of the run's own lines of metrics."""
    import torch

    from torchward.algorithms import ppo
    from torchward.envs.task import Control
    from torchward.metrics import read_metrics
    from torchward.run import Run, RunOptions

    torch.set_num_threads(threads)
    rollout = SETTING["n_envs"] * SETTING["n_steps"]
    config = replace(ppo.Config(), total_timesteps=(warm + iterations) * rollout, seed=seed, **SETTING)
    options = RunOptions(eval_freq=-1, checkpoint_freq=-1, tensorboard=False, progress=False)
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=config.total_timesteps, manifest={"algorithm": "ppo"})
        ppo.train(config, Control("CartPole-v1"), run)
        rows = read_metrics(run.path)
    first, last = rows[warm - 1], rows[-1]
    resets = last["episodes"] - first["episodes"]  # an environment that has ended takes one row to start anew
    steps, seconds = last["step"] - first["step"] - resets, last["time"] - first["time"]
    return {
        "steps": steps,
        "seconds": round(seconds, 4),
        "steps_per_second": round(steps / seconds, 1),
        "threads": torch.get_num_threads(),
    }


def pair(threads: int, seed: int, setting: dict[str, Any]) -> dict[str, Any]:
    """Both sides, one after the other."""
    words = {"threads": threads, "seed": seed, "warm": setting["warm"], "iterations": setting["iterations"]}
    common = [f"--{name}={value}" for name, value in words.items()]
    mine = child([sys.executable, "-m", f"benchmarks.{NAME}", "--ours", *common], threads)
    shape = [f"--{name.replace('_', '-')}={value}" for name, value in SETTING.items()]
    theirs = child([PEERS, ROOT / "benchmarks" / "peers" / "sb3_ppo_speed.py", *common, *shape], threads)
    return {"ours": mine, "sb3": theirs, "ratio": mine["steps_per_second"] / theirs["steps_per_second"]}


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    for threads in (1, 2):
        pairs = [results.read(key(threads, number), settings()) for number in range(100)]
        there = [one for one in pairs if one is not None]
        measured = MISSING
        if there:
            mine, theirs = ([one[side]["steps_per_second"] for one in there] for side in ("ours", "sb3"))
            ratio = statistics.median(one["ratio"] for one in there)
            measured = (
                f"{spread([one['ratio'] for one in there], 2)} x in {len(there)} pairs: "
                f"{spread(mine, 0)} against {spread(theirs, 0)} steps/s; {verdict(ratio >= ASKED, ratio >= AIM)}"
            )
        noun = "1 thread" if threads == 1 else f"{threads} threads"
        what = f"PPO CartPole, 8 x 128, batch 256, 4 epochs: steps/s against Stable-Baselines3, {noun}"
        found.append(Row(what, f"{ASKED} x", f"{AIM:g} x", measured, f"python -m benchmarks.{NAME}"))
    return found


def key(threads: int, number: int) -> str:
    return f"threads-{threads}-pair-{number:02d}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--pairs", type=int, default=10)
    options.add_argument("--warm", type=int, default=10, help="iterations that do not count")
    options.add_argument("--iterations", type=int, default=100, help="iterations that count")
    options.add_argument("--threads", type=int, default=0, help="1 or 2 only")
    options.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ours:
        print(json.dumps(ours(given.threads, given.seed, given.warm, given.iterations)))
        return
    if given.table:
        print(markdown(rows(given.results)))
        return
    require_peers()
    results, setting = Results(NAME, given.results), settings(given.warm, given.iterations)
    if given.fresh:
        results.clear()
    works = [
        Work(
            key(threads, number), setting, partial(pair, threads, number, setting),
            lambda result: f"{result['ratio']:.2f} x, {result['ours']['steps_per_second']:.0f} steps/s",
        )
        for number in range(given.pairs)
        for threads in ([given.threads] if given.threads else [1, 2])
    ]  # fmt: skip
    measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
