"""Reversal: `kitten:` is answered by `nettik`, to the letter. The words are random."""

from dataclasses import dataclass
from random import Random
from string import ascii_lowercase

from torchward.config import ConfigError
from torchward.language.rewards import exact_match
from torchward.language.task import Problems
from torchward.language.tokenizer import Characters
from torchward.tasks.questions import Question, between, documents


@dataclass(frozen=True)
class Options:
    """Which words, and how many."""

    letters: int = 26
    """How many letters of the alphabet words are made of."""
    shortest: int = 3
    """The letters of the shortest words."""
    longest: int = 8
    """The letters of the longest words. All lengths between are equally likely, as long as there are new words."""
    demonstrations: int = 1_000
    """How many of the problems are learnt from with their answer."""
    problems: int = 5_000
    """How many words are learnt from by reward, those with an answer included."""
    test: int = 500
    """How many words are held out. None is learnt from, neither forwards nor backwards."""
    data_seed: int = 0
    """The words follow from it."""

    def __post_init__(self) -> None:
        between("letters", self.letters, 1, 26)
        between("shortest", self.shortest, 1)
        if self.longest < self.shortest:
            raise ConfigError(f"expected longest of at least shortest={self.shortest}, got {self.longest}")


def make(options: Options) -> Problems:
    """The words. Raises ConfigError where there are not so many."""

    def draw(random: Random) -> Question:
        length = random.randint(options.shortest, options.longest)
        word = "".join(random.choices(ascii_lowercase[: options.letters], k=length))
        answer = word[::-1]
        return Question(f"{word}:", answer, min(word, answer), {"answer": answer})

    train, test = documents("reversal", draw, options)
    return Problems(
        name="reversal",
        train=train,
        test=test,
        reward=exact_match,
        tokenizer=Characters(),
        max_completion_length=options.longest + 1,
    )
