"""`torchward compare`: runs that differ only by seed, summed up and set side by side."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchward.cli import UsageError, arguments, say
from torchward.cli.statistics import Interval, bootstrap, curve, number

POINTS = 200
PREFIXES = {"evaluation": "eval/", "training": ""}
"""What stands before a run's figure, by where it was seen."""
_USAGE = "torchward compare RUN... [--option value ...]"


@dataclass(frozen=True)
class Compare:
    """Compare runs: final returns, or bits per byte, by interquartile mean with 95 % bootstrap intervals, and curves.

    Writes compare.md and compare.png."""

    out: str | None = None
    """The directory for what is written; without it, the directory that was compared, or this one."""
    returns: Literal["auto", "evaluation", "training"] = "auto"
    """Which returns, or bits per byte: of the last evaluation, or of the last training episodes. auto: evaluations,
    where each run has one from its last tenth, or a run has nothing else."""


class Named(NamedTuple):
    """A task or an algorithm."""

    source: str
    """By which it is found; its name, where only a program has it."""
    name: str
    """What it is called, where nothing else is called so."""


@dataclass(frozen=True)
class Record:
    """What one run left behind."""

    path: Path
    task: Named
    algorithm: Named
    settings: dict[str, Any]
    """All else that decides what is learnt, but the seed: flat, by name."""
    seed: Any
    rows: list[dict[str, Any]]
    finished: bool
    figure: str = "return"
    """What it is judged by: the return, or another figure."""
    lower_is_better: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be said of it yet: no episode has ended, and none was played to judge it."""
        return not any(len(self.curve(source)[0]) for source in PREFIXES)

    def curve(self, source: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Steps and figures, of evaluation or of training."""
        column = PREFIXES[source] + self.figure
        rows = [(row["step"], row[column]) for row in self.rows if row.get(column) is not None]
        steps, values = np.array(rows, np.float64).reshape(-1, 2).T
        return steps, values


@dataclass(frozen=True)
class Summary:
    """Runs that differ only by seed, taken together."""

    task: str
    label: str
    runs: list[Record]
    finals: list[float]
    interval: Interval


def run(args: Sequence[str]) -> int:
    """The command."""
    count = next((i for i, argument in enumerate(args) if argument.startswith("-")), len(args))
    options: Compare = arguments.read_one(Compare(), args[count:], "torchward compare RUN...")
    if count == 0:
        raise UsageError(f"RUN is missing: {_USAGE}; see torchward compare --help")
    paths = [Path(argument) for argument in args[:count]]
    records = collect(paths)
    directory = Path(".")
    if len(paths) == 1 and records[0].path != paths[0]:
        directory = paths[0]
    directory = Path(options.out) if options.out is not None else directory
    compare(records, directory, options.returns, f"torchward compare {shlex.join(args)}")
    return 0


def compare(records: Sequence[Record], directory: Path, returns: str, command: str) -> None:
    """Print the table of the runs, and write it and the curves into a directory. Of empty runs there is a note alone.

    Raises UsageError where all are empty."""
    full = [record for record in records if not record.is_empty]
    if not full:
        raise UsageError(
            f"expected runs in which an episode has ended, got none in {_paths(records)}; let one train for more steps"
        )
    figure = judged(full)
    source = choose(full) if returns == "auto" else returns
    summaries = summarise(full, source)
    notes = remarks(records, summaries)
    headings, rows = table(summaries)
    print(aligned(headings, rows))
    directory.mkdir(parents=True, exist_ok=True)
    picture = draw(summaries, source, directory / "compare.png")
    what = "the last evaluation" if source == "evaluation" else "the last training episodes"
    lines = [
        "# Comparison",
        "",
        f"Written by `{command}`. {figure.capitalize()} of {what};",
        "interquartile mean (IQM) over runs that differ only by seed, with",
        "95 % stratified bootstrap intervals (Agarwal et al. 2021).",
        "",
        f"| {' | '.join(headings)} |",
        f"|{'---|' * len(headings)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        *([] if not notes else ["", *(f"- {note}" for note in notes)]),
        *(["", f"![{figure} over steps](compare.png)"] if picture else []),
        "",
    ]
    (directory / "compare.md").write_text("\n".join(lines), encoding="utf-8")
    for note in notes:
        say(f"note: {note}")
    print(f"\n{directory / 'compare.md'}{f', {picture}' if picture else ''}")
    if not picture:
        say("no compare.png is drawn: pip install 'torchward[plots]' brings it.")


