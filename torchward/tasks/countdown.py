"""Countdown: `3 5 20=35:` is answered by an expression of the given numbers that makes 35, such as `(3*5)+20`.

The rules. An answer is an expression of numbers, the signs + - * / and round brackets, without white space and without
a sign before a number. Each number in it is one of those that are given, written as it is given, and used no more often
than it is given; not all must be used. Division is exact, nothing is rounded; what stands in between may be a fraction,
zero or less. Whoever divides by zero has no value. The value must be the target.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

from torchward.config import ConfigError
from torchward.language.rewards import column
from torchward.language.task import Problems
from torchward.language.tokenizer import Characters
from torchward.tasks.questions import Question, between, documents

RANK = {"+": 0, "-": 0, "*": 1, "/": 1}


@dataclass(frozen=True)
class Options:
    """Which numbers and targets, and how many."""

    numbers: int = 3
    """How many numbers are given."""
    largest: int = 20
    """The largest number that is given; the least is 1, and one may come twice."""
    largest_target: int = 100
    """The largest target; the least is 1. It is none of the given numbers, so that no number alone is an answer."""
    well_formed: float = 0.0
    """What an answer earns that keeps to all rules and uses two numbers or more, but misses the target. Any such
    expression will do, so a model that has found one form earns this everywhere and may settle for it: keep it small
    beside 1, and look at the metric, which does not pay it."""
    demonstrations: int = 2_000
    """How many of the problems are learnt from with an answer."""
    problems: int = 10_000
    """How many problems are learnt from by reward, those with an answer included."""
    test: int = 500
    """How many problems are held out. None is learnt from, in whatever order its numbers stand."""
    data_seed: int = 0
    """The problems follow from it."""

    def __post_init__(self) -> None:
        between("numbers", self.numbers, 2, 10)
        between("largest", self.largest, 2)
        between("largest_target", self.largest_target, 2)
        if not 0.0 <= self.well_formed <= 0.5:
            raise ConfigError(
                f"expected well_formed from 0 to 0.5, got {self.well_formed}: the target must be worth more"
            )


@dataclass(frozen=True)
class Reached:
    """A reward: 1 for an expression that makes the ``target`` of the ``numbers`` by the rules, ``well_formed`` for one
    that keeps to them, uses at least two numbers and makes something else, and 0 for all others.

    What might be tried, and earns nothing: the target itself, numbers that are not given or used twice, leading zeros,
    digits of another script, 2**5, signs before numbers, words around the expression, several expressions."""

    well_formed: float = 0.0

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        numbers, targets = column(columns, "numbers"), column(columns, "target")
        return [self.of(*each) for each in zip(completions, numbers, targets, strict=True)]

    def of(self, completion: str, numbers: Sequence[int], target: int) -> float:
        """What one answer earns."""
        made = value(completion, numbers)
        if made is None:
            return 0.0
        return 1.0 if made == target else self.well_formed * (not completion.strip("()").isdigit())


def make(options: Options) -> Problems:
    """The problems, each with a solution that was made first. Raises ConfigError where there are not so many."""

    def draw(random: Random) -> Question | None:
        numbers = [random.randint(1, options.largest) for _ in range(options.numbers)]
        target, answer = _combined(random, numbers, options.largest_target)
        if target > options.largest_target or target in numbers:
            return None
        given = " ".join(map(str, numbers))
        columns = {"numbers": tuple(numbers), "target": target}
        return Question(f"{given}={target}:", answer, (tuple(sorted(numbers)), target), columns)

    train, test = documents("countdown", draw, options)
    count, width = options.numbers, len(str(options.largest))
    return Problems(
        name="countdown",
        train=train,
        test=test,
        reward=Reached(options.well_formed),
        metric=Reached(),
        tokenizer=Characters(),
        max_completion_length=count * width + (count - 1) + 2 * (count - 1) + 1,  # with all brackets and end-of-text
    )


def value(expression: str, numbers: Sequence[int]) -> Fraction | None:
    """What an expression makes of some of the numbers; None where it breaks a rule.

    Two stacks and no recursion (Dijkstra's shunting yard): its time is proportional to the expression's length however
    deep the brackets are, and since no number is read that is not given, no value is large."""
    tokens = re.findall("[0-9]+|[-+*/()]", expression)
    if sum(map(len, tokens)) != len(expression):
        return None
    left = Counter(map(str, numbers))
    values: list[Fraction] = []
    waiting: list[str] = []  # signs and opening brackets whose right side is not yet complete
    operand = True  # whether a number or an opening bracket must come next
    for token in tokens:
        if operand and token == "(":
            waiting.append(token)
        elif operand and left[token] > 0:
            left[token] -= 1
            values.append(Fraction(int(token)))
            operand = False
        elif not operand and token == ")":
            if not _apply(values, waiting, 0) or not waiting:
                return None
            waiting.pop()
        elif not operand and token in RANK:
            if not _apply(values, waiting, RANK[token]):
                return None
            waiting.append(token)
            operand = True
        else:
            return None
    if operand or not _apply(values, waiting, 0) or waiting:
        return None
    return values[0]


def _apply(values: list[Fraction], waiting: list[str], rank: int) -> bool:
    """Do what waits and binds at least as strongly, back to an opening bracket. False for a division by zero."""
    while waiting and waiting[-1] != "(" and RANK[waiting[-1]] >= rank:
        sign, right, left = waiting.pop(), values.pop(), values.pop()
        match sign:
            case "+":
                values.append(left + right)
            case "-":
                values.append(left - right)
            case "*":
                values.append(left * right)
            case _:
                if not right:
                    return False
                values.append(left / right)
    return True


def _combined(random: Random, numbers: Sequence[int], most: int) -> tuple[int, str]:
    """A random expression of all the numbers, whose every step is a whole number above zero and, where it can be, at
    most ``most``; and its value."""
    parts = [(number, str(number)) for number in numbers]
    while len(parts) > 1:
        (b, right), (a, left) = sorted(parts.pop(random.randrange(len(parts))) for _ in range(2))
        made = {}
        if a > b:
            made["-"] = a - b
        if a + b <= most or a == b == 1:
            made["+"] = a + b
        if b > 1 and a * b <= most:
            made["*"] = a * b
        if b > 1 and a % b == 0:
            made["/"] = a // b
        sign = random.choice(list(made))
        parts.append((made[sign], f"({left}{sign}{right})"))
    ((target, expression),) = parts
    return target, expression[1:-1]
