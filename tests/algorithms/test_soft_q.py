"""Soft Q-learning: its targets by hand, the exact soft optimum, the limit in which it is Q-learning."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.algorithms.test_dqn import ACTIONS, BOX, MASKED, observe, rows, transitions
from tests.algorithms.training import score, start
from tests.algorithms.worlds import Corridor
from tests.functional.worlds import random_world
from torchward.algorithms import dqn, q_learning, soft_q
from torchward.algorithms.dqn import Learner, Squared
from torchward.algorithms.q_learning import Linear, Transition, VisitCount
from torchward.algorithms.soft_q import Config, judge
from torchward.config import ConfigError
from torchward.data.exploration import Boltzmann
from torchward.data.replay import Transitions
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.functional.bellman import soft_value_iteration, value_iteration
from torchward.metrics import read_metrics
from torchward.nets.q_network import QNet
from torchward.nets.q_policy import QPolicy
from torchward.nets.spaces import MASK, Discrete
from torchward.nets.tabular import TabularPolicy

GAMMA, TEMPERATURE = 0.9, 0.5
SMALL = Config(
    total_timesteps=4_000, train_freq=4, batch_size=32, buffer_size=2_000, learning_starts=200, learning_rate=3e-3,
    target_update_interval=200, gamma=GAMMA, temperature=TEMPERATURE, loss=Squared(), network=QNet(net_arch=(32,)),
)  # fmt: skip


# On a table


def table(states: int, actions: int, temperature: float = TEMPERATURE, **settings: Any) -> q_learning.Learner:
    exploration = Boltzmann(temperature, temperature)
    return q_learning.Learner(
        states, actions, q_learning.Config(method="soft_q", gamma=GAMMA, exploration=exploration, **settings)
    )


def every_step(reward: Tensor, following: Tensor) -> tuple[Transition, Tensor]:
    """Each action once in each state, to the state ``following`` [states, actions]."""
    states, actions = reward.shape
    state, action = (each.flatten() for each in torch.meshgrid(torch.arange(states), torch.arange(actions)))
    yes = torch.ones(states * actions, dtype=torch.bool)
    return Transition(state, action, reward.flatten(), ~yes, following.flatten(), yes), torch.zeros_like(state)


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_sweeps_of_a_deterministic_world_end_at_the_soft_optimum() -> None:
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    following = torch.randint(5, (5, 3), generator=generator)
    transition = torch.nn.functional.one_hot(following, 5).double()
    optimum = soft_value_iteration(transition, reward, GAMMA, TEMPERATURE, tolerance=1e-13)
    learner = table(5, 3, learning_rate=Linear(1.0, 1.0))
    step, zeros = every_step(reward, following)
    for _ in range(400):
        learner.update(step, zeros, zeros)
    torch.testing.assert_close(learner.q[0], optimum.q, rtol=0.0, atol=1e-11)
    policy = TabularPolicy.empty(Discrete(5), Discrete(3))
    learner.write(policy)
    torch.testing.assert_close(policy.probs, optimum.policy, rtol=0.0, atol=1e-11)


def test_at_the_soft_optimum_of_a_random_world_no_update_is_expected() -> None:
    world = random_world(6, 3, seed=1, episodic=True)
    optimum = soft_value_iteration(world.transition, world.reward, GAMMA, TEMPERATURE, tolerance=1e-13)
    learner = table(6, 3)
    learner.q[0] = optimum.q
    expected = torch.zeros_like(optimum.q)
    for following in range(6):
        end = torch.tensor([following == 5])  # the terminal state: a step to it terminates
        for state in range(5):
            for action in range(3):
                place = torch.tensor([state]), torch.tensor([action])
                step = Transition(*place, world.reward[state, action].view(1), end, torch.tensor([following]), end)
                step = step._replace(chose=torch.tensor([True]))
                learner.q[0] = optimum.q
                error = learner.update(step, place[1], torch.tensor([0]))
                expected[state, action] += world.transition[state, action, following] * float(error)
    assert float(expected[:5].abs().max()) < 1e-11


def test_the_colder_the_nearer_to_q_learning() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    greedy = q_learning.Learner(4, 3, q_learning.Config())
    greedy.q[0] = q
    everywhere = torch.arange(4)
    target = greedy.next_value(everywhere, everywhere, everywhere * 0)
    distances = []
    for temperature in (1.0, 0.1, 0.01, 1e-6):
        learner = table(4, 3, temperature)
        learner.q[0] = q
        distances.append(float((learner.next_value(everywhere, everywhere, everywhere * 0) - target).max()))
    assert distances == sorted(distances, reverse=True) and distances[0] > 0.5 and distances[-1] == 0.0


class Wander(gym.Env[Any, Any]):
    """A random world of five states and an end, as a table has it."""

    def __init__(self) -> None:
        self.table = random_world(6, 3, seed=1, episodic=True)
        self.start, self.goes = self.table.start.cumsum(0).numpy(), self.table.transition.cumsum(-1).numpy()
        self.observation_space, self.action_space = gym.spaces.Discrete(6), gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.draw(self.start)
        return self.place, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        earned = float(self.table.reward[self.place, action])
        self.place = self.draw(self.goes[self.place, action])
        return self.place, earned, self.place == 5, False, {}

    def draw(self, probs: Any) -> int:
        return min(5, int(np.searchsorted(probs, self.np_random.random())))


def test_a_table_learns_the_soft_optimum_from_samples(tmp_path: Path) -> None:
    task, world, temperature = Control(Wander, EnvOptions(vectorization="sync")), Wander().table, 2.0
    optimum = soft_value_iteration(world.transition, world.reward, GAMMA, temperature)
    greedy = value_iteration(world.transition, world.reward, GAMMA)
    config = q_learning.Config(
        method="soft_q", gamma=GAMMA, exploration=Boltzmann(temperature, temperature), total_timesteps=20_000,
        learning_rate=VisitCount(0.2, 0.9),
    )  # fmt: skip
    policy = q_learning.train(config, task, start(tmp_path, q_learning, config, task))
    torch.testing.assert_close(policy.q[:5], optimum.q[:5], rtol=0.0, atol=0.7)
    torch.testing.assert_close(policy.probs[:5], optimum.policy[:5], rtol=0.0, atol=0.1)
    assert float((greedy.q - optimum.q)[:5].abs().min()) > 3.0  # what it would be without the entropy


def test_a_table_without_a_temperature_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs the temperature of boltzmann exploration"):
        q_learning.Config(method="soft_q")


# By a network


def learner(config: Config = SMALL, masked: bool = False, module: Any = soft_q) -> Learner:
    torch.manual_seed(0)
    made = Learner(QPolicy(MASKED if masked else BOX, ACTIONS, config.network), config, module.judge)
    with torch.no_grad():
        for parameter in [*made.network.parameters(), *made.target.parameters()]:
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("masked", [False, True])
def test_targets_by_hand(masked: bool) -> None:
    made, batch = learner(masked=masked), transitions(40, masked)
    made.anneal(0.0)
    judged = judge(made, batch)
    assert isinstance(batch.action, Tensor)
    for i in range(40):
        following = rows(batch.next_observation, slice(i, i + 1))
        theirs = made.target(following)[0].double()
        allowed = theirs if not masked else theirs[following[MASK][0] != 0]
        probs = (allowed / TEMPERATURE).softmax(0)
        soft = float((probs * (allowed - TEMPERATURE * probs.log())).sum())  # what it earns, and its entropy
        goal = float(batch.reward[i]) + float(batch.discount[i]) * soft
        value = float(made.network(rows(batch.observation, slice(i, i + 1))).detach()[0, batch.action[i]])
        assert float(judged.value[i]) == pytest.approx(value, abs=1e-5)
        assert float(judged.error[i]) == pytest.approx(abs(goal - value), abs=1e-5)
        assert float(judged.loss[i].detach()) == pytest.approx((goal - value) ** 2, rel=1e-4, abs=1e-4)


def test_without_temperature_it_is_dqn() -> None:
    batch = transitions(40)
    cold = learner(replace(SMALL, temperature=1e-9))
    plain = dqn.judge(learner(dqn.Config(loss=Squared(), network=SMALL.network), module=dqn), batch)  # type: ignore[arg-type]
    torch.testing.assert_close(judge(cold, batch).error, plain.error, rtol=0.0, atol=1e-6)
    assert float((judge(learner(), batch).error - plain.error).abs().max()) > 0.1


def test_no_gradient_reaches_the_target_network() -> None:
    made = learner()
    judge(made, transitions(40)).loss.mean().backward()
    assert not any(p.requires_grad or p.grad is not None for p in made.target.parameters())


def test_a_linear_network_on_numbered_states_learns_the_soft_optimum() -> None:
    generator = torch.Generator().manual_seed(3)
    reward = torch.randn(5, 3, generator=generator)
    following = torch.randint(5, (5, 3), generator=generator)
    optimum = soft_value_iteration(
        torch.nn.functional.one_hot(following, 5).double(), reward.double(), 0.5, TEMPERATURE, tolerance=1e-12
    )
    config = replace(SMALL, gamma=0.5, learning_rate=0.05, network=QNet(net_arch=()))
    made = Learner(QPolicy(Discrete(5), Discrete(3), config.network), config, judge)
    state, action = torch.arange(15) // 3, torch.arange(15) % 3
    ones = torch.ones(15)
    batch = Transitions(state, action, reward.flatten(), following.flatten(), 0.5 * ones, ones, state)
    for update in range(1_500):
        made.descend(judge(made, batch).loss.mean())
        if update % 50 == 49:
            made.follow()
    torch.testing.assert_close(made.network(torch.arange(5)).double(), optimum.q, rtol=0.0, atol=0.01)


def test_the_policy_is_the_one_that_the_values_are_of() -> None:
    made = learner(replace(SMALL, temperature_end=0.1, temperature_fraction=0.5))
    for progress, temperature in ((0.0, 0.5), (0.25, 0.3), (0.5, 0.1), (1.0, 0.1)):
        made.anneal(progress)
        assert made.policy.temperature == pytest.approx(temperature)
        seen = observe((6,), False)
        values = made.network(seen).detach()
        noise = made.policy.noise((6,), torch.Generator().manual_seed(0))
        acted = made.policy.act(seen, (), noise)
        expected = (values / temperature).log_softmax(-1).gather(-1, acted.action.unsqueeze(-1)).squeeze(-1)  # type: ignore[union-attr]
        torch.testing.assert_close(acted.log_prob, expected, rtol=0.0, atol=1e-5)
        assert made.metrics()["temperature"] == pytest.approx(temperature)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": 0.0}, "expected temperature above 0, got 0.0"),
        ({"temperature_end": -1.0}, "expected temperature_end above 0, got -1.0"),
        ({"temperature_fraction": 2.0}, r"expected temperature_fraction within \[0, 1\], got 2.0"),
        ({"network": QNet(recurrent="gru")}, "soft_q learns from single steps"),
        ({"tau": 2.0}, r"expected tau within \(0, 1\]"),
    ],
)
def test_settings_that_cannot_be(settings: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Config(**settings)


def test_it_learns(tmp_path: Path) -> None:
    """The corridor's best return is 0.7; a policy at random gets less than -1."""
    config = replace(SMALL, temperature=0.05, learning_rate=3e-3)
    soft_q.check(config, Control(Corridor))
    assert score(tmp_path, soft_q, config, Control(Corridor)) == pytest.approx(0.7)
    assert "temperature" in read_metrics(tmp_path)[-2] or "temperature" in read_metrics(tmp_path)[-1]
