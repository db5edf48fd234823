"""Schedules of a learning rate: where they begin, turn and end, which way they go, and what they refuse."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchward.functional.schedules import warmup_constant, warmup_cosine, warmup_linear

share = st.floats(0.0, 1.0)
Falling = Callable[[float, float, float], float]
falling = pytest.mark.parametrize("schedule", [warmup_cosine, warmup_linear])


@falling
def test_where_it_begins_turns_and_ends(schedule: Falling) -> None:
    for warmup in (0.25, 0.5, 1.0):
        assert schedule(0.0, warmup, 0.1) == 0.0
        assert schedule(0.5 * warmup, warmup, 0.1) == 0.5
        assert schedule(warmup, warmup, 0.1) == 1.0, "also where all of the run is warm-up"
    assert schedule(0.0, 0.0, 0.1) == 1.0
    assert schedule(0.6, 0.2, 0.1) == pytest.approx(0.55), "half way down"
    for over in (1.0, 1.3):
        assert schedule(over, 0.2, 0.1) == pytest.approx(0.1), "and no further, where the last step goes too far"


def test_half_a_cosine_is_none_of_a_line() -> None:
    assert warmup_cosine(0.25, 0.0) == pytest.approx((1.0 + math.sqrt(0.5)) / 2.0)
    assert warmup_linear(0.25, 0.0) == 0.75


@falling
@given(first=share, second=share, warmup=share, final=share)
def test_up_and_then_down(schedule: Falling, first: float, second: float, warmup: float, final: float) -> None:
    first, second = sorted((first, second))
    one, other = schedule(first, warmup, final), schedule(second, warmup, final)
    assert 0.0 <= one <= 1.0
    if second < warmup:
        assert one <= other
    elif first >= warmup:
        assert one >= other - 1e-12 and other >= final - 1e-12


@given(progress=share, warmup=share)
def test_a_constant_goes_up_as_all_do_and_stays(progress: float, warmup: float) -> None:
    expected = warmup_linear(progress, warmup, 1.0)
    assert warmup_constant(progress, warmup) == pytest.approx(expected)
    assert progress < warmup or warmup_constant(progress, warmup) == 1.0


@pytest.mark.parametrize(("warmup", "final"), [(-0.1, 0.0), (1.5, 0.0), (math.nan, 0.0), (0.1, -0.1), (0.1, 2.0)])
def test_shares_are_shares(warmup: float, final: float) -> None:
    for schedule in (warmup_cosine, warmup_linear):
        with pytest.raises(ValueError, match=r"within \[0, 1\], got"):
            schedule(0.5, warmup, final)
    if final == 0.0:
        with pytest.raises(ValueError, match=r"within \[0, 1\], got"):
            warmup_constant(0.5, warmup)
