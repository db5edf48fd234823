"""`torchward predict`: what a run's encoder puts into the gaps of a text, or which label its classifier gives it."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torchward.cli import UsageError, arguments, positional, say
from torchward.cli.chat import printable


@dataclass(frozen=True)
class Predict:
    """Show what the encoder of a run puts where a text has [MASK], or which label its classifier gives a text: for each
    line that is typed or piped in. An empty line or Ctrl-D ends it."""

    text: str | None = None
    """One text to judge; without it, lines are read."""
    top_k: int = 5
    """The guesses, or labels, that are shown."""
    which: Literal["best", "last"] = "best"
    """The model of the best evaluation in training (where there was none: of the end), or that of the end."""


def run(args: Sequence[str]) -> int:
    """The command."""
    words, rest = positional(args, ("RUN",), "predict")
    options: Predict = arguments.read_one(Predict(), rest, "torchward predict RUN")
    if options.top_k < 1:
        raise UsageError(f"top_k has to be at least 1; got {options.top_k}")
    from torchward.language.documents import TextError
    from torchward.nets import saving
    from torchward.nets.masked_language_model import MaskedLanguageModel
    from torchward.nets.text_classifier import TextClassifier

    path = Path(words[0])
    model: Any = saving.load(path, which="last" if options.which == "last" else None)
    if not isinstance(model, MaskedLanguageModel | TextClassifier):
        raise UsageError(
            f"predict shows encoders and classifiers, and {path} has a {type(model).__name__}: `torchward chat` and "
            "`torchward watch` show other models"
        )
    if options.text is not None:
        print(printable(shown(model, options.text, options.top_k)))
        return 0
    if sys.stdin.isatty():
        say(
            f"{'a text to label' if isinstance(model, TextClassifier) else 'a text with [MASK]'}; an empty line ends it"
        )
    for line in _lines():
        try:
            print(printable(shown(model, line, options.top_k)), flush=True)
        except TextError as error:
            say(str(error))
    return 0


def shown(model: Any, text: str, top_k: int) -> str:
    """A line for each gap of a text, or one with its labels; the likeliest first."""
    from torchward.language.classifying import predict
    from torchward.language.filling import fill
    from torchward.nets.text_classifier import TextClassifier

    if isinstance(model, TextClassifier):
        likely = sorted(predict(model, [text])[0].probabilities.items(), key=lambda each: -each[1])
        return "  ".join(f"{label} {probability:.3f}" for label, probability in likely[:top_k])
    guesses = fill(model, text, top_k)
    return "\n".join("  ".join(f"{each.token!r} {each.probability:.3f}" for each in gap) for gap in guesses)


def _lines() -> Iterator[str]:
    """What a person types, or a pipe holds, until an empty line."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            return
        if not line.strip():
            return
        yield line
