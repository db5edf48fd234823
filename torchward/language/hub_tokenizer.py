"""The tokenizer of a model in a local directory, as transformers wrote it, and the texts that its chats become.

Nothing of a model's own is run: tokenizer.json and tokenizer_config.json are data, and a template is rendered in the
sandbox that transformers has for it.
"""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import date
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from torchward.language.bpe import visible_bytes
from torchward.language.documents import ROLES, Message, Role, TextError
from torchward.language.family import Json
from torchward.language.hub import CONFIG, kind, local
from torchward.language.tokenizer import FILE, FORMAT, Around, utf8
from torchward.nets.hub_model import library
from torchward.nets.transformer_config import Kind

GENERATION = "generation_config.json"
"""The file of transformers that says how a model writes, by what it begins for one."""
PAD = "<|pad|>"
"""The padding of a tokenizer that has none of its own."""
TODAY = "strftime_now"
"""What a chat template asks for the day by."""
BRACKETS = re.compile(r"<.+>|\[.+\]", re.DOTALL)
"""A word that nobody writes by chance: others that were added to a tokenizer may be words of a language, or its lines'
ends."""
SAID = "qwxjzv"
"""What nobody says, to look for it in what a chat template writes."""

LENGTHS = {"truncation": None, "padding": None}
"""What transformers leaves in a tokenizer's file of the last texts that it cut or filled up: nothing of the tokens."""


