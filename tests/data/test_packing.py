"""Packing: every step once, documents whole again, rows of one length; and the cursor that walks through them."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchward.checkpoint import load_tree, save_tree
from torchward.config import ConfigError
from torchward.data.cursor import Cursor
from torchward.data.packing import Packing, Rows, Whole, Wrapped, gather, once, plan
from torchward.data.sequences import Sequences, TokenSequence

PAD, VOCAB = 99, 100
PACKINGS: list[Packing] = [Wrapped(), Whole()]
lengths = st.lists(st.integers(2, 9), min_size=1, max_size=12)


def sequences(sizes: list[int], seed: int = 0) -> Sequences:
    """Sequences of these lengths, each beginning with 0; the last token of each, and others at random, are learnt."""
    generator = np.random.default_rng(seed)
    made = []
    for size in sizes:
        ids = [0, *generator.integers(1, 90, size - 1).tolist()]
        made.append(TokenSequence(ids, [False, *(generator.random(size - 2) < 0.5).tolist(), True]))
    return Sequences.of(made, VOCAB)


def pieces(rows: Rows) -> list[tuple[list[int], list[bool]]]:
    """The sequences, or parts of such, that rows hold: told apart by segments alone, read as a model reads them."""
    found = []
    for row in range(len(rows.tokens)):
        for segment in range(int(rows.segments[row].max()) + 1):
            (where,) = torch.where(rows.segments[row] == segment)
            assert where.tolist() == list(range(int(where[0]), int(where[-1]) + 1))
            assert rows.positions[row, where].tolist() == list(range(len(where)))
            tokens, targets = rows.tokens[row, where].tolist(), rows.targets[row, where].tolist()
            assert tokens[1:] == targets[:-1]
            found.append(([tokens[0], *targets], [False, *rows.loss_mask[row, where].tolist()]))
    return found


def whole(data: Sequences) -> Counter[tuple[tuple[int, ...], tuple[bool, ...]]]:
    return Counter((tuple(data[i].ids), tuple(data[i].own)) for i in range(len(data)))


def joined(parts: list[tuple[list[int], list[bool]]]) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """Parts of sequences that were cut, in the order of the corpus, together again: 0 begins a sequence."""
    done: list[tuple[list[int], list[bool]]] = []
    for ids, own in parts:
        if ids[0] == 0:
            done.append((list(ids), list(own)))
        else:
            assert done[-1][0][-1] == ids[0]  # what was chosen last is seen first
            done[-1][0].extend(ids[1:])
            done[-1][1].extend(own[1:])
    return [(tuple(ids), tuple(own)) for ids, own in done]


def all_rows(data: Sequences, packing: Packing, seed: int | None, max_length: int = 8) -> Rows:
    made = plan(data, max_length, packing, None if seed is None else np.random.default_rng(seed))
    return gather(data, made, np.arange(len(made.rows) - 1), max_length, PAD)


@given(sizes=lengths, max_length=st.integers(1, 11))
def test_wrapped_rows_are_the_corpus(sizes: list[int], max_length: int) -> None:
    data = sequences(sizes)
    rows = all_rows(data, Wrapped(), None, max_length)
    assert joined(pieces(rows)) == [(tuple(data[i].ids), tuple(data[i].own)) for i in range(len(data))]
    assert len(rows.tokens) == -(-int(data.steps.sum()) // max_length)  # as few as can be


@given(sizes=lengths, seed=st.none() | st.integers(0, 3))
def test_whole_rows_hold_each_sequence_once(sizes: list[int], seed: int | None) -> None:
    data = sequences(sizes)
    rows = all_rows(data, Whole(), seed)
    assert Counter((tuple(ids), tuple(own)) for ids, own in pieces(rows)) == whole(data)


@given(sizes=lengths, seed=st.integers(0, 3), packing=st.sampled_from(PACKINGS))
def test_every_step_is_used_once_however_shuffled(sizes: list[int], seed: int, packing: Packing) -> None:
    data = sequences(sizes)
    rows = all_rows(data, packing, seed)
    real = rows.segments >= 0
    seen = Counter(zip(rows.tokens[real].tolist(), rows.targets[real].tolist(), strict=True))
    assert seen == Counter(
        step for i in range(len(data)) for step in zip(data[i].ids[:-1], data[i].ids[1:], strict=True)
    )
    assert int(rows.loss_mask.sum()) == data.learnt
    assert not rows.loss_mask[~real].any()
    assert (rows.tokens[~real] == PAD).all() and (rows.targets[~real] == PAD).all()


def test_best_fit_leaves_no_gap_that_could_be_filled() -> None:
    """Steps 7 5 4 3 3 2 in rows of 8: 7 | 5 3 | 4 3 with 2 over, by hand."""
    data = sequences([4, 3, 5, 8, 4, 6])
    made = plan(data, 8, Whole(), None)
    held = [sorted(made.length[a:b].tolist()) for a, b in zip(made.rows[:-1], made.rows[1:], strict=True)]
    assert held == [[7], [3, 5], [3, 4], [2]]


@pytest.mark.parametrize("packing", PACKINGS)
def test_reading_once_pads_the_last_batch(packing: Packing) -> None:
    data = sequences([3, 9, 4, 7, 2, 9, 8])
    batches = list(once(data, max_length=8, batch_size=3, pad_id=PAD, packing=packing))
    assert {tuple(batch.tokens.shape) for batch in batches} == {(3, 8)}
    assert sum(int(batch.loss_mask.sum()) for batch in batches) == data.learnt
    assert sum(int((batch.segments >= 0).sum()) for batch in batches) == int(data.steps.sum())


def cursor(packing: Packing, seed: int = 0, sizes: tuple[int, ...] = (3, 9, 4, 7, 2, 9, 8, 5), **more: bool) -> Cursor:
    data = sequences(list(sizes))
    return Cursor(data, max_length=8, batch_size=2, pad_id=PAD, packing=packing, seed=seed, **more)


def equal(one: Rows, other: Rows) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("before", [0, 1, 3, 8])
def test_the_cursor_resumes_bit_for_bit(
    packing: Packing, before: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    going = cursor(packing)
    for _ in range(before):
        going.next()
    directory = tmp_path_factory.mktemp("state")
    save_tree(directory, going.state_dict())
    json.dumps(going.state_dict())
    again = cursor(packing)
    again.load_state_dict(load_tree(directory))
    for _ in range(12):
        assert equal(going.next(), again.next())
    assert going.epochs == again.epochs > 1


@pytest.mark.parametrize("packing", PACKINGS)
def test_each_epoch_has_every_step_in_another_order(packing: Packing) -> None:
    walk = cursor(packing)
    walk.batch_size = 1
    epochs = []
    for epoch in range(3):
        rows = [walk.next() for _ in range(walk.rows)]
        assert walk.epochs == epoch + 1
        epochs.append([tuple(row.tokens.flatten().tolist()) for row in rows])
        assert sum(int(row.loss_mask.sum()) for row in rows) == walk.sequences.learnt
    assert len(set(map(tuple, epochs))) == 3
    still = cursor(packing, shuffle=False)
    assert equal(
        still.next(), next(iter(once(still.sequences, max_length=8, batch_size=2, pad_id=PAD, packing=packing)))
    )


def test_a_batch_may_hold_several_epochs() -> None:
    data = sequences([4, 5])
    walk = Cursor(data, max_length=16, batch_size=5, pad_id=PAD)
    batch = walk.next()
    assert walk.rows == 1 and walk.epochs == 5
    assert int(batch.loss_mask.sum()) == 5 * data.learnt


def test_seeds_differ() -> None:
    one, two = cursor(Wrapped(), seed=0), cursor(Wrapped(), seed=1)
    assert not all(equal(one.next(), two.next()) for _ in range(4))


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (cursor(Wrapped(), sizes=(3, 9, 4, 7, 2, 9, 8, 6)), "text"),
        (cursor(Whole()), "packing"),
        (cursor(Wrapped(), seed=1), "seed"),
        (cursor(Wrapped(), shuffle=False), "shuffle"),
    ],
)
def test_another_corpus_or_setting_does_not_resume(other: Cursor, name: str) -> None:
    with pytest.raises(ConfigError, match=f"expected {name} of the data"):
        other.load_state_dict(cursor(Wrapped()).state_dict())


@pytest.mark.parametrize(
    ("ids", "own", "sentence"),
    [
        ([1], [False], "at least 2 tokens"),
        ([1, 2], [False], "as many in its mask"),
        ([1, 100], [False, True], "from 0 to 99"),
        ([1, 2], [True, True], "begins with True"),
        ([1, 2], [False, False], "False throughout"),
    ],
)
def test_sequences_that_cannot_be_learnt_from(ids: list[int], own: list[bool], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Sequences.of([TokenSequence(ids, own)], VOCAB)


def test_every_part_of_a_corpus_is_in_its_fingerprint() -> None:
    base = TokenSequence([1, 2, 3], [False, True, True])
    data = [[base], [base._replace(ids=[1, 2, 4])], [base._replace(own=[False, False, True])], [base, base]]
    prints = [Sequences.of(each, VOCAB).fingerprint for each in data]
    assert len(set(prints)) == 4 and Sequences.of([base], VOCAB).fingerprint == prints[0]


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="got none"):
        Sequences.of([], VOCAB)
    with pytest.raises(ConfigError, match="at most 5 tokens, the length of a row and one, got sequence 1 of 9"):
        plan(sequences([3, 9]), 4, Whole(), None)
    with pytest.raises(ConfigError, match="max_length"):
        plan(sequences([3]), 0, Wrapped(), None)
    with pytest.raises(ConfigError, match="batch_size"):
        Cursor(sequences([3]), max_length=4, batch_size=0, pad_id=PAD)


def test_large_vocabularies_keep_their_tokens() -> None:
    data = Sequences.of([TokenSequence([70_000, 1], [False, True])], 100_000)
    assert data[0].ids == [70_000, 1] and data.tokens.dtype == np.int32
    assert sequences([3]).tokens.dtype == np.uint16
