"""Positions: identities of rotations and waves, and the buckets of T5 by hand."""

import math

import pytest
import torch

from torchward.nets.positions import Relative, buckets, rotary_table, rotate, sinusoids


def test_the_waves_by_hand() -> None:
    table = sinusoids(50, 6)
    torch.testing.assert_close(table[0], torch.tensor([0.0, 1.0] * 3))
    torch.testing.assert_close(table[7, :2], torch.tensor([math.sin(7.0), math.cos(7.0)]))
    torch.testing.assert_close(table[7, 4], torch.tensor(math.sin(7.0 / 10000 ** (4 / 6))))
    assert sinusoids(50, 7).shape == (50, 7)


def test_the_distance_of_two_waves_depends_on_their_shift_alone() -> None:
    table = sinusoids(60, 16)
    products = table @ table.T
    for shift in (0, 3, 17):
        torch.testing.assert_close(products.diagonal(shift), products[0, shift].expand(60 - shift), atol=1e-4, rtol=0)


def test_a_turned_product_depends_on_the_difference_of_positions_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 10, generator=generator)
    table = rotary_table(64, 10, 100.0)
    queries, keys = rotate(query.expand(64, 10), table), rotate(key.expand(64, 10), table)
    products = queries @ keys.T
    for shift in (-20, 0, 1, 33):
        line = products.diagonal(shift)
        torch.testing.assert_close(line, line[:1].expand(len(line)), atol=1e-4, rtol=0)
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(64))
    torch.testing.assert_close(queries[0], query)
    assert (products.diagonal(1)[0] - products[0, 0]).abs() > 0.01


def test_a_turn_by_hand() -> None:
    """Of a head of four dimensions, pair (0, 2) turns by the position, pair (1, 3) by a tenth of it."""
    turned = rotate(torch.tensor([1.0, 0.0, 0.0, 1.0]), rotary_table(4, 4, 100.0)[3])
    expected = [math.cos(3.0), -math.sin(0.3), math.sin(3.0), math.cos(0.3)]
    torch.testing.assert_close(turned, torch.tensor(expected))


def test_buckets_of_a_decoder_by_hand() -> None:
    """32 buckets: 0 to 15 alone, then 16 log(d / 16) / log(8) more; from 128 on all in the last."""
    distance = torch.tensor([5, 0, -1, -15, -16, -31, -32, -127, -128, -5000])
    assert buckets(distance, Relative(), causal=True).tolist() == [0, 0, 1, 15, 16, 21, 21, 31, 31, 31]


def test_buckets_of_an_encoder_know_both_sides() -> None:
    distance = torch.arange(-300, 301)
    found = buckets(distance, Relative(8, 20), causal=False)
    assert found.unique().tolist() == [0, 1, 2, 3, 5, 6, 7]  # no distance is 0 to the right: 4 stays empty
    assert torch.equal(found[301:], found[:300].flip(0) + 4)
    assert (found[:301].diff() <= 0).all()


@pytest.mark.parametrize("numbers", [(6, 20), (0, 20), (32, 16)])
def test_buckets_that_cannot_be_are_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"num_buckets={numbers[0]}"):
        Relative(*numbers)