def collect(paths: Sequence[Path]) -> list[Record]:
    """The runs that are named, and those below named directories. Raises UsageError where there are none."""
    found: dict[Path, None] = {}
    for path in paths:
        below = [path] if (path / "config.json").is_file() else list(_below(path))
        if not below:
            raise UsageError(f"{path} is no run, and holds none" if path.exists() else f"there is no {path}")
        found |= dict.fromkeys(below)
    return [read(path) for path in found]


def judged(records: Sequence[Record]) -> str:
    """What all runs are judged by, in words. Raises UsageError where that differs."""
    first = records[0]
    for other in records:
        if other.figure != first.figure:
            raise UsageError(
                f"{first.path} is judged by {_words(first.figure)} and {other.path} by {_words(other.figure)}: compare "
                "them apart"
            )
    return _words(first.figure)


def read(path: Path) -> Record:
    """A run from its directory."""
    from torchward.metrics import figure_of, read_metrics
    from torchward.run import read_manifest

    stored = read_manifest(path)
    manifest, config = stored["manifest"], _flat(stored["manifest"]["config"])
    weight, goal = manifest.get("kl", (0.0, None))
    settings = {
        **config,
        **{f"env_{name}" if name in config else name: value for name, value in _flat(manifest["env"]).items()},
        **{name: manifest.get(name) for name in ("init", "policy", "teacher", "reward_model")},
        "pessimism": float(manifest.get("pessimism", 0.0)),
        "kl_coef": float(weight),
        "kl_target": None if goal is None else float(goal),
        "stop_return": stored["options"]["stop_return"],
    }
    seed = settings.pop("seed", None)
    rows = read_metrics(path) if (path / "metrics.jsonl").is_file() else []
    result = path / "result.json"
    finished = result.is_file()
    lower = bool(json.loads(result.read_text()).get("lower_is_better")) if finished else False
    task, algorithm = _named(manifest, "task"), _named(manifest, "algorithm")
    return Record(path, task, algorithm, settings, seed, rows, finished, figure_of(rows), lower)


def choose(records: Sequence[Record]) -> str:
    """evaluation, where each run has one from the last tenth of its steps, or a run has nothing else; else training."""
    for record in records:
        steps, _ = record.curve("evaluation")
        if not len(steps) or steps[-1] < 0.9 * record.rows[-1]["step"]:
            return "training" if all(len(each.curve("training")[0]) for each in records) else "evaluation"
    return "evaluation"


