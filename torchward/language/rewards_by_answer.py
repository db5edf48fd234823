"""Verifiers: rewards of 1 and 0 by whether an answer is right. To the letter it is :func:`~torchward.language.rewards.\
exact_match`; these forgive something, and say what.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchward.config import ConfigError
from torchward.language.documents import TextError
from torchward.language.rewards import column, references

_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_WITHIN = re.compile(rf"(?:(?<![0-9.])[-+])?{_NUMBER.pattern.removeprefix('[-+]?')}")
"""Within other words, where a sign behind a digit is that of a difference."""


@dataclass(frozen=True)
class Exact:
    """1 for an answer that is a reference, but for what is named here."""

    column: str | None = None
    """The column of the reference; None: reference, answer or completion, the first that there is."""
    strip: bool = True
    """White space around it counts for nothing."""
    ignore_case: bool = False
    """Upper and lower case are the same."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """Raises TextError without references."""
        return [
            float(self._plain(said) in map(self._plain, right))
            for said, right in zip(completions, references(columns, self.column), strict=True)
        ]

    def _plain(self, text: str) -> str:
        text = text.strip() if self.strip else text
        return text.casefold() if self.ignore_case else text


@dataclass(frozen=True)
class Numeric:
    """1 for an answer whose number is the reference's, within a tolerance: |a - b| <= absolute + relative |b|."""

    column: str = "answer"
    """The column of the number; it may hold a number, or a text that is one."""
    absolute: float = 1e-9
    """How far from it."""
    relative: float = 0.0
    """How far from it, as a part of it."""
    last: bool = False
    """The last number that stands in an answer counts, whatever stands around it (of `1,234` that is 234); else the
    answer is a number and nothing more, but for white space around it."""

    def __post_init__(self) -> None:
        if not (0.0 <= self.absolute < math.inf and 0.0 <= self.relative < math.inf):
            raise ConfigError(
                f"expected finite tolerances of at least 0, got absolute {self.absolute} and relative {self.relative}"
            )

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """Raises TextError where a document has no number."""
        return [
            float(self._agrees(said, right))
            for said, right in zip(completions, column(columns, self.column), strict=True)
        ]

    def _agrees(self, said: str, right: Any) -> bool:
        try:
            number = isinstance(right, int | float) and not isinstance(right, bool)
            wanted = float(right) if number else _whole(str(right))
        except OverflowError:
            wanted = None
        if wanted is None or not math.isfinite(wanted):
            raise TextError(f"expected a finite number as {self.column!r}, to judge by, got {right!r:.80}")
        if self.last:
            found = _WITHIN.findall(said)
            got = float(found[-1]) if found else None
        else:
            got = _whole(said)
        return got is not None and abs(got - wanted) <= self.absolute + self.relative * abs(wanted)


@dataclass(frozen=True)
class Contains:
    """1 for an answer in which a reference stands as a whole: no letter or digit joins it on either side.

    Who may write much may name every answer there is: ``longest`` bounds that."""

    column: str | None = None
    """The column of the reference; None: reference, answer or completion, the first that there is."""
    ignore_case: bool = False
    """Upper and lower case are the same."""
    longest: int | None = None
    """Characters of the longest answer that may earn something; None: any."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """Raises TextError without references."""
        return [
            float((self.longest is None or len(said) <= self.longest) and any(self._holds(said, e) for e in right))
            for said, right in zip(completions, references(columns, self.column), strict=True)
        ]

    def _holds(self, said: str, right: str) -> bool:
        how = re.IGNORECASE if self.ignore_case else 0
        return bool(right) and re.search(rf"(?<!\w){re.escape(right)}(?!\w)", said, how) is not None


def _whole(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text := text.strip()) else None
