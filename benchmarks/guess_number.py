"""Guess the number in five turns, between bounds that were held out: after careless games, and from there by reward.

    python -m benchmarks.guess_number --jobs 2
    python -m benchmarks.guess_number --seeds 1 --stage sft grpo      a part of it

Each is `torchward train ALGORITHM guess_number` with no flag but seeds and what it begins from: the tuned settings. A
seed is also that of the games. Ten ranges are held out, each with every number in it. Reported is the share of these
that the last policy finds within the turns, its words token by token the likeliest, so that it is exact; and how often
it guesses, games that it loses included. Beside it stand the most that any strategy finds, and the guesses of
bisection. One thread a run.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import MISSING, Results, Row, conduct, options_of_runs, verdict
from benchmarks.defaults import interval
from benchmarks.stages import Stages, key, reopened, works

if TYPE_CHECKING:
    from torchward.language.documents import Document

NAME = "guess_number"
STAGES = ("pretrain", "sft", "grpo", "ppo")
RUN = Stages(NAME, {"sft": "pretrain", "grpo": "sft", "ppo": "sft"})
TOLD = {"sft": "fine-tuned on careless games", "grpo": "from there GRPO", "ppo": "from there PPO"}
SEEDS, GAIN = 3, 0.4
CLOSE = 1e-9
"""How far below the optimum the aim is reached: not at all."""


def bisected(test: Sequence["Document"], turns: int) -> tuple[float, float]:
    """The success of bisection, and how often it guesses."""
    from torchward.tasks.guess_number import Answers

    partner, found, guesses = Answers(turns), 0.0, 0
    for document in test:
        low, high = map(int, document.question.split(".."))
        said: list[str] = []
        while True:
            middle = (low + high) // 2
            said.append(str(middle))
            reply = partner(said, document.columns)
            found += reply.reward
            if reply.text is None:
                break
            low, high = (middle + 1, high) if reply.text == "higher" else (low, middle - 1)
        guesses += len(said)
    return found / len(test), guesses / len(test)


def one(stage: str, seed: int) -> dict[str, Any]:
    """A run in this process, judged on every game that was held out."""
    import torch

    from torchward.language.play import play
    from torchward.tasks.guess_number import optimum

    made = RUN.train(stage, seed)
    policy, task = reopened(made.path)
    problems, judged = task.problems, {}
    for how in ("likeliest", "drawn"):
        lines = play(
            policy, problems, problems.test, task.tokenizer, task.template,
            max_completion_length=problems.max_completion_length,
            generator=torch.Generator().manual_seed(seed) if how == "drawn" else None,
        )  # fmt: skip
        judged[how] = {
            "success": statistics.fmean(sum(line.rewards) for line in lines),
            "guesses": statistics.fmean(len(line.said) for line in lines),
        }
    return {
        **judged,
        "optimum": optimum(problems.test, problems.turns),
        "bisection": bisected(problems.test, problems.turns),
        "games": len(problems.test),
        "steps": made.steps,
        "seconds": made.seconds,
        "curve": made.curve,
    }


def rows(directory: Path | None = None) -> list[Row]:
    """The row of the table, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    parts, told, best = [], {}, dict[int, tuple[float, float]]()
    for stage, says in TOLD.items():
        read = [results.read(key(stage, seed), RUN.settings(stage)) for seed in range(SEEDS)]
        found = {seed: one for seed, one in enumerate(read) if one is not None}
        best |= {seed: (one["optimum"], one["bisection"][1]) for seed, one in found.items()}
        successes = [one["likeliest"]["success"] for one in found.values()]
        if len(found) == SEEDS:
            told[stage] = interval(successes)
            middle, low, high = told[stage]
            guesses = statistics.fmean(one["likeliest"]["guesses"] for one in found.values())
            parts.append(f"{says} {middle:.1%} [{low:.1%}, {high:.1%}] with {guesses:.2f} guesses")
        elif found:
            parts.append(f"{says}: {len(found)} of {SEEDS} seeds ({', '.join(f'{one:.1%}' for one in successes)})")
    if best:
        most, guesses = (statistics.fmean(each) for each in zip(*best.values(), strict=True))
        parts.append(f"bisection {most:.1%} with {guesses:.2f}")
    measured = "; ".join(parts) or MISSING
    if len(told) == len(TOLD):
        begun, worse = told["sft"][0], min(told["grpo"][0], told["ppo"][0])
        optimal = worse >= interval([each for each, _ in best.values()])[0] - CLOSE
        measured += f"; {verdict(worse >= begun + GAIN, optimal)}"
    what = f"guess the number in five turns, success between held-out bounds, IQM [95 %] of {SEEDS} seeds"
    return [Row(what, "+ 40 points", "optimal bisection", measured, f"python -m benchmarks.{NAME}")]


def main() -> None:
    options: argparse.ArgumentParser = options_of_runs(NAME, __doc__ or "", SEEDS)
    options.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES)
    given = options.parse_args()

    def summary(result: dict[str, Any]) -> str:
        success, guesses = result["likeliest"]["success"], result["likeliest"]["guesses"]
        return f"{success:.1%} of {result['optimum']:.1%} with {guesses:.2f} guesses, {result['seconds']:.0f} s"

    todo = partial(works, NAME, RUN, given.stage, given.seeds, summary)
    conduct(given, NAME, rows, todo, lambda: one(given.stage[0], given.seed))


if __name__ == "__main__":
    main()
