"""What the benchmarks share: raw results kept as they come, the machine, processes of their own, progress, tables.

It imports the standard library alone, so that a table is printed at once and a parent process takes no time from what
it measures.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RUNS = ROOT / "runs" / "benchmarks"
PEERS = ROOT / ".venv-peers" / "bin" / "python"
MISSING = "not measured yet"


class Failed(RuntimeError):
    """A process that should have measured something, and did not."""


class Row(NamedTuple):
    """A line of the table in README.md."""

    what: str
    asked: str
    aim: str
    measured: str
    command: str


class Work(NamedTuple):
    """One thing to measure; its result is kept under `key`."""

    key: str
    settings: Mapping[str, Any]
    """What it is measured with. A result that was measured with anything else does not count."""
    measure: Callable[[], dict[str, Any]]
    summary: Callable[[dict[str, Any]], str]


class Results:
    """The raw results of one benchmark: a JSON file each, with the machine and versions that it comes from."""

    def __init__(self, name: str, directory: Path = RESULTS) -> None:
        self.name, self.directory = name, directory / name

    def read(self, key: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result under `key`; None where there is none, or one that was measured with other settings."""
        stored = self._stored(self._file(key))
        result = None if stored is None or not _same(stored["settings"], _plain(settings)) else stored["result"]
        return None if result is None else dict(result)

    def write(self, key: str, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Keep a result, in one rename."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = f"python -m benchmarks.{self.name} {' '.join(sys.argv[1:])}".strip()
        document = {"key": key, "command": command, "settings": settings, "machine": machine(), "result": result}
        file = self._file(key)
        beside = file.with_name(file.name + ".tmp")
        beside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, file)

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def machines(self) -> list[dict[str, Any]]:
        """The machines that the results come from."""
        found = [self._stored(file) for file in sorted(self.directory.glob("*.json"))]
        return [stored["machine"] for stored in found if stored is not None]

    def _file(self, key: str) -> Path:
        return self.directory / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', key)}.json"

    @staticmethod
    def _stored(file: Path) -> dict[str, Any] | None:
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return dict(stored)


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(f"python -m benchmarks.{name}", description=doc.partition("\n")[0])
    made.add_argument("--table", action="store_true", help="print the rows of the table from the raw data, and no more")
    made.add_argument("--fresh", action="store_true", help="forget what was measured, and start anew")
    made.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where raw data lies")
    return made


def options_of_runs(name: str, doc: str, seeds: int) -> argparse.ArgumentParser:
    """The options of a benchmark each of whose runs is a process of its own, called with `--one`."""
    made = parser(name, doc)
    made.add_argument("--seeds", type=int, default=seeds)
    made.add_argument("--jobs", type=int, default=1, help="runs at a time")
    made.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    made.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return made


def conduct(
    given: argparse.Namespace,
    name: str,
    rows: Callable[[Path], list[Row]],
    works: Callable[[], list[Work]],
    one: Callable[[], dict[str, Any]],
) -> None:
    """Do what the options of a benchmark ask: one run, the rows of the table alone, or all that is not measured yet."""
    if given.one:
        print(json.dumps(one()))
        return
    if not given.table:
        results = Results(name, given.results)
        if given.fresh:
            results.clear()
        measure(results, works(), given.jobs)
    print(markdown(rows(given.results)))


def measure(results: Results, works: Sequence[Work], jobs: int = 1) -> None:
    """Do what is not done yet, `jobs` at a time, and keep each result as soon as it is there."""
    missing = [work for work in works if results.read(work.key, work.settings) is None]
    done, spent, begun = len(works) - len(missing), list[float](), time.perf_counter()
    say(f"{results.name}: {done} of {len(works)} are there already" if done else f"{results.name}: {len(works)} to do")

    def one(work: Work) -> tuple[dict[str, Any], float]:
        start = time.perf_counter()
        return work.measure(), time.perf_counter() - start

    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(one, work): work for work in missing}
        for future in as_completed(futures):
            work, (result, seconds) = futures[future], future.result()
            results.write(work.key, work.settings, result)
            done += 1
            spent.append(seconds)
            left = statistics.fmean(spent) * (len(works) - done) / jobs
            told = f"{work.key}: {work.summary(result)}  ({seconds:.1f} s; {_left(left)})"
            say(f"{results.name} {done}/{len(works)}  {told}")
    except Failed as error:
        sys.exit(f"{results.name}: {error}")
    finally:
        pool.shutdown(cancel_futures=True)
    say(f"{results.name}: all {len(works)} are there; this took {time.perf_counter() - begun:.0f} s")


