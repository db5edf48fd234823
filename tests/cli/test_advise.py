"""`torchward advise`: what it prints can be typed."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import QUIET, Command
from tests.tasks.test_advice import PLAIN
from torchward.cli import advise
from torchward.tasks import advice


def test_the_command_that_it_gives_can_be_typed(command: Command, place: Path) -> None:
    limit = ("--max-episode-steps", "7")
    code, out, _ = command("advise", "./world.py", "--seconds", "0.1", *limit, "--seed=3")
    assert code == 0 and "after 7 steps on average, 100% of them by a time limit" in out
    assert "sees      Box(4)" in out and "does      Discrete(2)" in out
    (line,) = [line.strip() for line in out.splitlines() if line.strip().startswith("torchward train")]
    assert line == "torchward train ppo ./world.py --max-episode-steps 7 --total-timesteps 1000000"
    words = shlex.split(line)[1:]
    tiny = ("--n-envs", "2", "--n-steps", "8", "--batch-size", "8", "--total-timesteps", "16")
    assert command(*words, *tiny, *QUIET, "--name", "advised").code == 0
    assert (place / "runs" / "advised" / "result.json").exists()


def test_of_a_known_task_the_tuned_settings(command: Command) -> None:
    code, out, _ = command("advise", "FrozenLake-v1", "--seconds", "0.1")
    assert code == 0
    assert "Take dynamic_programming:" in out and "q_learning, tuned for this task" in out
    assert "sweeps" in out and "of which the environment takes" not in out


@pytest.mark.parametrize(
    ("rewarded", "distinct", "episodes", "told"),
    [
        (1.0, 1.0, 9, "what is paid differs from step to step, and from episode to episode; returns -9 ± 2"),
        (1.0, 0.25, 9, "what is paid differs from step to step; 25% of the episodes pay something else than most do; "),
        (0.9, 0.0, 0, "what is paid differs from step to step; returns"),
        (0.021, 0.5, 9, "2.1% of the steps pay something else than most do, 50% of the episodes; returns"),
    ],
)
def test_how_often_something_is_paid(rewarded: float, distinct: float, episodes: int, told: str) -> None:
    facts = replace(PLAIN, rewarded=rewarded, distinct=distinct, episodes=episodes, mean_return=-9.0, std_return=2.0)
    first = advice.Advice(advice.RULES[0], False, {}, 1)
    text = " ".join(" ".join(advise.told("world", "", facts, [first], [])).split())
    assert f"rewards {told}" in text


def test_the_rules(command: Command) -> None:
    code, out, _ = command("advise", "--table")
    assert code == 0 and out.startswith("| when | take | because |") and "| `sac` `--replay her` |" in out


TEXT = """
from torchward.language.documents import Completion, Document
from torchward.language.rewards import exact_match
from torchward.language.task import Problems
from torchward.language.text_task import Text

rows = [Document(Completion(text, text), text, {"answer": text}) for text in ("a", "b")]
task = Text(Problems("echo", rows, rows, exact_match))
"""


@pytest.mark.parametrize("named", ["addition", "./answers.jsonl", "./echo.py"])
def test_text_is_not_played(command: Command, place: Path, named: str) -> None:
    (place / "answers.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    (place / "echo.py").write_text(TEXT)
    code, out, err = command("advise", named, "--seconds", "0.1")
    assert (code, out) == (2, "")
    assert err == (
        f"torchward: advise plays environments, and {named} is a task of text: `torchward data ALGORITHM TASK` looks "
        "at it, and docs/which-algorithm.md says what learns from text\n"
    )


def test_what_is_asked_wrongly(command: Command) -> None:
    assert command("advise", "CartPole-v1", "--seconds", "0").code == 2
    code, _, err = command("advise", "Cartpole-v1")
    assert code == 2 and "Did you mean 'CartPole-v1'" in err
    code, _, err = command("advise", "CartPole-v1", "--second", "1")
    assert code == 2 and "Did you mean '--seconds'" in err
