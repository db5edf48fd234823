"""Taste: what menus are worth, how guests pick, and who is held out."""

import math
import statistics
from collections import Counter
from itertools import pairwise

import pytest

from torchward.config import ConfigError
from torchward.language.documents import Preference
from torchward.language.play import question
from torchward.tasks import taste

SMALL = taste.Options(pairs=3_000, test=500, menus=500)


def test_guests_of_the_test_were_never_seen_together() -> None:
    problems = taste.make(SMALL)
    seen = {str(question(each)) for each in problems.train} | {each.text[:3] for each in problems.corpus or ()}
    asked = {str(question(each)) for each in problems.test}
    assert len(seen) == 28 - 6 and len(asked) == 6 and not seen & asked
    assert {letter for prompt in asked for letter in prompt} <= {letter for prompt in seen for letter in prompt}


def test_picks_are_as_often_right_as_bradley_and_terry_say() -> None:
    """Of the picks of about equal odds, the share that went to the better menu."""
    documents = taste.make(SMALL).train
    gaps = [each.columns["better_by"] for each in documents]
    for low, high in ((0.0, 0.7), (0.7, 1.5), (1.5, 3.0)):
        within = [gap for gap in gaps if low <= abs(gap) < high]
        said = statistics.fmean(1 / (1 + math.exp(-abs(gap))) for gap in within)
        came = statistics.fmean(gap > 0 for gap in within)
        assert came == pytest.approx(said, abs=4 * math.sqrt(0.25 / len(within)))
    right = statistics.fmean(gap > 0 for gap in gaps)
    assert right == pytest.approx(taste.bayes_accuracy(documents), abs=0.03)


def test_menus_are_worth_0_on_average_with_a_spread_of_2() -> None:
    problems = taste.make(SMALL)
    guests = [each.columns["guests"] for each in problems.train]
    menus = [each.content.chosen for each in problems.train if isinstance(each.content, Preference)]
    menus += [each.content.rejected for each in problems.train if isinstance(each.content, Preference)]
    worth = problems.reward([""] * len(menus), [str(menu) for menu in menus], guests=guests * 2)
    assert statistics.fmean(worth) == pytest.approx(0.0, abs=0.15)
    assert statistics.pstdev(worth) == pytest.approx(2.0, abs=0.15)


def test_what_a_menu_is_worth_by_hand() -> None:
    """Likes of both guests, what goes with what, a fine for a dish that comes again, all over the number of dishes."""
    world = taste.World(taste.Options())
    mean, spread = world.scale
    likes, goes = world.likes, world.goes
    dishes = [0, 1, 2, 1]
    raw = sum((likes[0][dish] + likes[2][dish]) / math.sqrt(2) for dish in (0, 1, 2)) - 1.5
    raw += sum(goes[one][other] for one, other in pairwise(dishes))
    assert world.worth("AC", "abcb") == pytest.approx(2.0 * (raw / 4 - mean) / spread)


def test_no_shorter_longer_or_foreign_menu_is_worth_more() -> None:
    world = taste.World(taste.Options())
    liked = sorted("abcdefghijkl", key=lambda dish: -world.likes[0][ord(dish) - 97] - world.likes[1][ord(dish) - 97])
    full = world.worth("AB", "".join(liked[:4]))
    for other in ("", "??????", liked[0], liked[0] * 4, liked[0] * 8, "".join(liked[:4]) * 3):
        assert world.worth("AB", other) < full - 1.0, other


def test_a_seed_is_a_world() -> None:
    one, same, other = (taste.make(taste.Options(pairs=50, test=20, menus=20, data_seed=s)) for s in (0, 0, 1))
    assert one.train == same.train and one.train != other.train
    assert Counter(len(each.text) for each in one.corpus or ()).keys() <= set(range(7, 12))


def test_options_that_cannot_be_are_told() -> None:
    with pytest.raises(ConfigError, match="held_out from 1 to 27, for there are 28 in all, got 28"):
        taste.Options(held_out=28)
