"""Where text comes from: files, folders, JSON lines, feedback, what Python carries. Nothing is downloaded or copied."""

import json
import sqlite3
import tokenize
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torchward.config import did_you_mean
from torchward.language.documents import (
    ROLES,
    Completion,
    Content,
    Dialogue,
    Document,
    Message,
    Preference,
    Prompt,
    TextError,
    Words,
)


@dataclass(frozen=True)
class TextFile:
    """A file of text in UTF-8."""

    path: Path
    separator: str | None = None
    """What stands between its documents, such as a blank line; without it, the file is one."""

    def documents(self) -> Iterator[Document]:
        """Its documents. Raises TextError where it cannot be read, and where the separator stands nowhere."""
        text = _read(self.path)
        parts = [text] if self.separator is None else text.split(self.separator)
        filled = [part for part in parts if part.strip()]
        if not filled:
            raise TextError(f"expected text in {self.path}, got none")
        if self.separator is not None and self.separator not in text:
            raise TextError(
                f"expected the separator {self.separator!r} within {self.path}, where it stands nowhere; a shell gives "
                "a blank line as $'\\n\\n', and files of Windows have \\r\\n at the end of a line"
            )
        for number, part in enumerate(filled, start=1):
            yield Document(part, str(self.path) if self.separator is None else f"{self.path}, part {number}")


@dataclass(frozen=True)
class Folder:
    """Each file of a folder that a pattern fits is a document. What is hidden or empty is left out."""

    path: Path
    globs: tuple[str, ...] = ("**/*.txt", "**/*.md")

    def documents(self) -> Iterator[Document]:
        """The files, by name. Raises TextError where no pattern fits, where all are empty, and for a file that cannot
        be read."""
        root = Path(self.path)
        if not root.is_dir():
            raise TextError(f"expected a folder at {root}, got {'a file' if root.exists() else 'nothing'}")
        found = {file for glob in self.globs for file in root.glob(glob) if file.is_file()}
        shown = sorted(file for file in found if not any(part[0] == "." for part in file.relative_to(root).parts))
        if not shown:
            raise TextError(f"expected files that fit {' or '.join(self.globs)} in {root}, got none")
        empty = True
        for file in shown:
            if (text := _read(file)).strip():
                yield Document(text, str(file))
                empty = False
        if empty:
            raise TextError(f"expected text in {root}, got {len(shown):,} files without any")


@dataclass(frozen=True)
class JSONLines:
    """A file with one JSON object a line, whose columns say what it is: `text`; `prompt` and `completion`; `prompt`
    alone; `messages`; `chosen` and `rejected`, with or without `prompt`. What else it holds is kept for rewards."""

    path: Path

    def documents(self) -> Iterator[Document]:
        """A document for each line that is not blank. Raises TextError with path and line for what is none."""
        lines = _read(self.path).split("\n")
        empty = True
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _from_columns(line, f"{self.path}:{number}")
                empty = False
        if empty:
            raise TextError(f"expected lines of JSON in {self.path}, got none")


