"""What guests like (`torchward list`: taste), learnt from their picks: a reward model, and policies by PPO and by DPO.

    python -m benchmarks.preferences --jobs 2
    python -m benchmarks.preferences --seeds 1 --stage reward_model      a part of it
    python -m benchmarks.preferences --figure                            docs/images/preferences.png

Each is `torchward train ALGORITHM taste` with the tuned settings; a seed is also that of the world. Picks are made by a
true reward that is known, so it is known what share of them anybody could foresee, and what a menu is truly worth.
Reported: the reward model's accuracy on guests who were never seen together, over that limit; and the true reward of
what is written for them, drawn at temperature 1, against the KL divergence from the model that all began from, in nats
an answer: PPO on the reward model with several prices of leaving that model, DPO on the same picks with several betas,
and the best of 2, 4, 8 and 16 answers by the reward model (whose divergence is log n - (n - 1) / n; Beirami et al.
2024 show that to be a bound). The row compares all at the divergence of the best of 16, between the points of a seed in
a straight line. One thread a run.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import MISSING, Results, Row, Work, conduct, options_of_runs, verdict
from benchmarks.defaults import interval
from benchmarks.stages import Stages, key, reopened, works

NAME = "preferences"
KL_COEFS, BETAS = (0.6, 0.4, 0.2), (1.6, 0.6, 0.3)
PPO, DPO = {f"ppo-{x:g}": x for x in KL_COEFS}, {f"dpo-{x:g}": x for x in BETAS}
STAGES = ("pretrain", "reward_model", "best_of", *PPO, *DPO)
RUN = Stages(
    "taste",
    dict.fromkeys(("reward_model", *PPO, *DPO), "pretrain"),
    {**dict.fromkeys(PPO, "ppo"), **dict.fromkeys(DPO, "dpo"), "best_of": "reward_model"},
)
SEEDS, ACCURACY, AIM = 5, 0.95, 0.98
EACH, BEST = 512, (1, 2, 4, 8, 16)
"""Answers to each prompt that judge a policy, and of how many the best is taken."""


def settings(stage: str) -> dict[str, Any]:
    """What a stage is measured with."""
    if stage in PPO:
        return {**RUN.settings(stage), "kl_coef": PPO[stage], "judge": RUN.settings("reward_model"), "each": EACH}
    if stage in DPO:
        return {**RUN.settings(stage), "beta": DPO[stage], "each": EACH}
    if stage == "best_of":
        return {**RUN.settings("reward_model"), "best": list(BEST), "each": EACH}
    return RUN.settings(stage)


def divergence(n: int) -> float:
    """Of the best of n answers from one, in nats."""
    return math.log(n) - (n - 1) / n


def answers(policy: Any, task: Any, seed: int) -> Any:
    """EACH answers to each pair of guests that was held out."""
    import torch

    from torchward.language.play import play

    asked = list({document.columns["guests"]: document for document in task.problems.test}.values())
    return play(
        policy, task.problems, asked, task.tokenizer, task.template, num_generations=EACH,
        max_completion_length=task.problems.max_completion_length, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def judged(seed: int, path: Path) -> dict[str, float]:
    """What the answers of a run's last policy are truly worth, and how far it is from the one that it began as."""
    from torchward.language.source import rollout

    policy, task = reopened(path)
    base, _ = reopened(RUN.place("pretrain", seed))
    lines = answers(policy, task, seed)
    gaps = []
    for begin in range(0, len(lines), 256):
        some = rollout(lines[begin : begin + 256], 1, policy.body.token.weight.device, task.tokenizer.pad_id)
        known = base.log_probs(some.observation, some.action).detach()
        gaps += (some.log_prob - known).masked_fill(~some.loss_mask, 0.0).sum(1).tolist()
    return {"reward": statistics.fmean(sum(line.rewards) for line in lines), "kl": statistics.fmean(gaps)}


def best_of(seed: int) -> dict[str, Any]:
    """The best answers by the reward model, of the model that all began from, and what they are truly worth."""
    import torch

    from torchward.language.model_judge import Judge

    policy, task = reopened(RUN.place("pretrain", seed))
    model, _ = reopened(RUN.place("reward_model", seed))
    lines = answers(policy, task, seed)
    said = torch.tensor(Judge(model).of_tokens([line.ids for line in lines]))
    true = torch.tensor([sum(line.rewards) for line in lines])
    found = {}
    for n in BEST:
        best = said.view(-1, n).argmax(1, keepdim=True)
        found[str(n)] = float(true.view(-1, n).gather(1, best).mean())
    return {"best": found}


def one(stage: str, seed: int) -> dict[str, Any]:
    """A run in this process, judged at its end."""
    if stage == "best_of":
        return best_of(seed)
    changes: dict[str, Any] = {"loss_beta": DPO[stage]} if stage in DPO else {}
    launched = {"kl_coef": PPO[stage], "reward_model": RUN.place("reward_model", seed)} if stage in PPO else {}
    made = RUN.train(stage, seed, changes, launched=launched)
    told = {"steps": made.steps, "seconds": made.seconds, "curve": made.curve}
    if stage == "pretrain":
        return told
    if stage != "reward_model":
        return told | judged(seed, made.path)
    from torchward.tasks.taste import bayes_accuracy

    model, task = reopened(made.path)
    test = task.problems.test
    found = task.evaluate(model, len(test), 0).returns
    foreseen = [1 / (1 + math.exp(-abs(document.columns["better_by"]))) for document in test]
    return told | {"accuracy": statistics.fmean(found), "limit": bayes_accuracy(test), "picks": len(foreseen)}


