"""Documents: texts, prompts with their completions, dialogues and preferences, and which of them validate."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from torchward.config import ConfigError

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)


class TextError(ValueError):
    """Text that cannot be used as it is: unreadable, too long, or without anything to learn from."""


@dataclass(frozen=True)
class Message:
    """What one side of a dialogue said."""

    role: Role
    content: str


Words: TypeAlias = str | tuple[Message, ...]
"""Plain text, or messages."""


@dataclass(frozen=True)
class Prompt:
    """What is asked; a reward judges the answers."""

    prompt: Words


@dataclass(frozen=True)
class Completion:
    """What is asked, and one answer."""

    prompt: Words
    completion: Words
    cut: bool = False
    """Whether its length cut it: then no end is learnt behind it."""


@dataclass(frozen=True)
class Dialogue:
    """Messages with their roles."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Preference:
    """What is asked, and two answers of which the first is better. An empty prompt: it stands in both answers."""

    prompt: Words
    chosen: Words
    rejected: Words
    cut: tuple[bool, bool] = (False, False)
    """Of which of the two no end is learnt, for its length cut it: of the better one, of the worse one."""


Content: TypeAlias = str | Prompt | Completion | Dialogue | Preference


@dataclass(frozen=True)
class Document:
    """One piece of a corpus, whole in training or whole in validation."""

    content: Content
    origin: str
    """Where it stands, for messages: a path, a path and a line, a title."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What else its line held, such as the right answer: a reward is given these."""

    @property
    def text(self) -> str:
        """All that it says, part behind part."""
        match self.content:
            case str(text):
                return text
            case Prompt(prompt):
                return plain(prompt)
            case Completion(prompt, completion):
                between = "" if isinstance(prompt, str) or not prompt else "\n"
                return plain(prompt) + between + plain(completion)
            case Dialogue(messages):
                return plain(messages)
            case Preference(prompt, chosen, rejected):
                return "\n".join(map(plain, (prompt, chosen, rejected)))

    @property
    def question(self) -> str:
        """What must not stand in training and in validation: the prompt where there is one, of a conversation what was
        asked first, else all of the text."""
        match self.content:
            case Prompt(prompt) | Completion(prompt, _):
                return first_asked(prompt) or self.text
            case Dialogue(messages):
                return first_asked(messages)
            case Preference(prompt, chosen, rejected):
                return first_asked(prompt) or first_asked(shared(chosen, rejected)).strip() or self.text
            case str(text):
                return text


def plain(words: Words) -> str:
    """Text as it is, messages one a line."""
    return words if isinstance(words, str) else "\n".join(message.content for message in words)


def asked(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages before the assistant's first answer to the user; what it says of itself before is none."""
    heard = False
    for i, message in enumerate(messages):
        if heard and message.role == "assistant":
            return messages[:i]
        heard |= message.role == "user"
    return messages


def first_asked(words: Words) -> str:
    """A prompt in plain text; of messages the first that are asked, by which a conversation stays on one side, wherever
    in it an answer stands."""
    return plain(words if isinstance(words, str) else asked(words))


def shared(chosen: Words, rejected: Words) -> Words:
    """What two answers begin with alike: whole lines of a text, or whole messages."""
    count = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        count += 1
    return chosen[: chosen.rfind("\n", 0, count) + 1] if isinstance(chosen, str) else chosen[:count]


def imitated(document: Document) -> Document | None:
    """What of a document fine-tuning imitates: an answer, a dialogue, the better one of two answers; None where there
    is no answer, or where the column ``label`` is False: that is an answer that somebody found wrong."""
    match document.content:
        case Completion() | Dialogue():
            return None if document.columns.get("label") is False else document
        case Preference(prompt, chosen, rejected):
            if not prompt and isinstance(chosen, tuple) and isinstance(rejected, tuple):
                prompt = shared(chosen, rejected)
                chosen = chosen[len(prompt) :]
            answer = Completion(prompt, chosen, document.content.cut[0])
            return Document(answer, document.origin, document.columns) if chosen else None
    return None


@dataclass(frozen=True)
class Split:
    """Which documents validate: those whose question has a small hash.

    What a document is decides alone: none changes sides when others are added or moved, a larger part keeps those of a
    smaller one, and documents that ask the same are on one side.
    """

    validation: float = 0.1
    """The part of the documents that validates, on average."""
    salt: str = ""
    """Another word gives another split."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.validation < 1.0:
            raise ConfigError(f"expected validation of Split within [0, 1), got {self.validation}")

    def validates(self, document: Document) -> bool:
        """Whether the document belongs to validation."""
        return hash64(f"{self.salt}\0{document.question}") < self.validation * 2**64

    def __call__(self, documents: Iterable[Document]) -> tuple[list[Document], list[Document]]:
        """The documents for training and those for validation.

        Raises TextError where one of the two would be empty."""
        sides: tuple[list[Document], list[Document]] = ([], [])
        for document in documents:
            sides[self.validates(document)].append(document)
        train, validation = map(len, sides)
        if not train or (not validation and self.validation):
            raise TextError(
                f"expected documents for training and for validation, got {train} and {validation}: give more "
                "documents, another part for validation, or split a long text into documents"
            )
        return sides


def hash64(text: str) -> int:
    """A hash below 2^64 that is the same in every process. Surrogates, which UTF-8 cannot hold, count too."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
