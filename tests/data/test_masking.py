"""Masking: how much is masked and by what, what never is; and batches of texts with labels."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator

from torchward.config import ConfigError
from torchward.data.labelled import Shuffled, in_order
from torchward.data.masking import Masking
from torchward.data.packing import Rows, once
from torchward.data.sequences import Sequences, TokenSequence

WORDS, START, END, PAD, MASK = 50, 50, 51, 52, 53
"""Tokens below WORDS stand for text."""
ORDINARY = torch.arange(54) < WORDS
BERT = Masking(MASK, ORDINARY)


def rows(count: int = 60, batch: int = 40) -> list[Rows]:
    """Of texts of up to 60 words, all of whose tokens are seen."""
    random = np.random.default_rng(0)
    made = [[START, *random.integers(0, WORDS, random.integers(1, 60)).tolist(), END] for _ in range(count)]
    every = Sequences.of((TokenSequence(ids, [False, *[True] * (len(ids) - 1)]) for ids in made), 54).closed(PAD)
    return list(once(every, max_length=64, batch_size=batch, pad_id=PAD))


def within(count: int, of: int, share: float) -> bool:
    """Whether a binomial count lies within five standard deviations."""
    return abs(count - of * share) < 5.0 * math.sqrt(of * share * (1.0 - share))


def test_masks_are_drawn_as_bert_draws_them() -> None:
    generator, (whole,) = Generator().manual_seed(0), rows(300, 300)
    words = kept = by_mask = by_word = masked = 0
    for _ in range(5):
        made = BERT(whole, generator)
        chosen, was = made.loss_mask, whole.tokens
        words += int(ORDINARY[was].sum())
        masked += int(chosen.sum())
        by_mask += int((made.tokens == MASK).sum())
        kept += int((chosen & (made.tokens == was)).sum())
        by_word += int((chosen & (made.tokens != was) & (made.tokens != MASK)).sum())
        assert torch.equal(made.targets, was)
        assert torch.equal(made.tokens[~chosen], was[~chosen])
        assert ORDINARY[made.tokens[chosen & (made.tokens != MASK)]].all()
    assert words > 30_000 and within(masked, words, 0.15)
    assert within(by_mask, masked, 0.8)
    assert within(by_word, masked, 0.1 * (1 - 1 / WORDS)) and within(kept, masked, 0.1 + 0.1 / WORDS)


def test_what_stands_for_no_text_is_never_masked() -> None:
    every = rows()
    assert (every[-1].tokens == PAD).any() and all((each.tokens == START).any() for each in every)
    for each in every:
        made = replace(BERT, mlm_probability=1.0)(each, Generator().manual_seed(1))
        assert torch.equal(made.loss_mask, ORDINARY[each.tokens])
        assert torch.equal(made.segments, each.segments) and torch.equal(made.positions, each.positions)


def test_one_token_at_least_is_to_be_guessed() -> None:
    few = replace(BERT, mlm_probability=1e-9)
    every = rows(5, 1)
    masked = [few(each, Generator().manual_seed(1)).loss_mask for each in every]
    assert [int(each.sum()) for each in masked] == [int(ORDINARY[each.tokens].any()) for each in every]
    special = rows(1, 1)[0]
    none = replace(special, tokens=torch.full_like(special.tokens, START))
    assert not few(none, Generator().manual_seed(1)).loss_mask.any()


def test_masks_are_drawn_anew_and_follow_from_their_generator() -> None:
    (whole,) = rows(60, 60)
    generator, same = Generator().manual_seed(2), Generator().manual_seed(2)
    first, second = BERT(whole, generator), BERT(whole, generator)
    assert not torch.equal(first.loss_mask, second.loss_mask)
    assert torch.equal(first.tokens, BERT(whole, same).tokens)


@pytest.mark.parametrize(
    "shares",
    [{"mlm_probability": 0.0}, {"mlm_probability": 1.1}, {"mask_replace_prob": 0.95}, {"random_replace_prob": -1.0}],
)
def test_shares_that_cannot_be_are_refused(shares: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(shares))):
        replace(BERT, **shares)
    with pytest.raises(ConfigError, match="special ones alone"):
        replace(BERT, ordinary=torch.zeros(54, dtype=torch.bool))


def test_closed_sequences_show_all_of_their_tokens() -> None:
    made = [TokenSequence([START, 1, 2, END], [False, True, True, True]), TokenSequence([START, 7], [False, True])]
    closed = Sequences.of(made, 54).closed(PAD)
    (row,) = once(closed, max_length=8, batch_size=1, pad_id=PAD)
    assert row.tokens.tolist() == [[START, 1, 2, END, START, 7, PAD, PAD]]
    assert row.segments.tolist() == [[0, 0, 0, 0, 1, 1, -1, -1]]
    assert [closed[i] for i in range(2)] == [TokenSequence([*o.ids, PAD], [*o.own, False]) for o in made]


def texts() -> tuple[Sequences, "np.ndarray[tuple[int], np.dtype[np.int64]]"]:
    """Text ``i`` is ``i`` and its double, some of them longer, with the label ``i``."""
    made = [[START, i, 2 * i, *[END] * (i % 3)] for i in range(11)]
    return Sequences.of((TokenSequence(ids, [False, *[True] * (len(ids) - 1)]) for ids in made), 54), np.arange(11)


def test_batches_hold_each_text_with_its_label_once_an_epoch() -> None:
    sequences, labels = texts()
    cursor = Shuffled(sequences, labels, batch_size=4, pad_id=PAD, seed=3)
    seen: list[int] = []
    for _ in range(11):
        batch = cursor.next()
        assert batch.tokens[:, 1].equal(batch.label) and batch.tokens[:, 2].equal(2 * batch.label)
        assert batch.mask.sum(1).equal(3 + batch.label % 3) and (batch.tokens[~batch.mask] == PAD).all()
        seen += batch.label.tolist()
    assert cursor.epochs == 4.0
    epochs = [seen[i : i + 11] for i in range(0, 44, 11)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs) and len(set(map(tuple, epochs))) == 4
    every = list(in_order(sequences, labels, batch_size=4, pad_id=PAD))
    assert [batch.label.tolist() for batch in every] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_a_place_among_texts_is_resumed_and_other_texts_are_refused() -> None:
    sequences, labels = texts()
    whole, half = (Shuffled(sequences, labels, batch_size=4, pad_id=PAD, seed=3) for _ in range(2))
    for _ in range(4):
        whole.next()
    half.load_state_dict(whole.state_dict())
    assert [half.next().label.tolist() for _ in range(3)] == [whole.next().label.tolist() for _ in range(3)]
    with pytest.raises(ConfigError, match="labels of the data"):
        Shuffled(sequences, labels[::-1].copy(), batch_size=4, pad_id=PAD, seed=3).load_state_dict(whole.state_dict())
    with pytest.raises(ConfigError, match="a label for each text"):
        Shuffled(sequences, labels[:5], batch_size=4, pad_id=PAD)
