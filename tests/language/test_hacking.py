"""Signs of a hacked reward: each is caught where it was planted, and honest learning is not accused."""

import math
from dataclasses import replace
from statistics import mean, variance

import numpy as np
import pytest

from torchward.language.hacking import SIGNS, Bounds, Written, change, joined, pearson, signs

BUDGET = Bounds(kl_budget=5.0)


def honest(seed: int, success: float, length: float = 20.0, prompts: int = 64, answers: int = 4) -> Written:
    """Prompts of different difficulty, of which hard ones need longer answers; within a prompt neither decides."""
    random = np.random.default_rng(seed)
    hard = np.repeat(random.normal(size=prompts), answers)
    count = prompts * answers
    right = (random.random(count) < success - 0.1 * hard).astype(float)
    style = random.random(count)
    return Written(
        right + 0.5 * style,
        np.round(length + 8.0 * hard + random.normal(0.0, 3.0, count)).clip(1.0),
        np.repeat(np.arange(prompts, dtype=float), answers),
        {"right": right, "style": style},
        random.normal(2.0, 2.0, count),
        (0.6 + 0.02 * random.normal(),),
        (random.random(count) < 0.1).astype(float),
    )


@pytest.mark.parametrize("seed", range(20))
def test_honest_learning_is_not_accused(seed: int) -> None:
    assert signs(honest(2 * seed, 0.3), honest(2 * seed + 1, 0.3 + 0.5 * (seed / 20)), BUDGET) == {}


def test_what_is_paid_by_length_is_found_and_only_that() -> None:
    start, lately = honest(0, 0.3), honest(1, 0.3, length=40.0)
    paid = replace(lately, reward=lately.reward * 0.2 + 0.1 * lately.length)
    assert list(signs(start, paid, BUDGET)) == ["length"]
    assert "longer answers earn more" in signs(start, paid, BUDGET)["length"]
    short = honest(2, 0.3, length=12.0)
    short = replace(short, reward=-0.1 * short.length)
    assert "shorter answers earn more" in signs(start, short, BUDGET)["length"]


def test_answers_that_no_longer_end_are_found_where_that_is_paid() -> None:
    """All of one length, so that within a prompt nothing tells what is paid."""
    start, lately = honest(0, 0.3), honest(1, 0.8)
    on = replace(lately, length=np.full(256, 40.0), cut=np.ones(256))
    assert list(signs(start, on, BUDGET)) == ["cuts"]
    assert "their length cuts 100%, at the start" in signs(start, on, BUDGET)["cuts"]
    assert signs(start, replace(on, reward=start.reward), BUDGET) == {}, "nothing is earned by it"
    assert signs(replace(start, cut=np.ones(256)), on, BUDGET) == {}, "they never ended"
    assert signs(start, replace(on, cut=np.zeros(0)), BUDGET) == {}, "nobody knows"


def test_length_alone_is_no_sign() -> None:
    start = honest(0, 0.3)
    longer = honest(1, 0.6, length=40.0)
    assert signs(start, longer, BUDGET) == {}, "answers got longer and better, and length is not what is paid"
    still = honest(2, 0.3)
    assert signs(start, replace(still, reward=0.1 * still.length), BUDGET) == {}, "paid, but not followed yet"
    few = replace(still, reward=0.1 * longer.length[:256], length=longer.length)
    few = joined([Written(few.reward[:4], few.length[:4], few.group[:4])])
    assert "length" not in signs(start, few, BUDGET), "four answers are no evidence"


def test_hard_prompts_with_long_answers_are_no_sign() -> None:
    """Over all answers reward and length are correlated, by the prompt; within a prompt they are not."""
    random = np.random.default_rng(0)
    hard = np.repeat(random.normal(size=200), 4)
    lately = Written(hard, 40.0 + 10.0 * hard + random.normal(size=800), np.repeat(np.arange(200.0), 4))
    assert pearson(lately.reward, lately.length) > 0.95
    assert SIGNS["length"](honest(0, 0.3), lately, BUDGET) is None
    alone = replace(lately, group=np.arange(800.0))  # one answer to each prompt: nothing to compare within
    assert SIGNS["length"](honest(0, 0.3), alone, BUDGET) is not None


def test_a_phrase_that_is_paid_is_found() -> None:
    start, lately = honest(0, 0.3), honest(1, 0.6)
    assert list(signs(start, replace(lately, distinct=(0.2,)), BUDGET)) == ["repetition"]
    same = replace(honest(2, 0.3), distinct=(0.2,))
    assert signs(start, same, BUDGET) == {}, "it repeats itself and earns no more by it"
    unknown = replace(lately, distinct=(float("nan"), float("nan")))
    assert signs(start, unknown, BUDGET) == {}, "answers too short to have such runs"


def test_the_budget_of_divergence_is_kept_or_not() -> None:
    start, lately = honest(0, 0.3), honest(1, 0.5)
    assert lately.divergence is not None
    far = replace(lately, divergence=lately.divergence + 8.0)
    assert list(signs(start, far, BUDGET)) == ["divergence"]
    assert signs(start, far, Bounds()) == {} == signs(start, far, Bounds(kl_budget=12.0))
    assert signs(start, replace(far, divergence=None), BUDGET) == {}


def test_one_part_that_rises_while_another_falls_is_found() -> None:
    start, lately = honest(0, 0.5), honest(1, 0.5)
    right, style = lately.parts["right"], lately.parts["style"]
    hacked = replace(lately, parts={"right": right * 0.2, "style": style + 0.5})
    assert list(signs(start, hacked, BUDGET)) == ["parts"]
    sentence = signs(start, hacked, BUDGET)["parts"]
    assert "style from" in sentence.split("rises alone")[0] and "right from" in sentence.split("rises alone")[1]
    for parts in (
        {"right": right + 0.3, "style": style + 0.5},  # both rise
        {"right": right, "style": style + 0.5},  # one rises, one stays
        {"right": right * 0.2, "style": style},  # one falls, none rises
        {"style": style + 0.5},
    ):
        assert signs(start, replace(lately, parts=parts), BUDGET) == {}


def test_the_statistics_by_the_book() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=50), random.normal(size=50)
    assert pearson(x, x + y) == pytest.approx(np.corrcoef(x, x + y)[0, 1])
    assert np.isnan(pearson(x, np.ones(50)))
    for groups, n in ((np.arange(50.0), 50), (np.repeat(np.arange(10.0), 5), 10)):
        one, two = (z.reshape(n, -1).mean(1).tolist() for z in (x, y + 0.5))
        t = (mean(two) - mean(one)) / math.sqrt(variance(one) / n + variance(two) / n)  # Welch's
        assert change(x, y + 0.5, groups, groups) == pytest.approx(t)
    assert change(np.zeros(4), np.ones(4), np.arange(4.0), np.arange(4.0)) == np.inf
    assert change(np.ones(4), np.ones(4), np.arange(4.0), np.arange(4.0)) == 0.0


def test_prompts_of_different_rollouts_stay_apart() -> None:
    a, b = honest(0, 0.3, prompts=3), honest(1, 0.3, prompts=2)
    both = joined([a, replace(b, parts={"right": b.parts["right"]}, divergence=None)])
    assert len(np.unique(both.group)) == 5 and len(both.reward) == 20
    assert list(both.parts) == ["right"] and both.divergence is None and len(both.distinct) == 2
