"""From picks to a reward model and from it to a policy, by the commands that a person types."""

import json
from itertools import combinations
from pathlib import Path

import pytest

import torchward
from torchward import cli, launch, launch_policies
from torchward.cli.train import Launch
from torchward.envs.make import EnvOptions
from torchward.fields import settings
from torchward.metrics import read_metrics
from torchward.nets.language_model import LanguageModel
from torchward.nets.reward_model import RewardModel
from torchward.run import RunOptions, read_manifest
from torchward.tasks import find, texts
from torchward.tasks.find import LaunchError

SMALL = ["--pairs", "200", "--test", "60", "--menus", "200", "--no-progress", "--no-tensorboard"]


def run(*words: str) -> int:
    return cli.main([*words])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes menus, and a reward model of two members."""
    place = tmp_path_factory.mktemp("taste")
    short = ["--total-timesteps", "8000", "--hidden-size", "32", "--num-hidden-layers", "1"]
    assert run("train", "pretrain", "taste", *SMALL, *short, "--path", str(place / "writer")) == 0
    judge = ["--total-timesteps", "1200", "--num-members", "2", "--init", str(place / "writer")]
    assert run("train", "reward_model", "taste", *SMALL, *judge, "--path", str(place / "judge")) == 0
    return place


def test_a_reward_model_is_evaluated_by_the_pairs_it_orders(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(torchward.load(runs / "judge"), RewardModel)
    capsys.readouterr()
    assert run("evaluate", str(runs / "judge")) == 0
    out = capsys.readouterr().out
    kept = json.loads((runs / "judge" / "evaluation.json").read_text())
    assert out.startswith(f"accuracy {kept['accuracy']:.3f} on 60 held-out pairs, calibration error ")
    best = max((r for r in read_metrics(runs / "judge") if "eval/accuracy" in r), key=lambda r: r["eval/accuracy"])
    assert kept["pairs"] == 60 and kept["which"] == "best"
    for name in ("accuracy", "loss", "calibration_error", "disagreement"):
        assert kept[name] == pytest.approx(best[f"eval/{name}"], abs=1e-5)


def test_what_a_reward_model_does_not_do_is_a_sentence(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = runs / "judge"
    assert run("export", str(judge)) == 2
    assert f"{judge} has a reward model, which export does not write" in capsys.readouterr().err
    for command in ("chat", "serve"):
        assert run(command, str(judge)) == 2
        said = capsys.readouterr().err
        assert f"a RewardModel, which judges and does not talk: `torchward evaluate {judge}` says how often" in said


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_policy_learns_from_a_reward_model_and_goes_on_without_it(algorithm: str, runs: Path, tmp_path: Path) -> None:
    """The run keeps what judged it, so that it can be resumed where the reward model's own run is gone."""
    batch = {"ppo": ["--n-envs", "16", "--batch-size", "88"], "grpo": ["--generation-batch-size", "16"]}[algorithm]
    given = ["--init", str(runs / "writer"), "--reward-model", str(runs / "judge"), "--pessimism", "0.5"]
    path = tmp_path / "run"
    steps = ["--total-timesteps", "600", "--kl-coef", "0.1", "--checkpoint-freq", "300"]
    assert run("train", algorithm, "taste", *SMALL, *batch, *given, *steps, "--path", str(path)) == 0
    assert isinstance(launch_policies.judge_of(path / "reward_model"), RewardModel)
    manifest = read_manifest(path)["manifest"]
    assert manifest["pessimism"] == 0.5 and manifest["reward_model"] == str(runs / "judge")
    ready = launch.take_up(path)
    judge = ready.task.task.problems.reward
    assert judge.pessimism == 0.5 and judge.reads_tokens and judge.model is ready.judge
    assert run("evaluate", str(path), "--episodes", "6") == 0


