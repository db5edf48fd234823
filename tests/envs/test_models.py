"""The exact models of Gymnasium's toy-text worlds."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from torchward.envs.faults import WorldError
from torchward.envs.models import Model, tabular_model
from torchward.envs.task import Control

WORLDS: dict[str, tuple[str, dict[str, Any]]] = {
    "FrozenLake": ("FrozenLake-v1", {}),
    "FrozenLake 8x8": ("FrozenLake-v1", {"map_name": "8x8", "is_slippery": False}),
    "Taxi": ("Taxi-v4", {}),
    "CliffWalking": ("CliffWalking-v1", {}),
}


def model(name: str) -> tuple[Any, Model]:
    identity, kwargs = WORLDS[name]
    env: Any = gym.make(identity, **kwargs)
    return env, tabular_model(env, identity)


@pytest.mark.parametrize("name", WORLDS)
def test_probabilities_sum_to_one(name: str) -> None:
    env, made = model(name)
    states, actions = env.observation_space.n + 1, env.action_space.n
    assert made.transition.shape == (states, actions, states) and made.transition.dtype == torch.float64
    assert (made.transition >= 0).all()
    torch.testing.assert_close(made.transition.sum(-1), torch.ones(states, actions, dtype=torch.float64))
    torch.testing.assert_close(made.start.sum(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("name", WORLDS)
def test_the_end_is_absorbing_and_pays_nothing(name: str) -> None:
    _, made = model(name)
    assert (made.transition[-1, :, -1] == 1).all() and not made.reward[-1].any()
    assert made.start[-1] == 0
    assert (made.transition[:-1, :, -1] > 0).any()


@pytest.mark.parametrize("name", WORLDS)
def test_the_environment_moves_as_its_model_says(name: str) -> None:
    """Sampled steps: none that the model holds impossible, rewards where they are certain, starts where they may be."""
    env, made = model(name)
    rng = np.random.default_rng(0)
    state = int(env.reset(seed=0)[0])
    assert made.start[state] > 0
    for _ in range(400):
        action = int(rng.integers(env.action_space.n))
        following, reward, terminated, truncated, _ = env.step(action)
        assert made.transition[state, action, -1 if terminated else int(following)] > 0
        if made.transition[state, action].max() == 1:
            assert reward == float(made.reward[state, action])
        state = int(following) if not (terminated or truncated) else int(env.reset()[0])


def test_a_step_on_ice_goes_three_ways() -> None:
    """FrozenLake, going right from the start: up, right or down, a third each; up is against the wall."""
    _, made = model("FrozenLake")
    assert made.transition[0, 2].nonzero().flatten().tolist() == [0, 1, 4]
    torch.testing.assert_close(made.transition[0, 2, [0, 1, 4]], torch.full((3,), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(made.reward[14, 2], torch.tensor(1 / 3, dtype=torch.float64))  # beside the goal


def test_a_task_has_its_model() -> None:
    assert torch.equal(Control("FrozenLake-v1").model().transition, model("FrozenLake")[1].transition)


def test_other_worlds_have_none() -> None:
    with pytest.raises(WorldError, match="CartPole-v1 has no table of transition probabilities"):
        Control("CartPole-v1").model()
