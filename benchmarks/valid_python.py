"""Functions that Python accepts: a model pretrained on the standard library, and from there GRPO.

    python -m benchmarks.valid_python --jobs 2
    python -m benchmarks.valid_python --seeds 1 --examples      shows what was written before and after, too

Each is `torchward train ALGORITHM python_code` with no flag but the seed and what it begins from: the tuned settings.
The model reads functions of most modules, and is rewarded behind the beginnings of 2,000 of these. It is judged behind
200 beginnings out of modules that were held out: four answers to each, drawn at temperature 1, none longer than GRPO's.
Reported, before and after, is the share that the task accepts; how varied the answers are, as the share of different
ones among all runs of n words and signs (distinct-n; of equally many words everywhere, for it falls with the size of a
text), beside that of what the library's authors wrote behind 2,000 other beginnings; and how far GRPO went: the KL
divergence from the model before it, in nats an answer, estimated from what it wrote. One thread a run.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from benchmarks.common import MISSING, Results, Row, conduct, options_of_runs, verdict
from benchmarks.defaults import interval
from benchmarks.stages import Stages, key, reopened, works

NAME = "valid_python"
STAGES = ("pretrain", "grpo")
RUN = Stages("python_code", {"grpo": "pretrain"})
SEEDS, ASKED, AIM = 3, 0.3, 0.5
EACH, GRAMS = 4, (1, 2, 3)
"""Answers to a beginning; and which runs of words are looked at."""


def first(texts: Sequence[list[str]], count: int) -> list[list[str]]:
    """The first texts that have together at most so many words."""
    return list(texts)[: sum(1 for _ in takewhile(lambda total: total <= count, accumulate(map(len, texts))))]


def varied(**texts: Sequence[str]) -> dict[str, list[float]]:
    """distinct-n of several, of as many words as the shortest has."""
    from torchward.language.shingles import distinct_n
    from torchward.tasks.python_code import words

    sides = {side: [words(text) for text in each] for side, each in texts.items()}
    count = min(sum(map(len, each)) for each in sides.values())
    return {side: [round(distinct_n(first(each, count), n), 4) for n in GRAMS] for side, each in sides.items()}


def one(stage: str, seed: int) -> dict[str, Any]:
    """A run in this process; behind the last one, what both models write."""
    made = RUN.train(stage, seed)
    told: dict[str, Any] = {"steps": made.steps, "seconds": made.seconds, "curve": made.curve}
    return told if stage == "pretrain" else told | compared(seed)


def compared(seed: int) -> dict[str, Any]:
    """What the models before and after write behind what was held out."""
    import torch

    from torchward.language.play import judged, play

    longest = RUN.settings("grpo")["config"]["max_completion_length"]
    told: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    reference = None
    for side, stage in (("before", "pretrain"), ("after", "grpo")):
        policy, task = reopened(RUN.place(stage, seed))
        problems = task.problems
        lines = play(
            policy, problems, problems.test, task.tokenizer, task.template, max_completion_length=longest,
            num_generations=EACH, generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        lines = [line for number in range(EACH) for line in lines[number::EACH]]  # those of one beginning far apart
        texts[side] = [line.said[0] for line in lines]
        told[side] = {
            "accepted": statistics.fmean(judged(lines, problems.metric)),
            "tokens": statistics.fmean(sum(line.own) for line in lines),
            "cut": statistics.fmean(not line.ended for line in lines),
            "examples": [[line.document.question, line.said[0]] for line in lines[:12]],
        }
        if reference is None:
            reference = policy
            continue
        ratios = [gone(reference, line) for line in lines]
        told["kl"] = statistics.fmean(ratios)
        told["kl_per_token"] = sum(ratios) / sum(sum(line.own) for line in lines)
    own = [each.text.removeprefix(each.question) for each in task.problems.demonstrations]
    return told | {"distinct": varied(**texts, library=own)}


def gone(reference: Any, line: Any) -> float:
    """By how much likelier an answer is than the reference holds it, in nats: on average the divergence."""
    import torch

    tokens = torch.tensor([line.ids])
    action = torch.where(torch.tensor([line.own]), tokens, -1)
    with torch.no_grad():
        then = reference.log_probs(tokens[:, :-1], action[:, 1:])
    return float(sum(line.log_probs) - then.sum())


def rows(directory: Path | None = None) -> list[Row]:
    """The row of the table, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    read = [results.read(key("grpo", seed), RUN.settings("grpo")) for seed in range(SEEDS)]
    found = [one for one in read if one is not None]
    measured = MISSING
    if found:
        before, after = (interval([one[side]["accepted"] for one in found]) for side in ("before", "after"))
        gains = [one["after"]["accepted"] - one["before"]["accepted"] for one in found]
        distinct = {
            side: [statistics.fmean(one["distinct"][side][i] for one in found) for i in range(len(GRAMS))]
            for side in ("before", "after", "library")
        }
        many = "; ".join(
            f"distinct-{n} {distinct['before'][i]:.3f} -> {distinct['after'][i]:.3f}, the library's own "
            f"{distinct['library'][i]:.3f}"
            for i, n in enumerate(GRAMS)
        )
        measured = (
            f"{before[0]:.1%} [{before[1]:.1%}, {before[2]:.1%}] -> {after[0]:.1%} [{after[1]:.1%}, {after[2]:.1%}] "
            f"in {len(found)} of {SEEDS} seeds, the least gain {min(gains) * 100:+.1f} points; {many}; "
            f"KL {statistics.fmean(one['kl'] for one in found):.1f} nats an answer"
        )
        if len(found) == SEEDS:
            alike = all(one >= other for one, other in zip(distinct["after"], distinct["before"], strict=True))
            gain = statistics.fmean(gains)
            measured += f"; {verdict(alike and gain >= ASKED, alike and gain >= AIM)}"
    what = f"valid Python behind held-out signatures, share accepted before and after GRPO, IQM [95 %] of {SEEDS} seeds"
    asked = "+ 30 points, distinct-n not lower"
    return [Row(what, asked, "+ 50 points", measured, f"python -m benchmarks.{NAME}")]


def main() -> None:
    options: argparse.ArgumentParser = options_of_runs(NAME, __doc__ or "", SEEDS)
    options.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES)
    options.add_argument("--examples", action="store_true", help="show what was written, too")
    given = options.parse_args()

    def summary(result: dict[str, Any]) -> str:
        if "after" not in result:
            return f"{result['steps']:,} tokens, {result['seconds']:.0f} s"
        return f"{result['before']['accepted']:.1%} -> {result['after']['accepted']:.1%}, KL {result['kl']:.1f}"

    todo = partial(works, NAME, RUN, given.stage, given.seeds, summary)
    conduct(given, NAME, rows, todo, lambda: one(given.stage[0], given.seed))
    if given.examples and not given.one:
        show(Results(NAME, given.results), given.seeds)


def show(results: Results, seeds: int) -> None:
    """What was written, before and after."""
    for seed in range(seeds):
        found = results.read(key("grpo", seed), RUN.settings("grpo"))
        for side in ("before", "after"):
            for prompt, answer in found[side]["examples"] if found is not None else ():
                print(f"--- seed {seed}, {side}\n{prompt}{answer}")


if __name__ == "__main__":
    main()
