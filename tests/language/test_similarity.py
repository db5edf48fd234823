"""BERTScore: by loops, by hand, over bodies that pad and do not, and as a reward."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from tests.language.models import GPT, model
from torchward.config import ConfigError
from torchward.language.similarity import (
    BodyEncoder,
    Embedded,
    Similarity,
    greedy_match,
    inverse_document_frequency,
)
from torchward.language.tokenizer import Characters
from torchward.nets.transformer import Transformer

LETTERS = Characters().build(["abcdef "])
TEXTS = ["a", "abc", "fed cab", "", "a b c", "abc abc abc"]


def cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def by_loops(one: list[Tensor], other: list[Tensor], weights: list[float], others: list[float]) -> tuple[float, ...]:
    """The paper's formulas, token by token."""
    if not one or not other:
        return 0.0, 0.0, 0.0
    p = sum(w * max(cosine(x, y) for y in other) for x, w in zip(one, weights, strict=True)) / sum(weights)
    r = sum(w * max(cosine(x, y) for x in one) for y, w in zip(other, others, strict=True)) / sum(others)
    return p, r, 2 / (1 / p + 1 / r) if min(p, r) > 0 else 0.0


def test_greedy_matching_is_what_loops_find() -> None:
    random = torch.Generator().manual_seed(0)
    ones, others = torch.randn(40, 5, 3, generator=random), torch.randn(40, 4, 3, generator=random)
    ones += 1.0  # mostly alike, as hidden states are, and some not
    one_lengths = torch.randint(0, 6, (40,), generator=random).tolist()
    other_lengths = torch.randint(0, 5, (40,), generator=random).tolist()
    weights, others_weights = torch.rand(40, 5, generator=random) + 0.1, torch.rand(40, 4, generator=random) + 0.1
    for i in range(40):
        weights[i, one_lengths[i] :] = -1.0
        others_weights[i, other_lengths[i] :] = -1.0
    found = greedy_match(ones, others, weights, others_weights)
    for i, (n, m) in enumerate(zip(one_lengths, other_lengths, strict=True)):
        told = by_loops(
            list(ones[i, :n]), list(others[i, :m]), weights[i, :n].tolist(), others_weights[i, :m].tolist()
        )  # fmt: skip
        got = (float(found.precision[i]), float(found.recall[i]), float(found.f1[i]))
        assert got == pytest.approx(told, abs=1e-5)


class Corners:
    """An embedding for each letter, made by hand: a and b are nearly the same, c is at a right angle to both."""

    VECTORS: ClassVar = {"a": (1.0, 0.0, 0.0), "b": (0.8, 0.6, 0.0), "c": (0.0, 0.0, 2.0)}

    def __call__(self, texts: Sequence[str]) -> Embedded:
        longest = max(map(len, texts))
        vectors, mask = torch.zeros(len(texts), longest, 3), torch.zeros(len(texts), longest, dtype=torch.bool)
        for i, text in enumerate(texts):
            for j, letter in enumerate(text):
                vectors[i, j], mask[i, j] = torch.tensor(self.VECTORS[letter]), True
        return Embedded(vectors, mask, [[ord(letter) for letter in text] for text in texts])


def earned(reward: Similarity, said: list[str], right: list[str | list[str]]) -> list[float]:
    return reward([""] * len(said), said, reference=right)


def test_by_hand() -> None:
    said: list[str] = ["a", "b", "c", "ac", ""]
    right: list[str | list[str]] = ["a"] * 5
    assert earned(Similarity(Corners()), said, right) == pytest.approx([1.0, 0.8, 0.0, 2 / 3, 0.0])
    assert earned(Similarity(Corners(), "precision"), said, right) == pytest.approx([1.0, 0.8, 0.0, 0.5, 0.0])
    assert earned(Similarity(Corners(), "recall"), said, right) == pytest.approx([1.0, 0.8, 0.0, 1.0, 0.0])
    assert earned(Similarity(Corners(), baseline=0.6), said, right) == pytest.approx([1.0, 0.5, -1.5, 1 / 6, -1.5])
    assert earned(Similarity(Corners()), ["b"], [["c", "a", "c"]]) == pytest.approx([0.8]), "the best reference"
    assert earned(Similarity(Corners()), ["a"] * 200, ["b"] * 200) == pytest.approx([0.8] * 200)


def test_rare_tokens_count_more() -> None:
    idf = inverse_document_frequency([[1, 2, 2], [1, 3], [1]])
    assert (
        idf[1] == 0.0 and idf[2] == idf[3] == pytest.approx(math.log(4 / 2)) and idf[-1] == pytest.approx(math.log(4))
    )
    rare_c = Similarity(Corners(), "precision", idf={ord("a"): 1.0, ord("c"): 3.0})
    assert earned(rare_c, ["ac"], ["a"]) == pytest.approx([1 / 4])
    assert earned(Similarity(Corners(), idf={-1: 2.0}), ["ac"], ["ac"]) == pytest.approx([1.0])
    assert earned(Similarity(Corners(), idf={}), ["a"], ["a"]) == [0.0], "nothing weighs anything"


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_body_reads_each_text_as_if_it_were_alone(kind: str) -> None:
    size = LETTERS.vocab_size
    if kind == "decoder":
        body: Transformer = model(GPT, vocab_size=size).body  # type: ignore[assignment]
    else:
        torch.manual_seed(0)
        body = Transformer(replace(GPT, vocab_size=size, kind="encoder", value_head=False)).eval()
    body.train()  # with it dropout, if it has some, which an encoder turns off
    for batch_size in (1, 2, 32):
        found = BodyEncoder(body, LETTERS, batch_size)(TEXTS)
        assert found.mask.sum(1).tolist() == [len(text) for text in TEXTS] and body.training
        for row, text in enumerate(TEXTS):
            if text:
                alone = body.eval()(torch.tensor([LETTERS.encode(text)]))[0]
                body.train()
                assert (found.vectors[row, : len(text)] - alone).abs().max() < 1e-5
            assert not found.vectors[row, len(text) :].any()


def test_as_a_reward_over_a_body() -> None:
    reward = Similarity(BodyEncoder(model(GPT, vocab_size=LETTERS.vocab_size).body, LETTERS))  # type: ignore[arg-type]
    same, other, empty, long = earned(reward, ["abc", "fed", "", "abc" * 50], ["abc"] * 4)
    assert earned(reward, ["a\ufffdbcX"], ["abc"]) == pytest.approx([1.0]), "what it does not know is not there"
    assert same == pytest.approx(1.0) and empty == 0.0 and other < 0.99 and long < 0.99


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="baseline within"):
        Similarity(Corners(), baseline=1.0)
    with pytest.raises(ConfigError, match="batch_size of at least 1, got 0"):
        BodyEncoder(model().body, LETTERS, 0)  # type: ignore[arg-type]
