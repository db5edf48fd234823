"""Dialogue with simulated users, goals and phrasings held out: by a script, by fine-tuning, and from there by reward.

    python -m benchmarks.dialogue                              script, pretrain, sft and ppo, with each seed
    python -m benchmarks.dialogue --seeds 1 --stage sft ppo    a part of it
    python -m benchmarks.dialogue --figure                     draws what is there, and prints it for each mode

Each is `torchward train ALGORITHM dialogue` with no flag but seeds and what it begins from: the tuned settings. A seed
is also that of the users, so that the script meets the very users that the policies of its seed are judged by. Reported
is the share of the test's users, a quarter of each mode, who got what they wanted, to the letter; the policy says its
words token by token the likeliest. One thread a run.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import MISSING, ROOT, Results, Row, Work, conduct, options_of_runs, verdict
from benchmarks.defaults import interval
from benchmarks.stages import Stages, key, reopened, works

if TYPE_CHECKING:
    from torchward.language.documents import Document

NAME = "dialogue"
STAGES = ("pretrain", "sft", "ppo")
RUN = Stages(NAME, {"sft": "pretrain", "ppo": "sft"})
SCRIPT = "script"
TOLD = {SCRIPT: "a script of rules", "sft": "fine-tuned", "ppo": "from there PPO"}
SEEDS, GAIN = 3, 0.25


def options(seed: int) -> Any:
    """The users of a seed."""
    from torchward import launch
    from torchward.tasks import find

    return replace(launch.defaults(find.algorithm("ppo"), NAME).env, data_seed=seed)


def settings(stage: str) -> dict[str, Any]:
    """What a stage is measured with."""
    from torchward.config import to_json

    return {"task": to_json(options(0))} if stage == SCRIPT else RUN.settings(stage)


def shares(documents: Sequence["Document"], said: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What came of some conversations: success of all and of each mode, turns, and words a turn."""
    from torchward.tasks.dialogue_user import Conversation

    found: dict[str, list[bool]] = {"all": []}
    for document, turns in zip(documents, said, strict=True):
        success = Conversation(document.columns, turns).user.success
        for name in ("all", document.columns["mode"]):
            found.setdefault(name, []).append(success)
    return {
        "success": {name: statistics.fmean(each) for name, each in found.items()},
        "turns": statistics.fmean(len(turns) for turns in said),
        "words": statistics.fmean(len(words.split()) for turns in said for words in turns),
        "users": len(documents),
    }


def scripted(seed: int) -> dict[str, Any]:
    """The script, with the users of a seed."""
    from torchward.tasks.dialogue import held_out
    from torchward.tasks.dialogue_script import Script, converse

    before, documents = time.process_time(), held_out(options(seed))
    found = {}
    for name, confirms in (("confirms", True), ("hasty", False)):
        said = [converse(Script(confirms), document.columns)[2] for document in documents]
        found[name] = shares(documents, said)
    return {**found["confirms"], "without_confirming": found["hasty"], "seconds": time.process_time() - before}


def one(stage: str, seed: int) -> dict[str, Any]:
    """A run in this process, judged with every user that was held out."""
    from torchward.language.play import play

    made = RUN.train(stage, seed)
    result: dict[str, Any] = {"steps": made.steps, "seconds": made.seconds, "curve": made.curve}
    if stage != "pretrain":
        policy, task = reopened(made.path)
        problems = task.problems
        lines = play(
            policy, problems, problems.test, task.tokenizer, task.template,
            max_completion_length=problems.max_completion_length,
        )  # fmt: skip
        result |= shares(problems.test, [line.said for line in lines])
    return result


def found(directory: Path | None, stage: str) -> dict[int, dict[str, Any]]:
    """The results of a stage, by seed."""
    results = Results(NAME, *([directory] if directory else []))
    read = {seed: results.read(key(stage, seed), settings(stage)) for seed in range(SEEDS)}
    return {seed: result for seed, result in read.items() if result is not None}


