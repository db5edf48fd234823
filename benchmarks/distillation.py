"""What a student of a quarter of the size has from its teacher: sums that were held out.

    python -m benchmarks.distillation                        all of it
    python -m benchmarks.distillation --seeds 1              a part of it
    python -m benchmarks.distillation --figure               draws what is there

The task is addition as it is tuned: sums of two digits, 4,500 prompts, 500 held out; a seed is also that of the sums.
The teacher has 2 layers of 128 and the answers to 1,500 sums, and is made as in benchmarks/addition.py: pretrained,
fine-tuned on those until 40 % of other sums are right, then rewarded (GRPO) on all 4,500. From fewer answers not every
seed makes a teacher. The student has 2 layers of 64, a quarter of the parameters, and 300 of the answers: from 400 a
student alone learns nearly all there is. Every arm begins from the same one, pretrained on the 300, and learns as many
tokens of answers, 150,000:

    alone      fine-tuned on the 300 right answers
    rewarded   that one, rewarded for as many tokens of its own answers again (GRPO): it gets twice the tokens
    words      fine-tuned on what the teacher writes to the 4,500 prompts (sequence level)
    distilled  the generalised Jensen-Shannon divergence, on half the teacher's answers and half its own

No arm but the rewarded one is told whether its answers are right. The student alone is trained with three learning
rates (with others it is worse), and in each seed the best counts, of its last policy or its best, with hindsight. Of
distillation the rate is chosen from a grid, by the sums held out for a seed that is in no figure; the words' is the
same, the reward's that which is tuned for GRPO; their last policy counts. Reported is the share of the gap between
teacher and student alone that an arm closes: (arm - alone) / (teacher - alone), of the means of a seed's, with the
bootstrap interval over seeds. One thread a run.
"""

import shutil
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.addition import ENOUGH, EVERY, MOST, until_enough
from benchmarks.common import MISSING, ROOT, RUNS, Failed, Results, Row, Work, child, conduct, options_of_runs, verdict
from benchmarks.defaults import interval
from benchmarks.stages import reopened

NAME, TASK = "distillation", "addition"
SEEDS, TUNING = 5, 100
ASKED, AIM = 0.5, 0.8
TOKENS = 150_000
GRID = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
ALONE = (4e-3, 8e-3, 1.6e-2)
"""The learning rates of a student alone."""
SMALL = {"hidden_size": 64}
LAST = "policy/last"
"""What of a run another begins from, or learns from."""
MANY, FEW = {"demonstrations": 1_500}, {"demonstrations": 300}
ALGORITHMS = {
    "pretrain": "pretrain", "sft": "sft", "teacher": "grpo", "student": "pretrain", "alone": "sft", "rewarded": "grpo",
    "words": "distill", "distilled": "distill",
}  # fmt: skip
BEGINS = {"sft": "pretrain", "teacher": "sft", "alone": "student", "words": "student", "distilled": "student",
          "rewarded": "alone"}  # fmt: skip
"""From what each begins; `words` and `distilled` learn from `teacher`."""
CHANGES: dict[str, dict[str, Any]] = {
    "pretrain": MANY,
    "sft": {**MANY, "total_timesteps": MOST, "eval_freq": EVERY},
    "teacher": MANY,
    "student": {**FEW, **SMALL},
    "alone": FEW,
    "rewarded": {**FEW, "total_timesteps": TOKENS},
    "words": {**FEW, "total_timesteps": TOKENS, "objective": "sequence", "lmbda": 0.0},
    "distilled": {**FEW, "total_timesteps": TOKENS},
}
RATES = {"alone": ALONE, "words": GRID, "distilled": GRID}
"""From what an arm's learning rate is chosen."""
TOLD = {
    "teacher": "the teacher", "alone": "its student alone", "rewarded": "that one by reward, twice the tokens",
    "words": "on the teacher's words", "distilled": "distilled",
}  # fmt: skip


def settings(stage: str, rate: float | None = None) -> dict[str, Any]:
    """The tuned settings and what is changed; of all that it began from too. A rate of None is chosen by the grid."""
    from torchward import launch
    from torchward.config import to_json
    from torchward.tasks import find

    start = launch.defaults(find.algorithm(ALGORITHMS[stage]), TASK)
    before = [BEGINS[stage]] if stage in BEGINS else []
    before += ["teacher"] if ALGORITHMS[stage] == "distill" else []
    told: dict[str, Any] = {
        "config": to_json(start.config),
        "task": to_json(start.env),
        "changes": CHANGES[stage],
    }
    if stage == "sft":
        told["until"] = ENOUGH
    if stage in RATES:
        told["tokens"] = TOKENS
        told["learning_rate"] = list(RATES[stage]) if rate is None else rate
    return {**told, "from": {name: {**settings(name), "which": LAST} for name in before}}


