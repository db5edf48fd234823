"""DQN on CartPole and SAC on HalfCheetah: environment steps a second of the whole loop, beside Stable-Baselines3.

    python -m benchmarks.off_policy_speed                                  10 pairs of each with 1 and 2 threads
    python -m benchmarks.off_policy_speed --case sac --threads 1 --pairs 3

Both sides: one environment; a process of its own for every measurement; what comes before learning has warmed up does
not count; nothing is evaluated, saved or drawn. DQN: CleanRL's setting, an update of a batch of 128 every 10 steps,
net 120-84. SAC: an update of a batch of 256 at every step, nets 256-256. On our side the whole loop of a run is on,
with a line of metrics every 500 steps; on theirs the logger and the monitor, as they are by default.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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

NAME = "off_policy_speed"
LINE = 500
"""Steps between two lines of our metrics, by which the time is taken."""


class Case(NamedTuple):
    """One algorithm, as both sides are told it."""

    environment: str
    net_arch: tuple[int, ...]
    settings: Mapping[str, Any]
    warm: int
    steps: int
    asked: tuple[float, float]
    """With one thread, and with two."""
    aim: float
    what: str


CASES = {
    "dqn": Case(
        "CartPole-v1", (120, 84),
        {
            "train_freq": 10, "gradient_steps": 1, "batch_size": 128, "buffer_size": 10_000, "learning_starts": 1_000,
            "target_update_interval": 500, "learning_rate": 2.5e-4,
        },
        2_000, 10_000, (2.5, 2.5), 3.0, "DQN CartPole, train_freq 10, batch 128, net 120-84",
    ),
    "sac": Case(
        "HalfCheetah-v5", (256, 256),
        {"train_freq": 1, "gradient_steps": 1, "batch_size": 256, "buffer_size": 100_000, "learning_starts": 300},
        500, 1_500, (1.1, 1.2), 1.35, "SAC HalfCheetah-v5, batch 256, 256x256, one update a step",
    ),
}  # fmt: skip


def settings(name: str) -> dict[str, Any]:
    case = CASES[name]
    return {**case.settings, "net_arch": list(case.net_arch), "warm": case.warm, "steps": case.steps}


def ours(name: str, threads: int, seed: int) -> dict[str, Any]:
    """One measurement of torchward, in this process. The two moments are those of the run's own lines of metrics."""
    import torch

    from torchward.envs.task import Control
    from torchward.fields import change
    from torchward.metrics import read_metrics
    from torchward.run import Run, RunOptions
    from torchward.tasks import find

    torch.set_num_threads(threads)
    case, algorithm = CASES[name], find.algorithm(name)
    total = case.warm + case.steps
    chosen = {**case.settings, "net_arch": case.net_arch, "total_timesteps": total, "seed": seed}
    config = change(algorithm.Config(), chosen)
    options = RunOptions(eval_freq=-1, checkpoint_freq=-1, tensorboard=False, progress=False, log_freq=LINE)
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=total, manifest={"algorithm": name})
        algorithm.module.train(config, Control(case.environment), run)
        rows = read_metrics(run.path)
    first, last = next(row for row in rows if row["step"] >= case.warm), rows[-1]
    steps, seconds = last["step"] - first["step"], last["time"] - first["time"]
    return {
        "steps": steps,
        "seconds": round(seconds, 4),
        "steps_per_second": round(steps / seconds, 1),
        "threads": torch.get_num_threads(),
    }


def pair(name: str, threads: int, seed: int) -> dict[str, Any]:
    """Both sides, one after the other."""
    common = [f"--threads={threads}", f"--seed={seed}"]
    mine = child([sys.executable, "-m", f"benchmarks.{NAME}", "--ours", f"--case={name}", *common], threads)
    case = CASES[name]
    shape = [f"--settings={json.dumps({**case.settings, 'net_arch': case.net_arch})}"]
    shape += [
        f"--algorithm={name}",
        f"--environment={case.environment}",
        f"--warm={case.warm}",
        f"--steps={case.steps}",
    ]
    theirs = child([PEERS, ROOT / "benchmarks" / "peers" / "sb3_off_policy_speed.py", *common, *shape], threads)
    return {"ours": mine, "sb3": theirs, "ratio": mine["steps_per_second"] / theirs["steps_per_second"]}


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    for name, case in CASES.items():
        for threads, asked in zip((1, 2), case.asked, strict=True):
            pairs = [results.read(key(name, threads, number), settings(name)) for number in range(100)]
            there = [one for one in pairs if one is not None]
            measured = MISSING
            if there:
                mine, theirs = ([one[side]["steps_per_second"] for one in there] for side in ("ours", "sb3"))
                ratio = statistics.median(one["ratio"] for one in there)
                measured = (
                    f"{spread([one['ratio'] for one in there], 2)} x in {len(there)} pairs: "
                    f"{spread(mine, 0)} against {spread(theirs, 0)} steps/s; "
                    f"{verdict(ratio >= asked, ratio >= case.aim)}"
                )
            what = f"{case.what}: steps/s against Stable-Baselines3, {threads} thread{'s' * (threads > 1)}"
            found.append(Row(what, f"{asked:g} x", f"{case.aim:g} x", measured, f"python -m benchmarks.{NAME}"))
    return found


def key(name: str, threads: int, number: int) -> str:
    return f"{name}-threads-{threads}-pair-{number:02d}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    options.add_argument("--pairs", type=int, default=10)
    options.add_argument("--threads", type=int, default=0, help="1 or 2 only")
    options.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ours:
        print(json.dumps(ours(given.case[0], given.threads, given.seed)))
        return
    if given.table:
        print(markdown(rows(given.results)))
        return
    require_peers()
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
    works = [
        Work(
            key(name, threads, number), settings(name), partial(pair, name, threads, number),
            lambda result: f"{result['ratio']:.2f} x, {result['ours']['steps_per_second']:.0f} steps/s",
        )
        for number in range(given.pairs)
        for name in given.case
        for threads in ([given.threads] if given.threads else [1, 2])
    ]  # fmt: skip
    measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
