"""The file that feedback goes to: SQLite, in which each judgement is one row that is there whole or not at all.

A row is acknowledged when it is on the disk. Its id was made by the page, so that a retry finds what is there already.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

APPLICATION = 0x746F7277
"""By which SQLite's header says whose file it is."""
VERSION = 1
SCHEMA = """
CREATE TABLE comparisons (
    id TEXT PRIMARY KEY NOT NULL,
    session TEXT NOT NULL,
    time TEXT NOT NULL,
    run TEXT NOT NULL,
    prompt TEXT NOT NULL CHECK (json_valid(prompt)),
    a TEXT NOT NULL,
    b TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('a', 'b', 'tie')),
    shown_left TEXT NOT NULL CHECK (shown_left IN ('a', 'b')),
    options TEXT NOT NULL CHECK (json_valid(options))
) STRICT;
CREATE TABLE ratings (
    id TEXT PRIMARY KEY NOT NULL,
    session TEXT NOT NULL,
    time TEXT NOT NULL,
    run TEXT NOT NULL,
    prompt TEXT NOT NULL CHECK (json_valid(prompt)),
    answer TEXT NOT NULL,
    scale TEXT NOT NULL CHECK (scale IN ('thumbs', 'stars')),
    value INTEGER NOT NULL CHECK (CASE scale WHEN 'thumbs' THEN value IN (0, 1) ELSE value BETWEEN 1 AND 5 END),
    options TEXT NOT NULL CHECK (json_valid(options))
) STRICT;
"""
Scale: TypeAlias = Literal["thumbs", "stars"]
Choice: TypeAlias = Literal["a", "b", "tie"]
Table: TypeAlias = Literal["comparisons", "ratings"]


class StoreError(ValueError):
    """A file that feedback cannot go to."""


class Judged(Exception):
    """An id that is in the file already, with another judgement."""


@dataclass(frozen=True)
class Comparison:
    """A choice between two answers."""

    id: str
    session: str
    prompt: Any
    """As JSON: a text, or a list of messages."""
    a: str
    b: str
    choice: Choice
    shown_left: Literal["a", "b"]
    cut: tuple[Literal["a", "b"], ...] = ()
    """The answers that their length cut."""


@dataclass(frozen=True)
class Rating:
    """What somebody thinks of one answer."""

    id: str
    session: str
    prompt: Any
    answer: str
    scale: Scale
    value: int
    cut: tuple[Literal["a", "b"], ...] = ()
    """The answer, a, if its length cut it."""


class Store:
    """A file of feedback, open for writing. It belongs to one thread at a time."""

    def __init__(self, path: Path, run: str, options: Mapping[str, Any]) -> None:
        """The file is made where there is none, for its owner alone to read. Raises StoreError where that cannot be,
        and for a file that is something else."""
        self.path, self.run, self.options = path, run, dict(options)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self.rows = sqlite3.connect(path.resolve(), timeout=10.0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreError(f"expected a file for feedback at {path}, got: {reason}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.rows.close()
            raise StoreError(f"expected feedback of `torchward serve` in {path}, got: {error}") from error
        except StoreError:
            self.rows.close()
            raise

    def _prepare(self) -> None:
        with self._writing():  # two that make the same file at once: one of them waits, and finds it made
            whose, version = (self.rows.execute(f"PRAGMA {name}").fetchone()[0] for name in _HEADER)
            if (whose, version) == (0, 0) and not self.rows.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in SCHEMA.split(";\n"):
                    self.rows.execute(statement)
                self.rows.execute(f"PRAGMA application_id = {APPLICATION}")
                self.rows.execute(f"PRAGMA user_version = {VERSION}")
            elif whose != APPLICATION:
                raise StoreError(f"expected feedback of `torchward serve` in {self.path}, got another database")
            elif version != VERSION:
                raise StoreError(
                    f"expected feedback of version {VERSION} in {self.path}, got {version}; use the torchward of then"
                )
        self.rows.execute("PRAGMA journal_mode = WAL")
        self.rows.execute("PRAGMA synchronous = FULL")  # what is acknowledged survives a power failure too

    def add(self, judgement: Comparison | Rating) -> bool:
        """Write it to the disk; False where it was there already. Raises Judged for another judgement of its id, and
        sqlite3.Error where it could not be written: then nothing is."""
        table: Table
        own: dict[str, Any]
        match judgement:
            case Comparison(name, session, prompt, a, b, choice, left):
                table, own = "comparisons", {"a": a, "b": b, "choice": choice, "shown_left": left}
            case Rating(name, session, prompt, answer, scale, value):
                table, own = "ratings", {"answer": answer, "scale": scale, "value": value}
        options = self.options | ({"cut": list(judgement.cut)} if judgement.cut else {})
        row = {
            "id": name, "session": session, "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "run": self.run, "prompt": json.dumps(prompt, ensure_ascii=False), **own, "options": json.dumps(options),
        }  # fmt: skip
        with self._writing():
            if (there := self.find(table, name)) is not None:
                if any(there[key] != own[key] for key in own):
                    raise Judged
                return False
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            self.rows.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
        return True

    def find(self, table: Table, name: str) -> dict[str, Any] | None:
        """The row of an id; None where there is none."""
        found = self.rows.execute(f"SELECT * FROM {table} WHERE id = ?", [name])
        row = found.fetchone()
        return None if row is None else dict(zip((column[0] for column in found.description), row, strict=True))

    def counts(self) -> tuple[int, int]:
        """How many comparisons and ratings are in the file."""
        one, other = (
            int(self.rows.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) for name in ("comparisons", "ratings")
        )
        return one, other

    def close(self) -> None:
        """The end. What is in the write-ahead log goes into the file."""
        self.rows.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All that is written within it, or nothing."""
        self.rows.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.rows.execute("ROLLBACK")
            raise
        self.rows.execute("COMMIT")


_HEADER = ("application_id", "user_version")