def key(stage: str, seed: int, rate: float | None = None) -> str:
    """What a result, and the run, is called."""
    return f"{stage}-seed-{seed}" + ("" if rate is None else f"-rate-{rate:g}")


def measured(results: Results, stage: str, seed: int) -> dict[float, float]:
    """What an arm came to with each of its learning rates, as far as it is measured."""
    found = {rate: results.read(key(stage, seed, rate), settings(stage, rate)) for rate in RATES[stage]}
    return {rate: score(stage, one) for rate, one in found.items() if one is not None}


def best(results: Results, stage: str, seed: int) -> float:
    """The best of its learning rates. Raises Failed before all are measured."""
    found = measured(results, stage, seed)
    if len(found) < len(RATES[stage]):
        raise Failed(f"{stage} is not tuned yet, seed {seed}: {len(found)} of {len(RATES[stage])} rates are measured")
    return max(found, key=found.__getitem__)


def one(stage: str, seed: int, rate: float | None) -> dict[str, Any]:
    """A run in this process, judged on every sum that was held out."""
    import torch

    from torchward import launch
    from torchward.tasks import find

    torch.set_num_threads(1)
    name = key(stage, seed, rate if stage == "alone" or seed == TUNING else None)
    place = RUNS / NAME / name
    shutil.rmtree(place, ignore_errors=True)
    told = {"seed": seed, "data_seed": seed, "tensorboard": False, "progress": False, **CHANGES[stage]}
    told |= {"learning_rate": rate} if stage in RATES else {}
    algorithm = find.algorithm(ALGORITHMS[stage])
    start = launch.change_all(launch.defaults(algorithm, TASK), told)
    given: dict[str, Any] = {}
    if stage in BEGINS:
        given["init"] = RUNS / NAME / key(BEGINS[stage], seed, rate if stage == "rewarded" else None) / LAST
    if ALGORITHMS[stage] == "distill":
        given["teacher"] = RUNS / NAME / key("teacher", seed) / LAST
    if stage == "alone":
        tokens = tokens_of_rows(start, given["init"])
        start = launch.change_all(start, {"total_timesteps": tokens, "eval_freq": tokens // 20})
    ready = launch.begin(algorithm, TASK, start, path=place, threads=1, **given)
    if stage == "sft":
        until_enough(ready.run, ready.task.task)
    before = time.process_time()
    run = ready.go()
    seconds = time.process_time() - before
    if not (place / launch.RESULT).exists():
        raise SystemExit(130)  # a signal came
    right = {}
    for which in ("last", "best"):
        policy, task = reopened(place, which)
        right[which] = statistics.fmean(task.evaluate(policy, len(task.problems.test), 0).returns)
    size = sum(parameter.numel() for parameter in policy.parameters())
    return {"right": right, "steps": run.step, "seconds": round(seconds, 2), "learning_rate": rate, "parameters": size}


def tokens_of_rows(start: Any, init: Path) -> int:
    """The tokens of rows, prompts and padding included, in which fine-tuning learns TOKENS of answers."""
    from torchward import launch_policies
    from torchward.data.packing import Whole, plan
    from torchward.nets import saving
    from torchward.tasks import find

    task: Any = launch_policies.in_words_of(find.task(TASK, start.env), saving.load(init, which="last")).task
    sums = task.demonstrations().train
    rows = len(plan(sums, start.config.max_length, Whole(), None).rows) - 1
    return int(TOKENS * rows * start.config.max_length / sums.learnt)


def score(stage: str, result: dict[str, Any]) -> float:
    """The share of right answers: the last policy's; of fine-tuning alone, the better one's."""
    last, best = result["right"]["last"], result["right"]["best"]
    return float(max(last, best) if stage == "alone" else last)


def scores(directory: Path | None, stage: str) -> dict[int, float]:
    """By seed, as far as it is measured."""
    results = Results(NAME, *([directory] if directory else []))
    if stage == "alone":
        tuned = {seed: measured(results, stage, seed) for seed in range(SEEDS)}
        return {seed: max(each.values()) for seed, each in tuned.items() if len(each) == len(ALONE)}
    found = {seed: results.read(key(stage, seed), settings(stage)) for seed in range(SEEDS)}
    return {seed: score(stage, one) for seed, one in found.items() if one is not None}


def shares(directory: Path | None, stage: str) -> list[float]:
    """Of each seed, the share of the gap that an arm closes."""
    teacher, alone, arm = (scores(directory, name) for name in ("teacher", "alone", stage))
    return [
        (arm[seed] - alone[seed]) / (teacher[seed] - alone[seed]) for seed in arm if seed in teacher and seed in alone
    ]


def rows(directory: Path | None = None) -> list[Row]:
    """The row of the table, from the raw data."""
    parts = []
    for stage, says in TOLD.items():
        if found := list(scores(directory, stage).values()):
            middle, low, high = interval(found)
            parts.append(f"{says} {middle:.1%} [{low:.1%}, {high:.1%}]")
    told, found = "; ".join(parts) or MISSING, shares(directory, "distilled")
    if found:
        middle, low, high = interval(found)
        told += f"; the gap is closed by {middle:.0%} [{low:.0%}, {high:.0%}], {len(found)} seeds"
        reached = verdict(low >= ASKED, middle >= AIM)
        told += f"; {reached}" if len(found) >= SEEDS else f" of {SEEDS}"
    what = (
        "distillation of a student of a quarter of the size, sums held out: share of the gap to the teacher, IQM [95 %]"
    )
    return [Row(what, "a half", "80 %", told, f"python -m benchmarks.{NAME}")]


def figure(directory: Path | None = None) -> Path:
    """What every seed came to."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for number, (stage, says) in enumerate(TOLD.items()):
        if found := list(scores(directory, stage).values()):
            middle, low, high = interval(found)
            axes.barh(number, middle, color=f"C{number}", alpha=0.35)
            axes.plot([low, high], [number, number], color=f"C{number}", linewidth=3)
            axes.plot(found, [number] * len(found), "o", color=f"C{number}", markersize=5)
            axes.text(0.02, number, says, va="center")
    axes.set(xlim=(0, 1.02), xlabel="held-out sums answered rightly", yticks=[])
    axes.invert_yaxis()
    out = ROOT / "docs" / "images" / "distillation_sums.png"
    drawn.savefig(out, dpi=130)
    return out


def main() -> None:
    options = options_of_runs(NAME, __doc__ or "", SEEDS)
    options.add_argument("--stage", nargs="+", choices=list(ALGORITHMS), default=list(ALGORITHMS))
    options.add_argument("--rate", type=float, default=0.0, help="of a run that tunes")
    options.add_argument("--figure", action="store_true", help="draw what is there")
    given = options.parse_args()
    if given.figure:
        print(figure(given.results))
        return
    results = Results(NAME, given.results)

    def process(stage: str, seed: int, rate: float | None) -> dict[str, Any]:
        if stage == "rewarded":
            rate = best(results, "alone", seed)
        elif rate is None and stage in RATES:
            rate = best(results, "distilled", TUNING)
        words = ["--one", "--stage", stage, "--seed", seed, "--rate", rate or 0.0]
        return child([sys.executable, "-m", f"benchmarks.{NAME}", *map(str, words)], 1)

    def work(stage: str, seed: int, rate: float | None = None) -> Work:
        return Work(
            key(stage, seed, rate), settings(stage, rate), partial(process, stage, seed, rate),
            lambda result: f"{score(stage, result):.1%} right",
        )  # fmt: skip

    def works() -> list[Work]:
        made = ["pretrain", "sft", "teacher", "student"]
        found = [work(stage, TUNING) for stage in made if stage in given.stage]
        found += [work("distilled", TUNING, rate) for rate in GRID if "distilled" in given.stage]
        for order in ([*made, "alone", "distilled"], ["words"], ["rewarded"]):
            found += [
                work(stage, seed, rate)
                for seed in range(given.seeds)
                for stage in order
                if stage in given.stage
                for rate in (ALONE if stage == "alone" else (None,))
            ]
        return found

    conduct(given, NAME, rows, works, lambda: one(given.stage[0], given.seed, given.rate or None))


if __name__ == "__main__":
    main()