class HubTokenizer:
    """A :class:`~torchward.language.tokenizer.Tokenizer` of another project's model.

    Its ids are those of its model. One without padding that is not end-of-text gets a token for that, and one without a
    chat template a token for each role; where the model's embedding has no rows to spare, ``vocab_size`` is larger than
    it was. A text says what it says: no special token is read in it, and no space is put before it, but where the model
    reads and writes each text by itself."""

    def __init__(self, data: Json) -> None:
        """``data`` is what :meth:`description` gives. Raises TextError for one whose tokens have no bytes, or whose
        template does not say where an answer ends, and KeyError or TypeError where it says too little."""
        from tokenizers import Tokenizer as Backend

        self._data = {name: data[name] for name in ("backend", "special", "chat_template", "vocab_size")}
        self._data["backend"] = backend = {**data["backend"], **LENGTHS}
        if (day := data.get("date")) is not None:
            self._data["date"] = day
        self.kind: Kind = data.get("kind", "decoder")
        """What kind of model reads it."""
        self.decoder_start: list[int] = data.get("decoder_start", [])
        """The tokens that an encoder-decoder's decoder begins with."""
        if self.kind != "decoder":
            self._data |= {"kind": self.kind, "decoder_start": self.decoder_start}
        self.chat_template: str | None = data["chat_template"]
        special = data["special"]
        self._whole = Backend.from_str(json.dumps(backend))
        plain = {**backend, **{part: _without_prefix(backend[part]) for part in ("normalizer", "pre_tokenizer")}}
        self._behind, self._plain = (Backend.from_str(json.dumps(plain)) for _ in range(2))
        self._source = Backend.from_str(json.dumps(backend))
        self._plain.encode_special_tokens = self._source.encode_special_tokens = True
        added = self._whole.get_added_tokens_decoder()
        self._special = {token: str(one.content) for token, one in added.items() if one.special}
        self.eos_id = own = self._id(special["eos_token"])
        self.start_id = self._id(special.get("bos_token", special["eos_token"]))
        """Where there is no token for it, end-of-text: a text begins where another one ended."""
        if self.decoder_start:
            self.start_id = self.decoder_start[0]
        self.begins_anew = self.kind == "encoder-decoder" and json.dumps(plain) != json.dumps(backend)
        """Whether a text begins with a space that it does not say: an encoder-decoder's answers are texts of their own,
        while a decoder's go on behind a prompt."""
        self.pad_id = self._id(special["pad_token"])
        self.mask_id = self._id(special["mask_token"]) if "mask_token" in special else None
        """The token that stands for others which are to be guessed; None without one."""
        unknown = special.get("unk_token") if self.mask_id is not None else None  # an encoder need not say what it read
        self._refused = {token for token, word in self._special.items() if word != unknown}
        size = max(self._whole.get_vocab(with_added_tokens=True).values()) + 1
        self._words = _words(self._whole, backend["decoder"], max(size, data["vocab_size"]))
        self._roles: list[str] = []
        self.opening = self.closing = ""
        """What the chat template writes before what an answer says, and between that and its end."""
        if self.chat_template is not None:
            self.opening, self.closing, self.eos_id = self._answer()
            self._roles = self._role_words(str(one.content) for one in added.values() if not one.special)
        self.end_ids = (self.eos_id,) if self.eos_id == own else (self.eos_id, own)
        """Whichever of these comes first ends what is written: a model that was never taught its chat template ends by
        its own end-of-text."""
        self.end = self._special[self.eos_id]
        """What a chat template writes for end-of-text."""

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones and rows to spare included."""
        return len(self._words)

    def role_id(self, role: Role) -> int:
        """The token before what this role says. Raises TextError where a chat template of its own says that."""
        if self.chat_template is not None:
            raise TextError("expected a tokenizer with a token for each role, got one with a template: use template_of")
        return self._id(f"<|{role}|>")

    def encode(self, text: str) -> list[int]:
        """The text's tokens. Raises TextError for lone surrogates, and for what the tokenizer has no tokens for;
        an encoder's has one for all of that."""
        utf8(text)
        found = (self._source if self.begins_anew else self._plain).encode(text, add_special_tokens=False)
        ids: list[int] = found.ids
        if not self._refused.isdisjoint(ids):
            begin, end = next(place for id_, place in zip(ids, found.offsets, strict=True) if id_ in self._refused)
            raise TextError(f"expected text that the model's tokenizer has tokens for, got {text[begin:end]!r}")
        return ids

    def encode_source(self, text: str) -> list[int]:
        """The tokens that an encoder reads a text as, with those that the model's own tokenizer puts around it. What it
        has no tokens for becomes its token for that."""
        utf8(text)
        ids: list[int] = self._source.encode(text, add_special_tokens=True).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD. Raises TextError for an id that is no token."""
        return self.as_said(b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace"))

    def as_said(self, text: str) -> str:
        """The text that tokens make together, without the space that was put before it."""
        return text.removeprefix(" ") if self.begins_anew else text

    def bytes_of(self, token: int) -> bytes:
        """What a token adds to the text. Raises TextError for an id that is no token."""
        if not 0 <= token < len(self._words):
            raise TextError(
                f"expected a token from 0 to {len(self._words) - 1}, got {token}: is it another vocabulary's?"
            )
        return self._words[token]

    # Chats

    def render(self, messages: Sequence[Message], asks: bool) -> str:
        """What the chat template makes of messages; ``asks`` for an answer, if so. Raises TextError for what it
        refuses, and for a message with a special token in its text."""
        for message in messages:
            found = self.special_in(message.content, others=message.role != "assistant")
            if found is not None:
                raise TextError(f"expected a message without special tokens, got {found} within {message.content!r}")
        told = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text: str = self.to_transformers.apply_chat_template(
                told, chat_template=self._dated, tokenize=False, add_generation_prompt=asks
            )
        except ImportError:
            raise
        except Exception as error:  # a template is a program: it may raise anything
            said = ", ".join(message.role for message in messages)
            raise TextError(f"the model's chat template refuses messages of {said}: {error}") from error
        return text

    def read(self, text: str, before: str = "") -> tuple[list[int], list[int]]:
        """The tokens of a piece of what was rendered ``before`` it and in it, special ones included, and the character
        of the piece that each of them begins at. Only at the beginning and behind a special token is it the piece
        that the whole would be cut into."""
        special = next((word for word in self._special.values() if before.endswith(word)), "")
        if before and not special:
            found = self._behind.encode(text, add_special_tokens=False)
            return found.ids, [begin for begin, _ in found.offsets]
        found = self._whole.encode(special + text, add_special_tokens=False)
        count = 1 if special else 0
        return found.ids[count:], [begin - len(special) for begin, _ in found.offsets[count:]]

    def special_in(self, text: str, others: bool = False) -> str | None:
        """A special token that stands in a text, or one of the ``others`` by which the chat template writes roles; None
        without one."""
        words = chain(self._special.values(), self._roles if others else ())
        return next((word for word in words if word in text), None) if text else None

    @cached_property
    def around(self) -> Around:
        """The tokens of what the chat template writes around what an answer says."""
        opening, closing = (
            self._behind.encode(part, add_special_tokens=False) for part in (self.opening, self.closing)
        )
        return opening.ids, closing.ids

    @cached_property
    def chat_start_id(self) -> int:
        """The special token that the chat template begins with; where it begins with none, that of a text."""
        ids, _ = self.read(self.render([Message("user", "a")], True))
        return ids[0] if ids[0] in self._special else self.start_id

    @cached_property
    def to_transformers(self) -> Any:
        """The same as a tokenizer of transformers, whose ``save_pretrained`` writes it."""
        from tokenizers import Tokenizer as Backend

        copy = Backend.from_str(self._whole.to_str())
        cls = library("renders chats").PreTrainedTokenizerFast
        return cls(tokenizer_object=copy, chat_template=self.chat_template, **self._data["special"])

    @cached_property
    def _dated(self) -> str | None:
        """The chat template with the day on which the tokenizer was loaded in place of today, that a chat may have the
        same tokens tomorrow; a description without it, as they once were, means today."""
        if self.chat_template is None or "date" not in self._data:
            return self.chat_template
        day = date.fromisoformat(self._data["date"])
        asks = rf"{TODAY}\(\s*(['\"])(.*?)\1\s*\)"
        return re.sub(asks, lambda found: json.dumps(day.strftime(found[2])), self.chat_template)

    # What is saved

    def description(self) -> Json:
        """All that it is made of, as JSON."""
        return {**self._data, "format": FORMAT, "tokenizer": type(self).__name__}

    def _id(self, word: str) -> int:
        token = self._whole.token_to_id(word)
        if token is None:
            raise TextError(f"expected the special token {word} in the tokenizer's vocabulary, got none")
        return int(token)

    def _answer(self) -> tuple[str, str, int]:
        """What stands before what the assistant says, and behind it, and the special token behind that, which ends the
        answer. It need not be the tokenizer's end-of-text."""
        asked = Message("user", "a")
        prompt, whole = self.render([asked], True), self.render([asked, Message("assistant", SAID)], False)
        opening, said, rest = whole.removeprefix(prompt).partition(SAID)
        ids, places = self.read(rest, SAID)
        found = next((each for each in zip(ids, places, strict=True) if each[0] in self._special), None)
        if found is None or not said or not whole.startswith(prompt):
            raise TextError(
                "expected a chat template that ends an answer to its prompt by a special token, got "
                f"{whole!r} for {prompt!r}: give messages as a text of your own instead"
            )
        token, place = found
        return opening, rest[:place], token

    def _role_words(self, words: Iterable[str]) -> list[str]:
        """Those of some words that stand in brackets, as ``<|user|>``, and are written by the chat template between the
        messages of a chat; not ``<think>``, which belongs to its last answer."""
        words = [word for word in words if BRACKETS.fullmatch(word)]
        asked, answer = Message("user", "a"), Message("assistant", SAID)
        found: list[str] = []
        for first in ([], [Message("system", "a")]) if words else ():
            with suppress(TextError):  # a template need not know a system, nor a second question
                texts = self.render([*first, asked], True), self.render([*first, asked, answer, asked], False)
                found += [word for word in words if all(word in text for text in texts)]
        return found


