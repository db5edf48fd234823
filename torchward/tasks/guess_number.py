"""Guess the number, over several turns: the answer to a guess is `higher` or `lower`, until it is right.

The prompt says between which numbers it lies, such as `12..50`; an assistant's turn is one number and no more. The
ranges of the test set are none of those that are learnt from, and it holds every number of each of its ranges once: the
success of a policy that makes no random choice is exact on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from torchward.config import ConfigError
from torchward.data.random import derive
from torchward.language.documents import Content, Dialogue, Document, Message, Prompt
from torchward.language.task import Problems, Reply
from torchward.language.tokenizer import Characters
from torchward.tasks.questions import between


@dataclass(frozen=True)
class Options:
    """Which numbers, how many turns, and how well the demonstrations are played."""

    largest: int = 63
    """The largest number; the least is 0."""
    span: int = 32
    """How many numbers the smallest ranges have. All ranges from there to the largest are equally likely."""
    turns: int = 6
    """How often one may guess."""
    careless: float = 0.5
    """How often a demonstration guesses anywhere between the first bounds, whatever was answered; else it guesses
    anywhere between the bounds that remain. So there is something to gain by reward."""
    demonstrations: int = 2_000
    """How many of the problems are learnt from with guesses."""
    problems: int = 5_000
    """How many ranges with a number in them are learnt from by reward, those with guesses included."""
    ranges: int = 10
    """How many ranges are held out. Each is tested with every number in it."""
    data_seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        between("largest", self.largest, 1)
        between("span", self.span, 1, self.largest)
        between("turns", self.turns, 1)
        between("careless", self.careless, 0.0, 1.0)
        between("problems", self.problems, 1)
        between("demonstrations", self.demonstrations, 0, self.problems)
        missing = self.largest + 1 - self.span
        if not 1 <= self.ranges < (every := (missing + 1) * (missing + 2) // 2):
            raise ConfigError(f"expected ranges from 1 to {every - 1}, for there are {every} in all, got {self.ranges}")


@dataclass(frozen=True)
class Answers:
    """The partner: says whether the ``number`` is higher or lower than a guess, pays 1 for the right one, and ends the
    conversation there, after the last turn, and after anything that is no number as Python writes it. A guess beyond
    the range is answered like any other."""

    turns: int

    def __call__(self, said: Sequence[str], columns: Mapping[str, Any]) -> Reply:
        number = int(columns["number"])
        guess = read(said[-1])
        if guess == number and len(said) <= self.turns:
            return Reply(None, 1.0)
        if guess is None or len(said) >= self.turns:
            return Reply(None)
        return Reply("higher" if guess < number else "lower")


def nothing_more(prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
    """The reward beside the partner's, who pays for success: 0."""
    return [0.0] * len(completions)


def make(options: Options) -> Problems:
    """The games. The metric is what the partner pays: 1 for success within the turns."""
    sizes = range(options.span, options.largest + 2)
    every = [(low, low + size - 1) for size in sizes for low in range(options.largest + 2 - size)]
    Random(derive(options.data_seed, "guess_number ranges")).shuffle(every)
    held_out, ranges = every[: options.ranges], every[options.ranges :]
    random = Random(derive(options.data_seed, "guess_number train"))
    train = []
    for i in range(options.problems):
        low, high = random.choice(ranges)
        number = random.randint(low, high)
        content: Content = Prompt(_asked(low, high))
        if i < options.demonstrations:
            content = Dialogue((*_asked(low, high), *_played(random, low, high, number, options)))
        train.append(Document(content, f"guess_number {i}", {"number": number}))
    test = [
        Document(Prompt(_asked(low, high)), f"guess_number test {number} in {low}..{high}", {"number": number})
        for low, high in held_out
        for number in range(low, high + 1)
    ]
    return Problems(
        name="guess_number",
        train=train,
        test=test,
        reward=nothing_more,
        partner=Answers(options.turns),
        turns=options.turns,
        tokenizer=Characters(),
        max_completion_length=len(str(options.largest)) + 1,
    )


def optimal_success(numbers: int, turns: int) -> float:
    """How often the best policy finds one of so many numbers, all equally likely: with t turns a tree of guesses has
    2^t - 1 places, one for each number that it can find, and bisection fills them all if there are as many numbers."""
    found: int = min(numbers, 2**turns - 1)
    return found / numbers


def optimum(test: Sequence[Document], turns: int) -> float:
    """The success of the best policy on a test set of :func:`make`."""
    sizes: dict[str, int] = {}
    for document in test:
        sizes[document.question] = sizes.get(document.question, 0) + 1
    return sum(size * optimal_success(size, turns) for size in sizes.values()) / len(test)


def read(words: str) -> int | None:
    """The number that is written so; None for anything but one to 18 of the digits 0 to 9 without a leading zero."""
    plain = words.isascii() and words.isdigit() and len(words) <= 18
    return int(words) if plain and (words == "0" or words[0] != "0") else None


def _asked(low: int, high: int) -> tuple[Message, ...]:
    return (Message("user", f"{low}..{high}"),)


def _played(random: Random, low: int, high: int, number: int, options: Options) -> list[Message]:
    """A game of the demonstrations."""
    partner = Answers(options.turns)
    messages: list[Message] = []
    said: list[str] = []
    least, most = low, high
    while True:
        careless = random.random() < options.careless
        guess = random.randint(*((low, high) if careless else (least, most)))
        said.append(str(guess))
        messages.append(Message("assistant", said[-1]))
        reply = partner(said, {"number": number})
        if reply.text is None:
            return messages
        messages.append(Message("user", reply.text))
        if guess < number:
            least = max(least, guess + 1)
        else:
            most = min(most, guess - 1)
