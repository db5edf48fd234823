"""Encoders and classifiers in the terminal: trained, judged, shown; and what they are not for is said."""

import json
from pathlib import Path
from random import Random

import pytest

from tests.cli.conftest import QUIET, Command

SMALL = (
    "--hidden-size", "16", "--num-hidden-layers", "1", "--num-attention-heads", "2", "--max-length",
    "32", *QUIET,
)  # fmt: skip


def lines(place: Path) -> None:
    random = Random(0)
    rows = [(f"number {random.randrange(1000)} is {'even' if i % 2 else 'odd'}", "yn"[i % 2]) for i in range(80)]
    text = "\n".join(json.dumps({"text": words, "label": label}) for words, label in rows)
    (place / "rows.jsonl").write_text(text)


def test_from_text_to_labels(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines(place)
    said = command("train", "masked_lm", "./rows.jsonl", "--total-timesteps", "1024", "--name", "gaps", *SMALL)
    assert said.code == 0, said.err
    code, out, err = command("evaluate", "runs/gaps")
    assert (code, err) == (0, "") and "masked tokens that were held out" in out and "bits per masked byte" in out
    kept = json.loads((place / "runs" / "gaps" / "evaluation.json").read_text())
    assert 0.0 <= kept["accuracy"] <= 1.0 and kept["masked"] > 0
    code, out, _ = command("predict", "runs/gaps", "--text", "number [MASK] is [MASK]", "--top-k", "3")
    assert code == 0 and len(out.splitlines()) == 2 and all(len(line.split("  ")) == 3 for line in out.splitlines())
    code, _, err = command("predict", "runs/gaps", "--text", "no gap")
    assert code == 2 and "expected a text with [MASK]" in err

    tune = ("--init", "runs/gaps", "--total-timesteps", "64", "--max-length", "32", "--name", "labels")
    assert command("data", "classify", "./rows.jsonl", "--init", "runs/gaps").code == 0
    assert command("train", "classify", "./rows.jsonl", *tune, *QUIET).code == 0
    code, out, err = command("evaluate", "runs/labels")
    assert (code, err) == (0, "") and out.startswith("accuracy ")
    kept = json.loads((place / "runs" / "labels" / "evaluation.json").read_text())
    assert kept["labels"] == ["n", "y"] and sum(map(sum, kept["confusion"])) == kept["texts"]
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["label", "n", "y"]
    typed = iter(["number 3 is odd", ""])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(typed))
    code, out, _ = command("predict", "runs/labels")
    shown = dict(zip(out.split()[::2], map(float, out.split()[1::2]), strict=True))
    assert code == 0 and set(shown) == {"n", "y"} and sum(shown.values()) == pytest.approx(1.0, abs=2e-3)

    for run, kind in (("runs/gaps", "MaskedLanguageModel"), ("runs/labels", "TextClassifier")):
        code, _, err = command("chat", run)
        assert code == 2 and f"has a {kind}, which reads and does not write: `torchward predict {run}`" in err
        code, _, err = command("doctor", run)
        assert code == 2 and f"`torchward evaluate {run}` judges it" in err
        assert command("export", run).code == 2
    code, _, err = command("train", "sft", "./rows.jsonl", "--init", "runs/gaps", *QUIET)
    assert code == 2 and "sft does not go on with a MaskedLanguageModel" in err


def test_what_is_no_encoder_is_not_shown_as_one(command: Command, trained: Path) -> None:
    code, _, err = command("predict", trained)
    assert code == 2 and "ActorCritic" in err and "torchward watch" in err
    code, _, err = command("predict", trained, "--top-k", "0")
    assert code == 2 and "top_k" in err
