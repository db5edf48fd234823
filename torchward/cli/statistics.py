"""Few runs, honestly summed up: the interquartile mean and its stratified bootstrap interval (Agarwal et al. 2021)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Array = NDArray[Any]


class Interval(NamedTuple):
    """A statistic with the interval that its bootstrap distribution gives it."""

    value: float
    low: float
    high: float


def iqm(scores: Float[np.ndarray, "*lead n"]) -> Float[np.ndarray, "*lead"]:
    """The interquartile mean along the last axis: what is left of n sorted scores without floor(n / 4) at each end.

    Less moved by one bad seed than the mean, and a better estimate than the median (Agarwal et al. 2021, "Deep
    reinforcement learning at the edge of the statistical precipice", section 4.3). Of fewer than four it is the mean.
    Raises ValueError where there are none."""
    n = scores.shape[-1]
    if n == 0:
        raise ValueError("an interquartile mean needs at least one score")
    cut = n // 4
    return np.asarray(np.sort(scores, -1)[..., cut : n - cut].mean(-1))


def resamples(
    scores: Float[np.ndarray, "runs tasks *rest"], repetitions: int, seed: int = 0
) -> Float[np.ndarray, "repetitions runs tasks *rest"]:
    """Stratified bootstrap: in each repetition every task draws as many of its own runs, with replacement (section 4.1
    there). What lies along the further axes, a run's curve say, stays together."""
    runs, tasks = scores.shape[:2]
    drawn = np.random.default_rng(seed).integers(runs, size=(repetitions, runs, tasks))
    return scores[drawn, np.arange(tasks)]


def bootstrap(
    scores: Float[np.ndarray, "runs tasks"],
    statistic: Callable[[Any], Any] = iqm,
    confidence: float = 0.95,
    repetitions: int = 10_000,
    seed: int = 0,
) -> Interval:
    """`statistic` of all scores together, and its percentile interval from stratified bootstrap resamples.

    `statistic` works along the last axis. With a single run the interval is that run: it cannot say more."""
    drawn = resamples(scores, repetitions, seed).reshape(repetitions, -1)
    low, high = np.quantile(statistic(drawn), [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return Interval(float(statistic(scores.reshape(-1))), float(low), float(high))


def curve(
    curves: Float[np.ndarray, "runs points"], confidence: float = 0.95, repetitions: int = 1_000, seed: int = 0
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """The interquartile mean of several runs at each point of a common axis, and its bootstrap interval there."""
    drawn = resamples(curves[:, None, :], repetitions, seed)[:, :, 0]
    low, high = np.quantile(iqm(drawn.swapaxes(1, 2)), [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0], axis=0)
    return iqm(curves.T), low, high


def number(value: float) -> str:
    """A score for people: four significant digits, no exponent for what is not huge."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
        return f"{value:.{min(digits, 4)}f}"
    return f"{value:.3g}"
