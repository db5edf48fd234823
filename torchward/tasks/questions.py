"""Questions that are drawn at random, each one once, and the documents that are made of them."""

from collections.abc import Callable, Hashable, Mapping
from random import Random
from typing import Any, NamedTuple, Protocol, TypeAlias

from torchward.config import ConfigError
from torchward.data.random import derive
from torchward.language.documents import Completion, Document, Prompt

TRIES = 10_000
"""After so many draws in a row that gave nothing new there is taken to be nothing new."""


class Question(NamedTuple):
    """What is asked, with a right answer."""

    prompt: str
    answer: str
    same: Hashable
    """Equal for questions that ask the same in other words, such as 1+2= and 2+1=."""
    columns: Mapping[str, Any]
    """What the reward judges by."""


Draw: TypeAlias = Callable[[Random], Question | None]
"""Draws a question; None where nothing came of it, which is to be tried again."""


class Sizes(Protocol):
    """What the options of every such task say."""

    @property
    def demonstrations(self) -> int: ...
    @property
    def problems(self) -> int: ...
    @property
    def test(self) -> int: ...
    @property
    def data_seed(self) -> int: ...


def documents(name: str, draw: Draw, sizes: Sizes) -> tuple[list[Document], list[Document]]:
    """Documents to learn from and documents to be judged on; no two of them all ask the same.

    Of the first, the foremost ``demonstrations`` hold an answer. The test set follows from the seed alone, and a larger
    training set begins with the smaller one. Raises ConfigError for sizes that cannot be."""
    check_sizes(sizes)
    known: set[Hashable] = set()
    test = _drawn(draw, sizes.test, Random(derive(sizes.data_seed, f"{name} test")), known)
    train = _drawn(draw, sizes.problems, Random(derive(sizes.data_seed, f"{name} train")), known)
    return (
        [_document(f"{name} {i}", question, i < sizes.demonstrations) for i, question in enumerate(train)],
        [_document(f"{name} test {i}", question, False) for i, question in enumerate(test)],
    )


def check_sizes(sizes: Sizes) -> None:
    """Raises ConfigError for sizes that cannot be."""
    between("problems", sizes.problems, 1)
    between("demonstrations", sizes.demonstrations, 0, sizes.problems)
    between("test", sizes.test, 1)


def between(name: str, value: float, least: float, most: float | None = None) -> None:
    """Raises ConfigError for an option out of its bounds."""
    if value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"expected {name} {bounds}, got {value}")


def _drawn(draw: Draw, count: int, random: Random, known: set[Hashable]) -> list[Question]:
    found: list[Question] = []
    failures = 0
    while len(found) < count:
        question = draw(random)
        if question is None or question.same in known:
            failures += 1
            if failures == TRIES:
                raise ConfigError(
                    f"expected {count:,} more questions that are all different, found {len(found):,} beside "
                    f"{len(known) - len(found):,}: ask for fewer, or for larger ones"
                )
            continue
        failures = 0
        known.add(question.same)
        found.append(question)
    return found


def _document(origin: str, question: Question, answered: bool) -> Document:
    content = Completion(question.prompt, question.answer) if answered else Prompt(question.prompt)
    return Document(content, origin, question.columns)
