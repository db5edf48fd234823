"""The file of feedback: made once, written to by several at once, each judgement whole and once."""

import sqlite3
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.serve.places import together
from torchward.serve.store import APPLICATION, VERSION, Comparison, Judged, Rating, Store, StoreError

CHOICE = Comparison("comparison-0", "session", "so?", "yes", "no", "a", "b")
STARS = Rating("rating-0", "session", [{"role": "user", "content": "so?"}], "yes", "stars", 5)


def test_servers_share_a_file_that_none_has_made_yet(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"

    def write(number: int) -> int:
        store = Store(path, f"runs/{number}", {"seed": number})
        added = sum(store.add(replace(CHOICE, id=f"comparison-{each}")) for each in range(10))
        added += store.add(replace(STARS, id=f"rating-{number}"))
        store.close()
        return added

    assert sum(together([partial(write, number) for number in range(4)])) == 10 + 4
    store = Store(path, "runs/4", {})
    assert store.counts() == (10, 4)
    header = [store.rows.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    assert header == [APPLICATION, VERSION]
    assert store.rows.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    store.close()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_judgement_is_there_once_and_another_one_of_its_id_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "feedback.db", "runs/test", {})
    for one, other in ((CHOICE, replace(CHOICE, choice="b")), (STARS, replace(STARS, value=1))):
        assert store.add(one) and not store.add(one)
        with pytest.raises(Judged):
            store.add(other)
    assert store.counts() == (1, 1)
    store.close()


@pytest.mark.parametrize(
    ("right", "changes"),
    [
        (CHOICE, {"choice": "c"}),
        (CHOICE, {"shown_left": "left"}),
        (CHOICE, {"a": None}),
        (STARS, {"value": 6}),
        (STARS, {"scale": "x"}),
        (STARS, {"scale": "thumbs"}),
    ],
)
def test_the_file_takes_nothing_that_is_no_judgement(
    tmp_path: Path, right: Comparison | Rating, changes: dict[str, Any]
) -> None:
    store = Store(tmp_path / "feedback.db", "runs/test", {})
    with pytest.raises(sqlite3.IntegrityError):
        store.add(replace(right, **changes))
    assert store.counts() == (0, 0)
    assert store.add(right), "and the next one is written"
    store.close()


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    store = Store(path, "runs/test", {})
    store.rows.execute(f"PRAGMA user_version = {VERSION + 1}")
    store.close()
    with pytest.raises(StoreError, match=f"expected feedback of version {VERSION} in .*, got {VERSION + 1}"):
        Store(path, "runs/test", {})
