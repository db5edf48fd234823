"""`torchward doctor`: look for faults in what a run's language model is trained on, and by."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torchward.cli import UsageError, arguments, positional

if TYPE_CHECKING:
    from torchward.language.finding import Finding

WIDTH = 110


@dataclass(frozen=True)
class Doctor:
    """Look for faults in a run's language model, tokenizer and data that raise no error and spoil what is learnt. Each
    check prints a line; what is wrong is told in words, and the command then fails."""

    prompts: int = 8
    """Prompts of the run's data that are answered, each twice."""
    seed: int = 0
    """The answers follow from it."""
    which: Literal["best", "last"] = "best"
    """The policy of the best evaluation in training (where there was none: of the end), or that of the end."""


def run(args: Sequence[str]) -> int:
    """The command."""
    words, rest = positional(args, ("RUN",), "doctor")
    options: Doctor = arguments.read_one(Doctor(), rest, "torchward doctor RUN")
    if options.prompts < 1:
        raise UsageError(f"prompts has to be at least 1; got {options.prompts}")
    import torch

    from torchward.algorithms.pretrain import bits
    from torchward.language.doctor import examine
    from torchward.language.text_task import Text
    from torchward.launch import reopen_task
    from torchward.nets import saving
    from torchward.nets.language_model import LanguageModel
    from torchward.nets.masked_language_model import MaskedLanguageModel
    from torchward.nets.text_classifier import TextClassifier
    from torchward.run import read_manifest

    path = Path(words[0])
    stored = read_manifest(path)
    policy: Any = saving.load(path, which="last" if options.which == "last" else None)
    if isinstance(policy, MaskedLanguageModel | TextClassifier):
        raise UsageError(
            f"doctor looks at models that write, and {path} has a {type(policy).__name__}, which reads: `torchward "
            f"evaluate {path}` judges it, `torchward data` looks at its text"
        )
    if not isinstance(policy, LanguageModel):
        raise UsageError(f"doctor looks at runs of language models, and {path} has a {type(policy).__name__}")
    task = reopen_task(path, stored["manifest"]).task
    if not isinstance(task, Text):
        raise UsageError(f"doctor looks at runs on tasks of text, and {path} was trained on {task.name}")
    ones = torch.ones(policy.config.vocab_size, dtype=torch.int64)
    before = torch.get_num_threads()
    torch.set_num_threads(int(stored["threads"]))
    try:
        findings = []
        for finding in examine(
            policy, task.using(policy), lambda model, rows: bits(model, rows, ones)[0],
            prompts=options.prompts, seed=options.seed, start=_start(path, stored["manifest"]),
        ):  # fmt: skip
            print(line(finding), flush=True)
            findings.append(finding)
    finally:
        torch.set_num_threads(before)
    wrong = [finding for finding in findings if finding.ok is False]
    for finding in wrong:
        print(textwrap.fill(f"{finding.name}: {finding.words}", WIDTH, initial_indent="\n", subsequent_indent="  "))
    return 1 if wrong else 0


def line(finding: "Finding") -> str:
    """What a check has found, in a line; what is wrong is told below."""
    verdict = {True: "ok", False: "WRONG", None: "-"}[finding.ok]
    return f"{verdict:<6} {finding.name:<15} {'' if finding.ok is False else finding.words}".rstrip()


def _start(path: Path, manifest: dict[str, Any]) -> Any:
    """The policy that new adapters were put on, where the run has kept it."""
    from torchward.launch_policies import INITIAL
    from torchward.nets import saving

    has_new = manifest["config"].get("lora", {}).get("type") == "LoRA"
    return saving.load(path / INITIAL) if has_new and (path / INITIAL).exists() else None
