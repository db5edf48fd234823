"""Byte-level byte-pair encoding: the commonest neighbours become one token, again and again.

Any text can be said, for the 256 bytes are tokens too. Source: Sennrich et al. 2016, algorithm 1; on bytes, Radford et
al. 2019 (GPT-2), section 2.2, whose rule of what is never merged across (words, numbers, signs, spaces) is used here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchward.config import ConfigError
from torchward.language.documents import TextError
from torchward.language.tokenizer import SPECIAL, TextTokenizer, utf8

if TYPE_CHECKING:
    import tokenizers


class PairCoder:
    """The tokens of byte pairs, by the `tokenizers` library. Raises ImportError in one sentence without it."""

    def __init__(self, words: list[str], merges: list[tuple[str, str]], split_digits: bool) -> None:
        """``words`` and ``merges`` as GPT-2 writes them: each byte as a character that can be seen."""
        self._visible, self._merges, self._split_digits = words, merges, split_digits
        to_byte = {character: byte for byte, character in enumerate(visible_bytes())}
        self._words = tuple(bytes(to_byte[character] for character in word) for word in words)
        self._encoder = _empty(split_digits)
        self._encoder.model = _library().models.BPE(
            vocab={word: token for token, word in enumerate(words)}, merges=merges, cache_capacity=100_000
        )

    @property
    def words(self) -> tuple[bytes, ...]:
        """The bytes of each token."""
        return self._words

    def encode(self, text: str) -> list[int]:
        """The text's tokens: merges in the order in which they were learnt."""
        utf8(text)
        return self._encoder.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def description(self) -> dict[str, Any]:
        """Words and merges."""
        merges = [f"{left} {right}" for left, right in self._merges]
        return {"words": self._visible, "merges": merges, "split_digits": self._split_digits}

    @classmethod
    def described(cls, data: dict[str, Any]) -> "PairCoder":
        """One as its description says. Raises KeyError, TypeError or ValueError where it says too little."""
        merges = [(left, right) for left, right in (merge.split(" ") for merge in data["merges"])]
        return cls(list(data["words"]), merges, bool(data["split_digits"]))


@dataclass(frozen=True)
class BPE:
    """Tokens of byte pairs, learnt from the corpus."""

    vocab_size: int = 512
    """The number of tokens, the 256 bytes and the special ones included. A small corpus may give fewer."""
    split_digits: bool = True
    """Each digit is a token of its own, so that numbers line up; GPT-2 merges them."""
    min_frequency: int = 2
    """How often a pair must occur to become a token."""

    def __post_init__(self) -> None:
        least = 256 + SPECIAL
        if self.vocab_size < least:
            raise ConfigError(
                f"expected vocab_size of BPE of at least {least} (256 bytes and {SPECIAL} special tokens), got "
                f"{self.vocab_size}"
            )
        if self.min_frequency < 1:
            raise ConfigError(f"expected min_frequency of BPE of at least 1, got {self.min_frequency}")

    def build(self, texts: Iterable[str]) -> TextTokenizer:
        """The tokenizer that is learnt from the texts. Raises ImportError in one sentence without `tokenizers`."""
        encoder = _empty(self.split_digits)
        trainer = _library().trainers.BpeTrainer(
            vocab_size=self.vocab_size - SPECIAL,
            min_frequency=self.min_frequency,
            initial_alphabet=visible_bytes(),
            special_tokens=[],
            show_progress=False,
        )
        encoder.train_from_iterator((utf8(text).decode("utf-8") for text in texts), trainer)
        vocabulary = encoder.get_vocab()
        words = sorted(vocabulary, key=vocabulary.__getitem__)
        if len(words) > self.vocab_size - SPECIAL:
            raise TextError(f"expected {self.vocab_size} tokens, got {len(words) + SPECIAL} from the library")
        return TextTokenizer(PairCoder(words, _merges(encoder), self.split_digits))


def _merges(encoder: "tokenizers.Tokenizer") -> list[tuple[str, str]]:
    import json

    return [(left, right) for left, right in json.loads(encoder.to_str())["model"]["merges"]]


def _empty(split_digits: bool) -> "tokenizers.Tokenizer":
    library = _library()
    encoder: tokenizers.Tokenizer = library.Tokenizer(library.models.BPE())
    cut = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = library.pre_tokenizers.Digits(individual_digits=True)
    encoder.pre_tokenizer = library.pre_tokenizers.Sequence([digits, cut]) if split_digits else cut
    return encoder


def visible_bytes() -> list[str]:
    """The character that GPT-2's files write for each byte: itself where it can be seen, else one from 256 on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) if byte in seen else chr(256 + hidden.index(byte)) for byte in range(256)]


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise ImportError(
            "a tokenizer of byte pairs needs the tokenizers library: pip install 'torchward[language]', or use Bytes"
        ) from error
    return tokenizers
