"""Acting while learning: environment steps a second of the whole loop with `overlap` on, beside off.

    python -m benchmarks.overlap                                  5 pairs of each with 1 and 2 threads
    python -m benchmarks.overlap --case cheetah --threads 1 --pairs 3

A process of its own for every pair; what comes before learning has warmed up does not count;
nothing is evaluated, saved or drawn. SAC: an update of a batch of 256 at every step, nets 256-256. DQN: on Pong the
setting of the preset (four games, an update of a batch of 32 for every four steps), on CartPole CleanRL's.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np

from benchmarks.common import MISSING, Results, Row, Work, child, markdown, measure, parser, spread

NAME = "overlap"
LINE = 100
"""Steps between two lines of metrics, by which the time is taken."""
SECONDS = 5e-3
"""Of a step of the environment that is dear."""


class Dear(gym.Env[Any, Any]):
    """Shown and done are as many numbers as in HalfCheetah; a step takes 5 ms, asleep or at work."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (17,))
    action_space = gym.spaces.Box(-1.0, 1.0, (6,))

    def __init__(self, works: bool = False) -> None:
        self.works = works

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.works:
            end = time.thread_time() + SECONDS  # of its own, however much else there is to do
            while time.thread_time() < end:
                pass
        else:
            time.sleep(SECONDS)
        return self._see(), float(action.sum()), False, False, {}

    def _see(self) -> Any:
        return self.np_random.normal(size=17).astype(np.float32)


class Case(NamedTuple):
    """What is learnt, and how."""

    algorithm: Literal["sac", "dqn"]
    environment: str | Callable[[], gym.Env[Any, Any]]
    settings: Mapping[str, Any]
    vectorization: Literal["auto", "sync", "async"]
    warm: int
    steps: int
    what: str


SAC: dict[str, Any] = {"batch_size": 256, "buffer_size": 20_000, "learning_starts": 100, "net_arch": (256, 256)}
CARTPOLE: dict[str, Any] = {
    "train_freq": 10, "batch_size": 128, "buffer_size": 10_000, "learning_starts": 500,
    "target_update_interval": 500, "learning_rate": 2.5e-4, "net_arch": (120, 84),
}  # fmt: skip
PONG: dict[str, Any] = {
    "n_envs": 4, "train_freq": 1, "batch_size": 32, "buffer_size": 5_000, "frame_stack": 4, "stack_padding": "zero",
    "learning_starts": 200, "target_update_interval": 1_000, "net_arch": (),
}  # fmt: skip
CASES = {
    "asleep": Case("sac", Dear, SAC, "sync", 200, 300, "SAC, a step that sleeps 5 ms"),
    "process": Case(
        "sac", partial(Dear, True), SAC, "async", 200, 300, "SAC, a step that works for 5 ms in another process"
    ),
    "cheetah": Case("sac", "HalfCheetah-v5", SAC, "sync", 200, 500, "SAC HalfCheetah-v5"),
    "pong": Case("dqn", "ALE/Pong-v5", PONG, "auto", 300, 800, "DQN ALE/Pong-v5, 4 games"),
    "cartpole": Case("dqn", "CartPole-v1", CARTPOLE, "sync", 1_000, 4_000, "DQN CartPole-v1"),
}


def one(name: str, threads: int, seed: int, overlap: bool) -> float:
    """Steps a second, in this process. The two moments are those of the run's own lines of metrics."""
    import torch

    from torchward.envs.make import EnvOptions
    from torchward.envs.task import Control
    from torchward.fields import change
    from torchward.metrics import read_metrics
    from torchward.run import Run, RunOptions
    from torchward.tasks import find

    torch.set_num_threads(threads)
    case = CASES[name]
    algorithm, total = find.algorithm(case.algorithm), case.warm + case.steps
    config = change(algorithm.Config(), {**case.settings, "total_timesteps": total, "seed": seed, "overlap": overlap})
    options = RunOptions(eval_freq=-1, checkpoint_freq=-1, tensorboard=False, progress=False, log_freq=LINE)
    task = Control(case.environment, EnvOptions(vectorization=case.vectorization))
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=total, manifest={"algorithm": case.algorithm})
        algorithm.module.train(config, task, run)
        rows = read_metrics(run.path)
    first, last = next(row for row in rows if row["step"] >= case.warm), rows[-1]
    speed: float = (last["step"] - first["step"]) / (last["time"] - first["time"])
    return round(speed, 1)


def pair(name: str, threads: int, seed: int) -> dict[str, Any]:
    """Off and on in turn, in one process; every other time the other way round."""
    order = (False, True) if seed % 2 else (True, False)
    found = {"on" if overlap else "off": one(name, threads, seed, overlap) for overlap in order}
    return {**found, "ratio": found["on"] / found["off"]}


def apart(name: str, threads: int, seed: int) -> dict[str, Any]:
    """The same, in a process of its own."""
    command = [f"--case={name}", f"--threads={threads}", f"--seed={seed}", "--one"]
    return child([sys.executable, "-m", f"benchmarks.{NAME}", *command], threads)


def settings(name: str) -> dict[str, Any]:
    case = CASES[name]
    told = {name: value for name, value in case._asdict().items() if not callable(value)}
    return {**told, "settings": dict(case.settings), "seconds": SECONDS, "line": LINE}


def key(name: str, threads: int, number: int) -> str:
    return f"{name}-threads-{threads}-pair-{number:02d}"


def rows(directory: Path) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, directory), []
    for name, case in CASES.items():
        for threads in (1, 2):
            pairs = [results.read(key(name, threads, number), settings(name)) for number in range(100)]
            there = [each for each in pairs if each is not None]
            measured = MISSING
            if there:
                off, on = (statistics.median(each[side] for each in there) for side in ("off", "on"))
                ratio = spread([each["ratio"] for each in there], 2)
                measured = f"{ratio} x in {len(there)} pairs; medians {on:.0f} against {off:.0f} steps/s"
            what = f"{case.what}: overlapped against not, {threads} thread{'s' * (threads > 1)}"
            found.append(Row(what, "", "", measured, f"python -m benchmarks.{NAME}"))
    return found


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--threads", type=int, default=0, help="1 or 2 only")
    options.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        print(json.dumps(pair(given.case[0], given.threads, given.seed)))
        return
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
    if not given.table:
        works = [
            Work(
                key(name, threads, number), settings(name), partial(apart, name, threads, number),
                lambda result: f"{result['ratio']:.2f} x, {result['on']:.0f} against {result['off']:.0f} steps/s",
            )
            for number in range(given.pairs)
            for name in given.case
            for threads in ([given.threads] if given.threads else [1, 2])
        ]  # fmt: skip
        measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
