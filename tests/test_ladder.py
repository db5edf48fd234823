"""The ladder: from a text to a model that was rewarded, small enough for a test; and taken up again."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.test_examples import load
from torchward import launch
from torchward.metrics import read_metrics
from torchward.run import Run, read_manifest

ladder = load(Path(__file__).resolve().parents[1] / "docs" / "examples" / "ladder.py")

SHORT: dict[str, Any] = {"tensorboard": False, "progress": False, "eval_freq": 1024, "checkpoint_freq": 1024}
MODEL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
    "max_length": 32,
}  # fmt: skip
SUMS: dict[str, Any] = {"digits": 1, "demonstrations": 20, "problems": 40, "test": 12}
SMALL = (
    ladder.Rung("pretrain", "python_topics", "read", {**SHORT, **MODEL, "total_timesteps": 2048, "tokenizer": "bytes"}),
    ladder.Rung("sft", "addition", "was shown", {**SHORT, **SUMS, "total_timesteps": 3072, "max_length": 32}),
    ladder.Rung("grpo", "addition", "was rewarded", {**SHORT, **SUMS, "total_timesteps": 1024}),
)


def test_each_rung_begins_where_the_one_below_ended_and_all_of_them_are_reported(tmp_path: Path) -> None:
    report = ladder.climb(tmp_path, SMALL).read_text(encoding="utf-8")
    assert (tmp_path / "ladder.png").stat().st_size > 10_000
    for below, rung in (("pretrain", "sft"), ("sft", "grpo")):
        told = read_manifest(tmp_path / rung)["manifest"]
        assert told["init"] == str(tmp_path / below)
    steps = {rung.algorithm: read_metrics(tmp_path / rung.algorithm)[-1]["step"] for rung in SMALL}
    for rung in SMALL:
        assert f"| {rung.algorithm} | {rung.says} | {steps[rung.algorithm]:,} |" in report
    share, lines = ladder.examine(tmp_path / "sft", ladder.text_of(tmp_path / "sft"))
    assert len(lines) == 12
    assert share == sum(line.said[-1] == line.document.columns["answer"] for line in lines) / 12
    for line in lines[: ladder.SHOWN]:
        assert (
            f"| `{line.document.content.prompt}` | `{line.document.columns['answer']}` | `{line.said[-1]}` |" in report
        )
    assert ladder.OPENING in report and "tokens per byte" in report

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    ladder.climb(tmp_path, SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in before}, "what is done is not done again"


def test_a_rung_that_was_stopped_is_taken_up_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Run.log
    struck: list[int] = []

    def logged(run: Run, *given: Any, **more: Any) -> None:
        log(run, *given, **more)
        if run.path.name == "sft" and run.step >= 1024 and not struck:
            struck.append(run.step)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Run, "log", logged)
    with pytest.raises(SystemExit, match="goes on from here"):
        ladder.climb(tmp_path / "halves", SMALL[:2])
    assert struck and not (tmp_path / "halves" / "sft" / launch.RESULT).exists()
    ladder.climb(tmp_path / "halves", SMALL[:2])
    ladder.climb(tmp_path / "whole", SMALL[:2])
    halves, whole = (
        (tmp_path / name / "sft" / "policy" / "last" / "policy.safetensors").read_bytes()
        for name in ("halves", "whole")
    )
    assert halves == whole
