"""Every command once, on a tiny budget, and what each says when it is asked wrongly."""

import errno
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import torchward
from tests.cli.conftest import QUIET, Command
from torchward.cli import COMMANDS, listing
from torchward.data.protocols import Evaluation
from torchward.envs.faults import WorldError
from torchward.envs.task import Control
from torchward.tasks import control

ROOT = Path(torchward.__file__).parents[1]


def test_top_level_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from torchward.cli import main; assert main(['--help']) == 0 and main(['trian']) == 2;"
        "print(sorted({'torch', 'numpy', 'gymnasium', 'tyro', 'matplotlib', 'jaxtyping'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *text, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    for name in COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in text), name
    assert (
        done.stderr == "torchward: there is no command 'trian'. Did you mean 'train'? `torchward --help` lists them.\n"
    )


def test_version(command: Command) -> None:
    assert command("--version").out == f"torchward {torchward.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(command: Command, name: str) -> None:
    code, out, err = command(name, "--help")
    assert code == 0 and f"torchward {name}" in out and err == ""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "list"])
def test_every_command_says_what_is_missing(command: Command, name: str) -> None:
    code, out, err = command(name)
    assert code == 2
    assert "usage" in out or "is missing" in err


def test_list(command: Command) -> None:
    code, out, _ = command("list")
    assert code == 0
    for word in ("ppo", "q_learning", "Proximal policy optimisation", "LunarLander-v3", "package:Id-v0", "Taxi-"):
        assert word in out


def test_help_of_an_algorithm_starts_from_the_tuned_settings(command: Command) -> None:
    plain, tuned = (
        " ".join(command("train", "ppo", *task, "--help").out.replace("│", " ").split())
        for task in ((), ("CartPole-v1",))
    )
    assert "--gae-lambda FLOAT" in plain and "(default: 0.95)" in plain
    tuned_steps = control.ppo_cartpole().config.n_steps
    assert f"two updates. (default: {tuned_steps})" in tuned
    for flag in ("--net-arch", "--stop-return", "--max-episode-steps", "--name", "--init", "--threads"):
        assert flag in plain
    assert "Passes over each rollout." in plain  # docstrings are the help
    chosen = command("train", "q_learning", "FrozenLake-v1", "--exploration", "boltzmann", "--help").out
    assert "--exploration-start FLOAT" in chosen and "temperature" in chosen


def test_train(command: Command, trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 256
    assert json.loads((trained / "result.json").read_text())["step"] == 256
    stored = json.loads((trained / "config.json").read_text())
    assert stored["threads"] == 1
    manifest = stored["manifest"]
    assert manifest["algorithm"] == "ppo"
    assert manifest["task"] == str(trained.parents[1] / "world.py")
    assert manifest["config"]["n_steps"] == 64 and manifest["config"]["network"]["normalize_observation"] is True


def test_names_never_collide(command: Command, place: Path) -> None:
    for _ in range(2):
        assert command("train", "./search.py", "./world.py", *QUIET, "--seed", 3).code == 0
    assert {path.name for path in (place / "runs").iterdir()} == {"search-world-3", "search-world-3-2"}
    code, _, err = command("train", "./search.py", "./world.py", *QUIET, "--name", "search-world-3")
    assert code == 2 and "already exists" in err
    assert "letters, digits" in command("train", "./search.py", "./world.py", "--name", "../x").err


def test_evaluate(command: Command, trained: Path) -> None:
    code, out, _ = command("evaluate", trained, "--episodes", 4)
    assert code == 0
    written = json.loads((trained / "evaluation.json").read_text())
    assert written["episodes"] == 4 and len(written["returns"]) == 4 and written["lengths"] == [10] * 4
    assert out.startswith(f"{np.mean(written['returns']):.2f} ± {np.std(written['returns']):.2f} (min ")
    again = command("evaluate", trained, "--episodes", 4).out
    drawn = command("evaluate", trained, "--episodes", 4, "--stochastic", "--which", "last", "--seed", 1).out
    assert again == out != drawn


def test_an_evaluation_that_cannot_be_written_is_shown(command: Command, trained: Path, place: Path) -> None:
    run = shutil.copytree(trained, place / "run")
    (run / "evaluation.json.tmp").mkdir()  # in the way of the file
    code, out, err = command("evaluate", run, "--episodes", 2)
    assert code == 1 and "over 2 episodes of 10 steps" in out
    assert "evaluation.json.tmp" in err and err.startswith("torchward: expected files") and err.count("\n") == 1


def test_returns_that_are_no_numbers_are_evaluated(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Evaluation([1.0, math.nan, math.inf], [1, 2, 3])
    monkeypatch.setattr(Control, "evaluate", lambda *_: played)
    code, out, _ = command("evaluate", trained)
    assert code == 0 and out.startswith("nan ± nan") and out.endswith("over 3 episodes of 2 steps on average\n")
    written = json.loads((trained / "evaluation.json").read_text())
    assert (written["mean"], written["std"], written["returns"]) == (None, None, [1.0, None, None])


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/a"), "Permission denied: 'runs/a'"),
        (WorldError("the robot is gone"), "the robot is gone"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), None),
        (KeyError("fault"), None),
    ],
)
def test_what_files_refuse_is_a_sentence_and_a_fault_shows_where_it_lies(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str | None
) -> None:
    def fail(arguments: Sequence[str]) -> int:
        raise error

    monkeypatch.setattr(listing, "run", fail)
    if sentence is None:
        with pytest.raises(type(error)):
            command("list")
        return
    code, _, err = command("list")
    assert code == 1 and sentence in err and err.startswith("torchward: ") and err.count("\n") == 1


