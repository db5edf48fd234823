"""REINFORCE and A2C: their credit, and that they learn."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from tests.algorithms.training import score
from tests.algorithms.worlds import Corridor, Recall
from torchward.algorithms import a2c, reinforce
from torchward.config import ConfigError
from torchward.data.rollout import Rollout
from torchward.envs.task import Control
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.nets.spaces import Box, Discrete

Baseline = Literal["none", "mean", "learned"]


def episodes() -> Rollout:
    task = Control(Corridor)
    policy = ActorCritic(task.observation_space, task.action_space)
    return task.source(6, 0).collect(policy, None)


def test_whole_episodes_are_whole() -> None:
    rollout = episodes()
    lengths = rollout.loss_mask.sum(1)
    for row, length in enumerate(lengths.tolist()):
        assert rollout.loss_mask[row, :length].all() and not rollout.loss_mask[row, length:].any()
        assert rollout.boundary[row, length - 1] and not rollout.boundary[row, : length - 1].any()


def test_return_to_go_is_the_sum_of_what_follows() -> None:
    rollout = episodes()
    config = reinforce.Config(gamma=0.9, baseline="none")
    batch = reinforce.credit(replace(rollout, next_value=None), config)
    for row in range(len(batch)):
        length = int(rollout.loss_mask[row].sum())
        for t in range(length):
            following = rollout.reward[row, t:length].tolist()
            total = sum(0.9**k * reward for k, reward in enumerate(following))
            assert float(batch.advantage[row, t]) == pytest.approx(total, abs=1e-5)


def test_mean_baseline_leaves_the_episode_itself_out() -> None:
    rollout = episodes()
    returns = torch.randn_like(rollout.reward)
    mean = reinforce.baseline(rollout, returns, "mean")
    changed = returns.clone()
    changed[0] += 100.0
    moved = reinforce.baseline(rollout, changed, "mean") - mean
    assert moved[0].abs().max() < 1e-5  # the rounding of the others' sum, where its own share would be 100 / 5
    first = rollout.loss_mask[0]
    assert (moved[1:, first] > 1.0).all()


@pytest.mark.parametrize("shape", [(36, 36, 3), (3, 36, 36)])
def test_a_step_of_reinforce_on_images_is_that_of_pytorchs_adam(shape: tuple[int, ...]) -> None:
    """Of images whose channels come last a convolution's gradient lies in memory as they do, not as its weight."""
    torch.manual_seed(0)
    policy = ActorCritic(Box(shape, 0.0, 255.0, "uint8"), Discrete(2), Network(net_arch=(16,)))
    twin = copy.deepcopy(policy)
    seen = torch.randint(256, (5, *shape), dtype=torch.uint8)
    learner = reinforce.Learner(policy, reinforce.Config(learning_rate=0.01, max_grad_norm=1e9))
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.01, eps=1e-8)
    for weight in (1.0, -3.0):
        losses = []
        for one in (policy, twin):
            value = one.value(seen, ())
            assert value is not None
            losses.append((weight * value).square().sum() + value.sum())
        learner.optimizer.zero_grad()
        optimizer.zero_grad()
        learner.backward(losses[0], retain_graph=True)
        learner.backward(losses[0], retain_graph=False)  # gradients of several losses add up
        (2.0 * losses[1]).backward()
        for own, other in zip(policy.parameters(), twin.parameters(), strict=True):
            assert own.grad is not None and own.grad.stride() == own.stride()
            torch.testing.assert_close(own.grad, torch.zeros_like(own) if other.grad is None else other.grad)
        learner.optimizer.step()
        optimizer.step()
    for own, other in zip(policy.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("baseline", ["none", "mean", "learned"])
def test_reinforce_learns_a_corridor(tmp_path: Path, baseline: Baseline) -> None:
    config = reinforce.Config(total_timesteps=15_000, n_envs=16, baseline=baseline, learning_rate=1e-2)
    assert score(tmp_path / "run", reinforce, config, Control(Corridor)) == pytest.approx(0.7, abs=0.05)


def test_reinforce_with_memory_recalls(tmp_path: Path) -> None:
    network = Network(recurrent="gru", net_arch=(32,), lstm_hidden_size=16)
    config = reinforce.Config(total_timesteps=15_000, n_envs=32, learning_rate=1e-2, network=network)
    assert score(tmp_path / "run", reinforce, config, Control(Recall)) > 0.9


def test_a_mean_needs_others() -> None:
    with pytest.raises(ConfigError, match="n_envs"):
        reinforce.Config(baseline="mean", n_envs=1)


@pytest.mark.parametrize("rms_prop", [True, False])
def test_a2c_learns_a_corridor(tmp_path: Path, rms_prop: bool) -> None:
    config = a2c.Config(total_timesteps=12_000, n_envs=8, learning_rate=5e-3, use_rms_prop=rms_prop)
    assert score(tmp_path / "run", a2c, config, Control(Corridor)) == pytest.approx(0.7, abs=0.01)


def test_a2c_with_memory_recalls(tmp_path: Path) -> None:
    network = Network(recurrent="lstm", net_arch=(32,), lstm_hidden_size=16)
    config = a2c.Config(
        total_timesteps=40_000, n_envs=16, n_steps=6, learning_rate=5e-3, network=network, use_rms_prop=False,
        ent_coef=0.01,
    )  # fmt: skip
    assert score(tmp_path / "run", a2c, config, Control(Recall)) > 0.9
