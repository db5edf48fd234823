"""`torchward sweep`: a grid of settings times seeds, each run in a process of its own, and their comparison.

The same command goes on with a sweep that was stopped: finished runs are skipped, interrupted ones resumed, and more
seeds or values are added to those that there are.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import typing
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from torchward.cli import UsageError, arguments, positional, say
from torchward.cli.arguments import Group
from torchward.interrupt import ending

SWEEPS = Path("sweeps")
FILE = "sweep.json"
USAGE = """usage: torchward sweep ALGORITHM TASK [--seeds 10] [--jobs 2] [--name NAME] [--option value[,value...] ...]

The options are those of `torchward train ALGORITHM TASK`. Where one has several values with commas between them, each
is run: --learning-rate 1e-3,3e-4 --gamma 0.98,0.99 are four settings, each with all seeds. Where a value has several
parts, quote it: --net-arch "64 64,256 256". A switch is varied by --normalize-reward true,false.

  --seeds N     seeds 0 to N - 1 (default: 10); or several, such as 3,5,8
  --jobs N      runs at the same time, each with one thread (default: the number of cores)
  --name NAME   the sweep lies in sweeps/NAME (default: ALGORITHM-TASK)"""


@dataclass
class Job:
    """One run of the sweep."""

    path: Path
    flags: list[str]
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "result.json").is_file()


def run(args: Sequence[str]) -> int:
    """The command."""
    if not args or not {"-h", "--help"}.isdisjoint(args):
        print(USAGE)
        return 0 if args else 2
    (algorithm, task), rest = positional(args, ("ALGORITHM", "TASK"), "sweep")
    flags = split(rest)
    seeds = _seeds(flags.pop("seeds", ["10"]))
    jobs = _whole(
        "jobs", flags.pop("jobs", [str(len(os.sched_getaffinity(0)) if _has_affinity() else os.cpu_count() or 1)])
    )
    name = " ".join(flags.pop("name", [])) or re.sub(r"[^\w.-]+", "-", f"{_stem(algorithm)}-{_stem(task)}").strip("-.")
    for taken, instead in (("seed", "--seeds"), ("path", "--name"), ("threads", "one thread for each run")):
        if taken in flags:
            raise UsageError(f"a sweep sets --{taken} itself; use {instead}")
    fixed, grid = divide(algorithm, task, flags)
    directory = SWEEPS / name
    todo = list(_jobs(directory, fixed, grid, seeds))
    _check_apart(todo)
    _claim(directory, {"algorithm": algorithm, "task": task, "fixed": fixed})
    failed = work([job for job in todo if not job.finished], len(todo), [algorithm, task], jobs)
    for job in failed:
        say(f"{job.path} failed: {_last_line(job.log)} (all of it in {job.log})")
    if any(job.finished for job in todo):
        from torchward.cli.compare import collect, compare

        done = collect([job.path for job in todo if job.finished])
        compare(done, directory, "auto", f"torchward sweep {shlex.join(args)}")
    return 1 if failed else 0


def split(rest: Sequence[str]) -> dict[str, list[str]]:
    """Options by name in snake case, each with its words. Raises UsageError for a word before the first option."""
    flags: dict[str, list[str]] = {}
    words: list[str] | None = None
    for argument in rest:
        if argument.startswith("--"):
            flag, equals, value = argument[2:].partition("=")
            words = flags.setdefault(flag.replace("-", "_"), [])
            words += [value] if equals else []
        elif words is None:
            raise UsageError(f"torchward sweep does not know what to do with {argument!r}; see torchward sweep --help")
        else:
            words.append(argument)
    return flags


def divide(algorithm: str, task: str, flags: dict[str, list[str]]) -> tuple[list[str], dict[str, list[list[str]]]]:
    """The flags that all runs have, and for each setting that is varied the flags of its values.

    Everything is read once as `train` will read it, so that what is wrong is said before the first run."""
    from torchward import launch
    from torchward.cli.train import Launch
    from torchward.fields import settings
    from torchward.tasks import find

    found = find.algorithm(algorithm)
    start = launch.defaults(found, task)
    switches = {s.name for part in start for s in settings(part) if arguments.is_switch(s.hint)}
    fixed: list[str] = []
    grid: dict[str, list[list[str]]] = {}
    for name, words in flags.items():
        if len(words) == 1 and "," in words[0] and not words[0].startswith(("{", "[")):
            values = dict.fromkeys(tuple(value.split()) for value in words[0].split(","))
            grid[name] = [_flag(name, value, name in switches) for value in values]
        else:
            fixed += _flag(name, words, name in switches and words in (["true"], ["false"]))
    groups = [
        Group(found.name, start.config),
        Group("run", start.options),
        Group("environment", start.env),
        Group("launch", Launch()),
    ]
    for choice in itertools.product(*grid.values()):
        line = [*fixed, *itertools.chain(*choice)]
        *changed, _ = arguments.read(groups, line, f"torchward train {algorithm} {task}")
        chosen = launch.change_all(start, {name: value for part in changed for name, value in part.items()})
        if hasattr(found.module, "check"):
            found.module.check(chosen.config, find.task(task, chosen.env).task)
    return fixed, grid


def work(todo: Sequence[Job], total: int, names: Sequence[str], jobs: int) -> list[Job]:
    """Run the jobs, so many at a time; return those that failed. Raises KeyboardInterrupt once all have stopped, where
    a signal asked for it."""
    from tqdm import tqdm

    waiting, running, failed = list(todo), list[Job](), list[Job]()
    before = {number: signal.signal(number, _interrupt) for number in ending()}
    bar = tqdm(total=total, initial=total - len(todo), unit=" runs", disable=None, dynamic_ncols=True)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_begin(waiting.pop(0), names))
            time.sleep(0.05)
            for job in [job for job in running if job.process is not None and job.process.poll() is not None]:
                running.remove(job)
                bar.update()
                if not job.finished:
                    failed.append(job)
                elif bar.disable:
                    say(f"{job.path} is done, {total - len(waiting) - len(running)} of {total}")
    except KeyboardInterrupt:
        for job in running:  # they are in sessions of their own: the terminal's Ctrl-C has not reached them
            if job.process is not None:
                job.process.send_signal(signal.SIGTERM)
        for job in running:
            if job.process is not None:
                job.process.wait()
        say("stopped; the same command goes on")
        raise
    finally:
        bar.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return failed


def _begin(job: Job, names: Sequence[str]) -> Job:
    """Start a job, or resume it where its run has begun."""
    job.path.parent.mkdir(parents=True, exist_ok=True)
    if (job.path / "config.json").is_file():
        command = ["resume", str(job.path)]
    else:
        shutil.rmtree(job.path, ignore_errors=True)  # killed before it had begun
        command = ["train", *names, "--path", str(job.path), "--threads", "1", *job.flags]
    # This torchward, also where it runs from a clone without having been installed.
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    with open(job.log, "ab") as log:
        job.process = subprocess.Popen(
            [sys.executable, "-m", "torchward", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,
        )
    return job


def _jobs(
    directory: Path, fixed: Sequence[str], grid: dict[str, list[list[str]]], seeds: Sequence[int]
) -> Iterator[Job]:
    """Seed by seed, so that an early look compares all settings."""
    for seed in seeds:
        for choice in itertools.product(*grid.values()):
            words = (
                f"{name}={'-'.join(flags[1:]) or ('false' if flags[0].startswith('--no-') else 'true')}"
                for name, flags in zip(grid, choice, strict=True)
            )
            setting = re.sub(r"[^\w.=,+-]+", "-", ",".join(words))
            path = directory / setting / f"seed-{seed}"
            yield Job(path, [*fixed, *itertools.chain(*choice), "--seed", str(seed)])


def _check_apart(jobs: Sequence[Job]) -> None:
    """Raises UsageError where two runs would lie in one directory."""
    path, count = Counter(job.path for job in jobs).most_common(1)[0]
    if count > 1:
        raise UsageError(
            f"expected a directory for each run, got {count} runs in {path}; give each of those values a sweep with a "
            "--name of its own"
        )


def _flag(name: str, words: Sequence[str], switch: bool) -> list[str]:
    """A setting as flags of `train`."""
    flag = name.replace("_", "-")
    if not switch or not words:
        return [f"--{flag}", *words]
    if list(words) not in (["true"], ["false"]):
        raise UsageError(f"--{flag} is a switch: its values are true and false; got {' '.join(words)}")
    return [f"--{flag}" if words[0] == "true" else f"--no-{flag}"]


def _seeds(words: Sequence[str]) -> list[int]:
    if len(words) == 1 and "," not in words[0]:
        return list(range(_whole("seeds", words)))
    texts = [text for word in words for text in word.split(",") if text]
    if not texts or not all(text.isdecimal() for text in texts):
        raise UsageError(f"--seeds takes a number of seeds, or seeds such as 3,5,8; got {' '.join(words)}")
    return list(dict.fromkeys(map(int, texts)))


def _whole(name: str, words: Sequence[str]) -> int:
    if len(words) != 1 or not words[0].isdecimal() or int(words[0]) < 1:
        raise UsageError(f"--{name} takes a whole number of at least 1; got {' '.join(words) or 'none'}")
    return int(words[0])


def _claim(directory: Path, what: dict[str, Any]) -> None:
    """Note what the sweep runs. Raises UsageError where the directory has another sweep."""
    file = directory / FILE
    if file.is_file():
        there = json.loads(file.read_text(encoding="utf-8"))
        if there != what:
            line = shlex.join([there["algorithm"], there["task"], *there["fixed"]])
            raise UsageError(f"{directory} holds another sweep ({line}); give this one a --name of its own")
        return
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty and no sweep; give this one a --name of its own")
    from torchward.checkpoint import write_json

    directory.mkdir(parents=True, exist_ok=True)
    write_json(file, what)


def _interrupt(number: int, frame: FrameType | None) -> typing.NoReturn:
    signal.signal(number, signal.SIG_IGN)  # of a lost terminal both the shell and the kernel tell
    raise KeyboardInterrupt


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "it said nothing"


def _stem(named: str) -> str:
    """What a name or a file is called."""
    return re.sub(r"\.py(?=:|$)", "", named.rpartition("/")[2]) if named.endswith(".py") or ".py:" in named else named


def _has_affinity() -> bool:
    return hasattr(os, "sched_getaffinity")
