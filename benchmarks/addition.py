"""Sums that were held out: fine-tuning on few demonstrations; from there GRPO, PPO, and as much more fine-tuning.

    python -m benchmarks.addition --jobs 2
    python -m benchmarks.addition --seeds 1 --stage sft grpo      a part of it
    python -m benchmarks.addition --figure                        draws what is there

Each is `torchward train ALGORITHM addition` with no flag but seeds and what it begins from: the tuned settings, but for
the length of the first fine-tuning, and so of its schedule. A seed is also that of the sums. Two digits, 400
demonstrations, 4,500 sums to be rewarded for (with the demonstrations'), 500 held out, of which none is among the
others, neither as a + b nor as b + a. How to add is learnt late and at once, sooner in one seed than in another: so the
first fine-tuning may take 300,000 tokens, and ends as soon as 40 % of the sums without an answer are right, at which it
looks every 2,500. Reported is the share of the held-out sums that the last policy answers to the letter, token by token
the likeliest. More fine-tuning has the tokens that take as long as the longer one of GRPO's and PPO's runs of its seed,
in seconds of the processor, and is judged by the better one of its last policy and its best. All three begin from the
first fine-tuning's best policy by the text held out, which is right less often than its last. One thread a run.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import MISSING, ROOT, Failed, Results, Row, Work, child, conduct, options_of_runs, verdict
from benchmarks.defaults import interval
from benchmarks.stages import Stages, key, reopened

NAME = "addition"
STAGES = ("pretrain", "sft", "grpo", "ppo", "more")
BEGINS = {"sft": "pretrain", "grpo": "sft", "ppo": "sft", "more": "sft"}
"""From what each begins."""
RUN = Stages(NAME, BEGINS, {"more": "sft"})
TOLD = {
    "sft": "fine-tuned on 400 sums", "grpo": "from there GRPO", "ppo": "from there PPO",
    "more": "from there fine-tuning for as long",
}  # fmt: skip
SEEDS, ASKED, AIM = 5, 0.95, 0.99
ENOUGH, MOST, EVERY = 0.4, 300_000, 2_500
"""When the first fine-tuning ends: the share of right answers, or the tokens; and how often it looks."""


def settings(stage: str) -> dict[str, Any]:
    """The tuned settings; those of all that it began from are part of them."""
    told = RUN.settings(stage)
    if stage == "sft":
        told["until"] = [ENOUGH, MOST, EVERY]
    before = [BEGINS[stage]] if stage in BEGINS else []
    before += ["grpo", "ppo"] if stage == "more" else []
    return {**told, "from": {name: settings(name) for name in before}}


def as_long(results: Results, seed: int) -> int:
    """Tokens of fine-tuning that take as many seconds of the processor as the longer run by reward did."""
    found = {stage: results.read(key(stage, seed), settings(stage)) for stage in ("sft", "grpo", "ppo")}
    if missing := [stage for stage, one in found.items() if one is None]:
        raise Failed(f"more fine-tuning is measured by {' and '.join(missing)}, seed {seed}: measure that first")
    sft, grpo, ppo = (one for one in found.values() if one is not None)
    return int(sft["steps"] / sft["seconds"] * max(grpo["seconds"], ppo["seconds"]))


def one(stage: str, seed: int, tokens: int) -> dict[str, Any]:
    """A run in this process, judged on every sum that was held out."""
    changes = {"total_timesteps": tokens} if tokens else {}
    if stage == "sft":
        changes = {"total_timesteps": MOST, "eval_freq": EVERY}
    made = RUN.train(stage, seed, changes, until_enough if stage == "sft" else None)
    right = {}
    for which in ("last", "best"):
        policy, task = reopened(made.path, which)
        right[which] = statistics.fmean(task.evaluate(policy, len(task.problems.test), 0).returns)
    return {"right": right, "steps": made.steps, "seconds": made.seconds, "curve": made.curve}


def until_enough(run: Any, task: Any) -> list[float]:
    """Let a run end where its policy is right often enough on sums that it has no answers to, none of them held out;
    the seconds of the processor that each look takes."""
    from dataclasses import replace

    from torchward.language.text_task import Text

    asked = task.problems.train[len(task.problems.demonstrations) :][:500]
    seconds = list[float]()
    look, watched = Text(replace(task.problems, test=asked), task.tokenizer), run.evaluation

    def evaluation(judged: Any, policy: Any, *more: Any) -> bool:
        best = bool(watched(judged, policy, *more))
        before = time.process_time()
        if statistics.fmean(look.evaluate(policy, len(asked), 0).returns) >= ENOUGH:
            run.total = run.step
        seconds.append(time.process_time() - before)
        return best

    run.evaluation = evaluation
    return seconds


def score(stage: str, result: dict[str, Any]) -> float:
    """The share of right answers: the last policy's; of more fine-tuning, the better one's."""
    last, best = result["right"]["last"], result["right"]["best"]
    return float(max(last, best) if stage == "more" else last)


def scores(directory: Path | None, stage: str) -> list[float]:
    results = Results(NAME, *([directory] if directory else []))
    found = [results.read(key(stage, seed), settings(stage)) for seed in range(SEEDS)]
    return [score(stage, one) for one in found if one is not None]


def rows(directory: Path | None = None) -> list[Row]:
    """The row of the table, from the raw data."""
    told, parts = {}, []
    for stage, says in TOLD.items():
        found = scores(directory, stage)
        if len(found) == SEEDS:
            told[stage] = interval(found)
            middle, low, high = told[stage]
            parts.append(f"{says} {middle:.1%} [{low:.1%}, {high:.1%}]")
        elif found:
            parts.append(f"{says}: {len(found)} of {SEEDS} seeds ({', '.join(f'{one:.1%}' for one in found)})")
    measured = "; ".join(parts) or MISSING
    if len(told) == len(TOLD):
        worse = min(told["grpo"], told["ppo"])
        begun, above = 0.3 <= told["sft"][0] <= 0.6, min(told["grpo"][1], told["ppo"][1]) > told["more"][2]
        measured += f"; {verdict(begun and above and worse[0] >= ASKED, worse[0] >= AIM)}"
    what = f"addition of two digits, held-out sums answered rightly, IQM [95 %] of {SEEDS} seeds"
    asked = "95 %, from 30 to 60 %, above fine-tuning for as long"
    return [Row(what, asked, "99 %", measured, f"python -m benchmarks.{NAME}")]


def figure(directory: Path | None = None) -> Path:
    """What every seed came to, beside where it began."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for number, (stage, says) in enumerate(TOLD.items()):
        found = scores(directory, stage)
        if found:
            middle, low, high = interval(found)
            axes.barh(number, middle, color=f"C{number}", alpha=0.35)
            axes.plot([low, high], [number, number], color=f"C{number}", linewidth=3)
            axes.plot(found, [number] * len(found), "o", color=f"C{number}", markersize=5)
            axes.text(0.02, number, says, va="center")
    axes.set(xlim=(0, 1.02), xlabel="held-out sums answered rightly", yticks=[])
    axes.invert_yaxis()
    out = ROOT / "docs" / "images" / "addition.png"
    drawn.savefig(out, dpi=130)
    return out


def main() -> None:
    options = options_of_runs(NAME, __doc__ or "", SEEDS)
    options.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES)
    options.add_argument("--tokens", type=int, default=0, help=argparse.SUPPRESS)
    options.add_argument("--figure", action="store_true", help="draw what is there")
    given = options.parse_args()
    if given.figure:
        print(figure(given.results))
        return
    results = Results(NAME, given.results)

    def process(stage: str, seed: int) -> dict[str, Any]:
        tokens = as_long(results, seed) if stage == "more" else 0
        words = ["--one", "--stage", stage, "--seed", seed, "--tokens", tokens]
        return child([sys.executable, "-m", f"benchmarks.{NAME}", *map(str, words)], 1)

    def works() -> list[Work]:
        return [
            Work(
                key(stage, seed), settings(stage), partial(process, stage, seed),
                partial(lambda stage, result: f"{score(stage, result):.1%} right", stage),
            )
            for stage in given.stage
            for seed in range(given.seeds)
        ]  # fmt: skip

    conduct(given, NAME, rows, works, lambda: one(given.stage[0], given.seed, given.tokens))


if __name__ == "__main__":
    main()
