"""How varied texts are: counted by hand, and by enumeration of all n-grams."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchward.config import ConfigError
from torchward.language.shingles import distinct_n


@pytest.mark.parametrize(
    ("texts", "n", "share"),
    [
        (["a b a b"], 1, 2 / 4),
        (["a b a b"], 2, 2 / 3),
        (["a b a b"], 4, 1.0),
        (["a b", "a b"], 2, 1 / 2),
        (["a b", "b a"], 2, 1.0),  # no n-gram goes from one text to the next
        (["the  cat\nsat", "The cat"], 1, 4 / 5),
        ([[3, 3, 3]], 2, 1 / 2),
        ([(1, 2, 3), (2, 3), (4,)], 2, 2 / 3),
    ],
)
def test_by_hand(texts: list[str | list[int]], n: int, share: float) -> None:
    assert distinct_n(texts, n) == pytest.approx(share)


@given(st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=5), st.integers(1, 4))
def test_by_enumeration(texts: list[list[int]], n: int) -> None:
    grams = [text[i : i + n] for text in texts for i in range(len(text) - n + 1)]
    different = [gram for i, gram in enumerate(grams) if gram not in grams[:i]]
    found = distinct_n(texts, n)
    assert found == pytest.approx(len(different) / len(grams)) if grams else math.isnan(found)


def test_no_grams_of_nothing_are_asked_for() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        distinct_n(["a"], 0)
