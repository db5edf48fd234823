"""Byte pairs against the algorithm written out: counted by hand, merged in order."""

import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchward.language.bpe import BPE, PairCoder
from torchward.language.tokenizer import TextTokenizer

CORPUS = ["low low low low low lower lower newest newest newest widest widest", "a newer lowest slow wide news"]


def words_of(text: str) -> list[bytes]:
    """Of lower-case letters and single spaces: each word with the space before it."""
    return [b"".join([b" "] * bool(place) + [word.encode()]) for place, word in enumerate(text.split(" "))]


def merged(parts: list[bytes], left: bytes, right: bytes) -> list[bytes]:
    done: list[bytes] = []
    for part in parts:
        if done and done[-1] == left and part == right:
            done[-1] = b"\0merged"  # not to be merged once more in this round
        else:
            done.append(part)
    return [left + right if part == b"\0merged" else part for part in done]


def coder(tokenizer: TextTokenizer) -> PairCoder:
    assert isinstance(tokenizer.coder, PairCoder)
    return tokenizer.coder


def merges(tokenizer: TextTokenizer) -> list[tuple[bytes, bytes]]:
    pairs = (merge.split(" ") for merge in coder(tokenizer).description()["merges"])
    return [(left.replace("Ġ", " ").encode(), right.replace("Ġ", " ").encode()) for left, right in pairs]


def test_each_merge_is_a_commonest_pair() -> None:
    tokenizer = BPE(256 + 6 + 12).build(CORPUS)
    words = [[bytes([byte]) for byte in word] for text in CORPUS for word in words_of(text)]
    learnt = merges(tokenizer)
    assert len(learnt) == 12
    for left, right in learnt:
        counts = Counter(pair for word in words for pair in pairwise(word))
        assert counts[left, right] == max(counts.values())
        words = [merged(word, left, right) for word in words]
    assert {left + right for left, right in learnt} == set(coder(tokenizer).words[256:])


@given(text=st.lists(st.text("lowernstid", min_size=1, max_size=12), min_size=1, max_size=5).map(" ".join))
def test_encoding_is_the_merges_in_order(text: str) -> None:
    tokenizer = TRAINED
    expected: list[bytes] = []
    for word in words_of(text):
        parts = [bytes([byte]) for byte in word]
        for left, right in merges(tokenizer):
            parts = merged(parts, left, right)
        expected += parts
    assert [tokenizer.bytes_of(token) for token in tokenizer.encode(text)] == expected


TRAINED = BPE(256 + 6 + 20).build(CORPUS)


def test_training_is_the_same_each_time() -> None:
    assert coder(BPE(282).build(CORPUS)).description() == coder(TRAINED).description()


def test_digits_stand_alone_where_asked() -> None:
    text = ["1234 1234 1234 1234"]
    alone, together = BPE(300).build(text), BPE(300, split_digits=False).build(text)
    assert [alone.bytes_of(token) for token in alone.encode("1234")] == [b"1", b"2", b"3", b"4"]
    assert len(together.encode("1234")) < 4


def test_a_small_corpus_gives_fewer_tokens() -> None:
    assert BPE(4000).build(["ab"]).vocab_size == 262


def test_without_the_library_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'torchward\[language\]'"):
        BPE(300).build(CORPUS)
