"""Multiplication: `12*34=` is answered by `408`, to the letter."""

import operator
from dataclasses import dataclass

from torchward.language.rewards import exact_match
from torchward.language.task import Problems
from torchward.language.tokenizer import Characters
from torchward.tasks.addition import pairs
from torchward.tasks.questions import between, documents


@dataclass(frozen=True)
class Options:
    """Which products, and how many. Of two digits there are 5,050 in all, of three 500,500."""

    digits: int = 2
    """The largest number of digits of an operand."""
    demonstrations: int = 1_000
    """How many of the problems are learnt from with their answer."""
    problems: int = 4_000
    """How many products are learnt from by reward, those with an answer included."""
    test: int = 500
    """How many products are held out. None is learnt from, neither as a*b nor as b*a."""
    data_seed: int = 0
    """The products follow from it."""
    reversed_digits: bool = False
    """Write the answer's lowest digit first."""


def make(options: Options) -> Problems:
    """The products, of operands as :func:`torchward.tasks.addition.pairs` draws them. Raises ConfigError where there
    are not so many."""
    between("digits", options.digits, 1, 100)
    draw = pairs("*", operator.mul, options.digits, options.reversed_digits)
    train, test = documents("multiplication", draw, options)
    return Problems(
        name="multiplication",
        train=train,
        test=test,
        reward=exact_match,
        tokenizer=Characters(),
        max_completion_length=2 * options.digits + 1,
    )
