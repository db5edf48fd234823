"""What an encoder learns from: texts in which tokens are masked, and texts with labels.

A text is `start words end`, as it is for models that write (BERT's [CLS] and [SEP], RoBERTa's <s> and </s>).
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from torchward.data.sequences import Sequences
from torchward.data.texts import Labelled, Texts
from torchward.language.chat import CutEnd, encode_all
from torchward.language.documents import Document, TextError
from torchward.language.tokenizer import Tokenizer, byte_counts, mask_id_of, with_mask

LABEL = "label"
"""The column of a document that says what it is."""


def masked(train: Sequence[Document], validation: Sequence[Document], tokenizer: Tokenizer) -> Texts:
    """Texts to fill gaps in, all of whose tokens are seen; the tokenizer gets a token for gaps where it has none.

    Raises TextError where it can have none, and where there is no text to validate on."""
    if not validation:
        raise TextError("expected texts that are held out to validate on, got none: give validation a part of them")
    words = with_mask(tokenizer)
    shown, held_out = (encode_all(side, words).sequences.closed(words.pad_id) for side in (train, validation))
    sizes = torch.from_numpy(byte_counts(words))
    return Texts(shown, held_out, sizes, words.pad_id, words.description(), mask_id_of(words))


def labelled(
    train: Sequence[Document],
    validation: Sequence[Document],
    tokenizer: Tokenizer,
    max_length: int,
    labels: Sequence[str] | None = None,
) -> Labelled:
    """Texts of at most ``max_length`` tokens, whose beginning is kept, and their labels: those given, or all that there
    are, sorted.

    Raises TextError where one has no label or one that is not given, where there are fewer than two, and where nothing
    is held out."""
    if not train or not validation:
        raise TextError(
            f"expected texts to learn from and others that are held out, got {len(train)} and {len(validation)}: give "
            "more of them, or validation a part of them"
        )
    names = tuple(labels) if labels is not None else _names(train, validation)
    place = {name: number for number, name in enumerate(names)}
    told, sequences, cut = [], list[Sequences](), 0
    for side in (train, validation):
        encoded = encode_all(
            (Document(each.text, each.origin) for each in side), tokenizer, max_length=max_length, truncation=CutEnd()
        )
        sequences.append(encoded.sequences)
        cut += len(encoded.cuts)
        told.append(np.array([place[_known(each, place)] for each in side], np.int64))
    return Labelled(
        sequences[0], told[0], sequences[1], told[1], names, tokenizer.pad_id, tokenizer.description(),
        tokenizer.vocab_size, cut,
    )  # fmt: skip


def _names(train: Sequence[Document], validation: Sequence[Document]) -> tuple[str, ...]:
    """All labels that there are; whole numbers by their size, else by the alphabet."""
    found: dict[str, Any] = {_label(each): each.columns[LABEL] for each in chain(train, validation)}
    if len(found) < 2:
        raise TextError(
            f"expected texts of at least two labels to tell apart, got only {next(iter(found))!r} in {len(train)} to "
            f"learn from and {len(validation)} that are held out"
        )
    if all(isinstance(value, int) for value in found.values()):
        return tuple(sorted(found, key=found.__getitem__))
    return tuple(sorted(found))


def _label(document: Document) -> str:
    value = document.columns.get(LABEL)
    if isinstance(value, str):
        return value
    if isinstance(value, int):  # True and False too
        return str(value)
    has = f"columns {', '.join(document.columns)}" if document.columns else "no column beside the text"
    found = "none" if value is None else f"{value!r:.40}"
    raise TextError(
        f"expected a text or a whole number as the column {LABEL!r} of {document.origin}, got {found} ({has})"
    )


def _known(document: Document, place: dict[str, int]) -> str:
    name = _label(document)
    if name not in place:
        raise TextError(
            f"expected a label of {', '.join(place)} in {document.origin}, got {name!r}: a classifier that goes on "
            "learning keeps its labels; begin from its encoder to learn others"
        )
    return name
