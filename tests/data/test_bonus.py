"""The bonus as shaping: what is paid, when, and for which steps; what an end takes away; what is waited for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tests.algorithms.training import start
from tests.algorithms.worlds import Corridor
from tests.data.stories import LIVES, N, World, begun
from tests.nets.examples import equal
from torchward.algorithms import dqn, ppo
from torchward.config import ConfigError
from torchward.data.bonus import Backlog, Bonus, Steps, arrived, steps_of
from torchward.data.counts import Counts
from torchward.data.curiosity import Curiosity
from torchward.data.intrinsic import ExplorationBonus, NoBonus, bonuses
from torchward.data.random_distillation import RandomDistillation
from torchward.data.rollout import Finals, Rollout
from torchward.envs.task import Control
from torchward.functional.returns import discounted_returns
from torchward.metrics import read_metrics

GAMMA = 0.9


class Told:
    """A novelty that is written on the observation, and remembers what it was asked to learn."""

    def __init__(self) -> None:
        self.learnt: list[Steps] = []

    def measure(self, steps: Steps) -> Tensor:
        assert isinstance(steps[2], Tensor)
        return steps[2][:, 0] + 10.0 * len(self.learnt)

    def learn(self, steps: Steps) -> dict[str, Tensor | float]:
        self.learnt.append(steps)
        return {"told": torch.tensor(1.0)}

    def state_dict(self) -> dict[str, Any]:
        return {"learnt": len(self.learnt)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learnt = [((), (), ())] * int(state["learnt"])


def rollout(seed: int = 0, batch: int = 3, time: int = 12) -> Rollout:
    generator = Generator().manual_seed(seed)
    observation = torch.rand(batch, time, 2, generator=generator)
    boundary = torch.rand(batch, time, generator=generator) < 0.2
    chosen = torch.rand(batch, time, generator=generator) < 0.8
    terminated = boundary & chosen & (torch.rand(batch, time, generator=generator) < 0.5)
    zeros = torch.zeros(batch, time)
    reward = torch.randn(batch, time, generator=generator)
    return Rollout(
        observation, zeros.long(), zeros, reward, terminated, boundary, chosen,
        last=torch.rand(batch, 2, generator=generator),
    )  # fmt: skip


def paying(novelty: Any, coef: float = 2.0, normalize: bool = False, episodic: bool = True, warm_up: int = 0) -> Bonus:
    return Bonus(novelty, coef, GAMMA, normalize=normalize, episodic=episodic, warm_up=warm_up)


# What came next


@pytest.mark.parametrize("kind", LIVES)
def test_what_was_observed_next_in_every_autoreset_mode(kind: str) -> None:
    story, source, policy = begun(kind, World)
    seen, ends = 0, 0
    for horizon in (1, 7, 25):
        got = source.collect(policy, horizon)
        following = arrived(got)
        assert isinstance(following, Tensor) and isinstance(got.observation, Tensor)
        for b in range(N):
            for t in range(horizon):
                if got.loss_mask[b, t]:
                    world, number = story.find(got.observation[b, t])
                    told = story.worlds[world][number]
                    assert torch.equal(following[b, t], torch.from_numpy(told.following))
                    seen, ends = seen + 1, ends + told.ended
    assert seen > 70 and ends > 10
    with pytest.raises(ValueError, match="expected a rollout whose `last` says"):
        arrived(replace(got, last=None))


def test_what_was_observed_next_leaves_the_rollout_as_it_is() -> None:
    observation = torch.arange(6.0).view(1, 3, 2)
    zeros = torch.zeros(1, 3)
    ends = Finals(torch.tensor([0]), torch.tensor([1]), torch.tensor([[-1.0, -2.0]]))
    whole = Rollout(
        observation, zeros, zeros, zeros, zeros > 0, zeros > 0, zeros < 1, last=torch.tensor([[8.0, 9.0]]), finals=ends
    )
    assert equal(arrived(whole), torch.tensor([[[2.0, 3.0], [-1.0, -2.0], [8.0, 9.0]]]))
    assert torch.equal(observation, torch.arange(6.0).view(1, 3, 2))
    assert equal(steps_of(whole)[0], observation[0])


# What is paid


def test_chosen_steps_are_paid_for_what_they_lead_to_and_nothing_else_changes() -> None:
    source, novelty = rollout(), Told()
    shaped, metrics = paying(novelty).shape(source)
    following = arrived(source)
    assert isinstance(following, Tensor)
    expected = torch.where(source.loss_mask, source.reward + 2.0 * following[..., 0], source.reward)
    torch.testing.assert_close(shaped.reward, expected)
    assert shaped.reward.dtype == torch.float32
    for name in ("observation", "action", "terminated", "boundary", "loss_mask", "last"):
        assert getattr(shaped, name) is getattr(source, name)
    paid = (shaped.reward - source.reward)[source.loss_mask].mean()
    assert float(metrics["bonus"]) == pytest.approx(float(paid), abs=1e-6)
    assert float(metrics["novelty"]) == pytest.approx(float(paid) / 2.0, abs=1e-6) and float(metrics["told"]) == 1.0
    (learnt,) = novelty.learnt
    assert equal(learnt[2], following[source.loss_mask]), "what no policy chose is not learnt either"


def test_what_is_known_stands_still_within_a_rollout() -> None:
    novelty = Told()
    bonus = paying(novelty, coef=1.0)
    for before in range(3):
        source = rollout(before)
        paid = bonus.shape(source)[0].reward - source.reward
        following = arrived(source)
        assert isinstance(following, Tensor)
        torch.testing.assert_close(
            paid, torch.where(source.loss_mask, following[..., 0] + 10.0 * before, 0.0), atol=1e-5, rtol=0
        )


def test_a_rollout_that_nobody_chose_is_not_learnt() -> None:
    novelty, source = Told(), rollout()
    shaped, metrics = paying(novelty).shape(replace(source, loss_mask=torch.zeros_like(source.loss_mask)))
    assert torch.equal(shaped.reward, source.reward) and not novelty.learnt
    assert float(metrics["bonus"]) == 0.0


def test_nothing_is_paid_while_warming_up() -> None:
    novelty = Told()
    bonus = paying(novelty, warm_up=50)
    for seen in (0, 36, 72):
        source = rollout(seen)
        shaped, _ = bonus.shape(source)
        assert torch.equal(shaped.reward, source.reward) == (seen < 50)
    assert len(novelty.learnt) == 3


def test_a_normalised_bonus_does_not_know_in_what_units_it_was_measured() -> None:
    class Loud(Told):
        def measure(self, steps: Steps) -> Tensor:
            return 1000.0 * super().measure(steps)

    quiet, loud = paying(Told(), normalize=True), paying(Loud(), normalize=True)
    for seed in range(3):
        source = rollout(seed)
        one, other = quiet.shape(source)[0].reward, loud.shape(source)[0].reward
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert bool(((one - source.reward)[source.loss_mask] > 0).all())


def test_an_end_takes_nothing_from_a_bonus_that_is_not_episodic() -> None:
    """A bonus of 1 for ever: with what ends are paid, each step's return is that of an endless sum, 1 / (1 - gamma)."""

    class Ever(Told):
        def measure(self, steps: Steps) -> Tensor:
            return torch.ones_like(super().measure(steps))

    bonus = paying(Ever(), coef=1.0, episodic=False)
    yes = torch.ones(3, 12, dtype=torch.bool)
    for seed in range(40):  # until its mean is known
        source = replace(rollout(seed), reward=torch.zeros(3, 12), loss_mask=yes)
        shaped, _ = bonus.shape(source)
    torch.testing.assert_close(bonus.mean, torch.tensor(1.0))
    assert source.terminated.any() and (source.boundary & ~source.terminated).any()
    endless = torch.full((3, 12), 1.0 / (1.0 - GAMMA))
    returns = discounted_returns(shaped.reward, endless, source.terminated, source.boundary, GAMMA)
    torch.testing.assert_close(returns, endless)
    with pytest.raises(ConfigError, match="expected gamma below 1 with a bonus that is not episodic"):
        Bonus(Ever(), 1.0, 1.0, normalize=False, episodic=False, warm_up=0)


