"""Dynamic programming: both methods find the optimum that a linear solve on Gymnasium's own tables proves to be one."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from tests.algorithms.exact import TAXI, advantage, table, values
from tests.algorithms.training import start
from tests.algorithms.worlds import Corridor
from torchward.algorithms import dynamic_programming as dp
from torchward.config import ConfigError, from_json, to_json
from torchward.envs.faults import WorldError
from torchward.envs.task import Control
from torchward.metrics import read_metrics
from torchward.nets import saving
from torchward.nets.actor_critic import ActorCritic
from torchward.nets.spaces import SpaceError
from torchward.nets.tabular import TabularPolicy
from torchward.run import Run

Method = Literal["value_iteration", "policy_iteration"]
METHODS: tuple[Method, ...] = ("value_iteration", "policy_iteration")


def solve(path: Path, config: dp.Config, name: str, policy: Any = None, **options: Any) -> tuple[TabularPolicy, Run]:
    task = Control(name)
    dp.check(config, task)
    run = start(path, dp, config, task, **options)
    return dp.train(config, task, run, policy), run


@pytest.mark.parametrize("name", ["FrozenLake-v1", "FrozenLake8x8-v1", TAXI, "CliffWalking-v1"])
def test_both_methods_agree_with_the_linear_solve_of_a_policy_that_nothing_improves(tmp_path: Path, name: str) -> None:
    world, found = table(name), []
    for method in METHODS:
        policy, _ = solve(tmp_path / method, dp.Config(method=method, gamma=0.99), name)
        solved = values(world, policy.probs, 0.99)
        assert advantage(world, solved, 0.99).max() < 1e-10
        found += [solved, (policy.probs * policy.q).sum(1).numpy(), policy.q.amax(1).numpy()]
    assert max(np.abs(one - other).max() for one in found for other in found) < 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_values_that_are_known_in_closed_form(tmp_path: Path, method: Method) -> None:
    """13 steps along the cliff, each for -1; undiscounted, 14 of 17 walks over the lake arrive."""
    for gamma, expected in ((0.99, -(1.0 - 0.99**13) / 0.01), (1.0, -13.0)):
        policy, _ = solve(tmp_path / f"cliff{gamma}", dp.Config(method=method, gamma=gamma), "CliffWalking-v1")
        assert float(policy.q[36].max()) == pytest.approx(expected, abs=1e-10)
    policy, _ = solve(tmp_path / "lake", dp.Config(method=method, gamma=1.0), "FrozenLake-v1")
    assert float(policy.q[0].max()) == pytest.approx(14 / 17, abs=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.999])
def test_the_tolerance_bounds_the_error(tmp_path: Path, method: Method, gamma: float) -> None:
    name = "FrozenLake8x8-v1"
    world = table(name)
    exact, _ = solve(tmp_path / "exact", dp.Config(method="policy_iteration", gamma=gamma, tolerance=1e-12), name)
    best = values(world, exact.probs, gamma)
    assert advantage(world, best, gamma).max() < 1e-11
    for tolerance in (1e-3, 1e-8):
        config = dp.Config(method=method, gamma=gamma, tolerance=tolerance)
        policy, run = solve(tmp_path / f"{tolerance}", config, name)
        assert np.abs(policy.q.amax(1).numpy() - best).max() <= tolerance
        assert run.step < config.total_timesteps


def test_sweeps_are_logged_and_the_run_ends_when_it_is_solved(tmp_path: Path) -> None:
    config = dp.Config(tolerance=1e-6)
    policy, run = solve(tmp_path, config, "FrozenLake-v1", eval_freq=0)
    rows = [row for row in read_metrics(tmp_path) if "residual" in row]
    assert [row["step"] for row in rows] == list(range(1, run.step + 1))
    residuals = [row["residual"] for row in rows]
    assert all(later <= 0.99 * earlier + 1e-15 for earlier, later in pairwise(residuals))
    assert residuals[-1] <= 1e-6 * (1 - 0.99) < residuals[-2]
    assert rows[-1]["start_value"] == pytest.approx(0.542, abs=1e-3)
    assert 0.5 < sum(row["eval/return"] for row in read_metrics(tmp_path) if "eval/return" in row) <= 1.0
    saved = saving.load(tmp_path)
    assert isinstance(saved, TabularPolicy)
    assert torch.equal(saved.q, policy.q) and saved.q.shape == (16, 4) and saved.q.dtype == torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_of_sweeps_is_kept_and_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, method: Method
) -> None:
    config = dp.Config(method=method, total_timesteps=12 if method == "value_iteration" else 2)
    whole, run = solve(tmp_path / "whole", config, "FrozenLake8x8-v1", checkpoint_freq=1)
    assert run.step == config.total_timesteps
    half = replace(config, total_timesteps=config.total_timesteps // 2)
    solve(tmp_path / "cut", half, "FrozenLake8x8-v1", checkpoint_freq=1)
    resumed, _ = solve(tmp_path / "cut", config, "FrozenLake8x8-v1", checkpoint_freq=1, resume=True)
    assert torch.equal(resumed.q, whole.q) and torch.equal(resumed.probs, whole.probs)
    lines = [
        [[row["step"], row["residual"], row["start_value"]] for row in read_metrics(tmp_path / name)]
        for name in ("cut", "whole")
    ]
    assert lines[0] == lines[1]


def test_a_solved_run_has_nothing_to_resume(tmp_path: Path) -> None:
    config = dp.Config()
    solved, run = solve(tmp_path, config, "CliffWalking-v1")
    again, resumed = solve(tmp_path, config, "CliffWalking-v1", resume=True)
    assert resumed.step == run.step and torch.equal(again.q, solved.q)


@pytest.mark.parametrize("method", METHODS)
def test_it_goes_on_from_a_policy(tmp_path: Path, method: Method) -> None:
    config = dp.Config(method=method)
    solved, run = solve(tmp_path / "first", config, "FrozenLake-v1")
    _, again = solve(tmp_path / "second", config, "FrozenLake-v1", solved)
    assert again.step == 1 < run.step
    task = Control("FrozenLake-v1")
    other: Any = ActorCritic(task.observation_space, task.action_space)
    with pytest.raises(ConfigError, match="begins from a TabularPolicy, got ActorCritic"):
        solve(tmp_path / "third", config, "FrozenLake-v1", other)


def test_what_has_no_numbers_or_no_model_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"numbered states, but CartPole-v1 has Box\(4\)"):
        dp.check(dp.Config(), Control("CartPole-v1"))
    with pytest.raises(SpaceError, match="numbered states"):
        dp.check(dp.Config(), Control(Corridor))

    class Unknown(Corridor):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = self.action_space

    with pytest.raises(WorldError, match="Unknown has no table of transition probabilities"):
        dp.check(dp.Config(), Control(Unknown))


def test_config_travels_and_refuses_what_cannot_be() -> None:
    config = dp.Config(method="policy_iteration", gamma=1.0)
    assert from_json(dp.Config, to_json(config)) == config
    for wrong in ({"gamma": 1.1}, {"tolerance": 0.0}, {"total_timesteps": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            dp.Config(**wrong)