def test_watch(command: Command, trained: Path, place: Path) -> None:
    from PIL import Image

    code, out, _ = command("watch", trained, "--out", "film.gif", "--episodes", 2)
    assert code == 0 and out.startswith("film.gif: return ")
    with Image.open(place / "film.gif") as film:
        assert film.size == (24, 16) and film.info["duration"] == 40 and film.info["loop"] == 0
        shades = []
        for index in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(index)
            shades.append(film.convert("RGB").getpixel((0, 0)))
    assert shades == [(20 * step,) * 3 for step in range(11)] * 2
    assert command("watch", trained, "--out", "film.mp4", "--max-steps", 3).code == 0
    assert (place / "film.mp4").read_bytes()[4:8] == b"ftyp"
    assert "ends in .gif or .mp4" in command("watch", trained, "--out", "film.avi").err
    code, _, err = command("watch", trained, "--window")
    assert code == 2 and "needs the render mode human, but offers rgb_array" in err


@pytest.mark.parametrize(
    ("verb", "does", "told"),
    [
        ("reset", "raise ValueError('no room')", "world raised ValueError at the reset of world 0: no room"),
        ("reset", "return None", "expected reset of world to return an observation and an info"),
        ("step", "raise SystemExit('no room')", "world raised SystemExit in world 0: no room"),
        ("step", "return 1, 2", "expected step of world to return the five values"),
        ("render", "1 / 0", "world raised ZeroDivisionError in render: division by zero; "),
        ("render", "raise gym.error.DependencyNotInstalled('no pen')", "a package that is not installed (no pen)"),
        ("step", "raise gym.error.DependencyNotInstalled('no pen')", "a package that is not installed (no pen)"),
    ],
)
def test_what_a_world_raises_while_it_is_watched_is_a_sentence(
    command: Command, trained: Path, place: Path, verb: str, does: str, told: str
) -> None:
    path = shutil.copytree(trained, place / "runs" / "short")
    for file in path.glob("*.json"):
        file.write_text(file.read_text().replace(str(trained.parents[1]), str(place)))
    broken = re.sub(rf"(    def {verb}\(.*\n)", rf"\1        {does}\n", (place / "world.py").read_text())
    (place / "world.py").write_text(broken)
    code, out, err = command("watch", path, "--out", "film.gif")
    assert code in (1, 2) and out == "" and told in err and err.count("\n") == 1


def test_compare(command: Command, trained: Path, place: Path) -> None:
    code, out, _ = command("compare", trained, "--out", "both")
    assert code == 0 and "one run" in out
    assert "| world |" in (place / "both" / "compare.md").read_text()
    assert (place / "both" / "compare.png").read_bytes()[1:4] == b"PNG"
    assert "there is no nowhere" in command("compare", "nowhere").err
    assert "is no run, and holds none" in command("compare", place / "both").err


