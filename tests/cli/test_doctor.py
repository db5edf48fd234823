"""`torchward doctor` on runs: of imitation with adapters, by reward, of plain text, and what it says of others."""

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import QUIET, Command
from torchward.language import source

SMALL = ("--digits", "1", "--demonstrations", "30", "--problems", "40", "--test", "4")
NET = (
    "--hidden-size",
    "16",
    "--num-hidden-layers",
    "1",
    "--num-attention-heads",
    "2",
    "--max-position-embeddings",
    "24",
)
TINY = ("--total-timesteps", "128", *SMALL, *QUIET)
ROWS = ("--max-length", "16", "--per-device-train-batch-size", "4")
GROUPS = ("--num-generations", "2", "--generation-batch-size", "8", "--top-k", "4")


@pytest.fixture
def runs(command: Command, place: Path) -> Path:
    """A pretrained model, one that was tuned from it by adapters, and one that went on by reward."""
    assert command("train", "pretrain", "addition", *TINY, *ROWS, *NET, "--name", "first").code == 0
    tuned = ("--init", "runs/first", "--lora", "lora", "--lora-r", "2", "--learning-rate", "1e-2")
    assert command("train", "sft", "addition", *TINY, *ROWS, *tuned, "--name", "tuned").code == 0
    assert command("train", "grpo", "addition", *TINY, *GROUPS, "--init", "runs/tuned", "--name", "paid").code == 0
    return place / "runs"


def test_sound_runs_pass_and_a_fault_is_told_in_words(
    command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "tuned", "paid"):
        code, out, err = command("doctor", runs / name, "--prompts", "3", "--which", "last")
        assert (code, err) == (0, "")
        assert [line.split()[0] for line in out.splitlines()] == ["ok"] * 10 + ["-" if name == "first" else "ok"]
    monkeypatch.setattr(source, "_supports", lambda lines, time: None)
    code, out, _ = command("doctor", runs / "paid", "--prompts", "3")
    assert code == 1
    lines = out.splitlines()
    assert lines[4] == "WRONG  support" and lines[11] == ""
    assert lines[12].startswith("support: With top_k and top_p rollouts do not hold") and len(lines) > 13


def test_the_base_of_new_adapters_is_compared_with_what_the_run_began_with(command: Command, runs: Path) -> None:
    from torchward.nets import saving

    other = saving.load(runs / "first")
    other.get_parameter("body.stack.final_norm.weight").data.mul_(1.5)
    shutil.rmtree(runs / "tuned" / "initial")
    saving.save(other, runs / "tuned" / "initial")
    code, out, _ = command("doctor", runs / "tuned", "--prompts", "2")
    assert code == 1 and "adapters: Without its adapters the policy is not what the run began with" in out


def test_runs_without_a_language_model_are_refused_in_a_sentence(command: Command, trained: Path) -> None:
    code, out, err = command("doctor", trained)
    assert code == 2 and out == ""
    assert err == f"torchward: doctor looks at runs of language models, and {trained} has a ActorCritic\n"
    assert "prompts has to be at least 1" in command("doctor", trained, "--prompts", "0").err
    assert "is no run" in command("doctor", "nowhere").err
