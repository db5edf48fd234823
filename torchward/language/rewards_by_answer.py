"""Verifiers: rewards of 1 and 0 by whether an answer is right. To the letter it is :func:`~torchward.language.rewards.\
exact_match`; these forgive something, and say what.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torchward.config import ConfigError
from torchward.language.documents import TextError
from torchward.language.rewards import column, references

_UNSIGNED = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+\u2212]?[0-9]{1,3})?"
_NUMBER = re.compile(rf"[-+\u2212]?{_UNSIGNED}")
_SIGN = r"(?<![\w.)\]])[-+\u2212]"
"""Within other words: behind a digit, a letter or a bracket it is that of a difference, or a hyphen."""
_WITHIN = re.compile(rf"(?:{_SIGN})?{_UNSIGNED}")
DIGITS = 1_000
"""A number of more characters is none: nobody is to wait for its product."""


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
    """1 for an answer whose number is the reference's, within a tolerance: |a - b| <= absolute + relative |b|. Numbers
    are compared as they are written, to their last digit; a comma before three digits counts for nothing (1,234), and
    a minus may be a typographer's."""

    column: str = "answer"
    """The column of the number; it may hold a number, or a text that is one."""
    absolute: float = 1e-9
    """How far from it."""
    relative: float = 0.0
    """How far from it, as a part of it."""
    last: bool = False
    """The last number that stands in an answer counts, whatever stands around it; else the answer is a number and
    nothing more, but for white space around it."""

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
        wanted = None if isinstance(right, bool) else _whole(str(right))
        if wanted is None:
            raise TextError(f"expected a finite number as {self.column!r}, to judge by, got {str(right)[:80]!r}")
        if self.last:
            found = _WITHIN.findall(said)
            got = _number(found[-1]) if found else None
        else:
            got = _whole(said)
        tolerance = Fraction(self.absolute) + Fraction(self.relative) * abs(wanted)
        return got is not None and abs(got - wanted) <= tolerance


@dataclass(frozen=True)
class Contains:
    """1 for an answer in which a reference stands as a whole: no letter or digit joins it on either side, and of a
    number no sign, point or comma that makes it another one.

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
        if not right:
            return False
        how = re.IGNORECASE if self.ignore_case else 0
        before = rf"(?<!\w)(?<!\.)(?<![0-9],)(?<!{_SIGN})" if right[0].isdecimal() else r"(?<!\w)"
        behind = r"(?!\w)(?![.,][0-9])" if right[-1].isdecimal() else r"(?!\w)"
        return re.search(before + re.escape(right) + behind, said, how) is not None


def _whole(text: str) -> Fraction | None:
    return _number(text) if _NUMBER.fullmatch(text := text.strip()) else None


def _number(text: str) -> Fraction | None:
    return Fraction(text.replace(",", "").replace("\u2212", "-")) if len(text) <= DIGITS else None
