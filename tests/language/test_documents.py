"""Which documents validate: decided by what they ask, once and for all."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchward.config import ConfigError
from torchward.language.documents import (
    Completion,
    Content,
    Dialogue,
    Document,
    Message,
    Preference,
    Prompt,
    Split,
    TextError,
    hash64,
)

texts = st.lists(st.text(max_size=5), unique=True, max_size=20)


@given(old=texts, new=texts, part=st.floats(0, 0.99))
def test_adding_documents_moves_none(old: list[str], new: list[str], part: float) -> None:
    split = Split(part)
    before = [split.validates(Document(text, "")) for text in old]
    assert [split.validates(Document(text, "elsewhere", {"more": 1})) for text in old + new][: len(old)] == before
    larger = Split(min(part + 0.2, 0.99))
    assert all(larger.validates(Document(text, "")) for text, was in zip(old, before, strict=True) if was)


def test_the_part_is_about_what_was_asked_and_the_salt_matters() -> None:
    documents = [Document(str(number), "") for number in range(10_000)]
    train, validation = Split(0.2)(documents)
    assert abs(len(validation) - 2000) < 200  # 5 standard deviations of 40
    assert sorted(map(id, train + validation)) == sorted(map(id, documents))
    _, other = Split(0.2, salt="other")(documents)
    assert abs(len({d.text for d in validation} & {d.text for d in other}) - 400) < 100
    assert Split(0.0)(documents) == (documents, [])


def test_one_question_is_on_one_side() -> None:
    ask = Message("user", "6 * 7"), Message("assistant", "42"), Message("assistant", "43")
    contents: list[Content] = [
        Prompt("6 * 7"),
        Completion("6 * 7", "42"),
        Completion(ask[:1], ask[1:2]),
        Dialogue(ask[:2]),
        Dialogue((ask[0], ask[2])),
        Preference("6 * 7", "42", "43"),
        Preference("", ask[:2], (ask[0], ask[2])),
        "6 * 7",
    ]
    assert {Document(content, "").question for content in contents} == {"6 * 7"}
    assert Document(Preference("", "42", "13"), "").question == "\n42\n13"


def test_the_hash_is_the_same_in_every_process() -> None:
    code = "from torchward.language.documents import hash64; print(hash64('é\\ud800'))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == hash64("é\ud800")


def test_an_empty_side_is_an_error() -> None:
    with pytest.raises(TextError, match=r"got (1 and 0|0 and 1)"):
        Split(0.1)([Document("one file", "")])
    with pytest.raises(TextError, match="got 0 and 0"):
        Split(0.0)([])
    with pytest.raises(ConfigError, match=r"within \[0, 1\), got 1.0"):
        Split(1.0)
