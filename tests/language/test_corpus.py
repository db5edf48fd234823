"""Where text comes from: read exactly, in one order, with errors that name file and line."""

import ast
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchward.config import from_json, to_json
from torchward.language.corpus import CharacterNames, Folder, JSONLines, PythonTopics, StandardLibrary, TextFile
from torchward.language.documents import Completion, Content, Dialogue, Document, Message, Preference, Prompt, TextError

ASK = [{"role": "user", "content": "2 + 2"}]
SAY = [{"role": "assistant", "content": "4", "tool_calls": None}]
USER, ASSISTANT = Message("user", "2 + 2"), Message("assistant", "4")


def lines(tmp_path: Path, *rows: Any) -> JSONLines:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return JSONLines(path)


@pytest.mark.parametrize(
    ("row", "content"),
    [
        ({"text": "a\nb\u2028c"}, "a\nb\u2028c"),
        ({"prompt": "2 + 2"}, Prompt("2 + 2")),
        ({"prompt": ASK}, Prompt((USER,))),
        ({"prompt": "2 + 2", "completion": "4"}, Completion("2 + 2", "4")),
        ({"prompt": ASK, "completion": SAY}, Completion((USER,), (ASSISTANT,))),
        ({"messages": ASK + SAY}, Dialogue((USER, ASSISTANT))),
        ({"chosen": "4", "rejected": "5"}, Preference("", "4", "5")),
        ({"prompt": ASK, "chosen": SAY, "rejected": SAY}, Preference((USER,), (ASSISTANT,), (ASSISTANT,))),
    ],
)
def test_columns_say_what_a_line_is(tmp_path: Path, row: dict[str, Any], content: Content) -> None:
    (document,) = lines(tmp_path, "", {**row, "answer": 4}, "").documents()
    assert document.content == content
    assert document.columns == {"answer": 4}
    assert document.origin == f"{tmp_path / 'data.jsonl'}:2"


@given(texts=st.lists(st.text(), min_size=1, max_size=5), ascii_only=st.booleans())
def test_json_lines_come_back(texts: list[str], ascii_only: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("lines") / "data.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts), encoding="utf-8")
    assert [document.content for document in JSONLines(path).documents()] == texts


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", "one JSON object a line"),
        ([1], "a JSON object at .*:1, got a list"),
        ({"promt": "2"}, "got promt. Did you mean 'prompt'?"),
        ({}, "got nothing"),
        ({"text": 3}, "expected a text as text at .*:1, got 3"),
        ({"text": None, "label": 1}, "expected a text as text at .*:1, got None"),
        ({"prompt": "2", "chosen": "4"}, "expected chosen and rejected at .*:1, got prompt, chosen: a pair is both"),
        ({"prompt": "2", "rejected": "4"}, "got prompt, rejected: a pair is both"),
        ({"prompt": 3}, "as prompt at"),
        ({"messages": []}, "list of messages as messages"),
        ({"messages": [{"role": "asistant", "content": "4"}]}, "got 'asistant'. Did you mean 'assistant'?"),
        ({"messages": [{"role": "user"}]}, "role and content, and no more"),
        ({"messages": [{"role": "user", "content": "4", "tool_calls": [1]}]}, "role and content, and no more"),
    ],
)
def test_a_line_that_is_none(tmp_path: Path, row: Any, sentence: str) -> None:
    with pytest.raises(TextError, match=sentence.replace("?", r"\?")) as error:
        list(lines(tmp_path, row).documents())
    assert "data.jsonl:1" in str(error.value)


def test_a_file_and_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\n\nthree\n\n\n\n".encode())
    assert [d.content for d in TextFile(path).documents()] == ["one\r\ntwo\n\nthree\n\n\n\n"]
    assert list(TextFile(path, separator="\n\n").documents()) == [
        Document("one\r\ntwo", f"{path}, part 1"),
        Document("three", f"{path}, part 2"),
    ]
    with pytest.raises(TextError, match=r"expected the separator '---' within .*a.txt, where it stands nowhere"):
        list(TextFile(path, separator="---").documents())


def test_a_folder_by_patterns(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "deep/c.txt", "d.py", ".hidden/e.txt", ".f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [d.content for d in Folder(tmp_path).documents()] == ["a.md", "b.txt", "deep/c.txt"]
    assert [d.content for d in Folder(tmp_path, ("*.py", "*.p*")).documents()] == ["d.py"]
    (tmp_path / "a.md").write_text(" \n")
    assert [d.content for d in Folder(tmp_path).documents()] == ["b.txt", "deep/c.txt"]
    with pytest.raises(TextError, match=r"expected text in .*, got 1 files without any"):
        list(Folder(tmp_path, ("a.*",)).documents())


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("ä".encode("latin-1"))
    (tmp_path / "empty.jsonl").write_text("\n \n")
    for corpus, sentence in (
        (TextFile(tmp_path / "none.txt"), "expected text at .*none.txt"),
        (TextFile(tmp_path / "latin.txt"), "in UTF-8 .* got byte 0xe4 at 0"),
        (TextFile(tmp_path / "empty.jsonl"), "got none"),
        (JSONLines(tmp_path / "empty.jsonl"), "lines of JSON"),
        (Folder(tmp_path / "none"), "a folder at .*none, got nothing"),
        (Folder(tmp_path / "latin.txt"), "got a file"),
        (Folder(tmp_path, ("*.rst",)), r"fit \*.rst"),
        (Folder(tmp_path), "latin.txt"),
    ):
        with pytest.raises(TextError, match=sentence):
            list(corpus.documents())


def test_what_every_python_carries() -> None:
    topics = list(PythonTopics().documents())
    assert len(topics) > 50 and sum(len(d.text) for d in topics) > 300_000
    names = list(CharacterNames().documents())
    assert Document("LATIN SMALL LETTER A", "U+0061") in names
    assert all(unicodedata.lookup(d.text) == chr(int(d.origin[2:], 16)) for d in names[::100])
    assert not any(d.text.startswith("CJK UNIFIED IDEOGRAPH") for d in names)
    sources = {d.origin: d.text for d in StandardLibrary().documents()}
    ast.parse(sources["Python's json/decoder.py"])
    assert not any("site-packages" in name or "/test/" in name for name in sources)
    assert sources["Python's ast.py"] == Path(ast.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "corpus",
    [TextFile(Path("a.txt"), "\n\n"), Folder(Path("b"), ("*.py",)), StandardLibrary(()), CharacterNames(True)],
)
def test_a_corpus_is_settings(corpus: Any) -> None:
    assert from_json(type(corpus), json.loads(json.dumps(to_json(corpus)))) == corpus
