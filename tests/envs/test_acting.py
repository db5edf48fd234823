"""On arrays a small policy acts as it does on tensors."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from torchward.data.protocols import Policy
from torchward.envs.acting import OnArrays, OnTensors, acting
from torchward.envs.task import Control
from torchward.nets.q_network import QNet
from torchward.nets.q_policy import QPolicy


class Shifted(gym.Env[Any, Any]):
    """Actions are counted from 5, and the environment shows what it was told; an episode takes four steps."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-9.0, 9.0, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(3, start=5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.normal(size=2).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in self.action_space
        self.time += 1
        seen = np.array([action, self.np_random.normal()], np.float32)
        return seen, float(action), self.time == 4, False, {}


def policy(task: Control, net: QNet | None = None) -> QPolicy:
    torch.manual_seed(0)
    made = QPolicy(task.observation_space, task.action_space, net or QNet(net_arch=(16,)))
    made.epsilon = 0.4
    return made


@pytest.mark.parametrize(("environment", "n_envs"), [(Shifted, 1), (Shifted, 3), ("CartPole-v1", 8)])
def test_a_rollout_on_arrays_is_the_one_on_tensors(environment: Any, n_envs: int) -> None:
    task = Control(environment)
    one, other = policy(task), policy(task)
    other.in_arrays = lambda noise, rows: None  # type: ignore[method-assign]
    sources = [task.source(n_envs, 3), task.source(n_envs, 3)]
    for _ in range(3):
        ours, theirs = (source.collect(each, 11) for source, each in zip(sources, (one, other), strict=True))
        for name in ("observation", "action", "reward", "terminated", "boundary", "loss_mask"):
            left, right = getattr(ours, name), getattr(theirs, name)
            assert left.dtype == right.dtype and left.shape == right.shape == (n_envs, 11, *left.shape[2:])
            assert torch.equal(left, right)
        torch.testing.assert_close(ours.log_prob, theirs.log_prob)
        assert len(ours.log_prob.unique()) == 2  # explored, and not


def test_what_offers_arrays_is_taken_at_its_word() -> None:
    task = Control("CartPole-v1")
    seen, generator = np.zeros((5, 2, 4), np.float32), torch.Generator()

    def way(made: Policy) -> Any:
        return acting(made, task.action_space, seen, (5, 2), made.initial_state(2), generator)

    assert isinstance(way(policy(task)), OnArrays)
    assert isinstance(way(policy(task, QNet(dueling=True))), OnTensors)
    masked: Any = {"x": seen}
    made = policy(task)
    assert isinstance(acting(made, task.action_space, masked, (5, 2), (), generator), OnTensors)
