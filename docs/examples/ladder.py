"""From a text to a model that was rewarded: corpus, tokenizer, pretraining, fine-tuning, reinforcement, report.

    make ladder
    python docs/examples/ladder.py --path runs/ladder      the same; what is there already is not done again

A transformer learns English from what `help()` says of Python, then from a few sums with their answers how to add, and
then by reward, from sums without answers, to add rightly. Each rung is a run like any other, of the command line too:

    torchward train pretrain python_topics --path runs/ladder/pretrain
    torchward train sft addition --path runs/ladder/sft --init runs/ladder/pretrain
    torchward train grpo addition --path runs/ladder/grpo --init runs/ladder/sft
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from torchward import launch
from torchward.language.documents import plain
from torchward.language.generate import stream
from torchward.language.play import Line, judged, play, question
from torchward.language.report import report
from torchward.language.text_task import Text
from torchward.language.tokenizer import described
from torchward.metrics import read_metrics, say
from torchward.nets import saving
from torchward.nets.language_model import LanguageModel
from torchward.nets.sampling import Sampling
from torchward.run import read_manifest
from torchward.tasks import find

SHOWN, OPENING, LENGTH = 8, "The statement", 60
"""Sums that the report shows; what the pretrained model goes on with, and for how many tokens."""


@dataclass(frozen=True)
class Rung:
    """One run."""

    algorithm: str
    task: str
    says: str
    """What the report says of it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the settings of `torchward train ALGORITHM TASK`."""


LADDER = (
    Rung("pretrain", "python_topics", "learnt English"),
    Rung("sft", "addition", "was shown sums with their answers"),
    Rung("grpo", "addition", "was rewarded for right answers"),
)


def climb(place: Path, ladder: tuple[Rung, ...] = LADDER) -> Path:
    """Every run that is not there yet, each from the one below; the report, when all are there.

    Raises SystemExit where a signal stopped one: called again, it goes on from there."""
    below: Path | None = None
    data = str(data_report(ladder[0])).rstrip()
    say(f"what there is to read\n{data}")
    for number, rung in enumerate(ladder, start=1):
        path = place / rung.algorithm
        say(f"{number}/{len(ladder)}  {rung.algorithm} {rung.task}")
        if not (path / launch.RESULT).exists():
            if (path / "config.json").exists():
                launch.resume(path)
            else:
                launch.train(rung.algorithm, rung.task, path=path, init=below, **rung.settings)
        if not (path / launch.RESULT).exists():
            raise SystemExit(f"stopped; the same command goes on from here: {path}")
        below = path
    return write_report(place, ladder, data)


def data_report(rung: Rung) -> Any:
    """What there is to learn from."""
    start = launch.change_all(launch.defaults(find.algorithm(rung.algorithm), rung.task), rung.settings)
    task: Any = find.task(rung.task, start.env).task
    return report(*task.corpus_sides(), task.tokenizer, max_length=start.config.max_length)


def text_of(path: Path) -> Text:
    """The task of a run, as it had it."""
    task = launch.reopen_task(path, read_manifest(path)["manifest"]).task
    assert isinstance(task, Text)
    return task


def model_of(path: Path) -> LanguageModel:
    """The policy at the end of a run."""
    policy = saving.load(path, which="last")
    assert isinstance(policy, LanguageModel)
    policy.sampling = Sampling()
    return policy


def examine(path: Path, task: Text) -> tuple[float, list[Line]]:
    """The share of all held-out questions that a run's model answers rightly, and what it said to each."""
    policy = model_of(path)
    asked, length = task.using(policy), task.max_completion_length
    lines = play(
        policy, asked.problems, asked.problems.test, asked.tokenizer, asked.template, max_completion_length=length
    )
    right = judged(lines, asked.problems.metric or asked.problems.reward)
    return sum(right) / len(right), lines


def written(path: Path) -> str:
    """How a pretrained model goes on with a few words."""
    policy = model_of(path)
    policy.sampling = Sampling(temperature=0.7)
    tokenizer = described(policy.vocabulary)
    prompt = [tokenizer.start_id, *tokenizer.encode(OPENING)]
    pieces = stream(policy, tokenizer, prompt, max_new_tokens=LENGTH, generator=torch.Generator().manual_seed(0))
    return OPENING + "".join(pieces)


def write_report(place: Path, ladder: tuple[Rung, ...], data: str) -> Path:
    """report.md and ladder.png: what each rung cost, what it brought, and what the models say."""
    first, *asked = ladder
    lines = ["# The ladder", "", "![The curves of the runs](ladder.png)", ""]
    lines += ["| run | what it did | tokens | minutes | right, held out |", "|---|---|---|---|---|"]
    examined = {rung.algorithm: examine(place / rung.algorithm, text_of(place / rung.algorithm)) for rung in asked}
    minutes = 0.0
    for rung in ladder:
        last = [row for row in read_metrics(place / rung.algorithm) if "time" in row][-1]
        minutes += float(last["time"]) / 60
        share = f"{examined[rung.algorithm][0]:.1%}" if rung.algorithm in examined else ""
        cells = (rung.algorithm, rung.says, f"{last['step']:,}", f"{float(last['time']) / 60:.1f}", share)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"{minutes:.1f} minutes of training in all.", ""]
    lines += ["## The data", "", "```text", data, "```", ""]
    lines += ["## What it writes", "", "```text", written(place / first.algorithm), "```", ""]
    names = [rung.algorithm for rung in asked]
    lines += ["## What it answers", "", f"| asked | right | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for number in range(SHOWN):
        said = [examined[name][1][number] for name in names]
        document = said[0].document
        shown = [plain(question(document)), str(document.columns["answer"]), *(line.said[-1] for line in said)]
        lines.append(f"| {' | '.join(f'`{cell}`' for cell in shown)} |")
    draw(place, ladder, {name: share for name, (share, _) in examined.items()})
    out = place / "report.md"
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out


def draw(place: Path, ladder: tuple[Rung, ...], right: Mapping[str, float]) -> None:
    """The curves of the runs, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(ladder), figsize=(4.2 * len(ladder), 3.4), layout="constrained")
    for rung, axes in zip(ladder, panels, strict=True):
        rows = read_metrics(place / rung.algorithm)
        text = any("eval/bits_per_byte" in row for row in rows)
        curves = {
            "eval/bits_per_byte": "held out", "eval/seen_bits_per_byte": "learnt from", "return": "reward",
        }  # fmt: skip
        for name, label in curves.items():
            points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            if points and not (name == "return" and text):
                axes.plot(*zip(*points, strict=True), label=label)
        axes.set_title(rung.algorithm + (f": {right[rung.algorithm]:.1%} right" if rung.algorithm in right else ""))
        axes.set_xlabel("tokens")
        axes.set_ylabel("bits per byte" if text else "reward")
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    figure.savefig(place / "ladder.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--path", type=Path, default=Path("runs/ladder"), help="where the runs and the report lie")
    written_to = climb(options.parse_args().path)
    print(written_to.read_text(encoding="utf-8"))
    print(f"The report: {written_to}")


if __name__ == "__main__":
    main()
