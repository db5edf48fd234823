"""Text of the user's own, by its path: from a file to a model that was tuned."""

import json
from pathlib import Path

import pytest

import torchward
from torchward.config import ConfigError
from torchward.language.documents import TextError
from torchward.nets.language_model import LanguageModel
from torchward.run import RunOptions
from torchward.tasks import find, texts
from torchward.tasks.find import LaunchError

QUIET = RunOptions(tensorboard=False, progress=False)


def sums(path: Path) -> Path:
    lines = [{"prompt": f"{i}+1=", "completion": str(i + 1), "answer": str(i + 1)} for i in range(60)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_answers_of_ones_own_are_tuned_on_and_some_are_held_out(tmp_path: Path) -> None:
    task = find.task(str(sums(tmp_path / "sums.jsonl"))).task
    shown, held_out = ({each.question for each in side} for side in (task.problems.train, task.problems.test))
    assert len(shown) + len(held_out) == 60 and held_out and not shown & held_out
    learnt = task.demonstrations()
    assert (len(learnt.train), len(learnt.validation)) == (len(shown), len(held_out))


def test_no_question_that_is_held_out_is_read_with_its_answer(tmp_path: Path) -> None:
    """What is pretrained on a file is judged by the same questions as what is tuned on it, or by reward."""
    task = find.task(str(sums(tmp_path / "sums.jsonl"))).task
    held_out = {each.text for each in task.problems.test}
    learnt, looked_at = task.corpus_sides()
    assert {each.text for each in looked_at} == held_out and not {each.text for each in learnt} & held_out
    assert len(learnt) + len(looked_at) == 60
    pretrained, masked = task.corpus(), task.masked()
    assert len(pretrained.validation) == len(masked.validation) == len(held_out)
    written = [task.tokenizer.decode(pretrained.train[i].ids) for i in range(len(pretrained.train))]
    assert not held_out & {text.removesuffix("\n") for text in written} and len(written) == len(learnt)


@pytest.mark.parametrize("part", [0.0, 1.0, -0.1])
def test_something_is_held_out(part: float) -> None:
    with pytest.raises(ConfigError, match="expected validation above 0 and below 1"):
        texts.Options(validation=part)


def test_a_file_that_is_not_read_is_told_what_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("picks").write_text("[]")
    for name in ("./array.json", "pairs.csv", "picks"):
        with pytest.raises(LaunchError, match=rf"ends in \.txt, \.md, \.jsonl or \.db, got '{name}'"):
            find.task(name)
    for name in ("CartPole.v1", "CartPol-v1"):
        with pytest.raises(LaunchError, match="expected the id of a registered environment"):
            find.task(name)


def test_from_a_file_to_a_model_that_was_tuned(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("\n".join(f"line {i} says {i * i}" for i in range(300)))
    first = torchward.train(
        "pretrain", str(book), path=tmp_path / "first", options=QUIET, total_timesteps=4096, hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2,
    )  # fmt: skip
    tuned = torchward.train(
        "sft", str(sums(tmp_path / "sums.jsonl")), path=tmp_path / "tuned", init=first.path, options=QUIET,
        total_timesteps=4096, max_length=64,
    )  # fmt: skip
    before, after = torchward.load(first.path), torchward.load(tuned.path)
    assert isinstance(before, LanguageModel) and isinstance(after, LanguageModel)
    assert before.vocabulary == after.vocabulary


def test_a_text_without_documents_is_cut_into_some(tmp_path: Path) -> None:
    for length in (50, 5_000, 200_000):
        text = "\n".join("x" * 40 for _ in range(length // 41 + 1))
        (tmp_path / "book.txt").write_text(text)
        pieces = [each.text for each in texts.read(texts.Options(), tmp_path / "book.txt").train]
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= texts.LONGEST + 41
        assert len(pieces) >= min(texts.PIECES, length // 41) // 2


def test_a_separator_that_stands_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("one\r\n\r\ntwo\r\n", newline="")
    with pytest.raises(TextError, match=r"expected the separator '\\n\\n' within .*book.txt, where it stands nowhere"):
        texts.read(texts.Options(separator="\n\n"), tmp_path / "book.txt")
    assert len(texts.read(texts.Options(separator="\r\n\r\n"), tmp_path / "book.txt").train) == 2
    (tmp_path / "one.txt").write_text("one\ntwo\n\n")
    assert texts.read(texts.Options(separator="\n\n"), tmp_path / "one.txt").train  # it ends with its separator
    with pytest.raises(ConfigError, match="expected a separator of a character or more, got ''"):
        texts.Options(separator="")


@pytest.mark.parametrize(("name", "what"), [("books", "files"), ("a.jsonl", "rows"), ("a.db", "rows")])
def test_a_separator_is_for_a_file_of_text(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "books").mkdir()
    with pytest.raises(ConfigError, match=rf"expected no separator for .*{name}, whose documents are its {what}, got"):
        texts.read(texts.Options(separator="\n\n"), tmp_path / name)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, TextError), match="nowhere"):
        texts.read(texts.Options(), tmp_path / "nowhere.txt")
