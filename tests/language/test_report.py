"""The report: sizes counted by hand, copies and leaks planted and found, clean data left in peace."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchward.language.bpe import BPE
from torchward.language.documents import Completion, Document, TextError
from torchward.language.report import bits_per_byte, report
from torchward.language.shingles import WIDTH, distinct, normal, repeated, shingles
from torchward.language.tokenizer import Bytes, Characters

BYTES = Bytes().build([])
WORDS = ["".join(random.Random(number).choices("abcdefghijklmnopqrstuvwxyz", k=6)) for number in range(500)]


def essay(seed: int, words: int = 80) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def documents(*texts: str) -> list[Document]:
    return [Document(text, f"text {number}") for number, text in enumerate(texts)]


CLEAN = documents(*map(essay, range(20)))
HELD = [Document(essay(seed), f"held {seed}") for seed in range(100, 110)]


def test_clean_data_are_left_in_peace() -> None:
    found = report(CLEAN, HELD, BYTES)
    assert found.warnings == () and found.verdict() == "Nothing wrong was found."
    assert found.leakage is not None and found.leakage.exact == found.leakage.near == 0


def test_sizes_by_hand() -> None:
    found = report(documents("é" * 3, "ab", "abcd"), [], BYTES, max_length=3).train
    assert (found.documents, found.characters, found.bytes, found.tokens) == (3, 9, 12, 12)
    assert found.lengths == (2, 2, 4, 6, 6) and found.tokens_per_byte == 1.0 and found.long == 2


def test_copies_are_found() -> None:
    texts = [d.text for d in CLEAN]
    texts[3] = texts[1]
    texts[7] = texts[6].upper().replace(" ", "\n")  # a copy, but for case and white space
    texts[9] = texts[8][:300] + essay(77, 20)
    found = report(documents(*texts), [], BYTES)
    assert (found.train.exact, found.train.near) == (1, 2)
    assert "1 of 20 documents of training (5.0%) repeat earlier ones word for word, text 3 for one text 1" in str(found)
    assert "2 of 20 documents of training (10.0%) repeat earlier ones for half or more, text 7 for one text 6" in str(
        found
    )
    assert [d.origin for d in distinct(documents(*texts))] == [
        f"text {number}" for number in range(20) if number not in (3, 7, 9)
    ]


def test_leaks_are_found() -> None:
    held = list(HELD)
    held[2] = Document(CLEAN[5].text.replace(" ", "  "), "a leak")
    held[4] = Document(essay(55, 10) + CLEAN[6].text[100:400] + essay(56, 10), "half a leak")
    found = report(CLEAN, held, BYTES)
    assert found.leakage is not None and (found.leakage.exact, found.leakage.near) == (1, 1)
    assert "a leak for one in text 5" in str(found) and "half a leak for one in text 6" in str(found)
    assert found.train.exact == found.train.near == 0  # a leak is no copy within training
    kept = distinct([*CLEAN, *held])
    assert report([d for d in kept if d in CLEAN], [d for d in kept if d in held], BYTES).warnings == ()


def test_a_question_leaks_though_its_answer_differs() -> None:
    train = [Document(Completion(f"{a} + 1 =", str(a + 1)), f"sum {a}") for a in range(500)]
    held = [Document(Completion(f"{a} + 1 =", "?"), f"held {a}") for a in range(499, 700)]
    found = report(train, held, BYTES)
    assert found.leakage is not None and (found.leakage.exact, found.leakage.near) == (1, 0)
    assert "held 499 for one in sum 499" in found.verdict() and found.train.near == 0


def test_other_faults_in_words() -> None:
    odd = [*CLEAN, Document(" \n", "blank"), Document("caf\ufffd", "mangled")]
    said = str(report(odd, documents("few"), BYTES))
    assert "1 of 22 documents of training (4.5%) are empty, blank for one" in said
    assert "hold U+FFFD, as text does that was decoded wrongly, mangled for one" in said
    assert "validation has 3 tokens" in said
    foreign = BPE(600, min_frequency=1).build(["ÄÖÜ" + essay(1).upper()])
    said = str(report(CLEAN, [], foreign))
    assert "never occur in training" in said and "hardly shortens this text" in said
    said = str(report(CLEAN, [], Characters().build(["abc "])))
    assert "20 documents of training cannot be encoded, text 0 for one: expected one of the 4 characters" in said
    with pytest.raises(TextError, match="got none"):
        report([], HELD, BYTES)


def test_the_table() -> None:
    table = report(CLEAN, HELD, BYTES, max_length=64).table().splitlines()
    assert table[0].split() == ["training", "validation"] and table[1].split() == ["documents", "20", "10"]
    assert len({len(line) for line in table}) == 1
    assert "longer than 64 tokens" in table[11]


def by_hand(texts: list[str], earlier: int | None) -> list[Fraction]:
    """The share of each text's distinct pieces that stand in earlier texts, piece by piece."""
    pieces = []
    for text in texts:
        data = normal(text).encode()
        width = min(WIDTH, len(data))
        pieces.append({data[i : i + width] for i in range(len(data) - width + 1)} if data else set())
    shares = []
    for place, own in enumerate(pieces):
        known = set().union(*pieces[: place if earlier is None else min(place, earlier)])
        shares.append(Fraction(len(own & known), max(len(own), 1)))
    return shares


@given(
    texts=st.lists(st.lists(st.sampled_from([essay(i, 9) for i in range(4)]), max_size=4).map(" ".join), max_size=6),
    earlier=st.none() | st.integers(0, 6),
)
def test_shares_are_those_of_sets_of_pieces(texts: list[str], earlier: int | None) -> None:
    found = repeated(texts, earlier)
    assert found.share.tolist() == [float(share) for share in by_hand(texts, earlier)]
    assert ((found.source >= 0) == (found.share > 0)).all()


def test_equal_pieces_have_equal_hashes_wherever_they_stand() -> None:
    piece = essay(3)[:WIDTH]
    before, behind = shingles("x" * 7 + piece), shingles(piece + "y" * 1000)
    assert before[7] == behind[0] and len(before) == 8
    assert len(np.unique(np.concatenate([before, behind]))) == 7 + 1 + WIDTH  # those of y alone are all one
    assert len(shingles("")) == 0 and len(shingles("a b")) == 1 and shingles("a b") == shingles("A\n B")


def test_of_a_large_corpus_a_sample_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [essay(seed, 2000) for seed in range(4)]
    texts[2] = texts[0][:7000] + texts[2][7000:]
    exact = repeated(texts).share
    monkeypatch.setattr("torchward.language.shingles.KEPT", sum(map(len, texts)) // 10)
    sampled = repeated(texts).share
    assert 0.4 < exact[2] < 0.6 and exact[[0, 1, 3]].max() == sampled[[0, 1, 3]].max() == 0
    assert 0 < abs(sampled[2] - exact[2]) < 0.07  # 1,400 of 14,000: 5 standard deviations of 0.013


def test_bits_per_byte() -> None:
    """A uniform guess among 256 bytes is 8 bits each, whatever the tokens; end-of-text costs, and has no byte."""
    assert bits_per_byte(math.log(256), 1000, 1000) == pytest.approx(8)
    assert bits_per_byte(2 * math.log(256), 500, 1000) == pytest.approx(8)
    assert bits_per_byte(math.log(2), 11, 10) == pytest.approx(1.1)
    with pytest.raises(ValueError, match="above 0, got 0 and 1"):
        bits_per_byte(1.0, 0, 1)
