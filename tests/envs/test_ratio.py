"""Before the first step of an update every probability ratio is 1: for each network, normaliser, mask and autoreset."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Generator

from tests.envs.worlds import KINDS, Masked, Walk, lively
from torchward.data.protocols import absorb
from torchward.envs.collect import EnvSource
from torchward.envs.in_process import InProcess
from torchward.envs.worlds import Worlds


class Screen(Walk):
    """The walk as an image, beside which a number stands."""

    observation_space: Any = gym.spaces.Dict(
        image=gym.spaces.Box(0, 255, (36, 36, 1), np.uint8), time=gym.spaces.Box(-np.inf, np.inf, ())
    )
    action_space: gym.Space[Any] = gym.spaces.Tuple(
        (gym.spaces.Discrete(2), gym.spaces.Box(-2, 2, (2,)), gym.spaces.MultiBinary(2))
    )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return super().step(action[0])

    def _see(self) -> Any:
        image = np.zeros((36, 36, 1), np.uint8)
        image[:, int(self.position) + 10 :] = 200
        image[int(self.time)] = 255
        return {"image": image, "time": np.float32(10 + self.time)}


def check(worlds: Worlds, policy: Any, batch_size: int = 16, horizon: int = 20) -> None:
    source = EnvSource(worlds, 0)
    generator = Generator().manual_seed(0)
    for _ in range(2):
        rollout = source.collect(policy, horizon)
        batch = rollout.credited(rollout.reward, rollout.reward)
        worst, steps = 0.0, 0
        with torch.no_grad():
            for minibatch in batch.minibatches(batch_size, generator, policy.history):
                for piece in minibatch.microbatches(None if horizon < 20 else 7):
                    judged = policy.evaluate_actions(piece.observation, piece.action, piece.state, piece.boundary)
                    mask = piece.loss_mask
                    steps += int(mask.sum())
                    if mask.any():
                        worst = max(worst, float((judged.log_prob - piece.log_prob)[mask].abs().max()))
                        values = (judged.value - piece.value)[mask].abs().max()
                        assert float(values) < 1e-4
        assert worst < 1e-5
        assert steps == rollout.steps
        absorb(policy, rollout)
    source.close()


@pytest.mark.parametrize("kind", ["in process", "next step", "same step", "disabled"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("cell", ["none", "lstm", "gru"])
def test_vectors(kind: str, cell: str, normalize: bool) -> None:
    worlds = KINDS[kind](Walk, 3, False)
    check(worlds, lively(worlds.observation_space, worlds.action_space, cell, normalize_observation=normalize), 40)


@pytest.mark.parametrize("kind", ["in process", "next step"])
@pytest.mark.parametrize("cell", ["none", "lstm"])
def test_masks(kind: str, cell: str) -> None:
    worlds = KINDS[kind](Masked, 3, True)
    check(worlds, lively(worlds.observation_space, worlds.action_space, cell, normalize_observation=True))


@pytest.mark.parametrize("encoder", ["nature", "impala"])
@pytest.mark.parametrize("cell", ["none", "gru"])
def test_images_and_actions_of_every_kind(cell: Any, encoder: Any) -> None:
    from torchward.nets.actor_critic import ActorCritic, Network

    worlds = KINDS["next step"](Screen, 3, False)
    torch.manual_seed(0)
    network = Network(
        net_arch=(8,),
        encoder=encoder,
        recurrent=cell,
        normalize_observation=True,
        lstm_hidden_size=8,
    )
    check(worlds, ActorCritic(worlds.observation_space, worlds.action_space, network), horizon=9)


def test_continuous_actions_far_outside_their_bounds() -> None:
    """The environment's action is clipped; the one that is judged is not."""
    worlds = InProcess("Pendulum-v1", [gym.make("Pendulum-v1") for _ in range(2)])
    check(worlds, lively(worlds.observation_space, worlds.action_space, log_std_init=1.5))


class Spoils(Walk):
    """It writes into the action that it is given."""

    action_space: gym.Space[Any] = gym.spaces.Box(-np.inf, np.inf, (2,))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        np.clip(action, -0.1, 0.1, out=action)
        return super().step(action[0] > 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_worlds_do_to_their_actions_stays_there(kind: str) -> None:
    worlds = KINDS[kind](Spoils, 2, False)
    check(worlds, lively(worlds.observation_space, worlds.action_space, log_std_init=0.5))


def test_a_normaliser_that_moved_would_be_seen() -> None:
    """The fault that the tests above are there to find."""
    worlds = KINDS["in process"](partial(Walk), 3, False)
    policy = lively(worlds.observation_space, worlds.action_space, normalize_observation=True)
    rollout = EnvSource(worlds, 0).collect(policy, 20)
    absorb(policy, rollout)
    with torch.no_grad():
        judged = policy.evaluate_actions(rollout.observation, rollout.action, (), rollout.boundary)
    assert float((judged.log_prob - rollout.log_prob).abs().max()) > 1e-2
