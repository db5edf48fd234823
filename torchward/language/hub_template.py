"""The chat template of a model's own: what it renders as tokens, and which of them are the assistant's.

A template is a program that renders a whole chat. Where one message ends and the next begins is found by rendering the
first few alone; a template that then writes them otherwise is refused where it matters.
"""

from bisect import bisect_right
from typing import NamedTuple

from torchward.data.sequences import TokenSequence
from torchward.language.chat import Template
from torchward.language.documents import Message, TextError, Words
from torchward.language.hub_tokenizer import HubTokenizer
from torchward.language.tokenizer import Around, Tokenizer


class OwnTemplate(Template):
    """A :class:`~torchward.language.chat.Template` for a :class:`~torchward.language.hub_tokenizer.HubTokenizer`.

    Tokens are those of the rendered text, but that what the assistant says, with the special token that ends it, is
    encoded by itself, as it is sampled. What the template puts behind that is not its own, and left out at the end."""

    def start(self, tokenizer: Tokenizer) -> int:
        """The special token that a chat begins with; else that of a text."""
        return _own(tokenizer).chat_start_id

    def turns(self, messages: tuple[Message, ...], tokenizer: Tokenizer) -> list[TokenSequence]:
        """The tokens of each message, but for the start. Where the template does not tell two of them apart, both stand
        in the second. Raises TextError for what the template refuses."""
        return [TokenSequence(*turn) for turn in self._turns(messages, tokenizer, asks=False)]

    def around(self, tokenizer: Tokenizer) -> Around:
        """What the template writes around what an answer says, in the last message of a chat."""
        return _own(tokenizer).around

    def prompt(self, words: Words, tokenizer: Tokenizer) -> list[int]:
        """The tokens behind which an answer is sampled. Raises TextError where the assistant spoke last."""
        if isinstance(words, str):
            return super().prompt(words, tokenizer)
        if words and words[-1].role == "assistant":
            raise TextError("expected a message for the assistant to answer, got the assistant's own as the last one")
        turns = self._turns(words, tokenizer, asks=True)
        return [self.start(tokenizer), *(id_ for turn in turns for id_ in turn.ids)]

    def reply(self, message: Message, tokenizer: Tokenizer) -> list[int]:
        """What someone else says behind the assistant's words, and what the assistant's next words follow."""
        before = (Message("user", "a"), Message("assistant", "b"))
        answer, last = self._turns((*before, message), tokenizer, asks=True)[-2:]
        said = len(answer.own) - answer.own[::-1].index(True)
        return [*answer.ids[said:], *last.ids]

    def _turns(self, messages: tuple[Message, ...], tokenizer: Tokenizer, asks: bool) -> "list[_Turn]":
        """Of each message; with the last one what ``asks`` for an answer."""
        hub, start = _own(tokenizer), self.start(tokenizer)
        turns = _encoded(self.complete(messages), hub, asks)
        first = next(turn for turn in turns if turn.ids)
        if first.ids[0] == start:
            del first.ids[0], first.own[0]
        return turns


class SourceTemplate(Template):
    """What an encoder reads, then what its decoder begins with: the prompts of an encoder-decoder.

    The end token behind what is read stands in no row: the body puts it there. Messages are read as lines of text, and
    are answered once: what such models learn from are prompts and completions in plain text."""

    def prompt(self, words: Words, tokenizer: Tokenizer) -> list[int]:
        """The source's tokens and the decoder's first ones. Raises TextError where the assistant spoke last, and for a
        tokenizer that puts the decoder's start within a source."""
        hub = _own(tokenizer, has_template=False)
        if not isinstance(words, str):
            if words and words[-1].role == "assistant":
                raise TextError("expected a message for the assistant to answer, got the assistant's own as the last")
            words = "\n".join(message.content for message in self.complete(words))
        ids = hub.encode_source(words)
        ids = ids[:-1] if ids and ids[-1] == hub.eos_id else ids
        if hub.decoder_start[0] in ids:
            raise TextError(f"expected a source without the decoder's start {hub.decoder_start[0]}, got {words!r}")
        return [*ids, *hub.decoder_start]

    def before_answer(self, tokenizer: Tokenizer) -> list[int]:
        """What the decoder begins with."""
        return _own(tokenizer, has_template=False).decoder_start

    def turns(self, messages: tuple[Message, ...], tokenizer: Tokenizer) -> list[TokenSequence]:
        """Raises TextError: an encoder-decoder learns no chats."""
        raise TextError("expected prompt and completion as text for an encoder-decoder, got messages")

    def reply(self, message: Message, tokenizer: Tokenizer) -> list[int]:
        """Raises TextError: an encoder-decoder answers once."""
        raise TextError("expected a task of one turn for an encoder-decoder, got one in which a partner answers")