def child(command: Sequence[str | Path], threads: int, seconds: float | None = None) -> dict[str, Any]:
    """Run a process that prints a JSON object as its last line, with so many threads; return that object.

    Its "wall_seconds" are added: from just before the process starts until it is seen to have ended."""
    began, start = time.time(), time.perf_counter()
    ended = subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=environment(threads), timeout=seconds, text=True,
        capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    wall = time.perf_counter() - start
    lines = ended.stdout.strip().splitlines()
    if ended.returncode or not lines:
        told = "\n".join((ended.stderr or ended.stdout).strip().splitlines()[-20:])
        raise Failed(f"`{' '.join(map(str, command))}` ended with {ended.returncode}:\n{told}")
    answer = json.loads(lines[-1])
    return {**answer, "wall_seconds": round(wall, 4), "began": began}


def in_turn(commands: Sequence[Sequence[str | Path]], threads: Sequence[int], turns: int) -> list[dict[str, Any]]:
    """Start processes side by side and let them work in turn, so that a moment's noise hits all of them.

    Each prints a JSON object when it is ready; then, for each line that it reads, it works once and prints how many
    seconds that took. Returned are these objects, with the "seconds" of all turns."""
    processes = [
        subprocess.Popen(
            [str(word) for word in command], cwd=ROOT, env=environment(count), text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for command, count in zip(commands, threads, strict=True)
    ]  # fmt: skip

    def answer(process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise Failed(f"`{' '.join(map(str, process.args))}` ended with {process.wait()}")  # type: ignore[arg-type]
        return json.loads(line)

    try:
        found = [{**answer(process), "seconds": list[float]()} for process in processes]
        for _ in range(turns):
            for process, told in zip(processes, found, strict=True):
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
                told["seconds"].append(round(answer(process), 5))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return found


def environment(threads: int) -> dict[str, str]:
    """The environment of a process that computes with so many threads, whichever library it asks."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONUNBUFFERED": "1"}


def require_peers() -> None:
    """End with a sentence where the peers are not installed."""
    if not PEERS.exists():
        sys.exit(f"the peers are not installed in {PEERS.parents[1]}: `make bench-env` does that")


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--", "torchward")),
        "versions": versions("torchward", "torch", "numpy", "gymnasium"),
    }


def versions(*names: str) -> dict[str, str | None]:
    """The installed version of each distribution, and of Python."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "source" if (ROOT / name).is_dir() else None
    return found


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median of some values, with the least and the greatest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def verdict(asked: bool, aim: bool) -> str:
    """What a figure is, held against what was asked and what was aimed at."""
    return "aim reached" if asked and aim else "asked for is reached" if asked else "**missed**"


def markdown(rows: Sequence[Row]) -> str:
    """Rows as the lines of a Markdown table, without its head."""
    return "\n".join(f"| {' | '.join(row[:-1])} | {f'`{row.command}`' if row.command else ''} |" for row in rows)


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def _left(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def _same(stored: Any, settings: Any) -> bool:
    """Whether something was measured with these settings. One that came later, and is off, changes nothing of it."""
    if not (isinstance(stored, dict) and isinstance(settings, dict)):
        return bool(stored == settings)
    return stored.keys() <= settings.keys() and all(
        _same(stored[name], value) if name in stored else value is False for name, value in settings.items()
    )


def _plain(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings))


def _git(*words: str) -> str | None:
    try:
        told = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip()
