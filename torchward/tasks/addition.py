"""Addition: `123+456=` is answered by `579`, to the letter."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from torchward.language.rewards import GradedMatch, exact_match
from torchward.language.task import Problems
from torchward.language.tokenizer import Characters
from torchward.tasks.questions import Draw, Question, between, documents


@dataclass(frozen=True)
class Options:
    """Which sums, and how many."""

    digits: int = 3
    """The largest number of digits of an operand."""
    demonstrations: int = 2_000
    """How many of the problems are learnt from with their answer."""
    problems: int = 10_000
    """How many sums are learnt from by reward, those with an answer included."""
    test: int = 500
    """How many sums are held out. None is learnt from, neither as a+b nor as b+a."""
    data_seed: int = 0
    """The sums follow from it."""
    digit_credit: float = 0.0
    """What an answer of the right length earns for its right digits, all of them together; below 1. Judged is the whole
    answer."""
    leading_zeros: bool = False
    """Write every operand with all its digits, 7 as 07: else short ones stand elsewhere, and of those there are few."""
    reversed_digits: bool = False
    """Write the answer's lowest digit first, so that each digit needs only the carry of the one before."""


def make(options: Options) -> Problems:
    """The sums. Raises ConfigError where there are not so many."""
    between("digits", options.digits, 1, 100)
    between("digit_credit", options.digit_credit, 0.0, 1.0)
    draw = pairs("+", operator.add, options.digits, options.reversed_digits, options.leading_zeros)
    train, test = documents("addition", draw, options)
    return Problems(
        name="addition",
        train=train,
        test=test,
        reward=GradedMatch(options.digit_credit) if options.digit_credit else exact_match,
        metric=exact_match,
        tokenizer=Characters(),
        max_completion_length=options.digits + 2,  # with end-of-text: no answer that is right is cut
    )


def pairs(
    sign: str, apply: Callable[[int, int], int], digits: int, reversed_digits: bool, leading_zeros: bool = False
) -> Draw:
    """Pairs of operands, each uniform among the numbers from 0 to 10^digits - 1, so that every pair is as likely.

    Nine in ten operands then have all their digits. Uniform in the number of digits would exhaust the few short pairs,
    of which there are 55 with one digit each, and fill the test set with them."""

    width = digits if leading_zeros else 1

    def draw(random: Random) -> Question:
        a, b = random.randrange(10**digits), random.randrange(10**digits)
        answer = str(apply(a, b))[:: -1 if reversed_digits else 1]
        return Question(f"{a:0{width}}{sign}{b:0{width}}=", answer, (min(a, b), max(a, b)), {"answer": answer})

    return draw