def load(directory: Path | str) -> HubTokenizer:
    """The tokenizer in a local directory of transformers, with its chat template. Raises TextError where there is none
    that can be read, and ImportError in one sentence without transformers."""
    directory = local(directory)
    if not (directory / FILE).is_file():
        raise TextError(f"expected {FILE} in {directory}, got none: let transformers save its fast tokenizer there")
    try:
        theirs = library("reads tokenizers").AutoTokenizer.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
        special = {name: str(word) for name, word in theirs.special_tokens_map.items() if not isinstance(word, list)}
        template = theirs.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        config = _config(directory)
        what = kind(config)
        if what == "encoder":  # those around a text are its beginning and its end
            named = {"bos_token": special.get("cls_token"), "eos_token": special.get("sep_token")}
            special = {**{name: word for name, word in named.items() if word is not None}, **special}
        if "eos_token" not in special:
            raise TextError(f"expected a tokenizer with end-of-text in {directory}, got one without eos_token")
        backend = theirs.backend_tokenizer
        if special.get("pad_token", special["eos_token"]) == special["eos_token"]:
            special["pad_token"] = PAD
        roles = [] if template is not None or what != "decoder" else [f"<|{role}|>" for role in ROLES]
        backend.add_special_tokens([*special.values(), *roles])
        data = {
            "backend": json.loads(backend.to_str()),
            "special": special,
            "chat_template": template,
            "vocab_size": int(config.get("text_config", config).get("vocab_size") or 0),
            "kind": what,
            "decoder_start": _decoder_start(directory, config) if what == "encoder-decoder" else [],
        }
        if template is not None and TODAY in template:
            data["date"] = date.today().isoformat()
        return HubTokenizer(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"the tokenizer in {directory} cannot be read ({error}); it is damaged or foreign") from error


