"""Preferences as tokens: rows by brute force, places that are resumed, and a reference that stands still."""

from collections import Counter

import numpy as np
import pytest
import torch

from tests.language.models import WORDS, model
from torchward.config import ConfigError
from torchward.data.preferences import (
    Answers,
    Pairs,
    Rated,
    Shuffled,
    answer_log_probs,
    both,
    by_length,
    fitting,
    mismatched,
    only,
    pieces,
    rows_of,
)
from torchward.data.reference import Reference
from torchward.data.sequences import Sequences, TokenSequence
from torchward.nets.language_model import NONE
from torchward.nets.lora import LoRA, adapt

PAD = 12


def sequences(seed: int = 0, sizes: tuple[int, ...] = (4, 7, 3, 9, 5, 6)) -> Sequences:
    """Prompts of one or two tokens, then answers."""
    generator = np.random.default_rng(seed)
    made = []
    for size in sizes:
        asked = int(generator.integers(1, 3))
        made.append(TokenSequence(generator.integers(0, PAD, size).tolist(), [False] * asked + [True] * (size - asked)))
    return Sequences.of(made, WORDS)


def pairs() -> Pairs:
    return Pairs(sequences(0), sequences(1, (5, 3, 8, 4, 6, 7)), np.zeros(6, np.float32))


def test_rows_are_the_sequences_they_are_made_of() -> None:
    data, numbers = sequences(), np.array([3, 0, 2])
    rows = rows_of(data, numbers, PAD)
    assert rows.tokens.shape == rows.targets.shape == (3, 8)
    for row, number in enumerate(numbers.tolist()):
        ids, own = data[number]
        for t in range(8):
            real = t < len(ids) - 1
            assert rows.tokens[row, t] == (ids[t] if real else PAD)
            assert rows.targets[row, t] == (ids[t + 1] if real and own[t + 1] else NONE)
    assert rows.lengths.tolist() == [sum(data[int(n)].own) for n in numbers]


def test_both_answers_of_a_pair_stand_in_one_batch() -> None:
    rows = both(pairs(), np.array([1, 2]), PAD)
    for half, side in ((rows.tokens[:2], pairs().chosen), (rows.tokens[2:], pairs().rejected)):
        for row, number in zip(half.tolist(), (1, 2), strict=True):
            ids = list(side[number].ids[:-1])
            assert row == ids + [PAD] * (len(row) - len(ids))


def test_an_answer_is_as_likely_in_a_batch_as_alone() -> None:
    policy, data = model().requires_grad_(False), sequences()
    together = answer_log_probs(policy, rows_of(data, np.arange(6), PAD))
    for number in range(6):
        ids, own = data[number]
        logits = policy.body.logits(policy.body.forward(torch.tensor([ids[:-1]])))[0].log_softmax(1)
        alone = sum(float(logits[t - 1, ids[t]]) for t in range(1, len(ids)) if own[t])
        assert float(together[number]) == pytest.approx(alone, abs=1e-4)


def test_rows_are_computed_by_their_lengths_and_come_back_in_their_order() -> None:
    data = sequences(0, tuple(range(3, 23)))
    rows = rows_of(data, np.random.default_rng(0).permutation(20), PAD)
    seen = []

    def of(some: Answers) -> torch.Tensor:
        seen.append(some.tokens.shape)
        return some.targets.clamp_min(0).sum(1)

    assert torch.equal(by_length(rows, of), rows.targets.clamp_min(0).sum(1))
    assert [rows for rows, _ in seen] == [8, 8, 4] and [time for _, time in seen] == [21, 13, 5]


def test_a_mismatched_row_has_the_next_ones_answer() -> None:
    data, numbers = sequences(), np.array([4, 1, 0])
    rows = mismatched(data, numbers, PAD, longest=64)
    for row, (one, other) in enumerate(((4, 1), (1, 0), (0, 4))):
        prompt = [i for i, own in zip(*data[one], strict=True) if not own]
        answer = [i for i, own in zip(*data[other], strict=True) if own]
        ids = prompt + answer
        assert rows.tokens[row].tolist() == ids[:-1] + [PAD] * (rows.tokens.shape[1] - len(ids) + 1)
        assert [t for t in rows.targets[row].tolist() if t != NONE] == answer


