"""`torchward train distill` and `torchward.train("distill", ...)`: a run keeps its teacher, and needs nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import torchward
from tests.cli.conftest import QUIET, Command
from tests.cli.test_runs import SILENT, learnt, same
from torchward.nets import saving
from torchward.tasks.find import LaunchError

SUMS = ("--digits", "1", "--demonstrations", "30", "--problems", "40", "--test", "4", *QUIET)
STUDENT = ("--hidden-size", "8", "--num-hidden-layers", "1", "--num-attention-heads", "2")
NET = (*STUDENT, "--max-position-embeddings", "24")
ROWS = ("--total-timesteps", "128", "--max-length", "16", "--per-device-train-batch-size", "4")
SHORT = ("--total-timesteps", "300", "--generation-batch-size", "16", *STUDENT)


@pytest.fixture
def teacher(command: Command, place: Path) -> Path:
    """A pretrained model."""
    assert command("train", "pretrain", "addition", *SUMS, *ROWS, *NET, "--name", "teacher").code == 0
    return place / "runs" / "teacher"


def test_a_run_keeps_its_teacher(command: Command, teacher: Path, place: Path) -> None:
    asked = ("train", "distill", "addition", *SUMS, *SHORT, "--teacher", "runs/teacher")
    chosen = ("--objective", "reversekl", "--objective-gamma", "0.5", "--data", "demonstrations", "--max-length", "16")
    reward = ("--reward", "rewarded", "--reward-follow", "where_better", "--num-generations", "2")
    assert command(*asked, *chosen, *reward, "--name", "one").code == 0
    run = place / "runs" / "one"
    manifest = json.loads((run / "config.json").read_text())["manifest"]
    assert manifest["teacher"] == str(teacher) and manifest["init"] is None
    assert manifest["config"]["reward"]["follow"] == {"type": "WhereBetter"}
    taught, was = saving.load(run / "teacher").state_dict(), learnt(teacher)
    assert all(torch.equal(x, was[name]) for name, x in taught.items())
    assert torchward.load(run).vocabulary == torchward.load(teacher).vocabulary

    # As after a kill before the first checkpoint; and the teacher's own run is gone.
    kept = run.rename(place / "runs" / "kept")
    shutil.copytree(kept, run)
    shutil.rmtree(run / "checkpoint")
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(teacher)
    assert command("resume", run).code == 0
    assert same(kept, run)


def test_a_student_may_learn_from_the_teachers_words_alone(command: Command, teacher: Path, place: Path) -> None:
    """Both options are needed, whichever comes first."""
    asked = ("train", "distill", "addition", *SUMS, *SHORT, "--teacher", "runs/teacher")
    assert command(*asked, "--lmbda", "0", "--objective", "sequence", "--name", "one").code == 0
    refused = command(*asked, "--objective", "sequence", "--name", "two")
    assert refused.code == 2 and "expected lmbda=0 with the objective Sequence, got 0.5" in refused.err


def test_a_student_that_reads_less_than_a_row_gets_shorter_rows(command: Command, teacher: Path, place: Path) -> None:
    asked = ("train", "distill", "addition", *SUMS, *SHORT, "--teacher", teacher, "--init", teacher)
    assert command(*asked, "--lmbda", "0", "--data", "demonstrations", "--name", "one").code == 0
    manifest = json.loads((place / "runs" / "one" / "config.json").read_text())["manifest"]
    assert manifest["config"]["max_length"] == 24


def test_a_teacher_may_be_a_policy(teacher: Path, place: Path) -> None:
    policy = torchward.load(teacher)
    settings: dict[str, Any] = {
        "total_timesteps": 100,
        "generation_batch_size": 16,
        "digits": 1,
        "demonstrations": 30,
        "problems": 40,
    }
    both = [
        torchward.train("distill", "addition", teacher=given, path=place / name, options=SILENT, test=4, **settings)
        for name, given in (("path", teacher), ("policy", policy))
    ]
    assert same(both[0].path, both[1].path)
    told = [json.loads((run.path / "config.json").read_text())["manifest"]["teacher"] for run in both]
    assert told == [str(teacher), "LanguageModel"]
    on = torchward.train(
        "distill", "addition", teacher=policy, init=both[0].path, path=place / "on", options=SILENT, test=4, **settings
    )
    assert (on.path / "initial").is_dir() and (on.path / "teacher").is_dir()


def test_what_cannot_be_is_said(command: Command, teacher: Path, place: Path) -> None:
    asked = ("train", "distill", "addition", *SUMS, *SHORT)
    code, _, err = command(*asked)
    assert code == 2 and "distill learns from a teacher: give the run that has it, with teacher" in err
    code, _, err = command("train", "sft", "addition", *SUMS, "--init", teacher, "--teacher", teacher)
    assert code == 2 and "sft learns from no teacher" in err
    assert command(*asked, "--teacher", "runs/none").code == 2
    words = ("--demonstrations", "30", "--problems", "40", "--test", "4", *QUIET)
    assert command("train", "pretrain", "reversal", *words, *ROWS, *NET, "--name", "other").code == 0
    code, _, err = command(*asked, "--teacher", teacher, "--init", "runs/other", "--name", "mixed")
    assert code == 2 and "tokenizer" in err and not (place / "runs" / "mixed").exists()
    with pytest.raises(LaunchError, match="ppo learns from no teacher"):
        torchward.train("ppo", "CartPole-v1", teacher=teacher)
