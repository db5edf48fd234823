"""Where prompts end: beginnings that pretraining never showed are found, and only those."""

import pytest

from torchward.language.bpe import BPE
from torchward.language.checks_of_text import prompt_ends
from torchward.language.documents import Completion, Dialogue, Document, Message, Prompt
from torchward.language.tokenizer import Bytes, TextTokenizer

TEXTS = [f"The answer to {i} and {i + 1}:\n    it is the number {i * i}, which is the answer." for i in range(40)]


@pytest.fixture(scope="module")
def pairs() -> TextTokenizer:
    tokenizer = BPE(400, split_digits=False).build(TEXTS)
    assert len(tokenizer.encode(":\n    it")) < len(tokenizer.encode(":\n")) + len(tokenizer.encode("    it"))
    return tokenizer


def cut(behind: str) -> list[Document]:
    """The texts, each with all behind some words as its answer."""
    halves = [text.partition(behind) for text in TEXTS]
    return [Document(Completion(a + b, c), f"text {i}") for i, (a, b, c) in enumerate(halves)]


@pytest.mark.parametrize(
    ("behind", "ok"), [(":", True), ("number", True), (":\n", False), (":\n ", False), ("num", False)]
)
def test_a_prompt_that_ends_within_a_token_is_found(pairs: TextTokenizer, behind: str, ok: bool) -> None:
    found = prompt_ends(cut(behind), pairs)
    assert found.ok is ok
    if ok:
        assert "40 of 40" in found.words
    else:
        assert (
            "In 40 of 40 texts" in found.words
            and "text 0, between" in found.words
            and repr(behind[-2:])[1:] in found.words
        )


def test_few_are_no_fault(pairs: TextTokenizer) -> None:
    few = cut(":\n")[:2]
    assert prompt_ends([*cut(":")[2:], *few], pairs).ok is True
    assert prompt_ends([*cut(":")[3:], *cut(":\n")[:3]], pairs).ok is False


def test_bytes_end_everywhere_and_without_answers_there_is_nothing_to_see(pairs: TextTokenizer) -> None:
    assert prompt_ends(cut(":\n "), Bytes().build([])).ok is True
    others = [Document(Prompt("ab:\n"), ""), Document(Dialogue((Message("user", "a"), Message("assistant", "b"))), "")]
    assert prompt_ends(others, pairs).ok is None
