"""Documents to tokens: the template of a chat, the mask of what is learnt, and rules for what is too long.

A text is `start words end`; a chat is `start`, then for each message `role words end`. Every part is encoded by itself,
so a prompt with its answer has the tokens that are prompted and sampled. End-of-text behind an answer is learnt.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torchward.config import ConfigError
from torchward.data.sequences import Sequences, TokenSequence
from torchward.language.documents import (
    Completion,
    Dialogue,
    Document,
    Message,
    Preference,
    Prompt,
    TextError,
    Words,
    shared,
)
from torchward.language.tokenizer import ALONE, Around, Tokenizer, UnknownCharacter, byte_counts


@dataclass(frozen=True)
class Refuse:
    """What is too long is an error."""


@dataclass(frozen=True)
class Skip:
    """What is too long is left out, and counted."""


@dataclass(frozen=True)
class CutEnd:
    """Keep the beginning. Without its end a text has no end-of-text, so stopping there is not learnt."""


@dataclass(frozen=True)
class CutStart:
    """Keep the end: of a chat whole exchanges go, the oldest first, and never what the system said; of a prompt or a
    text its first tokens. An answer is never cut: where it alone is too long, that is an error."""


Truncation: TypeAlias = Refuse | Skip | CutEnd | CutStart


class Cut(NamedTuple):
    """A document that was too long."""

    origin: str
    before: int
    """Its tokens."""
    after: int
    """What was kept of them; 0 where it was left out."""


@dataclass(frozen=True)
class Template:
    """How messages become tokens: a role's token, the words, end-of-text."""

    system: str | None = None
    """What the system says where a chat does not begin with such a message."""

    def start(self, tokenizer: Tokenizer) -> int:
        """The token before the first message."""
        return tokenizer.start_id

    def turns(self, messages: tuple[Message, ...], tokenizer: Tokenizer) -> list[TokenSequence]:
        """The tokens of each message. The assistant's words and their end are its own, its role's token is given."""
        turns = []
        for message in self.complete(messages):
            words = [*tokenizer.encode(message.content), tokenizer.eos_id]
            own = message.role == "assistant"
            turns.append(TokenSequence([tokenizer.role_id(message.role), *words], [False, *[own] * len(words)]))
        return turns

    def prompt(self, words: Words, tokenizer: Tokenizer) -> list[int]:
        """The tokens behind which an answer is sampled. Raises TextError where the assistant spoke last."""
        if isinstance(words, str):
            return [tokenizer.start_id, *tokenizer.encode(words)]
        if words and words[-1].role == "assistant":
            raise TextError("expected a message for the assistant to answer, got the assistant's own as the last one")
        turns = self.turns(words, tokenizer)
        ids = [id_ for turn in turns for id_ in turn.ids]
        return [self.start(tokenizer), *ids, tokenizer.role_id("assistant")]

    def before_answer(self, tokenizer: Tokenizer) -> list[int]:
        """The tokens between a prompt that is plain text and its answer, which no rule cuts."""
        return []

    def around(self, tokenizer: Tokenizer) -> Around:
        """The tokens that stand around what an answer in a chat says, and belong to its form."""
        return ALONE

    def reply(self, message: Message, tokenizer: Tokenizer) -> list[int]:
        """What someone else says behind the assistant's words, and what the assistant's next words follow."""
        words = tokenizer.encode(message.content)
        return [tokenizer.role_id(message.role), *words, tokenizer.eos_id, tokenizer.role_id("assistant")]

    def complete(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages, with what the system says before them."""
        if self.system is None or (messages and messages[0].role == "system"):
            return messages
        return (Message("system", self.system), *messages)


class Encoded(NamedTuple):
    """Documents as tokens, and what a rule did to those that were too long."""

    sequences: Sequences
    cuts: tuple[Cut, ...]

    def __str__(self) -> str:
        steps = self.sequences.steps
        said = f"{len(steps):,} sequences of {int(steps.sum()) + len(steps):,} tokens, {self.sequences.learnt:,} learnt"
        if not self.cuts:
            return f"{said}; none was too long"
        lost = sum(cut.before - cut.after for cut in self.cuts)
        worst = max(self.cuts, key=lambda cut: cut.before - cut.after)
        skipped = sum(not cut.after for cut in self.cuts)
        return (
            f"{said}; {len(self.cuts):,} were too long ({skipped:,} left out), {lost:,} tokens lost, "
            f"most of them from {worst.origin}: {worst.after:,} of {worst.before:,} kept"
        )


def encode_all(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    template: Template | None = None,
    *,
    max_length: int | None = None,
    truncation: Truncation | None = None,
) -> Encoded:
    """Documents as sequences to learn from; those of preferences and of prompts alone have no one sequence.

    ``max_length`` bounds the tokens of each; without a rule what is longer is refused. Raises TextError for such a
    document, one in which nothing is the assistant's, and where none is left."""
    cuts: list[Cut] = []

    def kept() -> Iterator[TokenSequence]:
        for document in documents:
            sequence, cut = encode(document, tokenizer, template, max_length=max_length, truncation=truncation)
            if cut is not None:
                cuts.append(cut)
            if sequence is not None:
                yield sequence

    try:
        sequences = Sequences.of(kept(), tokenizer.vocab_size)
    except ConfigError as error:
        raise TextError(f"{error}" + (f": all {len(cuts)} documents were too long" if cuts else "")) from error
    return Encoded(sequences, tuple(cuts))


def encode(
    document: Document,
    tokenizer: Tokenizer,
    template: Template | None = None,
    *,
    max_length: int | None = None,
    truncation: Truncation | None = None,
) -> tuple[TokenSequence | None, Cut | None]:
    """One document as a sequence, and the cut if there was one; None in place of one that was left out."""
    content = document.content
    if isinstance(content, Prompt | Preference):
        kind = "a prompt without an answer" if isinstance(content, Prompt) else "a preference between two answers"
        raise TextError(f"expected a text, an answer or a chat to learn from in {document.origin}, got {kind}")
    try:
        parts = _parts(content, tokenizer, template or Template(), document.origin)
    except UnknownCharacter as error:
        raise error.within(document.origin) from None
    if isinstance(content, Completion) and content.cut:
        parts = _endless(parts)
    return _fit(parts, document.origin, max_length, truncation or Refuse())


def encode_pair(
    document: Document,
    tokenizer: Tokenizer,
    template: Template | None = None,
    *,
    max_length: int | None = None,
    truncation: Truncation | None = None,
) -> tuple[TokenSequence, TokenSequence] | None:
    """The better and the worse answer of a preference, each behind its prompt; None where a rule leaves one out.

    Without a prompt, the messages with which both answers begin are it; of answers in plain text all is learnt. Raises
    TextError for what is no preference, and as `encode`."""
    if not isinstance(document.content, Preference):
        raise TextError(f"expected chosen and rejected in {document.origin}, got {type(document.content).__name__}")
    prompt, chosen, rejected = document.content.prompt, document.content.chosen, document.content.rejected
    if not prompt and isinstance(chosen, tuple) and isinstance(rejected, tuple):
        prompt = shared(chosen, rejected)
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    both = []
    for answer, cut in zip((chosen, rejected), document.content.cut, strict=True):
        one = Document(Completion(prompt, answer, cut), document.origin)
        sequence, _ = encode(one, tokenizer, template, max_length=max_length, truncation=truncation)
        if sequence is None:
            return None
        both.append(sequence)
    return both[0], both[1]


def learnt_bytes(sequences: Sequences, tokenizer: Tokenizer) -> int:
    """How many bytes of text the learnt tokens make: what a loss per byte is divided by."""
    table, total, piece = byte_counts(tokenizer), 0, 2**20
    for begin in range(0, len(sequences.tokens), piece):
        part = slice(begin, begin + piece)
        total += int(table[sequences.tokens[part][sequences.own[part]]].sum())
    return total


class _Parts(NamedTuple):
    """A document's tokens, and where a rule may cut."""

    start: int
    """The first token. What follows are those behind it."""
    ids: list[int]
    own: list[bool]
    head: int
    """How many tokens at the beginning stay: what the system says."""
    begins: Sequence[int]
    """Behind the head, where what is kept may begin, the earliest first."""


def _parts(content: str | Completion | Dialogue, tokenizer: Tokenizer, template: Template, origin: str) -> _Parts:
    match content:
        case str(text):
            words = tokenizer.encode(text)
            ids = [*words, tokenizer.eos_id]
            return _Parts(tokenizer.start_id, ids, [True] * len(ids), 0, range(len(ids)))
        case Completion(str(prompt), str(completion)):
            start, *asked = template.prompt(prompt, tokenizer)
            words = tokenizer.encode(completion)
            own = [False] * len(asked) + [True] * (len(words) + 1)
            begins = range(len(asked) - len(template.before_answer(tokenizer)) + 1)
            return _Parts(start, [*asked, *words, tokenizer.eos_id], own, 0, begins)
        case Dialogue(messages):
            return _chat(messages, 0, tokenizer, template)
        case Completion(tuple(prompt), tuple(completion)):
            return _chat(prompt + completion, len(prompt), tokenizer, template)
    raise TextError(f"expected prompt and completion of {origin} both as text or both as messages, got one of each")


def _endless(parts: _Parts) -> _Parts:
    """Without what ends the last words that are learnt, and what stands behind it."""
    end = len(parts.own) - 1 - parts.own[::-1].index(True) if any(parts.own) else len(parts.own)
    return parts._replace(ids=parts.ids[:end], own=parts.own[:end])


def _chat(messages: tuple[Message, ...], given: int, tokenizer: Tokenizer, template: Template) -> _Parts:
    """A chat whose first ``given`` messages are a prompt, in which nothing is learnt. It may begin at any question."""
    whole = template.complete(messages)
    given = given + len(whole) - len(messages) if given else 0
    ids: list[int] = []
    own: list[bool] = []
    start, head, begins = template.start(tokenizer), 0, []
    for place, (message, turn) in enumerate(zip(whole, template.turns(messages, tokenizer), strict=True)):
        if message.role == "user":
            opens = not head and turn.ids[:1] == [start]  # cut here, the start stands there already
            begins.append(len(ids) + opens)
        ids += turn.ids
        own += [False] * len(turn.ids) if place < given else turn.own
        if place == 0 and message.role == "system":
            head = len(ids)
    return _Parts(start, ids, own, head, begins)


def _fit(
    parts: _Parts, origin: str, max_length: int | None, truncation: Truncation
) -> tuple[TokenSequence | None, Cut | None]:
    start, ids, own, head, begins = parts
    before, cut = 1 + len(ids), None
    if max_length is not None and before > max_length:
        match truncation:
            case Skip():
                return None, Cut(origin, before, 0)
            case CutEnd():
                ids, own = ids[: max_length - 1], own[: max_length - 1]
            case CutStart():
                first = before + head - max_length  # what begins here is short enough
                begin = next((begin for begin in begins if begin >= first), begins[-1] if begins else head)
                ids, own = ids[:head] + ids[begin:], own[:head] + own[begin:]
        if (after := 1 + len(ids)) > max_length:
            least = f" ({after} without what may be cut)" if isinstance(truncation, CutStart) else ""
            raise TextError(
                f"expected at most {max_length} tokens, got {before}{least} in {origin}: raise max_length, or choose "
                "another rule for what is too long"
            )
        cut = Cut(origin, before, after)
    if not any(own):
        where = f" within its first {max_length} tokens" if cut else ""
        raise TextError(f"expected words of the assistant to learn from in {origin}, got none{where}")
    return TokenSequence([start, *ids], [False, *own]), cut