def test_its_state_goes_on_bit_for_bit() -> None:
    one, other = (paying(Told(), normalize=True, episodic=False, warm_up=30) for _ in range(2))
    other.load_state_dict(one.state_dict())  # also before the first rollout
    one.shape(rollout(0))
    other.load_state_dict(one.state_dict())
    for seed in (1, 2):
        left, right = one.shape(rollout(seed)), other.shape(rollout(seed))
        assert torch.equal(left[0].reward, right[0].reward) and left[1] == right[1]


# What is waited for


def test_every_step_is_learnt_from_once_in_full_minibatches() -> None:
    backlog, found = Backlog(8, 0, "test"), []
    for begin, end in ((0, 3), (3, 5), (5, 30), (30, 31), (31, 33)):
        rows = torch.arange(begin, end)
        for minibatch in backlog.take({"a": rows, "b": (rows * 10,)}):
            assert isinstance(minibatch, dict) and isinstance(minibatch["a"], Tensor)
            assert equal(minibatch["b"], (minibatch["a"] * 10,)) and len(minibatch["a"]) == 8
            found.append(minibatch["a"])
    assert sorted(torch.cat(found).tolist()) != torch.cat(found).tolist()
    assert len(found) == 4 and backlog.count == 1
    assert len(set(torch.cat(found).tolist())) == 32


