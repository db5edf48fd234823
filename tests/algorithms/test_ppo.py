"""PPO: what its update does, and that it learns, with and without memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.algorithms.training import score
from tests.algorithms.worlds import Aim, Corridor, Recall
from torchward.algorithms import ppo
from torchward.config import ConfigError
from torchward.data.rollout import Batch
from torchward.envs.task import Control
from torchward.functional.advantages import gae
from torchward.nets.actor_critic import ActorCritic, Network

SMALL = ppo.Config(n_envs=4, n_steps=32, batch_size=32, n_epochs=2)


def learner(config: ppo.Config) -> tuple[ppo.Learner, ActorCritic, Batch]:
    task = Control(Corridor)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = ActorCritic(task.observation_space, task.action_space, config.network)
    rollout = task.source(config.n_envs, 1).collect(policy, config.n_steps)
    assert rollout.value is not None and rollout.next_value is not None
    facts = rollout.reward, rollout.value, rollout.next_value, rollout.terminated, rollout.boundary
    advantage = gae(*facts, config.gamma, config.gae_lambda)
    return ppo.Learner(policy, config), policy, rollout.credited(advantage, advantage + rollout.value)


def parameters(policy: ActorCritic) -> Tensor:
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


@pytest.mark.parametrize("recurrent", ["none", "lstm"])
def test_micro_batches_change_nothing(recurrent: str) -> None:
    config = replace(SMALL, network=Network(recurrent=recurrent), batch_size=128, ent_coef=0.1)  # type: ignore[arg-type]
    whole, policy, batch = learner(config)
    whole_metrics = whole.step(batch if policy.history else batch.steps())
    split, split_policy, batch = learner(replace(config, micro_batch_size=32))
    split_metrics = split.step(batch if policy.history else batch.steps())
    torch.testing.assert_close(parameters(policy), parameters(split_policy), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ppo.measure(whole_metrics), ppo.measure(split_metrics), rtol=1e-4, atol=1e-6)


def test_masked_steps_do_not_move_the_policy() -> None:
    first, policy, batch = learner(SMALL)
    first.step(batch.steps())
    second, same, batch = learner(SMALL)
    batch = batch.steps()
    junk = batch.rows(slice(0, 16))
    junk = replace(junk, advantage=junk.advantage * torch.nan, target=junk.target * 1e9)
    junk = replace(junk, loss_mask=torch.zeros_like(junk.loss_mask))
    joined = {}
    for name in ("observation", "action", "log_prob", "advantage", "target", "boundary", "loss_mask", "value"):
        joined[name] = torch.cat([getattr(batch, name), getattr(junk, name)])
    second.step(Batch(**joined))
    torch.testing.assert_close(parameters(policy), parameters(same), rtol=1e-5, atol=1e-6)


def test_the_first_gradient_is_the_policy_gradient() -> None:
    config = replace(SMALL, normalize_advantage=False, vf_coef=0.0)
    agent, policy, batch = learner(config)
    batch = batch.steps()
    loss, _ = agent.loss(batch, batch.loss_mask.sum())
    gradient = torch.autograd.grad(loss, policy.head.linear.weight, retain_graph=True)[0]
    latent = policy.towers.one(0, batch.observation.flatten(0, 1))  # type: ignore[union-attr]
    log_prob = torch.nn.functional.linear(latent, policy.head.linear.weight, policy.head.linear.bias).log_softmax(-1)
    chosen = log_prob[torch.arange(len(latent)), batch.action.flatten()]  # type: ignore[union-attr]
    plain = -(chosen * batch.advantage.flatten()).mean()
    expected = torch.autograd.grad(plain, policy.head.linear.weight)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_target_kl_ends_the_epochs_early() -> None:
    free, _, batch = learner(replace(SMALL, n_epochs=8, learning_rate=1e-2))
    bound, _, same = learner(replace(SMALL, n_epochs=8, learning_rate=1e-2, target_kl=1e-4))
    assert free.update(batch)["updates"] == 8 * 4
    assert bound.update(same)["updates"] < 8 * 4


def test_schedules_go_to_zero() -> None:
    config = replace(SMALL, learning_rate_schedule="linear", clip_range_schedule="linear")
    agent, _, batch = learner(config)
    agent.anneal(0.25)
    assert agent.optimizer.lr == pytest.approx(0.25 * config.learning_rate)
    assert agent.clip == 0.25
    agent.anneal(0.0)
    before = parameters(agent.policy)  # type: ignore[arg-type]
    agent.update(batch)
    assert torch.equal(before, parameters(agent.policy))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [({"n_envs": 0}, "n_envs"), ({"gamma": 1.5}, "gamma"), ({"batch_size": 4096, "n_envs": 1, "n_steps": 8}, "batch")],
)
def test_wrong_settings_are_refused(wrong: dict[str, float], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        ppo.Config(**wrong)  # type: ignore[arg-type]


def test_learns_a_corridor(tmp_path: Path) -> None:
    config = replace(SMALL, total_timesteps=4_000, learning_rate=3e-3, n_epochs=4)
    assert score(tmp_path / "run", ppo, config, Control(Corridor)) == pytest.approx(0.7, abs=0.01)


def test_learns_continuous_actions_with_a_normaliser(tmp_path: Path) -> None:
    network = Network(normalize_observation=True, log_std_init=-0.5)
    config = ppo.Config(
        total_timesteps=30_000, n_envs=16, n_steps=32, batch_size=128, n_epochs=8, learning_rate=3e-3,
        learning_rate_schedule="linear", network=network, normalize_reward=True, clip_range_vf=0.5,
    )  # fmt: skip
    assert score(tmp_path / "run", ppo, config, Control(Aim)) > -0.25


@pytest.mark.parametrize(("recurrent", "least", "most"), [("lstm", 0.95, 1.0), ("gru", 0.95, 1.0), ("none", 0.3, 0.7)])
def test_only_memory_recalls(tmp_path: Path, recurrent: str, least: float, most: float) -> None:
    config = ppo.Config(
        total_timesteps=12_000, n_envs=16, n_steps=24, batch_size=96, n_epochs=6, learning_rate=5e-3,
        network=Network(recurrent=recurrent, net_arch=(32,), lstm_hidden_size=16),  # type: ignore[arg-type]
    )  # fmt: skip
    assert least <= score(tmp_path / "run", ppo, config, Control(Recall)) <= most
