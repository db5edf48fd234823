"""A look at the data before any training: how much there is, what repeats itself, and what leaks into validation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchward.language.chat import Template, encode, encode_pair
from torchward.language.documents import Document, Preference, Prompt, TextError, hash64
from torchward.language.shingles import NEAR, normal, repeated
from torchward.language.tokenizer import Tokenizer, byte_counts

FEW = 2_000
"""Fewer tokens than this to validate on, and the loss is noise: 2 % of one token's standard deviation."""


@dataclass(frozen=True)
class Side:
    """What training or validation holds."""

    documents: int
    characters: int
    bytes: int
    tokens: int
    lengths: tuple[int, int, int, int, int]
    """Tokens of a document: the least, 5 %, the median, 95 %, the most."""
    exact: int
    """Documents that say word for word what an earlier one of this side says."""
    near: int
    """Further documents of which at least half stands in earlier ones of this side."""
    long: int
    """Documents that take more than `max_length` tokens of a row, with roles and end; of a pair the longer answer with
    its prompt. Rows that wrap cut them, whole ones refuse them."""

    @property
    def tokens_per_byte(self) -> float:
        """The fewer, the more a row of tokens holds."""
        return self.tokens / max(self.bytes, 1)


@dataclass(frozen=True)
class Leakage:
    """Documents of validation that training knows."""

    exact: int
    """Their question (the prompt, or all of a text) stands in training, but for case and white space."""
    near: int
    """Further ones of which at least half stands in training."""