def test_what_waits_is_kept() -> None:
    one, other = Backlog(8, 0, "test"), Backlog(8, 1, "test")
    list(one.take(torch.arange(13)))
    other.load_state_dict(one.state_dict())
    left, right = list(one.take(torch.arange(13, 40))), list(other.take(torch.arange(13, 40)))
    assert len(left) == 4 and equal(tuple(left), tuple(right))


def test_what_waited_goes_where_the_next_steps_are() -> None:
    """A checkpoint brings it back on the CPU."""
    backlog = Backlog(8, 0, "test")
    assert not list(backlog.take(torch.zeros(5, 2)))
    (minibatch,) = backlog.take(torch.zeros(5, 2, device="meta"))
    assert isinstance(minibatch, Tensor) and minibatch.device.type == "meta" and backlog.count == 2


# In algorithms

CHOICES: list[ExplorationBonus] = [
    Counts(coef=100.0), Curiosity(coef=100.0, warm_up=0), RandomDistillation(coef=100.0, warm_up=0)
]  # fmt: skip


@pytest.mark.parametrize("chosen", CHOICES, ids=lambda chosen: type(chosen).__name__)
@pytest.mark.parametrize("module", [ppo, dqn])
def test_what_is_reported_is_what_the_environment_paid(module: Any, chosen: ExplorationBonus, tmp_path: Path) -> None:
    """A step of the corridor pays between -0.1 and 1; the bonus is far beyond that."""
    more = {"n_envs": 4, "n_steps": 32, "batch_size": 64} if module is ppo else {"learning_rate": 1e-3}
    config = module.Config(total_timesteps=512, exploration_bonus=chosen, **more)
    run = start(tmp_path, module, config, Control(Corridor), eval_freq=256)
    module.train(config, Control(Corridor), run)
    lines = read_metrics(tmp_path)
    assert any(line.get("bonus", 0.0) > 0.1 for line in lines)
    returns = [line[name] for line in lines for name in ("return", "eval/return") if line.get(name) is not None]
    assert returns and all(-3.1 < value < 1.0 for value in returns)


def test_without_a_bonus_there_is_no_shaping() -> None:
    assert bonuses(NoBonus(), Control(Corridor), 0.9, 0, "cpu") == []