def _config(directory: Path, name: str = CONFIG) -> Json:
    """What a config says; nothing where there is none."""
    path = directory / name
    data: Json = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return data


def _decoder_start(directory: Path, config: Json) -> list[int]:
    """The start token of a decoder, and the one that has to follow it, where there is such."""
    said = {**config, **_config(directory, GENERATION)}
    start, forced = (said.get(name) for name in ("decoder_start_token_id", "forced_bos_token_id"))
    if start is None:
        raise TextError(f"expected decoder_start_token_id in the config of {directory}, got none")
    return [start] if forced is None else [start, forced]


def _without_prefix(part: Any) -> Any:
    """A normaliser or pre-tokenizer that puts no space before a text."""
    match part:
        case {"type": "Prepend"}:
            return None
        case {"type": "Metaspace"}:
            return {**part, "prepend_scheme": "never"}
        case {"type": "ByteLevel"}:
            return {**part, "add_prefix_space": False}
        case {"type": "Sequence"}:
            name = "normalizers" if "normalizers" in part else "pretokenizers"
            return {**part, name: [inner for inner in map(_without_prefix, part[name]) if inner is not None]}
    return part


def _words(backend: Any, decoder: Json | None, vocab_size: int) -> tuple[bytes, ...]:
    """The bytes of each token; of special ones, and of rows to spare, none."""
    parts = [] if decoder is None else [decoder, *decoder.get("decoders", ())]
    kinds = {part["type"] for part in parts}
    words = [b""] * vocab_size
    added = backend.get_added_tokens_decoder()
    if not kinds & {"ByteLevel", "Metaspace", "Replace", "WordPiece"}:
        raise TextError(
            "expected a tokenizer of bytes (ByteLevel) or of pieces (Metaspace, Replace, WordPiece), of which each "
            f"token is some bytes of the text, got one that decodes by {', '.join(sorted(kinds)) or 'nothing'}"
        )
    to_byte = {character: byte for byte, character in enumerate(visible_bytes())}
    for word, token in backend.get_vocab(with_added_tokens=True).items():
        if token in added:
            words[token] = b"" if added[token].special else utf8(added[token].content)
        elif "ByteLevel" in kinds:
            words[token] = bytes(to_byte[character] for character in word)
        elif "WordPiece" in kinds:
            words[token] = utf8(word.removeprefix("##") if word.startswith("##") else f" {word}")
        else:
            words[token] = _piece(word)
    return tuple(words)


def _piece(word: str) -> bytes:
    """``\u2581the`` is `` the``, ``<0x0A>`` a line's end."""
    if len(word) == 6 and word.startswith("<0x") and word.endswith(">"):
        return bytes([int(word[3:5], 16)])
    return utf8(word.replace("\u2581", " "))
