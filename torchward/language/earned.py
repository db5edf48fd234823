"""What a reward said of completions, which anybody may have written: a number for each, or an error that says so."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch

from torchward.language.documents import TextError

LARGEST = torch.finfo(torch.float32).max
"""What is larger becomes infinite in float32."""


def numbers(given: Any, count: int, name: str, shown: Callable[[int], str]) -> list[float]:
    """What the reward ``name`` gave for ``count`` completions, as numbers; ``shown`` names the completion at a place.
    Raises TextError for what is not one finite number for each."""
    said = list(_each(given, name))  # a generator computes here: errors of its own are not ours to reword
    if len(said) != count:
        raise TextError(f"expected one reward for each of {count} completions from {name}, got {len(said)}")
    return [_number(one, name, place, shown) for place, one in enumerate(said)]


def is_kept(number: float) -> bool:
    """Whether a reward stays a finite number in float32, in which it is learnt from."""
    return abs(number) <= LARGEST  # which no NaN is


def _each(given: Any, name: str) -> Iterator[Any]:
    """What was given, one by one. Raises TextError for what is no row of numbers."""
    if not isinstance(given, str | bytes | Mapping):
        with suppress(TypeError):  # a tensor without dimensions has an __iter__ too
            return iter(given)
    raise TextError(f"expected a list of numbers from {name}, one for each completion, got {given!r:.80}")


def _number(one: Any, name: str, place: int, shown: Callable[[int], str]) -> float:
    """A reward as a number. Raises TextError for text, and for what is not finite in float32."""
    found = math.nan
    if not isinstance(one, str | bytes):
        with suppress(TypeError, ValueError, RuntimeError, OverflowError):  # RuntimeError: a tensor of several numbers
            found = float(one)
    if not is_kept(found):
        what = repr(one) if isinstance(one, str | bytes) else str(one)
        raise TextError(f"expected finite numbers from {name}, got {what:.80} for {shown(place)}")
    return found
