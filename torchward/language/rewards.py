"""Rewards that several tasks share. A reward judges what was written, and is given the columns of its document.

Here are those that ask for the answer to the letter, and what all rewards need of the columns. The others stand by what
they judge: ``rewards_by_answer`` (is it right), ``rewards_by_overlap`` (BLEU, chrF, ROUGE), ``rewards_by_form``
(length, pattern, JSON, repetition), ``similarity`` (an encoder's); and ``reward_sum`` makes one of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchward.language.documents import TextError


def exact_match(prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
    """1 for each completion that is the ``answer`` of its document to the letter, else 0.

    Nothing is stripped, converted or searched for: other white space, a leading zero, another script's digits, and an
    answer among other words are wrong. So there is one way to be right, and nothing to guess more than once.
    Raises TextError where a document has no text as its column ``answer``."""
    return [float(completion == answer) for completion, answer in zip(completions, _answers(columns), strict=True)]


def _answers(columns: Mapping[str, Sequence[Any]]) -> Sequence[str]:
    found = column(columns, "answer")
    for answer in found:
        if not isinstance(answer, str):
            raise TextError(
                f"expected a text as 'answer', to judge by to the letter, got {answer!r:.80}: write it as a text, or "
                "take another reward: Numeric for numbers, Exact for a list of texts that are equally right"
            )
    return found


def column(columns: Mapping[str, Sequence[Any]], name: str) -> Sequence[Any]:
    """The column that a reward needs. Raises TextError where there is none."""
    if name not in columns:
        raise TextError(f"expected a column {name!r} to judge by, got {', '.join(columns) or 'none'}")
    return columns[name]


REFERENCES = ("reference", "answer", "completion")
"""The columns in which a reference may stand, the first before the others."""


def references(columns: Mapping[str, Sequence[Any]], name: str | None = None) -> list[tuple[str, ...]]:
    """What each completion may be compared with: of the column ``name`` or, without a name, of the first of REFERENCES
    that there is. A document's is a text, or a list of texts that are equally right.

    Raises TextError where there is no such column, and for what is neither."""
    if name is None:
        name = next((each for each in REFERENCES if each in columns), None)
    if name is None:
        raise TextError(f"expected a column of {', '.join(REFERENCES)} to judge by, got {', '.join(columns) or 'none'}")
    found = []
    for value in column(columns, name):
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(each, str) for each in texts):
            raise TextError(f"expected a text or a list of texts as {name!r}, to judge by, got {value!r:.80}")
        found.append(tuple(texts))
    return found


@dataclass(frozen=True)
class GradedMatch:
    """1 for the ``answer`` to the letter; for another of the same length, ``credit`` times the share of its characters
    that are right, each in its place. An answer of another length earns nothing, so that there is nothing in writing
    more of them."""

    credit: float

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """What each completion earns. Raises TextError where a document has no text as its column ``answer``."""
        return [
            1.0 if completion == answer else self.credit * _share(completion, answer)
            for completion, answer in zip(completions, _answers(columns), strict=True)
        ]


def _share(completion: str, answer: str) -> float:
    if len(completion) != len(answer) or not answer:
        return 0.0
    return sum(one == other for one, other in zip(completion, answer, strict=True)) / len(answer)
