"""One reward of several: their weighted sum, whose parts a run logs each by its name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchward.config import ConfigError
from torchward.language.earned import numbers
from torchward.language.task import Reward


@dataclass(frozen=True)
class Weighted:
    """A part of a sum."""

    name: str
    """What metrics call it."""
    reward: Reward
    weight: float = 1.0
    """What it is multiplied by; below 0 it is a penalty."""


@dataclass(frozen=True)
class Sum:
    """The weighted sum of its parts, each of which is asked once."""

    terms: tuple[Weighted, ...]

    def __post_init__(self) -> None:
        check_names(self.terms)

    def parts(
        self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]
    ) -> dict[str, list[float]]:
        """What each part says, without its weight. Raises TextError where one does not say a number for each."""
        return {each.name: asked(each, prompts, completions, columns) for each in self.terms}

    def total(self, parts: Mapping[str, list[float]]) -> list[float]:
        """The sums."""
        columns = [[each.weight * one for one in parts[each.name]] for each in self.terms]
        return [math.fsum(row) for row in zip(*columns, strict=True)]

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """The sums."""
        return self.total(self.parts(prompts, completions, **columns))


def check_names(terms: Sequence[Weighted]) -> None:
    """Raises ConfigError for parts that metrics cannot tell apart, for none, and for weights that are no numbers."""
    names = [each.name for each in terms]
    if not terms or len(set(names)) < len(names) or not all(names):
        raise ConfigError(f"expected parts of a reward with names that differ, got {', '.join(names) or 'none'}")
    for each in terms:
        if not math.isfinite(each.weight):
            raise ConfigError(f"expected a finite weight for {each.name}, got {each.weight}")


def asked(
    part: Weighted, prompts: Sequence[str], completions: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> list[float]:
    """What a part says. Raises TextError where it does not say a finite number for each completion."""
    given = part.reward(prompts, completions, **columns)
    return numbers(given, len(completions), part.name, lambda place: f"{completions[place]!r:.80}")


@dataclass(frozen=True)
class Stage:
    """A part that stands in a row with others."""

    name: str
    """What metrics call it."""
    reward: Reward
    weight: float = 1.0
    """What it is multiplied by."""
    reached: float = 1.0
    """What it has to say, at least, for the next stage to pay anything."""


@dataclass(frozen=True)
class Staged:
    """A sum whose later parts pay only where all earlier ones are reached: first the form, then the content, then the
    style. So nothing later can be had in place of something earlier.

    A stage is asked of those answers alone that have reached it, and says 0 of the others: what is dear to compute
    stands last. With weights of at least 0 an answer that has reached more never earns less by it."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        check_names([Weighted(each.name, each.reward, each.weight) for each in self.stages])

    def parts(
        self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]
    ) -> dict[str, list[float]]:
        """What each stage says, without its weight; 0 where it was not reached. Raises TextError where one does not say
        a number for each."""
        found: dict[str, list[float]] = {}
        there = list(range(len(completions)))
        for stage in self.stages:
            said = [0.0] * len(completions)
            if there:
                part = Weighted(stage.name, stage.reward)
                some = {name: [values[i] for i in there] for name, values in columns.items()}
                earned = asked(part, [prompts[i] for i in there], [completions[i] for i in there], some)
                for i, one in zip(there, earned, strict=True):
                    said[i] = one
            found[stage.name] = said
            there = [i for i in there if said[i] >= stage.reached]
        return found

    def total(self, parts: Mapping[str, list[float]]) -> list[float]:
        """The weighted sums: what was not reached is 0 there."""
        columns = [[each.weight * one for one in parts[each.name]] for each in self.stages]
        return [math.fsum(row) for row in zip(*columns, strict=True)]

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """The weighted sums."""
        return self.total(self.parts(prompts, completions, **columns))
