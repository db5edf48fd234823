"""The files that the book hands to its reader work, and its figures are what their scripts compute."""

import importlib.util
import json
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import torchward
from tests.algorithms.test_every import learn, lines
from tests.algorithms.training import score
from tests.algorithms.worlds import Corridor, Recall
from tests.docs import Block, read
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.nets.actor_critic import Network
from torchward.run import RunOptions
from torchward.tasks import find

DOCS = Path(__file__).resolve().parents[1] / "docs"
VTRACE, COURIER = DOCS / "examples" / "vtrace.py", DOCS / "examples" / "courier.py"
QUIET = RunOptions(tensorboard=False, progress=False, n_eval_episodes=2)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(chapter: str, language: str) -> list[Block]:
    page = read((DOCS / f"{chapter}.md").read_text(encoding="utf-8"))
    return [block for block in page.blocks if block.language == language]


# The algorithm of write-your-algorithm.md


def test_the_chapter_shows_the_whole_algorithm_file_and_nothing_else() -> None:
    shown = "\n".join(block.text for block in blocks("write-your-algorithm", "python")).split()
    assert shown == VTRACE.read_text(encoding="utf-8").split()


def test_the_algorithm_learns(tmp_path: Path) -> None:
    module = find.algorithm(VTRACE).module
    config = module.Config(total_timesteps=4096, n_envs=16, n_steps=16, learning_rate=1e-2, ent_coef=0.01)
    assert score(tmp_path, module, config, Control(Corridor), 4) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("world", "network"),
    [(Corridor, Network()), (Recall, Network(recurrent="gru", net_arch=(16,), lstm_hidden_size=8))],
    ids=["feed-forward", "recurrent"],
)
def test_the_algorithm_goes_on_bit_for_bit(tmp_path: Path, world: Any, network: Network) -> None:
    module = find.algorithm(VTRACE).module
    config = module.Config(total_timesteps=1024, n_envs=4, n_steps=16, network=network)
    whole = learn(tmp_path / "whole", module, config, Control(world), None, False)
    learn(tmp_path / "halved", module, config, Control(world), 512, False)
    again = learn(tmp_path / "halved", module, config, Control(world), None, True)
    assert all(torch.equal(again[key], whole[key]) for key in whole)
    assert lines(tmp_path / "halved") == lines(tmp_path / "whole")


# The environment of bring-your-environment.md