def at(points: Sequence[tuple[float, float]], kl: float) -> float:
    """The reward at a divergence, in a straight line between a seed's points, and level behind the last."""
    known = sorted(points)
    for (low, before), (high, after) in pairwise(known):
        if low <= kl <= high:
            return before + (after - before) * (kl - low) / max(high - low, 1e-9)
    return known[-1][1]


def curves(results: Results, seed: int) -> dict[str, list[tuple[float, float]]] | None:
    """Divergence and true reward of PPO, DPO and the best of n, each from the model that all began from; None where a
    stage of this seed is not measured yet."""
    read = {stage: results.read(key(stage, seed), settings(stage)) for stage in STAGES}
    found = {stage: one for stage, one in read.items() if one is not None}
    if len(found) < len(STAGES):
        return None
    best = found["best_of"]["best"]
    begun = (0.0, best["1"])
    return {
        "PPO": [begun, *((found[stage]["kl"], found[stage]["reward"]) for stage in PPO)],
        "DPO": [begun, *((found[stage]["kl"], found[stage]["reward"]) for stage in DPO)],
        "best of n": [(divergence(n), best[str(n)]) for n in BEST],
    }


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    command = f"python -m benchmarks.{NAME}"
    read = [results.read(key("reward_model", seed), settings("reward_model")) for seed in range(SEEDS)]
    shares = [one["accuracy"] / one["limit"] for one in read if one is not None]
    accuracy = MISSING
    if shares:
        middle, low, high = interval(shares)
        means = [statistics.fmean(one[name] for one in read if one is not None) for name in ("accuracy", "limit")]
        told = verdict(middle >= ACCURACY, middle >= AIM) if len(shares) == SEEDS else f"{len(shares)} of {SEEDS} seeds"
        accuracy = f"{middle:.3f} [{low:.3f}, {high:.3f}]: {means[0]:.1%} of a limit of {means[1]:.1%}; {told}"
    every = [found for seed in range(SEEDS) if (found := curves(results, seed)) is not None]
    reward = MISSING
    if every:
        kl = divergence(BEST[-1])
        ends = {name: interval([at(each[name], kl) for each in every]) for name in every[0]}
        begun = interval([each["best of n"][0][1] for each in every])
        parts = [f"{name} {middle:.2f} [{low:.2f}, {high:.2f}]" for name, (middle, low, high) in ends.items()]
        apart = min(ends["PPO"][1], ends["DPO"][1]) > begun[2]
        told = verdict(apart, apart and ends["PPO"][0] >= ends["best of n"][0])
        told = told if len(every) == SEEDS else f"{len(every)} of {SEEDS} seeds"
        reward = f"before {begun[0]:.2f} [{begun[1]:.2f}, {begun[2]:.2f}]; {'; '.join(parts)}; {told}"
    return [
        Row(
            f"synthetic preferences: the reward model's accuracy over the limit, {SEEDS} seeds", f"{ACCURACY:g}",
            f"{AIM:g}", accuracy, command,
        ),
        Row(
            f"true reward at {divergence(BEST[-1]):.2f} nats from the model before, by the same picks, {SEEDS} seeds",
            "PPO and DPO above it, apart", "PPO reaches best of 16", reward, command,
        ),
    ]  # fmt: skip


def draw(directory: Path, file: Path) -> None:
    """The chart: true reward over divergence; each seed's line, and the mean of their points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results = Results(NAME, directory)
    every = [found for seed in range(SEEDS) if (found := curves(results, seed)) is not None]
    figure = Figure(figsize=(7, 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, colour, mark in (("PPO", "tab:blue", "o"), ("DPO", "tab:orange", "s"), ("best of n", "tab:gray", "^")):
        for each in every:
            axes.plot(*zip(*each[name], strict=True), color=colour, alpha=0.25, linewidth=1)
        middle = [
            [
                statistics.fmean(point[axis] for point in points)
                for points in zip(*(x[name] for x in every), strict=True)
            ]
            for axis in (0, 1)
        ]
        axes.plot(*middle, color=colour, marker=mark, label=f"{name} (mean of {len(every)} seeds)")
    axes.set(xlabel="KL divergence from the model before, nats an answer", ylabel="true reward", xlim=(0, 6))
    axes.grid(alpha=0.3)
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def main() -> None:
    options: argparse.ArgumentParser = options_of_runs(NAME, __doc__ or "", SEEDS)
    options.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES)
    options.add_argument("--figure", action="store_true", help="draw the chart from the raw data")
    given = options.parse_args()
    if given.figure:
        draw(given.results, Path(__file__).parents[1] / "docs" / "images" / "preferences.png")
        return

    def summary(result: dict[str, Any]) -> str:
        if "accuracy" in result:
            return f"{result['accuracy']:.1%} of {result['limit']:.1%}, {result['seconds']:.0f} s"
        if "kl" in result:
            return f"true reward {result['reward']:.2f} at {result['kl']:.2f} nats, {result['seconds']:.0f} s"
        return ", ".join(f"best of {n} {x:.2f}" for n, x in result["best"].items()) if "best" in result else "there"

    def todo() -> list[Work]:
        made = works(NAME, RUN, given.stage, given.seeds, summary, settings)
        return sorted(made, key=lambda work: (int(work.key.rpartition("-")[2]), given.stage.index(_stage(work.key))))

    conduct(given, NAME, rows, todo, lambda: one(given.stage[0], given.seed))


def _stage(result: str) -> str:
    return result.rpartition("-seed-")[0]


if __name__ == "__main__":
    main()
