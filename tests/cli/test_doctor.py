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
        assert [line.split()[0] for line in out.splitlines()] == ["ok"] * 11 + ["-" if name == "first" else "ok"]
    monkeypatch.setattr(source, "_supports", lambda lines, time: None)
    code, out, _ = command("doctor", runs / "paid", "--prompts", "3")
    assert code == 1
    lines = out.splitlines()
    assert lines[5] == "WRONG  support" and lines[12] == ""
    assert lines[13].startswith("support: With top_k and top_p rollouts do not hold") and len(lines) > 14


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


def test_a_run_is_evaluated_in_the_words_of_its_policy(command: Command, place: Path) -> None:
    """The task alone would build another tokenizer than that of the run that it began from."""
    lines = [f'{{"prompt": "{n} is ", "completion": "{n}", "answer": "{n}"}}' for n in range(30)]
    (place / "more.jsonl").write_text("\n".join(lines))
    (place / "book.txt").write_text("\n".join(f"{n} is {n}, and {n + 1} is more than that." for n in range(60)))
    net = (*NET[:-1], "64", "--max-length", "32", "--per-device-train-batch-size", "4", "--total-timesteps", "256")
    assert command("train", "pretrain", "./book.txt", *net, *QUIET, "--name", "book").code == 0
    tuned = ("--max-length", "32", "--total-timesteps", "256", "--init", "runs/book", "--name", "tuned")
    assert command("train", "sft", "./more.jsonl", *tuned, *QUIET).code == 0
    code, out, err = command("evaluate", "runs/tuned", "--episodes", "500")
    assert (code, err) == (0, "")
    count = int(out.partition("over ")[2].split()[0])
    assert 0 < count < 30, "as many as there are"
    code, out, err = command("export", "runs/tuned")
    assert "its tokenizer is torchward's own, which transformers has not: runs/tuned keeps it" in out
    code, _, told = command("train", "ppo", "./more.jsonl", "--init", "runs/tuned", "--net-arch", "8", *QUIET)
    assert code == 2 and "the policy of runs/tuned brings its own network (LanguageModel); leave the network's" in told
    assert err == "" and (place / "runs" / "tuned" / "transformers" / "config.json").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("pretrain", "CartPole-v1"), "pretrain learns from text, and CartPole-v1 has none"),
        (("grpo", "CartPole-v1"), "grpo learns from text, and CartPole-v1 has none"),
        (("ppo", "addition"), "improves a model that can write: give the run that has one, with init"),
        (("dqn", "addition"), "improves a model that can write: give the run that has one, with init"),
    ],
)
def test_pairs_that_cannot_be_are_told_and_leave_no_run(
    command: Command, place: Path, words: tuple[str, str], sentence: str
) -> None:
    code, _, err = command("train", *words, "--name", "none")
    assert code == 2 and sentence in err
    assert not (place / "runs" / "none").exists()
