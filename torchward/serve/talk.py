"""What a language model answers to several people: their conversations, and one or two answers to each question."""

import random
import secrets
import time
from bisect import bisect_left
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torchward.data.random import derive, generator
from torchward.language.documents import Message, TextError, Words
from torchward.language.generate import prompt_room, stream
from torchward.language.hub_template import template_of
from torchward.language.tokenizer import ALONE, Tokenizer
from torchward.nets.language_model import LanguageModel


class Asked(NamedTuple):
    """A question as the model sees it."""

    words: Words
    """With what was said before it, as far as the model's context holds it."""
    ids: list[int]


@dataclass
class Exchange:
    """A question and the model's answers to it, in the order in which they were made: a, or a and b."""

    id: str
    text: str
    words: Words
    answers: tuple[str, ...]
    cut: tuple[bool, ...]
    """Which of them their length cut."""
    left: Literal[0, 1] = 0
    """Which of two is shown left."""
    judgement: str | None = None
    """The id of what somebody thought of it."""
    kept: int = 0
    """The answer with which the conversation goes on."""


@dataclass
class Session:
    """One person's conversation."""

    id: str
    number: int
    exchanges: dict[str, Exchange] = field(default_factory=dict)
    count: int = 0
    """Questions so far."""
    used: float = field(default_factory=time.monotonic)
    busy: bool = False
    """Whether it is being answered."""

    def ends_with(self, exchange: Exchange) -> bool:
        """Whether nothing was asked behind it."""
        return not self.busy and next(reversed(self.exchanges), None) == exchange.id


class Sessions:
    """The conversations, of which there are at most ``limit``."""

    def __init__(self, limit: int, exchanges: int, idle_seconds: float) -> None:
        self.limit, self.exchanges, self.idle_seconds = limit, exchanges, idle_seconds
        self.made = 0
        self._all: dict[str, Session] = {}

    def begin(self) -> Session | None:
        """A new one; None where all are in use."""
        if len(self._all) >= self.limit:
            idle = [each for each in self._all.values() if not each.busy]
            oldest = min(idle, key=lambda each: each.used, default=None)
            if oldest is None or time.monotonic() - oldest.used < self.idle_seconds:
                return None
            del self._all[oldest.id]
        session = Session(secrets.token_urlsafe(16), self.made)
        self.made += 1
        self._all[session.id] = session
        return session

    def find(self, name: str) -> Session | None:
        """The one of this id."""
        if (session := self._all.get(name)) is not None:
            session.used = time.monotonic()
        return session

    def end(self, name: str) -> None:
        """Forget it."""
        if (session := self._all.get(name)) is not None and not session.busy:
            del self._all[name]

    def keep(self, session: Session, exchange: Exchange) -> None:
        """Put a finished exchange behind the others; the oldest goes where there are too many."""
        session.exchanges[exchange.id] = exchange
        while len(session.exchanges) > self.exchanges:
            del session.exchanges[next(iter(session.exchanges))]


class Speaker:
    """A language model that answers. It belongs to one thread at a time."""

    def __init__(
        self,
        policy: LanguageModel,
        tokenizer: Tokenizer,
        *,
        converses: bool,
        max_new_tokens: int,
        system: str | None = None,
        drawn: bool = True,
        seed: int = 0,
    ) -> None:
        """``drawn`` False: the likeliest tokens. Else the answers follow from ``seed``, and from the number of the
        conversation and of the question."""
        self.policy, self.tokenizer, self.converses = policy, tokenizer, converses
        self.max_new_tokens, self.drawn, self.seed = max_new_tokens, drawn, seed
        self.template = template_of(tokenizer, system)

    def asked(self, session: Session, text: str) -> Asked:
        """The question, behind as much of the conversation as leaves room for an answer: the oldest exchanges are
        forgotten first. Raises TextError for a text that alone fills the model's context."""
        context = self.policy.config.max_position_embeddings
        if not self.converses:
            words: Words = text
            ids = self.template.prompt(text, self.tokenizer)
        else:
            said = [
                message
                for each in session.exchanges.values()
                for message in (Message("user", each.text), Message("assistant", each.answers[each.kept]))
            ]
            most = prompt_room(context, self.max_new_tokens)

            def fits(forgotten: int) -> bool:
                return len(said) == 2 * forgotten or len(encoded(forgotten)[1]) <= most

            def encoded(forgotten: int) -> tuple[tuple[Message, ...], list[int]]:
                words = self.template.complete((*said[2 * forgotten :], Message("user", text)))
                return words, self.template.prompt(words, self.tokenizer)

            # By halving: a long conversation is encoded a few times, not once for each exchange.
            words, ids = encoded(0 if fits(0) else bisect_left(range(len(said) // 2), True, lo=1, key=fits))
        if len(ids) >= context:
            raise TextError(f"This is too long for the model: {len(ids):,} tokens, and it reads {context - 1:,}.")
        return Asked(words, ids)

    def answers(self, asked: Asked, count: int, session: int, question: int) -> Iterator[tuple[int, str | bool]]:
        """``count`` answers, token by token in turn: which of them, and its next piece; at its end whether its length
        has cut it."""
        device = self.policy.body.token.weight.device
        around = self.template.around(self.tokenizer) if self.converses else ALONE
        streams: dict[int, Generator[str, None, bool]] = {}
        for i in range(count):
            name = f"conversation {session}, question {question}, answer {i}"
            drawn = generator(self.seed, name, device) if self.drawn else None
            streams[i] = stream(
                self.policy,
                self.tokenizer,
                asked.ids,
                max_new_tokens=self.max_new_tokens,
                generator=drawn,
                around=around,
            )
        while streams:
            for i in list(streams):
                try:
                    yield i, next(streams[i])
                except StopIteration as end:
                    del streams[i]
                    yield i, not end.value

    def left(self, session: int, question: int) -> Literal[0, 1]:
        """Which of two answers is shown left."""
        side = random.Random(derive(self.seed, f"sides {session}, {question}"))
        return 0 if side.random() < 0.5 else 1


def as_json(words: Words) -> Any:
    """A prompt as the columns of a data set have it."""
    if isinstance(words, str):
        return words
    return [{"role": message.role, "content": message.content} for message in words]
