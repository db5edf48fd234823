"""Atari Pong within one run of 90 minutes: the mean return of the last 20 training episodes when the time is over.

    python -m benchmarks.pong                          PPO, one seed, one thread beside the game's
    python -m benchmarks.pong --algorithms ppo dqn     both
    python -m benchmarks.pong --minutes 5              to try things out

A game ends at 21 points, so returns lie between -21 (random play) and 21. The games are played as DQN was made known
(`--atari classic`: no sticky actions, the six actions that do something, up to 30 frames of random start), and seen in
frames of 42 x 42: that is a ninth of the arithmetic of 84 x 84, and on a CPU the arithmetic is what there is least of.
Time is that of the run, from its first step on, and ten seconds for its start; nothing is evaluated in it. An
interrupted measurement goes on from the run's last checkpoint, with the time that it had taken until then.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.common import (
    MISSING,
    ROOT,
    RUNS,
    Failed,
    Results,
    Row,
    Work,
    environment,
    markdown,
    measure,
    parser,
    verdict,
)
from benchmarks.judged import preset

NAME = "pong"
Algorithm = Literal["ppo", "dqn"]
MINUTES, START, WINDOW = 90.0, 10.0, 20
ASKED, AIM = -15.0, 0.0
SEEN = ("--atari", "classic", "--atari-img-height", "42", "--atari-img-width", "42")
OPTIONS: dict[Algorithm, tuple[str, ...]] = {
    "ppo": (
        *SEEN, "--n-envs", "16", "--n-steps", "128", "--batch-size", "256", "--n-epochs", "4",
        "--learning-rate", "4e-4", "--total-timesteps", "4000000", "--checkpoint-freq", "200000",
    ),
    "dqn": (
        *SEEN, "--n-envs", "8", "--train-freq", "1", "--gradient-steps", "2", "--batch-size", "32", "--double-q",
        "--buffer-size", "100000", "--learning-starts", "10000", "--learning-rate", "2.5e-4",
        "--target-update-interval", "2000", "--exploration-fraction", "0.05", "--exploration-end", "0.01",
        "--n-steps", "3", "--total-timesteps", "2000000", "--checkpoint-freq", "200000", "--log-freq", "2000",
    ),
}  # fmt: skip
"""What is set beside the presets for Atari. The steps are more than the minutes are enough for on two slow cores."""


STOP = threading.Event()
"""Set by Ctrl-C and SIGTERM: the run is then asked to stop, and goes on with the next call."""


def settings(algorithm: Algorithm, minutes: float, threads: int) -> dict[str, Any]:
    told = {"options": list(OPTIONS[algorithm]), "minutes": minutes, "window": WINDOW, "threads": threads}
    return {**told, "preset": preset("ALE/Pong-v5", algorithm=algorithm)}


def play(algorithm: Algorithm, seed: int, minutes: float, threads: int) -> dict[str, Any]:
    """Train, or go on training, until the minutes are over."""
    path = place(f"{key(algorithm, seed)}-{minutes:g}", OPTIONS[algorithm], algorithm)
    limit = 60.0 * minutes - START
    train(path, algorithm, [*OPTIONS[algorithm], f"--seed={seed}"], limit, threads)
    within = [row for row in episodes(path) if row["time"] <= limit]
    if not within:
        raise Failed(f"no {WINDOW} episodes ended within {minutes:g} minutes in {path}; give it more")
    return {**summary(within), "best": max(row["return"] for row in within)}


def train(path: Path, algorithm: Algorithm, options: Sequence[str], limit: float, threads: int) -> None:
    """Train in ``path``, or go on there, until the run ends or has taken so many seconds. Raises Failed for one that
    fails, or is stopped before."""
    command = [sys.executable, "-m", "torchward"]
    if (path / "config.json").exists():
        command += ["resume", str(path)]
    else:
        command += ["train", algorithm, "ALE/Pong-v5", *options, f"--path={path}", f"--stats-window={WINDOW}"]
        command += ["--eval-freq=-1", f"--threads={threads}", "--no-tensorboard", "--no-progress"]
    if over(path, limit) or (path / "result.json").exists():
        return
    log = path.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as told:
        process = subprocess.Popen(  # in a session of its own, or Ctrl-C would ask it to stop twice
            command, cwd=ROOT, env=environment(threads), stdout=told, stderr=told, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        while process.poll() is None and not over(path, limit) and not STOP.is_set():
            time.sleep(1.0)
        if process.poll() is None:
            process.terminate()
        if process.wait(600) not in (0, 130):
            raise Failed(f"`{' '.join(command)}` ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    if not over(path, limit) and not (path / "result.json").exists():
        raise Failed(f"stopped before the time was over; the same command goes on with {path}")


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where lines of metrics led, how fast, and by which way."""
    last, thin = rows[-1], len(rows) // 60 + 1
    return {
        "mean_return": last["return"],
        "steps": last["step"],
        "episodes": last["episodes"],
        "steps_per_second": round(last["step"] / last["time"], 1),
        "curve": [[round(row["time"]), row["step"], round(row["return"], 2)] for row in rows[::thin]],
    }


