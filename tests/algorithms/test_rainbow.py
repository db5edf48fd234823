"""Rainbow: its errors against distributions moved by hand, what stands still, and that it learns by both kinds."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.algorithms.test_dqn import Trap, rows, transitions
from tests.algorithms.training import score, start
from tests.algorithms.worlds import Corridor
from torchward.algorithms import dqn, rainbow
from torchward.algorithms.dqn import Learner
from torchward.algorithms.rainbow import Config, judge
from torchward.config import ConfigError
from torchward.data.exploration import EpsilonGreedy
from torchward.data.replay import Uniform
from torchward.envs.task import Control
from torchward.nets.q_network import C51, QR, QNet
from torchward.nets.q_policy import QPolicy
from torchward.nets.spaces import MASK, Box, Dict, Discrete, MultiBinary, SpaceError

QUIET = QNet(net_arch=(16,), dueling=True)
"""Without noise, so that what is judged can be judged again."""
SMALL = Config(
    total_timesteps=4_000, train_freq=4, batch_size=32, buffer_size=2_000, learning_starts=200, learning_rate=3e-3,
    target_update_interval=200, gamma=0.9, distribution=C51(31, -1.5, 1.5), adam_eps=1e-8,
    network=QNet(net_arch=(32,), dueling=True, noisy=True),
)  # fmt: skip


def learner(config: Config, masked: bool = False) -> Learner:
    torch.manual_seed(0)
    seen = Dict({MASK: MultiBinary(4), "x": Box((3,))}) if masked else Box((3,))
    made = Learner(QPolicy(seen, Discrete(4), config.network, config.distribution), config, judge)
    with torch.no_grad():
        for parameter in [*made.network.parameters(), *made.target.parameters()]:
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return made


def chosen(made: Learner, config: Config, following: Any) -> int:
    """The best allowed action, by the mean of each distribution."""
    net = made.network if config.double_q else made.target
    outputs = net(following)[0].detach()
    if isinstance(config.distribution, C51):
        means = (outputs.softmax(-1) * made.network.support).sum(-1).tolist()
    else:
        means = outputs.mean(-1).tolist()
    allowed = following[MASK][0].tolist() if isinstance(following, dict) else [1] * 4
    return max((a for a in range(4) if allowed[a]), key=lambda a: means[a])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("double_q", [False, True])
def test_atoms_by_hand(double_q: bool, masked: bool) -> None:
    """Every atom of the best next action is moved on its own and shared by its neighbours; the error is a KL."""
    config = replace(SMALL, network=QUIET, double_q=double_q, distribution=C51(6, -2.0, 3.0))
    made, batch = learner(config, masked), transitions(30, masked)
    judged = judge(made, batch)
    assert isinstance(batch.action, Tensor)
    for i in range(30):
        following = rows(batch.next_observation, slice(i, i + 1))
        there = made.target(following)[0, chosen(made, config, following)].softmax(-1).tolist()
        goal = [0.0] * 6
        for p, z in zip(there, (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0), strict=True):
            place = min(max(float(batch.reward[i]) + float(batch.discount[i]) * z, -2.0), 3.0) + 2.0
            left = min(int(place), 4)
            goal[left] += p * (left + 1 - place)
            goal[left + 1] += p * (place - left)
        here = made.network(rows(batch.observation, slice(i, i + 1))).detach()[0, batch.action[i]].softmax(-1).tolist()
        loss = -sum(m * math.log(p) for m, p in zip(goal, here, strict=True))
        divergence = loss + sum(m * math.log(m) for m in goal if m > 0)
        assert float(judged.loss[i].detach()) == pytest.approx(loss, abs=1e-4)
        assert float(judged.error[i]) == pytest.approx(divergence, abs=1e-4)
        assert float(judged.value[i]) == pytest.approx(
            sum(p * z for p, z in zip(here, range(-2, 4), strict=True)), abs=1e-4
        )


@pytest.mark.parametrize("double_q", [False, True])
def test_quantiles_by_hand(double_q: bool) -> None:
    config = replace(SMALL, network=QUIET, double_q=double_q, distribution=QR(5, kappa=0.7))
    made, batch = learner(config), transitions(30)
    judged = judge(made, batch)
    assert isinstance(batch.action, Tensor)
    for i in range(30):
        following = rows(batch.next_observation, slice(i, i + 1))
        there = made.target(following)[0, chosen(made, config, following)].tolist()
        goal = [float(batch.reward[i]) + float(batch.discount[i]) * z for z in there]
        here = made.network(rows(batch.observation, slice(i, i + 1))).detach()[0, batch.action[i]].tolist()
        loss = 0.0
        for k, theta in enumerate(here):
            for y in goal:
                u, tau = y - theta, (k + 0.5) / 5
                huber = u * u / 1.4 if abs(u) <= 0.7 else abs(u) - 0.35
                loss += (tau if u >= 0 else 1 - tau) * huber / 5
        assert float(judged.loss[i].detach()) == pytest.approx(loss, abs=1e-5)
        assert float(judged.error[i]) == pytest.approx(abs(sum(goal) - sum(here)) / 5, abs=1e-5)
        assert float(judged.value[i]) == pytest.approx(sum(here) / 5, abs=1e-5)


@pytest.mark.parametrize("distribution", [C51(6, -2.0, 3.0), QR(5)])
def test_no_gradient_reaches_the_target(distribution: C51 | QR) -> None:
    made, batch = learner(replace(SMALL, distribution=distribution)), transitions(30)
    judged = judge(made, batch)
    judged.loss.mean().backward()
    assert not judged.error.requires_grad and not judged.value.requires_grad
    assert not any(p.requires_grad or p.grad is not None for p in made.target.parameters())
    names = [name for name, p in made.network.named_parameters() if p.grad is not None and p.grad.any()]
    assert names == [name for name, _ in made.network.named_parameters()]  # the size of the noise too


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"distribution": QR(11)},
        {
            "distribution": QR(11), "network": QNet(net_arch=(32,)), "exploration": EpsilonGreedy(1.0, 0.1, 0.5),
            "replay": Uniform(), "n_steps": 1, "double_q": False,
        },
    ],
)  # fmt: skip
def test_learns_a_corridor(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert score(tmp_path / "run", rainbow, replace(SMALL, **changes), Control(Corridor)) == pytest.approx(
        0.7, abs=0.01
    )


def test_learns_among_what_is_allowed(tmp_path: Path) -> None:
    config = replace(SMALL, distribution=C51(31, -1.0, 6.0))
    assert score(tmp_path / "run", rainbow, config, Control(Trap)) > 4.8


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"distribution": C51(1)}, "at least 2 atoms"),
        ({"distribution": C51(5, 1.0, 1.0)}, "v_min below v_max"),
        ({"distribution": QR(0)}, "at least 1 quantile"),
        ({"network": QNet(recurrent="lstm")}, "rainbow learns from single steps, got recurrent='lstm'; dqn has it"),
        ({"batch_size": 0}, "batch_size of at least 1"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Config(**wrong)


def test_what_cannot_be_learnt_is_refused_before_it_begins(tmp_path: Path) -> None:
    rainbow.check(SMALL, Control(Corridor))
    with pytest.raises(SpaceError, match="one for each of Discrete actions"):
        rainbow.check(SMALL, Control("Pendulum-v1"))
    task = Control(Corridor)
    other = QPolicy(task.observation_space, task.action_space, SMALL.network)
    with pytest.raises(ConfigError, match=r"the distribution C51\(.*\), got a QPolicy with None"):
        rainbow.train(SMALL, task, start(tmp_path / "run", rainbow, SMALL, task), other)


def test_the_neighbours_differ_in_their_errors_alone() -> None:
    """What one config says the other says too, but for the loss of numbers, memory and the distribution."""
    ours, theirs = (set(vars(module.Config())) for module in (rainbow, dqn))
    assert ours - theirs == {"distribution"}
    assert theirs - ours == {"loss", "sequence_length", "burn_in"}
