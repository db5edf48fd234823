"""Rewards by what an answer looks like, whatever it says: its length, a pattern, JSON, repetition.

None needs a reference, and none knows what is right: they are parts of a sum, or a gate before it.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from torchward.config import ConfigError
from torchward.language.shingles import distinct_n


@dataclass(frozen=True)
class Length:
    """1 for an answer whose length lies within a band; outside it falls in a straight line, to 0 at ``margin`` from the
    band's end. With ``margin`` and no ``least`` it is DAPO's soft punishment of overlong answers (Yu et al. 2025,
    equation 13), one higher."""

    least: int = 0
    """The smallest length that earns 1."""
    most: int | None = None
    """The largest length that earns 1; None: there is none."""
    margin: int = 0
    """How far outside the band an answer earns nothing any more; 0: it does so at once."""
    unit: Literal["characters", "words"] = "characters"
    """What is counted."""

    def __post_init__(self) -> None:
        if self.least < 0 or self.margin < 0 or (self.most is not None and self.most < self.least):
            raise ConfigError(
                f"expected least and margin of at least 0 and most of at least least, got {self.least}, {self.margin} "
                f"and {self.most}"
            )

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        return [self._of(len(said if self.unit == "characters" else said.split())) for said in completions]

    def _of(self, length: int) -> float:
        outside = max(self.least - length, 0 if self.most is None else length - self.most, 0)
        if outside == 0:
            return 1.0
        return max(0.0, 1.0 - outside / self.margin) if self.margin else 0.0


@dataclass(frozen=True)
class Matches:
    """1 for an answer that matches a regular expression as a whole, else 0. A dot matches a line's end too.

    A pattern that can match one text in very many ways takes very long on some: avoid nested repetitions."""

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"expected a regular expression as pattern, got {self.pattern!r}: {error}") from error

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        wanted = re.compile(self.pattern, re.DOTALL)
        return [float(wanted.fullmatch(said) is not None) for said in completions]


@dataclass(frozen=True)
class JSONObject:
    """1 for an answer that is one JSON object with all of these ``keys`` and nothing around it, else 0.

    What is no JSON by its standard earns nothing: NaN and Infinity, and an object that names a key twice."""

    keys: tuple[str, ...] = ()
    """What it has to hold."""
    no_others: bool = False
    """It may hold nothing else."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        return [float(self._is_one(said)) for said in completions]

    def _is_one(self, said: str) -> bool:
        try:
            found = json.loads(said, parse_constant=_refuse, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            return False
        if not isinstance(found, dict):
            return False
        return found.keys() == set(self.keys) if self.no_others else found.keys() >= set(self.keys)


@dataclass(frozen=True)
class Distinct:
    """How little an answer repeats itself: the share of different ones among its runs of ``n`` words (distinct-n). An
    answer of fewer words earns 0: to say nothing is not to be varied."""

    n: int = 2
    """The length of the runs."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"expected n of at least 1, got {self.n}")

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        return [distinct_n([said], self.n) if len(said.split()) >= self.n else 0.0 for said in completions]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key stands there twice")
    return found
