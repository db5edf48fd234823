"""What texts have in common, by shingles: pieces of 48 bytes at every place, each as a hash; and how varied they are.

Broder 1997, "On the resemblance and containment of documents": the containment of one text in others is the share of
its shingles that they have too. Upper and lower case and the kind of white space count for nothing.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from torchward.config import ConfigError
from torchward.language.documents import Document

WIDTH = 48
"""About eight words: long enough that chance and idiom do not repeat it. A shorter text is one shingle."""
NEAR = 0.5
"""From which part of repeated shingles on a text is called a near copy."""
KEPT = 4_000_000
"""About how many hashes are compared; of larger corpora, those that are small, which are the same in every text."""

Hashes: TypeAlias = NDArray[np.uint64]
_FACTOR = 0x9E3779B97F4A7C15 | 1
_INVERSE = pow(_FACTOR, -1, 2**64)
_BYTES: Hashes = np.random.default_rng(0).integers(0, 2**64, 256, np.uint64)


class Repeated(NamedTuple):
    """How much of each of ``D`` texts stands in texts before it."""

    share: NDArray[np.float64]
    """``[D]`` The part of its shingles."""
    source: NDArray[np.int64]
    """``[D]`` The earlier text that has most of these first; -1 where there is none."""


def repeated(texts: Sequence[str], earlier: int | None = None) -> Repeated:
    """How much of each text stands in those before it, or, of those from ``earlier`` on, in the first ``earlier``."""
    size = sum(map(len, texts))
    limit = np.uint64(min(2**64 - 1, 2**64 * KEPT // max(size, 1)))
    hashes, owners = [], []
    for number, text in enumerate(texts):
        found = shingles(text)
        if len(found) > 1:
            found = np.unique(found[found <= limit])
        hashes.append(found)
        owners.append(np.full(len(found), number))
    count = len(texts)
    if not count:
        return Repeated(np.zeros(0), np.zeros(0, np.int64))
    owner = np.concatenate(owners)
    _, first, which = np.unique(np.concatenate(hashes), return_index=True, return_inverse=True)
    before = owner[first[which]]  # the first text that has this shingle: hashes stand in the order of their texts
    bound = owner if earlier is None else np.minimum(owner, earlier)
    seen = before < bound
    share = np.bincount(owner[seen], minlength=count) / np.maximum(np.bincount(owner, minlength=count), 1)
    source = np.full(count, -1)
    pairs, votes = np.unique(owner[seen] * count + before[seen], return_counts=True)
    order = np.argsort(votes, kind="stable")
    source[pairs[order] // count] = pairs[order] % count  # the last one, which has most votes, stays
    return Repeated(share, source)


def distinct(documents: Sequence[Document], share: float = NEAR) -> list[Document]:
    """The documents without those of which ``share`` or more stands in longer ones, or that are there already.

    Do this before a split: then little of validation can stand in training."""
    longest = sorted(range(len(documents)), key=lambda place: -len(documents[place].text))
    found = repeated([documents[place].text for place in longest])
    known: set[str] = set()
    kept = []
    for place, part in zip(longest, found.share, strict=True):
        words = normal(documents[place].text)
        if part < share and words not in known:
            kept.append(place)
        known.add(words)
    return [documents[place] for place in sorted(kept)]


def distinct_n(texts: Sequence[str | Sequence[Hashable]], n: int) -> float:
    """The share of different ones among all n-grams of some texts, counted over all of them: 1 where nothing is said
    twice. A text is a string, whose words count, or its tokens. Not a number where no text has ``n`` of them.

    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", divide by the number of
    words in place of that of n-grams. Raises ConfigError for n below 1."""
    if n < 1:
        raise ConfigError(f"expected n of at least 1 for n-grams, got {n}")
    found: set[tuple[Hashable, ...]] = set()
    count = 0
    for text in texts:
        parts = text.split() if isinstance(text, str) else text
        grams = list(zip(*(parts[i:] for i in range(n)), strict=False))
        found.update(grams)
        count += len(grams)
    return len(found) / count if count else math.nan


def shingles(text: str) -> Hashes:
    """The hashes of a text's shingles, at every place; none of a text that is empty."""
    data = np.frombuffer(normal(text).encode("utf-8", "replace"), np.uint8)
    width = min(WIDTH, len(data))
    if not width:
        return np.zeros(0, np.uint64)
    # With B the bytes' numbers and F the factor, modulo 2^64: sum_j B[i + j] F^j = F^-i (S[i + width] - S[i]).
    powers = _powers(_FACTOR, len(data))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_BYTES[data] * powers, dtype=np.uint64)])
    rolled = (sums[width:] - sums[:-width]) * _powers(_INVERSE, len(data) - width + 1)
    return _mixed(rolled + np.uint64(width))


def normal(text: str) -> str:
    """A text as it is compared: in lower case, words one space apart."""
    return " ".join(text.casefold().split())


def _powers(base: int, count: int) -> Hashes:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _mixed(hashes: Hashes) -> Hashes:
    """Every bit depends on all of them (the finaliser of splitmix64), so that small hashes are a fair sample."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