@dataclass(frozen=True)
class FeedbackFile:
    """What people said of a model's answers on the page of ``torchward serve``: a SQLite file. A choice between two
    answers is a preference; a rated answer is a completion with the column ``label``. Ties, and three of five stars,
    say nothing and are left out, and so is a choice between equal answers."""

    path: Path

    def documents(self) -> Iterator[Document]:
        """The choices, then the ratings, in the order in which they were given; the file is not changed. Raises
        TextError for a file that is none of `torchward serve`, or in which nobody has chosen yet."""
        try:
            with closing(_opened(self.path)) as rows:
                chosen, rated = (
                    rows.execute(f"SELECT id, prompt, {what}, options FROM {table} ORDER BY rowid").fetchall()
                    for what, table in (("a, b, choice", "comparisons"), ("answer, scale, value", "ratings"))
                )
        except sqlite3.Error as error:
            raise TextError(f"expected feedback of `torchward serve` in {self.path}, got: {error}") from error
        empty = True
        for name, asked, a, b, choice, options in chosen:
            origin = f"{self.path}, comparison {name}"
            if choice not in ("a", "b", "tie"):
                raise TextError(f"expected a choice of a, b or tie at {origin}, got {choice!r:.80}")
            if choice != "tie" and a != b:
                prompt, cut = _asked(asked, origin), _cut(options, origin)
                sides = [(_said(each, prompt, origin, of in cut), of in cut) for of, each in (("a", a), ("b", b))]
                better, worse = sides if choice == "a" else sides[::-1]
                yield Document(Preference(prompt, better[0], worse[0], (better[1], worse[1])), origin)
                empty = False
        for name, asked, answer, scale, value, options in rated:
            origin = f"{self.path}, rating {name}"
            if (scale, value) not in _RATINGS:
                raise TextError(f"expected thumbs of 0 or 1, or stars of 1 to 5, at {origin}, got {value!r:.80}")
            if scale == "thumbs" or value != 3:
                prompt, label = _asked(asked, origin), bool(value) if scale == "thumbs" else value > 3
                short = "a" in _cut(options, origin)
                content = Completion(prompt, _said(answer, prompt, origin, short), short)
                yield Document(content, origin, {"label": label})
                empty = False
        if empty:
            raise TextError(
                f"expected choices or ratings in {self.path}, got {len(chosen) + len(rated)} that say nothing: "
                "`torchward serve RUN` asks for them"
            )


@dataclass(frozen=True)
class PythonTopics:
    """What Python's `help()` says about its language: about 80 texts of English, half a megabyte."""

    def documents(self) -> Iterator[Document]:
        """A document for each topic."""
        from pydoc_data.topics import topics

        for title, text in sorted(topics.items()):
            yield Document(text, f"Python topic {title}")


@dataclass(frozen=True)
class StandardLibrary:
    """The sources of the Python that runs: each module is a document."""

    without: tuple[str, ...] = (
        "dist-packages",
        "encodings",
        "idle_test",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
    )
    """Folders that are left out, wherever they lie: other people's packages, tables, and tests, by default."""

    def documents(self) -> Iterator[Document]:
        """The modules, by name. One that Python itself cannot decode is left out: there are such among its tests."""
        import sysconfig

        root = Path(sysconfig.get_path("stdlib"))
        for file in sorted(root.rglob("*.py")):
            name = file.relative_to(root)
            if set(name.parts[:-1]).isdisjoint(self.without):
                try:
                    with tokenize.open(file) as opened:
                        text = opened.read()
                except (SyntaxError, UnicodeDecodeError):
                    continue
                if text.strip():
                    yield Document(text, f"Python's {name.as_posix()}")


@dataclass(frozen=True)
class CharacterNames:
    """The names of Unicode's characters: each one is a document."""

    numbered: bool = False
    """Also the two thirds that end in the character's own number, such as those of Chinese characters."""

    def documents(self) -> Iterator[Document]:
        """The names, by the characters' numbers."""
        import sys
        import unicodedata

        for code in range(sys.maxunicode + 1):
            name = unicodedata.name(chr(code), None)
            if name is not None and (self.numbered or not name.endswith(f"-{code:X}")):
                yield Document(name, f"U+{code:04X}")


Corpus: TypeAlias = TextFile | Folder | JSONLines | FeedbackFile | PythonTopics | StandardLibrary | CharacterNames


def _read(path: Path) -> str:
    """A file's text exactly, but for a byte order mark."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TextError(f"expected text at {path}, got: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TextError(
            f"expected text in UTF-8 in {path}, got byte {error.object[error.start]:#04x} at {error.start}: "
            "convert it, or leave the file out"
        ) from error


def _opened(path: Path) -> sqlite3.Connection:
    """A database of somebody's, to be read and nothing else: what its schema would call is not trusted."""
    place = Path(path).resolve()
    if not place.is_file():
        raise TextError(f"expected feedback at {path}, got {'a folder' if place.exists() else 'nothing'}")
    opened = sqlite3.connect(f"{place.as_uri()}?mode=ro", uri=True, timeout=10.0)
    opened.execute("PRAGMA query_only = ON")
    opened.execute("PRAGMA trusted_schema = OFF")
    return opened


