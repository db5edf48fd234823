"""Interquartile mean and bootstrap, against exact small cases and full enumeration."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from torchward.cli.statistics import bootstrap, curve, iqm, number, resamples


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 4.0], 2.5),
        ([1.0, 2.0, 6.0], 3.0),  # fewer than four: the mean
        ([9.0, 1.0, 3.0, -80.0], 2.0),  # the middle two
        ([1e9, 1.0, 2.0, 3.0, -1e9], 2.0),  # the middle three
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 60.0], 4.5),  # the middle four
    ],
)
def test_iqm_of_a_few(scores: list[float], expected: float) -> None:
    assert iqm(np.array(scores)) == expected


def test_iqm_is_that_of_each_row_and_moves_with_the_scores() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 4, 11))
    assert iqm(scores).shape == (3, 4)
    np.testing.assert_allclose(iqm(scores)[1, 2], iqm(scores[1, 2]))
    np.testing.assert_allclose(iqm(scores[..., ::-1]), iqm(scores))
    np.testing.assert_allclose(iqm(3.0 * scores - 5.0), 3.0 * iqm(scores) - 5.0)
    with pytest.raises(ValueError, match="at least one"):
        iqm(np.empty(0))


def test_bootstrap_draws_each_resample_with_its_exact_probability() -> None:
    scores = np.array([1.0, 2.0, 4.0])  # all 27 resamples have a mean that tells which values were drawn
    exact = Counter(round(sum(drawn) / 3, 9) for drawn in itertools.product(scores, repeat=3))
    repetitions = 20_000
    drawn = Counter(np.round(iqm(resamples(scores[:, None], repetitions)[:, :, 0]), 9).tolist())
    assert set(drawn) == set(exact)
    for value, ways in exact.items():
        probability = ways / 27
        error = math.sqrt(probability * (1 - probability) / repetitions)
        assert abs(drawn[value] / repetitions - probability) < 4.5 * error


def test_interval_is_that_of_the_enumerated_distribution() -> None:
    scores = np.array([1.0, 2.0, 4.0, 9.0])
    everything = iqm(np.array(list(itertools.product(scores, repeat=4))))
    value, low, high = bootstrap(scores[:, None], repetitions=40_000)
    assert value == 3.0
    # 95 % exactly would fall between two atoms of the distribution: between 94 % and 96 % of it must the ends lie.
    assert np.quantile(everything, 0.02) <= low <= np.quantile(everything, 0.03)
    assert np.quantile(everything, 0.97) <= high <= np.quantile(everything, 0.98)


def test_resamples_stay_within_their_task() -> None:
    scores = np.arange(5.0)[:, None] + np.array([0.0, 100.0, 200.0])
    drawn = resamples(scores, 50)
    assert drawn.shape == (50, 5, 3)
    assert ((drawn // 100) == np.array([0.0, 1.0, 2.0])).all()
    assert not np.array_equal(drawn[..., 0] % 100, drawn[..., 1] % 100)  # each task draws for itself


def test_equal_scores_have_no_width_and_a_seed_repeats() -> None:
    assert bootstrap(np.full((6, 2), 3.0)) == (3.0, 3.0, 3.0)
    scores = np.random.default_rng(1).normal(size=(6, 1))
    assert bootstrap(scores) == bootstrap(scores)
    value, low, high = bootstrap(scores)
    assert low < value < high


def test_intervals_cover_what_they_should() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        _, low, high = bootstrap(random.normal(size=(20, 1)), repetitions=400, seed=seed)
        covered += low <= 0.0 <= high
    assert 0.86 < covered / 200 < 0.99  # percentile intervals of 20 runs are a little narrow


def test_a_curve_is_the_iqm_at_each_point() -> None:
    curves = np.random.default_rng(3).normal(size=(5, 7))
    middle, low, high = curve(curves)
    np.testing.assert_allclose(middle, [iqm(curves[:, i]) for i in range(7)])
    assert (low <= middle).all() and (middle <= high).all()
    one = curve(curves[:1])
    np.testing.assert_array_equal(np.stack(one), np.repeat(curves[:1], 3, 0))


@pytest.mark.parametrize(
    ("value", "text"),
    [(500.0, "500.0"), (-123.456, "-123.5"), (0.0, "0"), (0.12345, "0.1235"), (12345.6, "12346"), (2.5e7, "2.5e+07")],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert number(value) == text
