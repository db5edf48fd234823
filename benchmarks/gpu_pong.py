"""Atari Pong on a GPU: how long PPO and DQN take to a mean return of 18 in 20 training episodes, and how fast they are.

    python -m benchmarks.gpu_pong                        PPO and DQN, one seed each; without a GPU it says so
    python -m benchmarks.gpu_pong --algorithms ppo --seeds 3

The games are those of `benchmarks.pong`, seen in frames of 84 x 84; the networks and what they learn from live on the
GPU, and the games are played on the CPU. PPO has the numbers of CleanRL's `ppo_atari_envpool.py`, which LeanRL
measures: 8 games, 128 steps, 4 minibatches, 4 epochs. LeanRL publishes 6,809 steps a second for it on an H100 with the
games on the CPU (its README, "PPO Atari"); of DQN it publishes nothing. Steps a second are those of the whole run,
from its first step to its last. An interrupted measurement goes on from the run's last checkpoint.
"""

import argparse
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import pong
from benchmarks.common import MISSING, RUNS, Failed, Results, Row, Work, markdown, measure, parser, verdict
from benchmarks.judged import preset
from benchmarks.pong import Algorithm, episodes, key, place, summary, train

NAME = "gpu_pong"
GOAL, MINUTES = 18.0, 120.0
LEANRL, AIM = 6809.0, 2.0
"""Steps a second of LeanRL's PPO, and how many times as many would be the best there is."""
OPTIONS: dict[Algorithm, tuple[str, ...]] = {
    "ppo": (
        "--atari", "classic", "--n-envs", "8", "--n-steps", "128", "--batch-size", "256", "--n-epochs", "4",
        "--learning-rate", "2.5e-4", "--total-timesteps", "10000000", "--checkpoint-freq", "500000",
    ),
    "dqn": (
        "--atari", "classic", "--n-envs", "8", "--train-freq", "1", "--gradient-steps", "2", "--batch-size", "32",
        "--double-q", "--buffer-size", "400000", "--learning-starts", "20000", "--learning-rate", "1e-4",
        "--target-update-interval", "2000", "--exploration-fraction", "0.05", "--exploration-end", "0.01",
        "--n-steps", "3", "--total-timesteps", "5000000", "--checkpoint-freq", "500000", "--log-freq", "5000",
    ),
}  # fmt: skip


def settings(algorithm: Algorithm, goal: float, device: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    told = {"options": [*OPTIONS[algorithm], *more], "goal": goal, "window": pong.WINDOW, "device": device}
    return {**told, "preset": preset("ALE/Pong-v5", algorithm=algorithm)}


def play(
    algorithm: Algorithm, seed: int, goal: float, minutes: float, threads: int, device: str, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Train, or go on training, to the goal or the end of the steps or minutes; ``more`` are further options."""
    options = [*OPTIONS[algorithm], *more, f"--device={device}", f"--stop-return={goal:g}"]
    path = place(f"{device}-{key(algorithm, seed)}", options, algorithm)
    train(path, algorithm, [*options, f"--seed={seed}"], 60.0 * minutes, threads)
    rows = episodes(path)
    if not rows:
        raise Failed(f"no {pong.WINDOW} episodes ended in {path}; give it more")
    chip = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else device
    return {
        **summary(rows), "reached": rows[-1]["return"] >= goal, "seconds": round(rows[-1]["time"], 1), "chip": chip,
        "threads": threads,
    }  # fmt: skip


def rows(directory: Path | None = None, goal: float = GOAL, device: str = "cuda") -> list[Row]:
    """A row of the table for each algorithm, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    for algorithm in OPTIONS:
        read = (results.read(key(algorithm, seed), settings(algorithm, goal, device)) for seed in range(10))
        there = [one for one in read if one is not None]
        told = [
            f"{one['seconds'] / 60.0:.1f} min, {one['steps'] / 1e6:.2f} M steps, {one['steps_per_second']:,.0f} steps/s"
            + ("" if one["reached"] else f", ended at {one['mean_return']:.1f}")
            for one in there
        ]
        measured = f"{'; '.join(told)} ({there[0]['chip']})" if there else MISSING
        what, asked, aim = f"{algorithm} on Pong on a GPU to a mean return of {goal:g} in 20 episodes", "", ""
        if algorithm == "ppo":
            asked, aim = "reported", f"{AIM:g} x LeanRL's steps/s"
            ratio = min((one["steps_per_second"] / LEANRL for one in there), default=0.0)
            measured += f"; {ratio:.2f} x LeanRL's {LEANRL:,.0f}: {verdict(True, ratio >= AIM)}" if there else ""
        command = f"python -m benchmarks.{NAME} --algorithms {algorithm}"
        found.append(Row(what, asked, aim, measured, command))
    return found


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: pong.STOP.set())
    options = parser(NAME, __doc__ or "")
    options.add_argument("--algorithms", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--minutes", type=float, default=MINUTES, help="of a run, at most")
    options.add_argument("--threads", type=int, default=1)
    given: argparse.Namespace = options.parse_args()
    if given.table:
        print(markdown(rows(given.results)))
        return
    if not torch.cuda.is_available():
        sys.exit("expected a GPU, which torch.cuda finds, got none: nothing was measured")
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
        for algorithm in given.algorithms:
            for run in (RUNS / pong.NAME).glob(f"cuda-{algorithm}-*"):
                shutil.rmtree(run, ignore_errors=True)
    works = [
        Work(
            key(algorithm, seed),
            settings(algorithm, GOAL, "cuda"),
            partial(play, algorithm, seed, GOAL, given.minutes, given.threads, "cuda"),
            lambda result: f"{result['mean_return']:.1f} after {result['steps']:,} steps",
        )
        for algorithm in given.algorithms
        for seed in range(given.seeds)
    ]
    measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