def _asked(prompt: Any, origin: str) -> Words:
    """A prompt that is written as JSON."""
    try:
        return _words(json.loads(prompt), "prompt", origin)
    except TextError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise TextError(f"expected a prompt as JSON at {origin}, got {prompt!r:.80}") from error


def _cut(options: Any, origin: str) -> list[str]:
    """Which answers their length cut, by how they were drawn; older files do not say so of any."""
    try:
        cut = json.loads(options).get("cut", [])
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TextError(f"expected options as a JSON object at {origin}, got {options!r:.80}") from error
    return cut if isinstance(cut, list) else []


def _said(answer: Any, prompt: Words, origin: str, cut: bool) -> Words:
    """An answer in the form of its prompt. Of one that was ``cut`` within a character, what stands for that is none of
    it."""
    if not isinstance(answer, str):
        raise TextError(f"expected an answer as text at {origin}, got {answer!r:.80}")
    answer = answer.rstrip("\ufffd") if cut else answer
    return answer if isinstance(prompt, str) else (Message("assistant", answer),)


_RATINGS = {("thumbs", 0), ("thumbs", 1), *(("stars", value) for value in range(1, 6))}


_KNOWN = ("text", "messages", "prompt", "completion", "chosen", "rejected")


def _from_columns(line: str, origin: str) -> Document:
    try:
        columns = json.loads(line)
    except ValueError as error:
        raise TextError(f"expected one JSON object a line, got a line that is none at {origin}: {error}") from error
    if not isinstance(columns, dict):
        raise TextError(f"expected a JSON object at {origin}, got a {type(columns).__name__}")
    content: Content
    match columns:
        case {"chosen": chosen, "rejected": rejected}:
            prompt = _words(columns["prompt"], "prompt", origin) if "prompt" in columns else ""
            content = Preference(prompt, _words(chosen, "chosen", origin), _words(rejected, "rejected", origin))
            used = {"prompt", "chosen", "rejected"}
        case {"prompt": prompt, "completion": completion}:
            content = Completion(_words(prompt, "prompt", origin), _words(completion, "completion", origin))
            used = {"prompt", "completion"}
        case {"messages": messages}:
            content, used = Dialogue(_messages(messages, "messages", origin)), {"messages"}
        case {"chosen": _} | {"rejected": _}:
            raise TextError(f"expected chosen and rejected at {origin}, got {', '.join(columns)}: a pair is both")
        case {"prompt": prompt}:
            content, used = Prompt(_words(prompt, "prompt", origin)), {"prompt"}
        case {"text": str(text)}:
            content, used = text, {"text"}
        case {"text": other}:
            raise TextError(f"expected a text as text at {origin}, got {other!r:.80}")
        case _:
            guess = next((hint for key in columns if (hint := did_you_mean(key, _KNOWN))), "")
            raise TextError(
                f"expected text, messages, prompt, prompt and completion, or chosen and rejected at {origin}, got "
                f"{', '.join(columns) or 'nothing'}.{guess}"
            )
    return Document(content, origin, {name: value for name, value in columns.items() if name not in used})


def _words(value: Any, name: str, origin: str) -> Words:
    return value if isinstance(value, str) else _messages(value, name, origin)


def _messages(value: Any, name: str, origin: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise TextError(f"expected a text or a list of messages as {name} at {origin}, got {value!r:.80}")
    messages = []
    for item in value:
        match item:
            case {"role": str(role), "content": str(content), **rest} if not any(rest.values()):
                if role not in ROLES:
                    guess = did_you_mean(role, ROLES)
                    raise TextError(f"expected a role of {', '.join(ROLES)} at {origin}, got {role!r}.{guess}")
                messages.append(Message(role, content))
            case _:
                raise TextError(f"expected role and content, and no more, in {name} at {origin}, got {item!r:.80}")
    return tuple(messages)