def template_of(tokenizer: Tokenizer, system: str | None = None) -> Template:
    """The template that comes with a tokenizer, its own where it has one, else this project's; and what the system says
    in chats that do not begin with it."""
    if isinstance(tokenizer, HubTokenizer) and tokenizer.kind == "encoder-decoder":
        return SourceTemplate(system)
    has_own = isinstance(tokenizer, HubTokenizer) and tokenizer.chat_template is not None
    return OwnTemplate(system) if has_own else Template(system)


class _Turn(NamedTuple):
    """The tokens of a message, and which of them are the assistant's own."""

    ids: list[int]
    own: list[bool]


def _encoded(messages: tuple[Message, ...], hub: HubTokenizer, asks: bool) -> list[_Turn]:
    """All tokens of the rendered text, but for what stands behind the last answer."""
    text = hub.render(messages, asks)
    turns = [_Turn([], []) for _ in messages]

    def give(begin: int, end: int, to: range) -> None:
        """What the assistant did not say, from one of its answers to the next, by messages."""
        ids, places = hub.read(text[begin:end], text[:begin])
        cuts = [_cut(messages[: i + 1], text, hub, begin) for i in to[:-1]]
        for token, place in zip(ids, places, strict=True):
            turn = turns[to[bisect_right(cuts, begin + place)]]
            turn.ids.append(token)
            turn.own.append(False)

    done, last = 0, 0  # of the text; and the last answer, to which belongs what stands behind its end
    for i, message in enumerate(messages):
        if message.role != "assistant":
            continue
        asked = hub.render(messages[:i], True)
        begin = len(asked) + (len(hub.opening) if text.startswith(hub.opening, len(asked)) else 0)
        said, end = message.content.strip(), text.find(hub.end, begin)
        place = text.find(said, begin, end)
        behind = text[place + len(said) : end] if place >= 0 else ""
        if not text.startswith(asked) or end < 0 or hub.special_in(behind):
            raise TextError(
                f"expected a chat template that writes an answer behind its prompt and {hub.end} behind the answer, "
                f"got {text!r} for {asked!r}"
            )
        give(done, len(asked), range(last, i + 1))
        end += len(hub.end)
        ids, _ = hub.read(text[len(asked) : end], asked)
        turns[i].ids.extend(ids)
        turns[i].own.extend([True] * len(ids))
        done, last = end, i
    if messages[-1].role != "assistant":
        give(done, len(text), range(last, len(messages)))
    return turns


def _cut(messages: tuple[Message, ...], text: str, hub: HubTokenizer, begin: int) -> int:
    """Where in the text these first messages end; ``begin`` where the template does not say."""
    try:
        alone = hub.render(messages, False)
    except TextError:
        return begin
    return max(len(alone), begin) if text.startswith(alone) else begin


def _own(tokenizer: Tokenizer, has_template: bool = True) -> HubTokenizer:
    if not isinstance(tokenizer, HubTokenizer) or (has_template and tokenizer.chat_template is None):
        raise TextError(f"expected a tokenizer with a chat template of its own, got {type(tokenizer).__name__}")
    return tokenizer
