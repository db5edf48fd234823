"""TD3: gradients against autograd, its three remedies each by itself, a small task."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.algorithms.training import score, start
from tests.algorithms.transitions import ROWS, transitions, values, wander
from tests.algorithms.worlds import Aim
from torchward.algorithms import td3
from torchward.config import ConfigError
from torchward.data.replay import Transitions
from torchward.envs.task import Control
from torchward.nets.actor_body import ActorNet
from torchward.nets.deterministic_actor import DeterministicActor
from torchward.nets.soft_actor import SoftActor
from torchward.nets.spaces import Box, Space

SMALL = ActorNet(net_arch=(16, 8))
REALS = Box((2,), -2.0, 2.0)
SEEN: dict[str, Space] = {"vector": Box((3,)), "pixels": Box((36, 36, 3), 0.0, 255.0, "uint8")}


def case(name: str = "vector", **changes: Any) -> tuple[td3.Learner, Transitions]:
    config = td3.Config(network=SMALL, **{"policy_delay": 1, "tau": 0.1, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        policy = DeterministicActor(SEEN[name], REALS, config.network)
    return td3.Learner(policy, config), transitions(SEEN[name], REALS)


def actor_gradients(learner: td3.Learner) -> list[Tensor]:
    return [p.grad for p in learner.policy.body.perceptron.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", SEEN)
def test_gradients_are_those_of_the_losses(name: str) -> None:
    learner, batch = case(name, target_policy_noise=0.8, target_noise_clip=0.3)
    learner.step(batch)  # of which nothing may be left over
    wander(learner.target)
    wander(learner.target_actor)
    with torch.no_grad():
        learner.target_actor.get_parameter("bias2")[:] += 0.8  # where some of what is smoothed lies outside
    before = copy.deepcopy(learner)
    generator = torch.Generator()
    generator.set_state(learner.generator.get_state())
    noise = (0.8 * torch.randn(ROWS, 2, generator=generator)).clamp(-0.3, 0.3)
    assert (noise.abs() == 0.3).any() and (noise.abs() < 0.3).any()
    body = before.policy.body
    features, following = body.encode(batch.observation), body.encode(batch.next_observation).detach()
    with torch.no_grad():
        beyond = before.target_actor(following)[0].tanh() + noise
        assert (beyond > 1.0).any() and (beyond < 1.0).any()
        smooth = (before.target_actor(following)[0].tanh() + noise).clamp(-1.0, 1.0)
        goal = batch.reward + batch.discount * torch.minimum(*before.target(following, smooth)[..., 0])
    q = before.critic(features, batch.action)[..., 0]
    loss = 0.5 * ((q[0] - goal).square().mean() + (q[1] - goal).square().mean())
    expected = torch.autograd.grad(loss, [*before.critic.parameters(), *body.encoder_parameters()])
    learner.step(batch)
    trained = [*learner.critic.parameters(), *learner.policy.body.encoder_parameters()]
    assert_close([p.grad for p in trained], list(expected), rtol=2e-4, atol=1e-6)
    held = features.detach()
    loss = -learner.critic(held, body.outputs(held).tanh())[0].mean()  # the first critic, once it has learnt
    expected = torch.autograd.grad(loss, list(body.perceptron.parameters()))
    assert_close(actor_gradients(learner), list(expected), rtol=2e-4, atol=1e-6)


def test_actor_and_targets_wait_and_then_go_tau_of_the_way() -> None:
    learner, batch = case(policy_delay=3)
    actor, own = learner.policy.body.perceptron, learner.critic
    following = [*learner.target.parameters(), *learner.target_actor.parameters()]
    for update in range(1, 7):
        before = values([*own.parameters(), *actor.parameters()])
        targets = values(following)
        learner.step(batch)
        after = [*own.parameters(), *actor.parameters()]
        count = len(list(own.parameters()))
        assert not any(map(torch.equal, before[:count], after[:count]))
        moves = update % 3 == 0
        assert all(torch.equal(a, b) is not moves for a, b in zip(before[count:], after[count:], strict=True))
        for old, new, leader in zip(targets, following, after, strict=True):
            assert_close(new, old + (0.1 if moves else 0.0) * (leader.detach() - old), rtol=1e-6, atol=1e-8)


def test_the_actor_climbs_the_first_critic_alone() -> None:
    gradients = []
    for second in (1.0, -7.0):
        learner, batch = case()
        with torch.no_grad():
            for weight in learner.critic.parameters():
                weight[1] *= second
        learner.learn_policy(learner.policy.body.encode(batch.observation))
        gradients.append(actor_gradients(learner))
    assert_close(*gradients, rtol=0.0, atol=0.0)


def test_a_learner_sets_how_its_policy_explores() -> None:
    assert case(noise_std=0.25)[0].policy.noise_std == 0.25


@pytest.mark.parametrize(
    ("wrong", "word"),
    [({"policy_delay": 0}, "policy_delay"), ({"noise_std": -0.1}, "noise_std"), ({"batch_size": 0}, "batch_size")],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        td3.Config(**wrong)


def test_a_small_task_is_solved(tmp_path: Path) -> None:
    config = td3.Config(
        total_timesteps=2_500, learning_starts=200, n_envs=4, batch_size=64, learning_rate=3e-3,
        network=ActorNet(net_arch=(64, 64)),
    )  # fmt: skip
    assert score(tmp_path / "run", td3, config, Control(Aim)) > -0.1


def test_another_kind_of_policy_is_refused(tmp_path: Path) -> None:
    task, config = Control(Aim), td3.Config()
    policy = SoftActor(task.observation_space, task.action_space, SMALL)
    with pytest.raises(ConfigError, match="DeterministicActor, got SoftActor"):
        td3.train(config, task, start(tmp_path / "run", td3, config, task), policy)