def rows(directory: Path | None = None) -> list[Row]:
    """The row of the table, from the raw data."""
    parts, told = [], {}
    for stage, says in TOLD.items():
        there = found(directory, stage)
        successes = [result["success"]["all"] for result in there.values()]
        if len(there) == SEEDS:
            told[stage] = interval(successes)
            middle, low, high = told[stage]
            turns = statistics.fmean(result["turns"] for result in there.values())
            parts.append(f"{says} {middle:.1%} [{low:.1%}, {high:.1%}] in {turns:.1f} turns")
        elif there:
            parts.append(f"{says}: {len(there)} of {SEEDS} seeds ({', '.join(f'{each:.1%}' for each in successes)})")
    measured = "; ".join(parts) or MISSING
    if len(told) == len(TOLD):
        gained = told["ppo"][0] >= told["sft"][0] + GAIN
        measured += f"; {verdict(gained, told['ppo'][0] > told[SCRIPT][0])}"
    what = f"dialogue, success with users whose goals and phrasings were held out, IQM [95 %] of {SEEDS} seeds"
    return [Row(what, "+ 25 points", "above the script", measured, f"python -m benchmarks.{NAME}")]


def groups() -> tuple[str, ...]:
    """Whose success is told: of all users, and of those of each mode."""
    from torchward.tasks.dialogue import MODES

    return ("all", *MODES)


def of_modes(directory: Path | None = None) -> str:
    """The mean success of each with each mode of users, and its turns, over the seeds that are there."""
    lines = [f"| | {' | '.join(groups())} | turns |", "|---" * (len(groups()) + 2) + "|"]
    for stage, says in TOLD.items():
        if there := list(found(directory, stage).values()):
            means = [statistics.fmean(each["success"][group] for each in there) for group in groups()]
            turns = statistics.fmean(each["turns"] for each in there)
            lines.append(f"| {says} | {' | '.join(f'{mean:.1%}' for mean in means)} | {turns:.1f} |")
    return "\n".join(lines)


def figure(directory: Path | None = None) -> Path:
    """The success of each with each mode of users, a bar for the mean and a dot for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn, axes = plt.subplots(figsize=(8.4, 3.6), layout="constrained")
    for number, (stage, says) in enumerate(TOLD.items()):
        there = list(found(directory, stage).values())
        for place, group in enumerate(groups()):
            scores = [each["success"][group] for each in there]
            if scores:
                x = place + 0.27 * (number - 1)
                label = says if place == 0 else None
                axes.bar(x, statistics.fmean(scores), 0.25, color=f"C{number}", alpha=0.75, label=label)
                axes.plot([x] * len(scores), scores, "k.", markersize=4)
    axes.set_xticks(range(len(groups())), groups())
    axes.set(ylim=(0, 1.02), ylabel="success, held out")
    drawn.legend(loc="outside right center", frameon=False)
    out = ROOT / "docs" / "images" / f"{NAME}.png"
    drawn.savefig(out, dpi=130)
    plt.close(drawn)
    return out


def main() -> None:
    given_options: argparse.ArgumentParser = options_of_runs(NAME, __doc__ or "", SEEDS)
    given_options.add_argument("--stage", nargs="+", choices=(SCRIPT, *STAGES), default=(SCRIPT, *STAGES))
    given_options.add_argument("--figure", action="store_true", help="draw what is there")
    given = given_options.parse_args()
    if given.figure:
        print(of_modes(given.results))
        print(figure(given.results))
        return

    def summary(result: Mapping[str, Any]) -> str:
        if "success" not in result:
            return f"{result['seconds']:.0f} s"
        return f"{result['success']['all']:.1%} in {result['turns']:.1f} turns, {result['seconds']:.0f} s"

    def todo() -> list[Work]:
        trained = [stage for stage in given.stage if stage != SCRIPT]
        script = [
            Work(key(SCRIPT, seed), settings(SCRIPT), partial(scripted, seed), summary)
            for seed in range(given.seeds if SCRIPT in given.stage else 0)
        ]
        return script + works(NAME, RUN, trained, given.seeds, summary)

    conduct(given, NAME, rows, todo, lambda: one(given.stage[0], given.seed))


if __name__ == "__main__":
    main()
