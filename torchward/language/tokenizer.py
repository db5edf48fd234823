"""Text to tokens and back: one protocol, and tokenizers of bytes and of characters. Those of byte pairs are in `bpe`.

Ordinary tokens come first, then end-of-text, padding and one token for each role of a chat. These special tokens have
no text: `encode` never gives one, whatever a text says, and `decode` passes over them.
"""

import codecs
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from torchward.language.documents import ROLES, Role, TextError

Around: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""The tokens that a template writes before what an answer says, and between that and its end. They are learnt with the
answer, and said by nobody."""
ALONE: Around = ((), ())
"""Nothing stands around an answer."""
FORMAT = 1
FILE = "tokenizer.json"
SPECIAL = 2 + len(ROLES)
"""How many tokens a vocabulary has beside the ordinary ones."""


class Tokenizer(Protocol):
    """What encodes text. `decode(ids)` is `b"".join(map(bytes_of, ids))` read as UTF-8."""

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones included."""
        ...

    @property
    def start_id(self) -> int:
        """The token before every text, so that its first word has something to follow."""
        ...

    @property
    def eos_id(self) -> int:
        """The token that ends a text. It is learnt."""
        ...

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end what is written: ``eos_id``, and others by which a model may end too."""
        ...

    @property
    def pad_id(self) -> int:
        """The token that fills rows. It is never learnt, and never end-of-text."""
        ...

    def role_id(self, role: Role) -> int:
        """The token before what this role says."""
        ...

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, none of them special. Raises TextError where it cannot be encoded."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD."""
        ...

    def bytes_of(self, token: int) -> bytes:
        """What a token adds to the text; nothing for a special one."""
        ...

    def description(self) -> dict[str, Any]:
        """All that it is made of, as JSON: :func:`described` makes it again."""
        ...


class Coder(Protocol):
    """How one kind of tokenizer cuts a text."""

    @property
    def words(self) -> tuple[bytes, ...]:
        """The bytes of each ordinary token."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def description(self) -> dict[str, Any]:
        """All that it is made of, as JSON."""
        ...


class TextTokenizer:
    """A tokenizer of this project: what a coder cuts, and the special tokens behind it; with ``mask``, also one for
    what a masked language model is to guess."""

    def __init__(self, coder: Coder, mask: bool = False) -> None:
        self.coder = coder
        self._words = (*coder.words, *[b""] * (SPECIAL + mask))
        self.eos_id = len(coder.words)
        self.end_ids = (self.eos_id,)
        self.start_id = self.eos_id
        """End-of-text: a text begins where another one ended."""
        self.pad_id = self.eos_id + 1
        self.mask_id = self.eos_id + SPECIAL if mask else None
        """The token that stands for others which are to be guessed; None without one."""

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones included."""
        return len(self._words)

    def role_id(self, role: Role) -> int:
        """The token before what this role says."""
        return self.pad_id + 1 + ROLES.index(role)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text. Raises TextError for what the coder does not know, and for lone surrogates."""
        return self.coder.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD. Raises TextError for an id that is no token."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def bytes_of(self, token: int) -> bytes:
        """What a token adds to the text. Raises TextError for an id that is no token."""
        if not 0 <= token < len(self._words):
            raise TextError(
                f"expected a token from 0 to {len(self._words) - 1}, got {token}: is it another vocabulary's?"
            )
        return self._words[token]

    def description(self) -> dict[str, Any]:
        """All that it is made of, as JSON."""
        made = {"format": FORMAT, "tokenizer": type(self.coder).__name__, **self.coder.description()}
        return made if self.mask_id is None else {**made, "mask": True}


@dataclass(frozen=True)
class ByteCoder:
    """Each byte of the text in UTF-8 is a token."""

    @property
    def words(self) -> tuple[bytes, ...]:
        """Each byte."""
        return tuple(bytes([byte]) for byte in range(256))

    def encode(self, text: str) -> list[int]:
        """The text's bytes."""
        return list(utf8(text))

    def description(self) -> dict[str, Any]:
        """Nothing: all of them are alike."""
        return {}


class UnknownCharacter(TextError):
    """A character that a tokenizer does not have. Who knows where the text stands can say so (:meth:`within`)."""

    def __init__(self, character: str, known: int) -> None:
        super().__init__(
            f"expected one of the {known} characters that the tokenizer was built from, got {character!r}: build it "
            "from all of the text, or with replace_unknown"
        )
        self.character, self.known = character, known

    def within(self, origin: str) -> TextError:
        """The error with the place of the text."""
        return TextError(
            f"expected one of the {self.known} characters that the tokenizer was built from in {origin}, got "
            f"{self.character!r}: a model that a run begins from knows only those; begin from one whose tokenizer was "
            "built from all of the text, or with replace_unknown"
        )