def test_the_environment_is_one() -> None:
    check_env(load(COURIER).Env(size=3), skip_render_check=True)
    env = load(COURIER).Env(render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (192, 192, 3)


def test_its_mask_forbids_the_moves_that_lead_nowhere() -> None:
    env = load(COURIER).Env(size=3)
    _, info = env.reset(seed=0)
    for action in np.random.default_rng(0).integers(4, size=200).tolist():
        before, mask = env.courier.copy(), info["action_mask"]
        _, _, delivered, _, info = env.step(action)
        assert bool(mask[action]) == bool((env.courier != before).any())
        if delivered:
            _, info = env.reset()


def test_its_state_brings_it_back() -> None:
    env, other = load(COURIER).Env(), load(COURIER).Env()
    env.reset(seed=1)
    env.step(0)
    state = env.state_dict()
    other.reset(seed=2)
    other.load_state_dict(json.loads(json.dumps(state, default=lambda array: array.tolist())))
    for action in (1, 3, 3, 1, 0, 2):
        (one, *rest), (two, *others) = env.step(action)[:4], other.step(action)[:4]
        assert rest == others and one["loaded"] == two["loaded"] and (one["places"] == two["places"]).all()
    assert (env.reset()[0]["places"] == other.reset()[0]["places"]).all()


def test_it_is_learnt_from_its_file(tmp_path: Path) -> None:
    env = EnvOptions(action_mask=True, max_episode_steps=20, env_kwargs={"size": 3})
    settings: dict[str, Any] = {"total_timesteps": 256, "n_envs": 2, "n_steps": 32, "batch_size": 32, "n_epochs": 1}
    run = torchward.train("ppo", COURIER, path=tmp_path / "run", options=QUIET, env=env, **settings)
    assert run.step == 256
    policy = torchward.load(run.path)
    observation, info = find.task(COURIER, env).task.env().reset(seed=3)
    action, _ = policy.predict({**observation, "action_mask": info["action_mask"]})
    assert info["action_mask"][action] == 1
    assert find.task(COURIER, env).task.source(2, 0).resumable


def test_an_encoder_of_ones_own_is_trained_and_loaded(tmp_path: Path) -> None:
    main = load(DOCS / "examples" / "picture.py").main
    run = main(tmp_path / "run", options=QUIET, total_timesteps=128, n_envs=2, n_steps=32, batch_size=32, n_epochs=1)
    assert run.step == 128


# What rewards teach, of rewards.md


def test_a_reward_with_a_hole_is_hacked_and_the_run_says_so(tmp_path: Path) -> None:
    found = load(DOCS / "examples" / "reward_watch.py").main(tmp_path)
    before = found["before"][0]
    for honest in ("exact", "chrf", "own + length"):
        means, warned = found[honest]
        assert means["exact"] > before["exact"] + 0.2 and means["length"] < 7.0 and warned == [], honest
    means, warned = found["own"]
    assert means["own"] > before["own"] and means["exact"] < 0.5 * before["exact"] and means["length"] > 10.0
    assert warned and all(re.match("answers no longer end, and earn more|longer answers earn more", x) for x in warned)


# The models of pretrained-models.md


def test_the_families_of_the_chapter_are_what_its_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[hf]'")
    load(DOCS / "examples" / "families.py").main()
    printed = capsys.readouterr().out.split()
    assert any(printed == block.text.split() for block in blocks("pretrained-models", "text"))


# The losses of dpo.md


def test_where_the_losses_send_the_probability_is_what_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    load(DOCS / "examples" / "preference_losses.py").main()
    quoted = [block.text.split() for block in blocks("dpo", "text")]
    tables = [table.split() for table in capsys.readouterr().out.strip().split("\n\n")]
    assert len(tables) == 3 and all(table in quoted for table in tables)


# What designing-a-reward.md measures


def test_six_rewards_of_one_corridor(tmp_path: Path) -> None:
    found = load(DOCS / "examples" / "designing_a_reward.py").main(tmp_path)
    for name in ("a potential", "counts", "curiosity", "a curriculum"):
        assert found[name].arrives > 0.9, name
    assert found["the end alone"].first is None
    circling = found["every step towards it"]
    assert circling.arrives < 0.1 and circling.earns > 31 * 0.05 + 1.0, "it earns more than whoever arrives"


def test_a_proxy_is_optimised_too_far_and_divergence_that_costs_prevents_it(tmp_path: Path) -> None:
    example = load(DOCS / "examples" / "overoptimisation.py")
    free, held = example.main(tmp_path, runs=((0, 0.0), (0, 0.05)))
    curve = [mean for _, mean, _ in example.means([free], (-1.0, 0.25, 2.0, 7.0, 32.0))]
    proxy, meant = [point.proxy for point in curve], [point.meant for point in curve]
    assert proxy == sorted(proxy), "what is paid rises with the divergence"
    assert meant[1] > meant[0] + 0.03 and meant[-1] < 0.5 * meant[0], "what is meant rises, and falls"
    last = held[-10:]
    assert sum(point.meant for point in last) / 10 > meant[1] + 0.1
    assert sum(point.divergence for point in last) / 10 < 2.0


# The figures and the numbers


def test_the_time_limit_of_the_chapter_on_ppo_is_worth_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (block.text for block in blocks("ppo", "python") if "print(" in block.text)
    exec(code, {})
    assert capsys.readouterr().out == "100.00\n9.56\n"


@pytest.mark.parametrize(
    "chapter",
    [
        "q-learning-to-dqn",
        "which-algorithm",
        "bring-your-environment",
        "transformer",
        "pretraining",
        "fine-tuning",
        "grpo",
        "language-as-control",
        "distillation",
        "pytorch-2",
        "rewards",
        "reward-models",
        "designing-a-reward",
    ],
)
def test_the_code_of_a_chapter_prints_what_stands_below_it(chapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = read((DOCS / f"{chapter}.md").read_text(encoding="utf-8"))
    pairs = [(code.text, below.text) for code, below in pairwise(page.blocks) if "print(" in code.text]
    assert pairs
    names: dict[str, Any] = {}  # a block may go on where the one above it ended
    for code, below in pairs:
        exec(code, names)
        assert capsys.readouterr().out.split() == below.split()


FIGURES = {
    "residuals": "bellman", "gamma": None, "temperature": None, "baseline": "policy-gradient", "clipping": "ppo",
    "triad": "q-learning-to-dqn", "transformer_cost": "transformer", "distillation": "distillation",
}  # fmt: skip
"""The scripts that take a second or two and draw no random numbers, and the chapter that quotes what they print."""


@pytest.mark.parametrize("name", FIGURES)
def test_the_numbers_of_a_figure_are_what_its_script_computes(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "figure.png", tmp_path / "figure.json"
    load(DOCS / "figures" / f"{name}.py").main(["--out", str(out), "--data", str(data)])
    assert out.stat().st_size > 10_000
    compare(json.loads(data.read_text()), json.loads((DOCS / "data" / f"{name}.json").read_text()), name)
    if (chapter := FIGURES[name]) is not None:
        printed = capsys.readouterr().out.split()
        assert any(printed == block.text.split() for block in blocks(chapter, "text"))


SLOW = {
    "vocabularies": "pretraining", "pretraining": "pretraining", "pretraining_faults": "pretraining",
    "fine_tuning": "fine-tuning", "language": "language-as-control", "grpo": "grpo",
    "distillation_reward": "distillation",
}  # fmt: skip
"""The scripts that take minutes, or measure the texts of the Python that runs, and the chapter that quotes them."""


@pytest.mark.parametrize("name", SLOW)
def test_the_numbers_of_a_slow_figure_are_those_of_the_data_that_it_kept(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    load(DOCS / "figures" / f"{name}.py").show(json.loads((DOCS / "data" / f"{name}.json").read_text()))
    quoted = [" ".join(block.text.split()) for block in blocks(SLOW[name], "text")]
    parts = [" ".join(part.split()) for part in capsys.readouterr().out.strip().split("\n\n")]
    assert not [part for part in parts if not any(part in block for block in quoted)]


def compare(now: Any, kept: Any, where: str) -> None:
    if isinstance(kept, dict):
        assert now.keys() == kept.keys(), where
        for key in kept:
            compare(now[key], kept[key], f"{where}.{key}")
    elif isinstance(kept, list):
        assert len(now) == len(kept), where
        for i, (one, other) in enumerate(zip(now, kept, strict=True)):
            compare(one, other, f"{where}[{i}]")
    elif isinstance(kept, float):
        assert now == pytest.approx(kept, rel=1e-3, abs=1e-9), where
    elif isinstance(kept, int):
        assert abs(now - kept) <= 1, where  # a sweep more or less is rounding
    else:
        assert now == kept, where
