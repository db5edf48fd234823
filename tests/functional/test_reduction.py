"""Means that do not change under any split, padding, packing or order, and that masked entries never enter."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.functional.compare import assert_exact
from torchward.functional.reduction import constant_mean, masked_mean, masked_sum, sequence_mean, token_mean

LENGTH = 16


class Normalisation(NamedTuple):
    """A mean whose count is given from outside, and how the whole batch is counted."""

    mean: Callable[[Tensor, Tensor, int], Tensor]
    count: Callable[[Tensor], int]


NORMALISATIONS = {
    "token": Normalisation(lambda x, m, n: token_mean(x, m, total=n), lambda m: int(m.sum())),
    "sequence": Normalisation(lambda x, m, n: sequence_mean(x, m, sequences=n), lambda m: int(m.any(1).sum())),
    "constant": Normalisation(lambda x, m, n: constant_mean(x, m, LENGTH, sequences=n), len),
}
each = pytest.mark.parametrize("normalisation", NORMALISATIONS.values(), ids=NORMALISATIONS.keys())


def ragged(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Twelve sequences of one to eleven tokens, each after a prompt that is not learnt from."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 11, generator=generator, dtype=torch.float64)
    length = torch.randint(1, 12, (12, 1), generator=generator)
    mask = torch.arange(11) < length
    mask[:, 0] &= length[:, 0] < 2
    return x, mask


def value_and_gradient(loss: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, x)[0]


@each
@pytest.mark.parametrize("sizes", [[12], [6, 6], [1, 7, 4], [1] * 12, [0, 12]])
def test_micro_batches_add_up_to_the_whole(normalisation: Normalisation, sizes: list[int]) -> None:
    """Also the workers of a distributed run: each adds its share, with the count of all."""
    x, mask = ragged()
    x.requires_grad_()
    count = normalisation.count(mask)
    whole = value_and_gradient(normalisation.mean(x, mask, count), x)
    parts = [normalisation.mean(a, m, count) for a, m in zip(x.split(sizes), mask.split(sizes), strict=True)]
    for part, expected in zip(value_and_gradient(torch.stack(parts).sum(), x), whole, strict=True):
        assert_exact(part, expected)


@each
def test_padding_and_order_change_nothing(normalisation: Normalisation) -> None:
    x, mask = ragged()
    count = normalisation.count(mask)
    loss = normalisation.mean(x, mask, count)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert_exact(normalisation.mean(x[order], mask[order], count), loss)
    wide, wide_mask = torch.full((15, 20), torch.nan, dtype=torch.float64), torch.zeros(15, 20, dtype=torch.bool)
    wide[2:14, 5:16], wide_mask[2:14, 5:16] = x, mask
    assert_exact(normalisation.mean(wide, wide_mask, count), loss)


def test_default_counts_are_those_of_the_batch() -> None:
    x, mask = ragged()
    assert_exact(token_mean(x, mask), x[mask].mean())
    assert_exact(masked_mean(x, mask), x[mask].mean())
    own = torch.stack([row[valid].mean() for row, valid in zip(x, mask, strict=True)])
    assert_exact(sequence_mean(x, mask), own.mean())
    assert_exact(constant_mean(x, mask, LENGTH), x[mask].sum() / (12 * LENGTH))
    # A row of padding is no sequence, but constant_mean divides by the rows that it was given.
    padded, padded_mask = torch.cat((x, x[:1])), torch.cat((mask, torch.zeros_like(mask[:1])))
    assert_exact(token_mean(padded, padded_mask), token_mean(x, mask))
    assert_exact(sequence_mean(padded, padded_mask), sequence_mean(x, mask))
    assert_exact(constant_mean(padded, padded_mask, LENGTH), constant_mean(x, mask, LENGTH) * 12 / 13)


def test_packing_two_sequences_into_a_row_changes_nothing() -> None:
    x, mask = ragged()
    packed, packed_mask = x.reshape(6, 22), mask.reshape(6, 22)
    assert_exact(token_mean(packed, packed_mask), token_mean(x, mask))
    assert_exact(constant_mean(packed, packed_mask, LENGTH, sequences=12), constant_mean(x, mask, LENGTH))


def test_what_a_token_weighs() -> None:
    """Two sequences of one and three tokens: the three normalisations differ in the weights, and only in them."""
    x = torch.zeros(2, 3, requires_grad=True)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    for loss, weights in [
        (token_mean(x, mask), [[1 / 4, 0, 0], [1 / 4, 1 / 4, 1 / 4]]),
        (sequence_mean(x, mask), [[1 / 2, 0, 0], [1 / 6, 1 / 6, 1 / 6]]),
        (constant_mean(x, mask, length=5), [[1 / 10, 0, 0], [1 / 10, 1 / 10, 1 / 10]]),
    ]:
        assert_close(torch.autograd.grad(loss, x)[0], torch.tensor(weights))


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_masked_entries_never_enter_value_or_gradient(poison: float) -> None:
    x, mask = ragged()
    mask[3] = False
    clean = x.clone().requires_grad_()
    poisoned = torch.where(mask, x, poison).requires_grad_()
    for mean in (
        masked_sum,
        masked_mean,
        token_mean,
        sequence_mean,
        lambda x, m: constant_mean(x, m, LENGTH),
    ):
        expected, result = value_and_gradient(mean(clean, mask), clean), mean(poisoned, mask)
        value, gradient = value_and_gradient(result, poisoned)
        assert torch.equal(value, expected[0])
        assert torch.equal(gradient, expected[1])
        assert torch.equal(gradient[~mask], torch.zeros_like(gradient[~mask]))


def test_totals_may_be_numbers_or_tensors_and_any_shape_has_a_mean() -> None:
    x, mask = torch.arange(8.0).reshape(2, 2, 2), torch.ones(2, 2, 2, dtype=torch.bool)
    for total in (16, 16.0, torch.tensor(16), torch.tensor(16.0)):
        assert masked_mean(x, mask, total).item() == 1.75
    assert masked_mean(x[0, 0], mask[0, 0]).item() == 0.5
    x, mask = ragged()
    for count in (24, torch.tensor(24)):
        assert_exact(sequence_mean(x, mask, count), sequence_mean(x, mask) / 2)
        assert_exact(constant_mean(x, mask, LENGTH, count), constant_mean(x, mask, LENGTH) / 2)


def test_an_empty_micro_batch_adds_nothing() -> None:
    x, mask = torch.full((2, 3), torch.nan), torch.zeros(2, 3, dtype=torch.bool)
    losses = (token_mean(x, mask, 5), sequence_mean(x, mask, 5), constant_mean(x, mask, LENGTH, 5))
    assert [loss.item() for loss in losses] == [0.0, 0.0, 0.0]


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_get_one_clear_sentence() -> None:
    x, nothing = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    for mean in (masked_mean, token_mean):
        with pytest.raises(ValueError, match="no valid entry"):
            mean(x, nothing)
        with pytest.raises(ValueError, match="total must be above 0"):
            mean(x, ~nothing, 0)
        with pytest.raises(ValueError, match=r"x \[2, 3\], mask \[3\]"):
            mean(x, nothing[0])
    with pytest.raises(ValueError, match="no valid sequence"):
        sequence_mean(x, nothing)
    with pytest.raises(ValueError, match="sequences must be above 0"):
        sequence_mean(x, ~nothing, 0)
    with pytest.raises(ValueError, match="length must be above 0"):
        constant_mean(x, ~nothing, 0)
    with pytest.raises(ValueError, match="sequences must be above 0"):
        constant_mean(x[:0], nothing[:0], 4)