class CharacterCoder:
    """Each character is a token. One that it does not know is refused, or becomes U+FFFD where that is among them."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._ids = {character: token for token, character in enumerate(characters)}
        if len(self._ids) != len(characters):
            raise TextError("expected each character once in a vocabulary, got one twice")
        self._unknown = self._ids.get("\ufffd")

    @property
    def words(self) -> tuple[bytes, ...]:
        """Each character in UTF-8."""
        return tuple(map(utf8, self.characters))

    def encode(self, text: str) -> list[int]:
        """A token for each character. Raises TextError for one that is unknown."""
        utf8(text)
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            if self._unknown is None:
                raise UnknownCharacter(error.args[0], len(self._ids)) from None
            return [self._ids.get(character, self._unknown) for character in text]

    def description(self) -> dict[str, Any]:
        """The characters."""
        return {"characters": self.characters}


@dataclass(frozen=True)
class Bytes:
    """A token for each byte: nothing to train, and any text can be said."""

    def build(self, texts: Iterable[str]) -> TextTokenizer:
        """The tokenizer; the texts are not looked at."""
        return TextTokenizer(ByteCoder())


@dataclass(frozen=True)
class Characters:
    """A token for each character of the corpus."""

    replace_unknown: bool = False
    """Read characters that the corpus did not have as U+FFFD, which loses them, instead of refusing the text."""

    def build(self, texts: Iterable[str]) -> TextTokenizer:
        """The tokenizer of all characters in the texts. Raises TextError where there is none."""
        found = set().union(*map(set, texts))
        if not found:
            raise TextError("expected text to take the characters of a tokenizer from, got none")
        return TextTokenizer(CharacterCoder("".join(sorted(found | ({"\ufffd"} if self.replace_unknown else set())))))


class Stream:
    """The text of tokens as they come, for a person who reads along, without what a template writes around it. Bytes
    that are no whole character yet wait, and so does what may be the template's."""

    def __init__(self, tokenizer: Tokenizer, around: Around = ALONE) -> None:
        self._tokenizer = tokenizer
        self._before, self._behind = map(tokenizer.decode, around)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waits, self._begins = "", True

    def push(self, token: int) -> str:
        """The text that has become certain with this token, which may be none."""
        text = self._waits + self._decoder.decode(self._tokenizer.bytes_of(token))
        if self._begins and len(text) < len(self._before) and self._before.startswith(text):
            self._waits = text
            return ""
        text = text.removeprefix(self._before) if self._begins else text
        kept = next(n for n in range(len(self._behind), -1, -1) if text.endswith(self._behind[:n]))
        certain = len(text) - kept
        self._begins, self._waits = False, text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """What was left to wait: of an unfinished character U+FFFD. The stream begins anew."""
        text = self._waits + self._decoder.decode(b"", final=True)
        self._waits, self._begins = "", True
        return text.removesuffix(self._behind)


def with_mask(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with one more token, for what is masked; itself where it has one. Raises TextError where it is
    another project's and has none."""
    if getattr(tokenizer, "mask_id", None) is not None:
        return tokenizer
    if isinstance(tokenizer, TextTokenizer):
        return TextTokenizer(tokenizer.coder, mask=True)
    raise TextError(
        "expected a tokenizer with a token for what is masked, as encoders such as BERT have one, got a "
        f"{type(tokenizer).__name__} without: take an encoder's own"
    )


def mask_id_of(tokenizer: Tokenizer) -> int:
    """The token that stands for what is masked. Raises TextError where there is none."""
    found: int | None = getattr(tokenizer, "mask_id", None)
    if found is None:
        raise TextError(
            "expected a tokenizer with a token for what is masked, got one without: with_mask gives it one, and "
            "masked_lm trains an encoder that has one"
        )
    return found


def byte_counts(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """The number of bytes of each token ``[vocab_size]``: by it a loss per token becomes one per byte."""
    return np.array([len(tokenizer.bytes_of(token)) for token in range(tokenizer.vocab_size)], np.int64)


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """Write the tokenizer into ``directory``, which is made, as JSON."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tokenizer.description(), ensure_ascii=True)
    (directory / FILE).write_text(text + "\n", encoding="utf-8")


def load(directory: Path) -> Tokenizer:
    """The tokenizer that was saved in ``directory``. Raises TextError where there is none that can be read."""
    path = Path(directory) / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TextError(f"expected a tokenizer that torchward saved at {path}, got {error}") from error
    return described(data, str(path))


def described(data: Any, where: str = "its description") -> Tokenizer:
    """The tokenizer of a description. Raises TextError where it cannot be read; ``where`` is named then."""
    try:
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}")
        mask = bool(data.get("mask", False))
        match data["tokenizer"]:
            case "ByteCoder":
                return TextTokenizer(ByteCoder(), mask)
            case "CharacterCoder":
                return TextTokenizer(CharacterCoder(data["characters"]), mask)
            case "PairCoder":
                from torchward.language.bpe import PairCoder

                return TextTokenizer(PairCoder.described(data), mask)
            case "HubTokenizer":
                from torchward.language.hub_tokenizer import HubTokenizer

                return HubTokenizer(data)
            case name:
                raise ValueError(f"the unknown kind {name!r}")
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, TextError):
            raise
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise TextError(f"expected a tokenizer that torchward saved at {where}, got {reason}") from error


def readable(text: str, tokenizer: Tokenizer) -> str:
    """The text without the characters that a tokenizer does not know: a policy may write what no text has."""

    def known(part: str) -> bool:
        try:
            tokenizer.encode(part)
        except TextError:
            return False
        return True

    return text if known(text) else "".join(filter(known, text))


def utf8(text: str) -> bytes:
    """The text's bytes. Raises TextError for lone surrogates, which are no characters."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"expected text, got half of a surrogate pair ({text[error.start]!r}) at character {error.start}: "
            "it was decoded wrongly"
        ) from None