def summarise(records: Sequence[Record], source: str) -> list[Summary]:
    """One summary for each group of runs that differ only by seed: by task, the best ones first.

    Raises UsageError for a run without such returns."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if not len(record.curve(source)[0]):
            raise UsageError(f"{record.path} has no {_words(record.figure)} of this kind; choose others by --returns")
        key = json.dumps([record.task, record.algorithm, record.settings], sort_keys=True)
        groups.setdefault(key, []).append(record)
    tasks, algorithms = _labels(r.task for r in records), _labels(r.algorithm for r in records)
    summaries = []
    for group in groups.values():
        first = group[0]
        peers = [
            other[0].settings
            for other in groups.values()
            if other[0].task == first.task and other[0].algorithm == first.algorithm
        ]
        differing = [n for n in first.settings if len({json.dumps(settings.get(n)) for settings in peers}) > 1]
        label = " ".join([algorithms[first.algorithm], *(f"{n}={_word(first.settings[n])}" for n in differing)])
        finals = [float(record.curve(source)[1][-1]) for record in group]
        summaries.append(Summary(tasks[first.task], label, group, finals, bootstrap(np.array(finals)[:, None])))
    sign = 1 if any(record.lower_is_better for record in records) else -1
    return sorted(summaries, key=lambda summary: (summary.task, sign * summary.interval.value))


def remarks(records: Sequence[Record], summaries: Sequence[Summary]) -> list[str]:
    """What a reader of the table has to know."""
    notes = []
    if empty := [record for record in records if record.is_empty]:
        notes.append(f"left out, for no episode has ended: {_paths(empty)}")
    if unfinished := [record for record in records if not record.finished]:
        notes.append(f"not finished: {_paths(unfinished)}")
    for summary in summaries:
        twice = [str(seed) for seed, count in Counter(str(record.seed) for record in summary.runs).items() if count > 1]
        if twice:
            notes.append(f"{summary.task}, {summary.label}: more than one run of seed {', '.join(twice)}")
    return notes


def table(summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows."""
    rows = []
    for summary in summaries:
        value, low, high = summary.interval
        steps = float(np.median([record.rows[-1]["step"] for record in summary.runs]))
        interval = f"[{number(low)}, {number(high)}]" if len(summary.runs) > 1 else "one run"
        extremes = [number(min(summary.finals)), number(max(summary.finals))]
        rows.append(
            [summary.task, summary.label, str(len(summary.runs)), number(value), interval, *extremes, f"{steps:.0f}"]
        )
    return ["task", "setting", "runs", "IQM", "95 % interval", "min", "max", "steps"], rows


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal."""
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (headings, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def draw(summaries: Sequence[Summary], source: str, path: Path) -> Path | None:
    """The interquartile mean of each group over the steps, with its interval; None where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    tasks = list(dict.fromkeys(summary.task for summary in summaries))
    figure = Figure(figsize=(7 * len(tasks), 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for i, task in enumerate(tasks):
        axes = figure.add_subplot(1, len(tasks), i + 1)
        for summary in (s for s in summaries if s.task == task):
            curves = [record.curve(source) for record in summary.runs]
            grid = np.linspace(max(steps[0] for steps, _ in curves), max(steps[-1] for steps, _ in curves), POINTS)
            # Between two of its points a run lies on their line; behind its end it keeps its last value.
            middle, low, high = curve(np.stack([np.interp(grid, *line) for line in curves]))
            (drawn,) = axes.plot(grid, middle, label=f"{summary.label} ({len(summary.runs)})")
            axes.fill_between(grid, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)
        axes.set(xlabel="steps", ylabel=f"{_words(summaries[0].runs[0].figure)} (IQM, 95 % interval)", title=task)
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize="small")
    figure.savefig(path)
    return path


def _below(path: Path) -> Iterator[Path]:
    """The runs in a directory: what lies within a run is its own, and a model of transformers beside one is none."""
    for place, inner, files in os.walk(path):
        inner.sort()
        if "config.json" in files and _is_of_run(Path(place, "config.json")):
            inner.clear()
            yield Path(place)


def _is_of_run(file: Path) -> bool:
    """Whether a config.json is a run's, or cannot be read: whoever reads the run says why."""
    try:
        return "manifest" in json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return True


def _paths(records: Sequence[Record]) -> str:
    return ", ".join(str(record.path) for record in records)


def _named(manifest: Mapping[str, Any], what: str) -> Named:
    """The task or the algorithm of a run."""
    name = manifest[f"{what}_name"]
    return Named(manifest.get(what) or name, name)


def _labels(named: Iterable[Named]) -> dict[Named, str]:
    """What each is called in the table: its name, or its source where another one has that name."""
    found = set(named)
    count = Counter(each.name for each in found)
    return {each: each.name if count[each.name] == 1 else each.source for each in found}


def _words(figure: str) -> str:
    return "returns" if figure == "return" else figure.replace("_", " ")


def _flat(data: dict[str, Any]) -> dict[str, Any]:
    """Nested settings by their own names, or behind the name of their field where several have the same."""
    nested = {name: value for name, value in data.items() if isinstance(value, dict) and "type" in value}
    flat = {name: value for name, value in data.items() if name not in nested}
    inner = {name: _flat({k: v for k, v in value.items() if k != "type"}) for name, value in nested.items()}
    count = Counter([*flat, *(key for part in inner.values() for key in part)])
    for name, part in inner.items():
        flat[name] = nested[name]["type"]
        flat |= {key if count[key] == 1 else f"{name}_{key}": value for key, value in part.items()}
    return flat


def _word(value: Any) -> str:
    return (
        ",".join(map(_word, value))
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
