"""Runs that are killed and gone on with, in processes of their own; the benchmark does it for every algorithm."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.resume import CASES, Lives, differences, examine, flat, whole
from torchward import checkpoint, launch


@pytest.fixture(scope="module")
def lives() -> Lives:
    return Lives()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "total"), [("ppo", 2560), ("q_learning", 6000), ("dqn, prioritised, 3 steps", 1600)])
def test_a_run_that_is_killed_ends_as_if_it_had_never_been(name: str, total: int, lives: Lives, tmp_path: Path) -> None:
    case = replace(CASES[name], settings={**CASES[name].settings, "total_timesteps": total})
    whole(lives, case, tmp_path / "reference", fresh=True)
    spans = whole(lives, case, tmp_path / "again", fresh=False)
    again = examine(lives, case, "again", 1, tmp_path, spans)
    assert again.differences == [], "two uninterrupted runs, one in an interpreter of its own and one forked"
    killed = examine(lives, case, "kill", 3, tmp_path, spans)
    assert killed.differences == []
    assert killed.equal == killed.struck == 3


def test_every_algorithm_is_interrupted() -> None:
    algorithms = {path.stem for path in Path(launch.__file__).with_name("algorithms").glob("[a-z]*.py")}
    assert {case.algorithm for case in CASES.values()} == algorithms


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "buffer_size" in case.settings])
def test_a_replay_is_written_over_before_the_first_interruption(name: str) -> None:
    told = CASES[name].all_settings()
    period, capacity = told["checkpoint_freq"], told["buffer_size"]
    assert told["total_timesteps"] > 4 * capacity and told["learning_starts"] < 3 * period
    if told.get("buffer_on_disk"):
        assert told["total_timesteps"] > 4 * (2 * period + capacity), "its files are longer"
    else:
        assert period > 1.5 * capacity, "between two checkpoints as well"


def test_a_replay_on_the_disk_is_held_against_the_other(tmp_path: Path) -> None:
    case = CASES["dqn, on disk"]
    told = {**case.all_settings(), "total_timesteps": 700, "eval_freq": -1}
    run = launch.train(case.algorithm, case.task, path=tmp_path / "run", threads=1, **told).path
    other: Path = shutil.copytree(run, tmp_path / "other")
    newest = checkpoint.latest(run / "checkpoint")
    assert newest is not None
    streams = checkpoint.load_tree(newest)["tracked"]["replay"]["streams"]
    assert streams["written"].min() > streams["shape"][1], "the files have been written over"
    assert differences(run, other) == []
    file = other / "replay" / "observation-0.bin"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert differences(run, other) == ["replay/observation-0.bin"]


def test_any_difference_is_found(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings: dict[str, Any] = {
        "n_envs": 2,
        "eval_freq": -1,
        "checkpoint_freq": -1,
        "tensorboard": False,
        "progress": False,
    }
    launch.train("q_learning", "CliffWalking-v1", path=run, total_timesteps=600, **settings)
    newest = checkpoint.latest(run / "checkpoint")
    assert newest is not None

    def changed(name: str) -> Path:
        copy: Path = shutil.copytree(run, tmp_path / name)
        return copy

    assert differences(run, changed("copy")) == []

    policy = changed("policy") / "policy" / "last" / "policy.safetensors"
    content = bytearray(policy.read_bytes())
    content[-1] ^= 1
    policy.write_bytes(content)
    assert differences(run, policy.parents[2]) == ["policy/last/policy.safetensors"]

    other = changed("tensor")
    tree = checkpoint.load_tree(newest)
    q = tree["tracked"]["learner"]["q"]
    q.view(-1)[0] = (
        -q.view(-1)[0] if q.view(-1)[0] == 0 else torch.nextafter(q.view(-1)[0], torch.zeros_like(q.view(-1)[0]))
    )
    checkpoint.save_tree(other / "checkpoint" / newest.name, tree)
    assert differences(run, other) == ["checkpoint/tracked/learner/q"], "one bit"

    other = changed("clock")
    tree = checkpoint.load_tree(newest)
    tree["run"]["due"]["own"] = 3
    checkpoint.save_tree(other / "checkpoint" / newest.name, tree)
    assert "checkpoint/run/due/own" in differences(run, other)

    other = changed("metrics")
    *lines, last = (other / "metrics.jsonl").read_text().splitlines()
    row = json.loads(last)
    (other / "metrics.jsonl").write_text("\n".join([*lines, json.dumps({**row, "time": 1e9})]) + "\n")
    assert differences(run, other) == [], "the wall clock does not count"
    (other / "metrics.jsonl").write_text(
        "\n".join([*lines, json.dumps({**row, "td_error": row["td_error"] + 1e-15})]) + "\n"
    )
    assert differences(run, other) == [f"metrics {len(lines)}"]
    (other / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert differences(run, other) == [f"metrics {len(lines)}"]


def test_what_is_equal_but_not_the_same_differs() -> None:
    def leaves(node: object) -> dict[str, object]:
        return dict(flat(node, ""))

    pairs: list[tuple[object, object]] = [
        (torch.tensor(0.0), torch.tensor(-0.0)),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64)),
        (np.zeros((1, 2)), np.zeros((2, 1))),
        ((1, 2), [1, 2]),
        (1, 1.0),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ]
    for one, other in pairs:
        assert leaves(one) != leaves(other)
    nan = torch.tensor([float("nan")])
    assert leaves({"x": (nan, 1)}) == leaves({"x": (nan.clone(), 1)})
