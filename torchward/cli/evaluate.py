"""`torchward evaluate`: whole episodes with a run's policy, in environments of their own."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torchward.cli import UsageError, arguments, positional


@dataclass(frozen=True)
class Evaluate:
    """Play whole episodes with the policy of a run; prints their returns and writes evaluation.json into the run. An
    encoder or a classifier is judged by the texts that were held out, and a reward model by the pairs, in place of
    episodes."""

    episodes: int = 20
    """Whole episodes that are played."""
    seed: int = 0
    """Decides how they begin; training never saw these."""
    stochastic: bool = False
    """Draw the actions, in place of taking the most likely ones."""
    which: Literal["best", "last"] = "best"
    """The policy of the best evaluation in training (where there was none: of the end), or that of the end."""


def run(args: Sequence[str]) -> int:
    """The command."""
    words, rest = positional(args, ("RUN",), "evaluate")
    options: Evaluate = arguments.read_one(Evaluate(), rest, "torchward evaluate RUN")
    if options.episodes < 1:
        raise UsageError(f"episodes has to be at least 1; got {options.episodes}")
    import torch

    from torchward.checkpoint import write_json
    from torchward.language.text_task import Text
    from torchward.launch import reopen_task
    from torchward.launch_checks import check_spaces
    from torchward.launch_policies import as_judged, in_words_of
    from torchward.metrics import finite, judged_row
    from torchward.nets import saving
    from torchward.nets.language_model import LanguageModel
    from torchward.nets.masked_language_model import MaskedLanguageModel
    from torchward.nets.reward_model import RewardModel
    from torchward.nets.text_classifier import TextClassifier
    from torchward.run import read_manifest

    path = Path(words[0])
    stored = read_manifest(path)
    found = reopen_task(path, stored["manifest"])
    policy: Any = saving.load(path, which="last" if options.which == "last" else None)
    check_spaces(policy, f"the policy of {path}", found)
    task = as_judged(in_words_of(found, policy), path, stored["manifest"])[0].task
    if isinstance(policy, MaskedLanguageModel | TextClassifier | RewardModel):
        from torchward.cli import evaluate_encoder, evaluate_reward_model

        judge = evaluate_reward_model if isinstance(policy, RewardModel) else evaluate_encoder
        torch.set_num_threads(int(stored["threads"]))
        lines, values = judge.evaluate(path, policy, task, stored["manifest"])
        print(lines)
        write_json(path / "evaluation.json", {"which": options.which, **values})
        return 0
    if isinstance(policy, LanguageModel) and isinstance(task, Text) and task.problems.test and not task.knows_answers:
        raise UsageError(
            f"expected a column 'answer' in {task.name} to judge what {path} writes by, got none: {_instead(path)}, "
            f"and `torchward serve {path}` lets people compare its answers"
        )
    how = {}
    if options.stochastic:
        if "deterministic" not in inspect.signature(task.evaluate).parameters:
            raise UsageError(f"{stored['manifest']['task_name']} can only be evaluated with the most likely actions")
        how["deterministic"] = False
    torch.set_num_threads(int(stored["threads"]))
    result = task.evaluate(policy, options.episodes, options.seed, **how)
    row = judged_row("return", result.returns, result.lengths)
    mean, spread, low, high = row["eval/return"], row["eval/return_std"], min(result.returns), max(result.returns)
    print(
        f"{mean:.2f} ± {spread:.2f} (min {low:.2f}, max {high:.2f}) over {len(result.returns)} episodes "
        f"of {row['eval/length']:.0f} steps on average"
    )
    written = {
        "episodes": len(result.returns),
        "seed": options.seed,
        "deterministic": not options.stochastic,
        "which": options.which,
        "mean": mean,
        "std": spread,
        "min": low,
        "max": high,
        "returns": row["eval/returns"],
        "lengths": list(result.lengths),
    }
    write_json(path / "evaluation.json", finite(written))
    return 0


def _instead(path: Path) -> str:
    """Where the figure stands by which a run judged itself."""
    from torchward.metrics import METRICS_FILE, read_metrics

    names = (name for row in read_metrics(path) for name in row if name.startswith("eval/") and f"{name}_std" in row)
    figure = next(names, None)
    return f"its own figure is {figure} in {path / METRICS_FILE}" if figure else "its training has no figure of its own"