def place(name: str, options: Sequence[str], algorithm: Algorithm) -> Path:
    """A run's directory; other options, or another preset, are another run."""
    told = zlib.crc32(json.dumps([list(options), preset("ALE/Pong-v5", algorithm=algorithm)]).encode())
    return RUNS / NAME / f"{name}-{told:08x}"


def over(path: Path, limit: float) -> bool:
    """Whether a run has gone on for so many seconds."""
    rows = lines(path)
    return bool(rows) and rows[-1].get("time", 0.0) > limit


def episodes(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics that speak of a full window of episodes."""
    return [row for row in lines(path) if row.get("return") is not None and row["episodes"] >= WINDOW]


def lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = (path / "metrics.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def rows(directory: Path | None = None, minutes: float = MINUTES, threads: int = 1) -> list[Row]:
    """The row of the table, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    told, worst = list[str](), dict[str, float]()
    for algorithm in OPTIONS:
        found = [results.read(key(algorithm, seed), settings(algorithm, minutes, threads)) for seed in range(10)]
        for one in (one for one in found if one is not None):
            worst[algorithm] = min(worst.get(algorithm, 21.0), one["mean_return"])
            told.append(
                f"{algorithm} {one['mean_return']:.1f} after {one['steps'] / 1e6:.2f} M steps "
                f"({one['steps_per_second']:.0f} steps/s)"
            )
    verdicts = ", ".join(f"{name}: {verdict(low >= ASKED, low >= AIM)}" for name, low in worst.items())
    measured = f"{'; '.join(told)}; {verdicts}" if told else MISSING
    cores = f"{threads} thread{'s' * (threads > 1)}"
    what = f"Pong within {minutes:g} minutes on {cores}: mean return of the last {WINDOW} training episodes"
    return [Row(what, f"{ASKED:g}", f"{AIM:g}", measured, f"python -m benchmarks.{NAME}")]


def key(algorithm: Algorithm, seed: int) -> str:
    return f"{algorithm}-seed-{seed}"


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: STOP.set())
    options = parser(NAME, __doc__ or "")
    options.add_argument("--algorithms", nargs="+", choices=list(OPTIONS), default=["ppo"])
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--minutes", type=float, default=MINUTES, help="another time, to try things out")
    options.add_argument("--threads", type=int, default=1)
    given: argparse.Namespace = options.parse_args()
    if given.table:
        print(markdown(rows(given.results, given.minutes, given.threads)))
        return
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
        shutil.rmtree(RUNS / NAME, ignore_errors=True)
    works = [
        Work(
            key(algorithm, seed),
            settings(algorithm, given.minutes, given.threads),
            partial(play, algorithm, seed, given.minutes, given.threads),
            lambda result: f"{result['mean_return']:.1f} after {result['steps']:,} steps",
        )
        for algorithm in given.algorithms
        for seed in range(given.seeds)
    ]
    measure(results, works)
    print(markdown(rows(given.results, given.minutes, given.threads)))


if __name__ == "__main__":
    main()
