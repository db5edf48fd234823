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
    assert Document(Preference("", "6 * 7\nfour", "6 * 7\nfive"), "").question == "6 * 7", "not: and the letter f"


def test_a_conversation_is_on_one_side_wherever_an_answer_stands() -> None:
    said = tuple(
        Message("assistant" if i % 2 else "user", text) for i, text in enumerate(["Q1", "A1", "Q2", "A2", "Q3"])
    )
    better, worse = (Message("assistant", "yes"),), (Message("assistant", "no"),)
    contents: list[Content] = [content for end in (1, 3, 5) for content in (
        Prompt(said[:end]), Completion(said[:end], better), Preference(said[:end], better, worse),
        Preference("", said[:end] + better, said[:end] + worse), Dialogue(said[:end] + better),
    )]  # fmt: skip
    assert {Document(content, "").question for content in contents} == {"Q1"}


@pytest.mark.parametrize("before", [(), (Message("system", "Be brief."), Message("assistant", "Hello!"))])
def test_documents_that_nobody_asked_for_are_split_by_what_they_say(before: tuple[Message, ...]) -> None:
    """An empty prompt, or a greeting, is no question that all of them share."""

    def made(number: int) -> Content:
        ask, answer = Message("user", f"{number}?"), Message("assistant", "yes")
        return Dialogue((*before, ask, answer)) if before else Completion("", f"{number}!")

    sides = Split(0.3)([Document(made(number), "") for number in range(200)])
    assert min(map(len, sides)) > 30  # of 60; by one question all of them would be on one side


def test_messages_stand_one_a_line() -> None:
    ask, answer = Message("user", "What is 2+2?"), Message("assistant", "4")
    texts = {Document(content, "").text for content in (Completion((ask,), (answer,)), Dialogue((ask, answer)))}
    assert texts == {"What is 2+2?\n4"} and Document(Completion("2+2=", "4"), "").text == "2+2=4"


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