@pytest.mark.parametrize("algorithm", ["dpo", "kto"])
def test_a_policy_learns_from_picks_alone(algorithm: str, runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    given = ["--init", str(runs / "writer"), "--total-timesteps", "600", "--path", str(path)]
    assert run("train", algorithm, "taste", *SMALL, *given) == 0
    assert isinstance(torchward.load(path), LanguageModel)
    assert run("evaluate", str(path), "--episodes", "6", "--stochastic") == 0


def test_a_file_of_pairs_is_a_task(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "picks.jsonl"
    tables = list(combinations("ABCDEFGH", 2))
    lines = [{"prompt": f"{a}{b}:", "chosen": "abcd"[: i % 4 + 1], "rejected": "ff"} for i, (a, b) in enumerate(tables)]
    file.write_text("\n".join(map(json.dumps, lines)))
    path = tmp_path / "run"
    options = ["--init", str(runs / "writer"), "--total-timesteps", "300", "--no-progress", "--no-tensorboard"]
    assert run("train", "reward_model", str(file), *options, "--validation", "0.3", "--path", str(path)) == 0
    assert isinstance(torchward.load(path), RewardModel)

    for algorithm, figure in (("dpo", "eval/accuracy"), ("sft", "eval/bits_per_byte")):
        path = tmp_path / algorithm
        given = [*options, "--max-length", "64", "--validation", "0.3", "--path", str(path)]
        assert run("train", algorithm, str(file), *given) == 0
        capsys.readouterr()
        assert run("evaluate", str(path)) == 2
        said = capsys.readouterr().err
        assert f"expected a column 'answer' in picks to judge what {path} writes by, got none" in said
        assert f"its own figure is {figure} in {path}" in said and f"`torchward serve {path}`" in said


def test_what_was_judged_by_a_model_alone_is_evaluated_by_it(runs: Path, tmp_path: Path) -> None:
    """Prompts without answers have no other reward; and no algorithm has an option that a file of text has too."""
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"{a}{b}:"}) for a, b in combinations("ABCDEFGH", 2)))
    path = tmp_path / "run"
    given = ["--init", str(runs / "writer"), "--reward-model", str(runs / "judge"), "--validation", "0.3"]
    quiet = ["--no-progress", "--no-tensorboard", "--total-timesteps", "200", "--generation-batch-size", "16"]
    assert run("train", "grpo", str(file), *given, *quiet, "--path", str(path)) == 0
    assert run("evaluate", str(path), "--episodes", "3") == 0
    assert json.loads((path / "evaluation.json").read_text())["mean"] != 0.0


def test_options_of_one_command_line_have_names_of_their_own() -> None:
    tasks = [find.options(name) for name in find.problems()] + [texts.Options(), EnvOptions()]
    for name in find.algorithms():
        config = {each.name for each in settings(find.algorithm(name).Config())}
        shared = {each.name for options in (RunOptions(), Launch()) for each in settings(options)}
        assert not config & shared, name
        for options in tasks:
            assert not (config | shared) & {each.name for each in settings(options)}, (name, type(options))


def test_what_cannot_be_is_a_sentence(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LaunchError, match=r"expected the run of a reward model at .*, got a LanguageModel"):
        launch_policies.judge_of(runs / "writer")
    asked = ["train", "ppo", "taste", *SMALL, "--init", str(runs / "writer"), "--path", str(tmp_path / "run")]
    assert run(*asked, "--pessimism", "1.0") != 0
    assert "pessimism needs a reward model" in capsys.readouterr().err
    assert run("train", "ppo", "CartPole-v1", "--reward-model", str(runs / "judge")) != 0
    assert "a reward model judges answers in text, and CartPole-v1 has none" in capsys.readouterr().err
    assert run("train", "dpo", "CartPole-v1") != 0
    assert "dpo learns from text, and CartPole-v1 has none" in capsys.readouterr().err
    assert run("train", "dpo", "reversal", "--init", str(runs / "writer"), "--path", str(tmp_path / "no")) != 0
    assert "expected pairs of answers in reversal, got none" in capsys.readouterr().err