def test_a_mismatched_row_is_cut_where_both_were_long() -> None:
    asks_much = TokenSequence(list(range(28)), [False] * 25 + [True] * 3)
    says_much = TokenSequence(list(range(28)), [False] * 3 + [True] * 25)
    rows = mismatched(Sequences.of([asks_much, says_much], 32), np.array([0, 1]), PAD, longest=28)
    assert rows.tokens.shape == (2, 27)
    assert rows.lengths.tolist() == [3.0, 3.0], "25 words to ask leave 3 to answer; the other answer has no more"


def test_other_labels_and_other_margins_are_other_data() -> None:
    data = sequences()
    good = np.arange(len(data)) % 2 == 0
    assert Rated(data, good).fingerprint == Rated(data, good.copy()).fingerprint != Rated(data, ~good).fingerprint
    even = np.zeros(len(data), np.float32)
    assert Pairs(data, data, even).fingerprint != Pairs(data, data, even + 1.0).fingerprint


def test_each_number_comes_once_an_epoch_and_a_place_is_resumed() -> None:
    cursor = Shuffled(10, 4, seed=3, fingerprint="x")
    drawn = np.concatenate([cursor.next() for _ in range(5)])
    assert Counter(drawn[:10].tolist()) == Counter(range(10)) == Counter(drawn[10:].tolist())
    assert drawn[:10].tolist() != drawn[10:].tolist() and cursor.epochs == 1.0 + 1.0
    half, again = Shuffled(10, 4, 3, "x"), Shuffled(10, 4, 3, "x")
    first = [half.next() for _ in range(2)]
    again.load_state_dict(half.state_dict())
    assert np.array_equal(np.concatenate([*first, *(again.next() for _ in range(3))]), drawn)
    with pytest.raises(ConfigError, match="got others"):
        Shuffled(10, 4, 3, "y").load_state_dict(half.state_dict())


def test_pieces_hold_each_once_the_longest_first() -> None:
    numbers, steps = np.array([5, 2, 0, 3]), np.array([3, 9, 1, 7, 9, 5])
    found = list(pieces(numbers, steps, 3))
    assert sorted(np.concatenate(found).tolist()) == [0, 1, 2, 3]
    assert [steps[numbers[i]] for part in found for i in part] == [7, 5, 3, 1]


def test_some_sequences_are_copied_whole() -> None:
    data = sequences()
    some = only(data, np.array([5, 1]))
    assert [some[0], some[1]] == [data[5], data[1]] and len(some) == 2


def test_what_is_too_long_is_told_or_left_out() -> None:
    with pytest.raises(ConfigError, match=r"at most max_length=7 tokens, got 2 of 6 .* the longest of 9: raise"):
        fitting(pairs(), 7, 100, skip=False)
    kept = fitting(pairs(), 7, 100, skip=True)
    assert len(kept) == 4 and int(kept.steps.max()) <= 6
    rated = Rated(sequences(), np.array([True, False] * 3))
    assert fitting(rated, 5, 100, skip=True).desirable.tolist() == [True, True, True]
    with pytest.raises(ConfigError, match="got none of 6"):
        fitting(rated, 2, 100, skip=True)


@pytest.mark.parametrize("max_length", [7, 100])
def test_what_the_model_cannot_read_is_told_as_such(max_length: int) -> None:
    with pytest.raises(ConfigError, match=r"at most 7 tokens, as many as the model reads, got 2 of 6 .* of 9: begin"):
        fitting(pairs(), max_length, 7, skip=False)
    assert len(fitting(pairs(), max_length, 7, skip=True)) == 4


@pytest.mark.parametrize("new", [False, True])
def test_a_reference_stands_still_while_the_policy_learns(new: bool) -> None:
    policy = adapt(model(), LoRA(r=2))
    for name, parameter in policy.named_parameters():
        if "lora_b" in name and not new:
            torch.nn.init.normal_(parameter)  # adapters that a policy came with: they are part of where it began
    answers = rows_of(sequences(), np.arange(6), PAD)
    before = answer_log_probs(policy, answers).detach()
    reference = Reference(policy, new_adapters=new)
    torch.testing.assert_close(reference.log_probs(answers), before)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora" in name:
                parameter.add_(0.5)
    assert float((answer_log_probs(policy, answers).detach() - before).abs().max()) > 1e-2
    torch.testing.assert_close(reference.log_probs(answers), before, atol=1e-4, rtol=1e-4)
    assert (reference.copy is None) is new
    if reference.copy is not None:  # what does not learn is there once
        shared = {id(p) for p in policy.parameters()} & {id(p) for p in reference.copy.parameters()}
        assert len(shared) == sum(not p.requires_grad for p in policy.parameters()) > 0
