"""Python's own English: what validates stands in nothing that is learnt, and each command takes the task, or says why
not."""

from pathlib import Path
from typing import Any

import pytest

import torchward
from torchward.cli import main
from torchward.language.corpus import PythonTopics
from torchward.language.documents import Split, TextError
from torchward.language.report import report
from torchward.language.text_task import Text
from torchward.language.tokenizer import Bytes
from torchward.nets.language_model import LanguageModel
from torchward.run import RunOptions
from torchward.tasks.find import problems
from torchward.tasks.python_topics import Options, make

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_length": 64,
    "total_timesteps": 1024,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("topics") / "run"
    quiet = RunOptions(tensorboard=False, progress=False)
    return torchward.train("pretrain", "python_topics", path=path, options=quiet, threads=1, **SMALL).path


def test_nothing_of_what_validates_is_learnt() -> None:
    """Of Python's texts as they are, much would be."""
    for documents, is_clean in ((list(PythonTopics().documents()), False), (make(Options()).train, True)):
        split = Split(0.2)(documents)
        found = report(*split, Bytes().build(()))
        assert found.leakage is not None and found.validation is not None
        assert (found.leakage.exact + found.leakage.near == 0) == is_clean
        assert (found.train.exact + found.train.near == 0) == is_clean
    assert 30 < len(make(Options()).train) < len(list(PythonTopics().documents()))


def test_the_part_that_validates_is_chosen() -> None:
    sizes = []
    for part in (0.1, 0.4):
        texts = Text(make(Options(Bytes(), part))).corpus()
        sizes.append(len(texts.validation.tokens) / (len(texts.train.tokens) + len(texts.validation.tokens)))
        assert len(texts.train) + len(texts.validation) == len(make(Options()).train)
    assert 0.0 < sizes[0] < sizes[1] < 0.8


def test_a_model_that_learnt_it_is_looked_at_and_talks(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(torchward.load(run), LanguageModel)
    assert main(["doctor", str(run)]) == 0
    assert "WRONG" not in capsys.readouterr().out
    lines = iter(["The statement"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines, ""))
    assert main(["chat", str(run), "--max-new-tokens", "8"]) == 0
    assert capsys.readouterr().out.strip()
    assert "python_topics" in problems()


def test_who_asks_it_something_is_told_that_there_is_nothing_to_answer(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run)]) == 2
    assert "expected questions of python_topics that were held out" in capsys.readouterr().err
    with pytest.raises(TextError, match="got texts that ask nothing: pretrain on it"):
        torchward.train("sft", "python_topics", init=run, path=tmp_path / "sft")
    for algorithm in ("ppo", "grpo", "expert_iteration"):
        with pytest.raises(TextError, match=r"expected a prompt to answer in Python topic .*, got a text"):
            torchward.train(algorithm, "python_topics", init=run, path=tmp_path / algorithm)
    assert not list(tmp_path.iterdir()), "no run is left behind"
