"""Sorting: `5 2 9 1:` is answered by `1 2 5 9`, `cab abc ba:` by `abc ba cab`, to the letter."""

from dataclasses import dataclass
from random import Random
from string import ascii_lowercase
from typing import Literal

from torchward.config import ConfigError
from torchward.language.rewards import exact_match
from torchward.language.task import Problems
from torchward.language.tokenizer import Characters
from torchward.tasks.questions import Question, between, documents


@dataclass(frozen=True)
class Options:
    """What is sorted, and how much of it."""

    items: Literal["digits", "words"] = "digits"
    """What is sorted: digits, or random words of letters in the order of a dictionary."""
    shortest: int = 4
    """The items of the shortest lists."""
    longest: int = 8
    """The items of the longest lists. All lengths between are equally likely, as long as there are new lists."""
    letters: int = 4
    """The letters of the longest words; the shortest have one."""
    demonstrations: int = 1_000
    """How many of the problems are learnt from with their answer."""
    problems: int = 5_000
    """How many lists are learnt from by reward, those with an answer included."""
    test: int = 500
    """How many lists are held out. None is learnt from, in whatever order its items stand."""
    data_seed: int = 0
    """The lists follow from it."""

    def __post_init__(self) -> None:
        between("shortest", self.shortest, 1)
        between("letters", self.letters, 1)
        if self.longest < self.shortest:
            raise ConfigError(f"expected longest of at least shortest={self.shortest}, got {self.longest}")


def make(options: Options) -> Problems:
    """The lists. Raises ConfigError where there are not so many."""

    def item(random: Random) -> str:
        if options.items == "digits":
            return str(random.randrange(10))
        return "".join(random.choices(ascii_lowercase, k=random.randint(1, options.letters)))

    def draw(random: Random) -> Question:
        items = [item(random) for _ in range(random.randint(options.shortest, options.longest))]
        answer = " ".join(sorted(items))
        return Question(f"{' '.join(items)}:", answer, answer, {"answer": answer})

    train, test = documents("sorting", draw, options)
    width = 1 if options.items == "digits" else options.letters
    return Problems(
        name="sorting",
        train=train,
        test=test,
        reward=exact_match,
        tokenizer=Characters(),
        max_completion_length=options.longest * (width + 1),  # the items, the spaces between them, and end-of-text
    )