@dataclass(frozen=True)
class Report:
    """What was found. Printed, it is a table, and behind it in words what is wrong."""

    train: Side
    validation: Side | None
    leakage: Leakage | None
    max_length: int | None
    """How many tokens training looks at together, where that was said."""
    warnings: tuple[str, ...]
    """What is wrong, one sentence each, with an example."""

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.verdict()}\n"

    def table(self) -> str:
        """Names and figures, right-aligned."""
        sides = [self.train] if self.validation is None else [self.train, self.validation]
        rows = [["", "training", "validation"][: len(sides) + 1]]
        for name in ("documents", "characters", "bytes", "tokens"):
            rows.append([name, *(f"{getattr(side, name):,}" for side in sides)])
        rows.append(["tokens per byte", *(f"{side.tokens_per_byte:.3f}" for side in sides)])
        quantiles = ("shortest", "5 %", "median", "95 %", "longest")
        for place, name in enumerate(quantiles):
            rows.append([f"tokens of a document: {name}", *(f"{side.lengths[place]:,}" for side in sides)])
        if self.max_length is not None:
            rows.append([f"longer than {self.max_length:,} tokens", *(f"{side.long:,}" for side in sides)])
        rows.append(["copies of earlier ones", *(f"{side.exact:,}" for side in sides)])
        rows.append(["near copies of earlier ones", *(f"{side.near:,}" for side in sides)])
        if self.leakage is not None:
            rows.append(["in training as well", "", f"{self.leakage.exact:,}"])
            rows.append(["nearly in training as well", "", f"{self.leakage.near:,}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        return "\n".join(line.rstrip() for line in lines)

    def verdict(self) -> str:
        """The warnings, one a line."""
        return "\n".join(f"! {warning}" for warning in self.warnings) or "Nothing wrong was found."


def report(
    train: Sequence[Document],
    validation: Sequence[Document],
    tokenizer: Tokenizer,
    *,
    max_length: int | None = None,
    template: Template | None = None,
) -> Report:
    """Measure documents before training on them; `validation` may be empty.

    ``max_length`` is the number of tokens that training looks at together, and chats are written by ``template``.
    Raises TextError without documents."""
    if not train:
        raise TextError("expected documents to train on, got none")
    used = np.zeros(tokenizer.vocab_size, np.bool_)
    template = template or Template()
    side, warnings = _measured("training", train, tokenizer, template, max_length, used)
    warnings += _vocabulary(tokenizer, used, side)
    if not validation:
        return Report(side, None, None, max_length, tuple(warnings))
    other, more = _measured("validation", validation, tokenizer, template, max_length, np.zeros_like(used))
    leakage, sentences = _leakage(train, validation)
    warnings += more + sentences
    if other.tokens < FEW:
        warnings.append(
            f"validation has {other.tokens:,} tokens: a loss over fewer than {FEW:,} is noise; give it more"
        )
    return Report(side, other, leakage, max_length, tuple(warnings))


def bits_per_byte(loss: float, tokens: int, size: int) -> float:
    """What a mean loss per token, in nats, is in bits per byte of text: loss tokens / (size ln 2).

    ``tokens`` is how many the mean is over, end-of-text included, and ``size`` how many bytes they make. Unlike a loss
    per token it can be compared between tokenizers. Raises ValueError unless both are above 0. Source: Gao et al. 2020
    (The Pile), section 3.1."""
    if tokens <= 0 or size <= 0:
        raise ValueError(f"expected tokens and bytes above 0, got {tokens} and {size}")
    return loss * tokens / (size * math.log(2))


def _measured(
    name: str,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    template: Template,
    max_length: int | None,
    used: NDArray[np.bool_],
) -> tuple[Side, list[str]]:
    """One side, and what is wrong with it. ``used`` ``[vocab_size]`` becomes True where a token occurs."""
    texts = [document.text for document in documents]
    lengths, long = np.zeros(len(texts), np.int64), 0
    refused: list[tuple[str, TextError]] = []
    for place, text in enumerate(texts):
        try:
            ids = tokenizer.encode(text)
            long += max_length is not None and taken(documents[place], tokenizer, template) > max_length
        except TextError as error:
            refused.append((documents[place].origin, error))
            continue
        lengths[place] = len(ids)
        used[ids] = True
    copies = _copies([hash64(text) for text in texts])
    share, source = repeated(texts)
    near = (share >= NEAR) & (copies < 0)
    least, low, median, high, most = np.quantile(lengths, [0, 0.05, 0.5, 0.95, 1], method="nearest").tolist()
    side = Side(
        documents=len(texts),
        characters=sum(map(len, texts)),
        bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
        tokens=int(lengths.sum()),
        lengths=(least, low, median, high, most),
        exact=int((copies >= 0).sum()),
        near=int(near.sum()),
        long=long,
    )
    warnings = []
    if refused:
        origin, reason = refused[0]
        warnings.append(f"{len(refused):,} documents of {name} cannot be encoded, {origin} for one: {reason}")
    warnings += _repeats(name, documents, copies, copies >= 0, "word for word")
    warnings += _repeats(name, documents, source, near, "for half or more")
    return side, warnings + _texts(name, documents, texts)


def taken(document: Document, tokenizer: Tokenizer, template: Template) -> int:
    """How many tokens of a row a document takes in training: those that are predicted; of a pair or a prompt all of the
    longer answer behind its prompt, or of the prompt."""
    match document.content:
        case Preference():
            pair = encode_pair(document, tokenizer, template)
            return 0 if pair is None else max(len(side.ids) for side in pair)
        case Prompt(prompt):
            return len(template.prompt(prompt, tokenizer))
    sequence, _ = encode(document, tokenizer, template)
    return 0 if sequence is None else len(sequence.ids) - 1


def _copies(keys: Sequence[int]) -> NDArray[np.int64]:
    """Of each key, the place at which it stood before; -1 where it did not."""
    first: dict[int, int] = {}
    return np.array([-1 if (at := first.setdefault(key, place)) == place else at for place, key in enumerate(keys)])


def _repeats(
    side: str, documents: Sequence[Document], source: NDArray[np.int64], which: NDArray[np.bool_], how: str
) -> list[str]:
    if not which.any():
        return []
    one = int(which.argmax())
    return [
        f"{_part(which, f'documents of {side}')} repeat earlier ones {how}, {documents[one].origin} for one "
        f"{documents[source[one]].origin}: what is repeated is learnt by heart; drop them with `distinct`"
    ]


def _texts(side: str, documents: Sequence[Document], texts: Sequence[str]) -> list[str]:
    found = []
    for which, what in (
        (np.array([not text.strip() for text in texts]), "are empty"),
        (np.array(["\ufffd" in text for text in texts]), "hold U+FFFD, as text does that was decoded wrongly"),
    ):
        if which.any():
            found.append(
                f"{_part(which, f'documents of {side}')} {what}, {documents[int(which.argmax())].origin} for one"
            )
    return found


def _leakage(train: Sequence[Document], validation: Sequence[Document]) -> tuple[Leakage, list[str]]:
    asked: dict[str, int] = {}
    for place, document in enumerate(train):
        asked.setdefault(normal(document.question), place)
    known = np.array([asked.get(normal(document.question), -1) for document in validation])
    share, source = repeated([document.text for document in (*train, *validation)], len(train))
    share, source = share[len(train) :], source[len(train) :]
    near = (share >= NEAR) & (known < 0)
    sentences = []
    for which, where, what in ((known >= 0, known, "stand"), (near, source, "stand for half or more")):
        if which.any():
            one = int(which.argmax())
            sentences.append(
                f"{_part(which, 'documents of validation')} {what} in training as well, {validation[one].origin} for "
                f"one in {train[where[one]].origin}: their loss shows what is known by heart; drop them with `distinct`"
            )
    return Leakage(int((known >= 0).sum()), int(near.sum())), sentences


def _vocabulary(tokenizer: Tokenizer, used: NDArray[np.bool_], train: Side) -> list[str]:
    """What is wrong between the tokenizer and the text."""
    merged = byte_counts(tokenizer) > 1
    found = []
    idle = merged & ~used
    if merged.sum() > 100 and idle.sum() > 0.5 * merged.sum():
        found.append(
            f"{_part(idle[merged], 'tokens of more than one byte')} never occur in training: a smaller vocabulary, or "
            "one that was built from this text alone, says the same"
        )
    if merged.sum() > 100 and train.bytes and train.tokens_per_byte > 0.7:
        found.append(
            f"{train.tokens_per_byte:.2f} tokens per byte: the tokenizer hardly shortens this text; build it from it"
        )
    return found


def _part(which: NDArray[np.bool_], of: str) -> str:
    """Such as 3 of 40 documents (7.5%)."""
    return f"{int(which.sum()):,} of {len(which):,} {of} ({which.mean():.1%})"