def test_python_in_three_lines(place: Path) -> None:
    from torchward.run import RunOptions

    options = RunOptions(tensorboard=False, progress=False)
    run = torchward.train(
        "ppo", "CartPole-v1", total_timesteps=64, n_envs=2, n_steps=32, batch_size=32, options=options
    )
    action, _ = torchward.load(run.path).predict(np.zeros(4, np.float32), deterministic=True)
    assert run.path == Path("runs/ppo-CartPole-v1-0") and action in (0, 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "pppo", "CartPole-v1"), "there is no algorithm 'pppo'. Did you mean 'ppo'?"),
        (("train", "ppo", "CartPol-v1"), "got 'CartPol-v1'. Did you mean 'CartPole-v1'?"),
        (("train", "ppo", "CartPole-v1", "--n-step", "4"), "has no option '--n-step'. Did you mean '--n-steps'?"),
        (("train", "ppo", "CartPole-v1", "--recurrent", "lstn"), "got 'lstn'. Did you mean 'lstm'?"),
        (("train", "ppo", "CartPole-v1", "--gamma", "2"), "gamma"),
        (("train", "ppo", "CartPole-v1", "--gamma", "x"), "--gamma expects FLOAT"),
        (("train", "q_learning", "CartPole-v1"), "needs Discrete observations, but CartPole-v1 has Box(4)"),
        (("train", "ppo", "CartPole-v1", "--init", "runs/none"), "no such directory"),
        (("train", "ppo", "CartPole-v1", "--name", "a", "--path", "b"), "not both"),
        (("train", "ppo", "nowhere:World-v0"), "nowhere"),
        (("train", "ppo", "CartPole-v1", "--device", "abacus"), "there is no device 'abacus' here"),
        (("train", "./serch.py", "CartPole-v1"), "Did you mean 'search.py'?"),
        (("train", "./world.py", "CartPole-v1"), "it needs a dataclass Config and a function train"),
        (("train", "ppo", "./search.py"), "holds no environment"),
        (("train", "ppo", "./world.py:Evn"), "nothing called 'Evn'. Did you mean 'Env'?"),
        (("evaluate", "runs/none"), "runs/none is no run"),
        (("evaluate", "runs/none", "--wich", "last"), "Did you mean '--which'?"),
        (("resume", "runs/none"), "runs/none is no run"),
        (("resume", "runs/none", "--seed", "1"), "resume takes no options"),
        (("resume", "runs/none", "--seed", "1"), "torchward train ALGORITHM TASK --init runs/none"),
        (("train", "ppo", "CartPole-v1", "--net-arch", "64,64"), "Write --net-arch 64 64."),
        (("train", "ppo", "CartPole-v1", "--net-arch=[64, 32]"), "Write --net-arch 64 32."),
        (("train", "sac", "Pendulum-v1", "--ent-coef", "0.2"), "Write --ent-coef fixed --ent-coef-value 0.2."),
        (("train", "sac", "Pendulum-v1", "--ent-coef=1e-2"), "Write --ent-coef fixed --ent-coef-value 1e-2."),
        (("train", "sac", "Pendulum-v1", "--ent-coef", "fixd"), "Did you mean 'fixed'?"),
        (("sweep", "ppo", "CartPole-v1", "--gama", "0.9,0.8"), "Did you mean '--gamma'?"),
        (("sweep", "ppo", "CartPole-v1", "--seed", "3"), "use --seeds"),
        (("sweep", "ppo", "CartPole-v1", "--seeds", "none"), "--seeds takes"),
        (("sweep", "ppo", "CartPole-v1", "--normalize-reward", "yes,no"), "its values are true and false"),
        (
            ("sweep", "ppo", "CartPole-v1", "--device", "a/b,a-b"),
            "2 runs in sweeps/ppo-CartPole-v1/device=a-b/seed-0",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(
    command: Command, place: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    code, out, err = command(*arguments)
    assert code == 2 and sentence in err, err
    assert err.startswith("torchward: ") and err.count("\n") == 1 and out == ""
    assert list((place / "runs").glob("*")) == []
    assert not (place / "sweeps").exists()


def test_both_spellings_of_a_flag(command: Command) -> None:
    for flag in ("--total_timesteps", "--total-timesteps"):
        assert command("train", "./search.py", "./world.py", *QUIET, flag, "10").code == 0
