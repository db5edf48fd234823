"""Hindsight, from a setting to what is learnt: goals that are never met by chance are met after it, and only then."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.algorithms.training import score, start
from torchward.algorithms import dqn, sac, td3
from torchward.config import ConfigError, from_json, to_json
from torchward.data.counts import Counts
from torchward.data.exploration import EpsilonGreedy
from torchward.data.hindsight import HER, Hindsight, with_goals
from torchward.data.memory import replay_of
from torchward.data.replay import Replay, Uniform
from torchward.data.shaping import RewardScale
from torchward.envs.faults import WorldError
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.launch import change_all, defaults
from torchward.nets.actor_body import ActorNet
from torchward.nets.q_network import QNet
from torchward.nets.spaces import SpaceError
from torchward.tasks import find

Bits: Any = find.task(Path(__file__).resolve().parents[2] / "docs" / "examples" / "bits.py").task.environment


class Reach(gym.Env[Any, Any]):
    """A point in a square of side 2 moves by up to 0.2 in each direction; a step costs 1 unless it ends within 0.1 of
    the goal. It never ends by itself; a random walk seldom meets the goal."""

    def __init__(self) -> None:
        place = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = gym.spaces.Dict(observation=place, achieved_goal=place, desired_goal=place)
        self.action_space = gym.spaces.Box(-0.2, 0.2, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(-1.0, 1.0, (2, 2)).astype(np.float32)
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = np.clip(self.place + action, -1.0, 1.0).astype(np.float32)
        return self._see(), float(self.compute_reward(self.place, self.goal, {})), False, False, {}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return -(np.linalg.norm(achieved - desired, axis=-1) > 0.1).astype(np.float32)

    def _see(self) -> Any:
        return {"observation": self.place, "achieved_goal": self.place, "desired_goal": self.goal}


def bits(replay: Any) -> dqn.Config:
    return dqn.Config(
        total_timesteps=8_000, n_envs=8, train_freq=1, gradient_steps=4, batch_size=64, buffer_size=50_000,
        learning_starts=500, learning_rate=2e-3, gamma=0.95, tau=0.05, target_update_interval=8,
        exploration=EpsilonGreedy(0.3, 0.1, 0.5), double_q=True, network=QNet(net_arch=(128,)), replay=replay,
    )  # fmt: skip


@pytest.mark.slow
def test_bits_are_turned_with_hindsight_alone(tmp_path: Path) -> None:
    """DQN without it never meets a goal and has nothing to learn from: of 1024 patterns an episode tries ten."""
    task = Control(Bits)
    assert score(tmp_path / "her", dqn, bits(HER()), task) > -4.5
    assert score(tmp_path / "plain", dqn, bits(Uniform()), task) < -8.0


LIMITED = EnvOptions(max_episode_steps=20)
SOFT = sac.Config(
    total_timesteps=4_000, n_envs=4, gradient_steps=4, batch_size=64, buffer_size=10_000, learning_starts=200,
    learning_rate=1e-3, gamma=0.9, tau=0.02, replay=HER(), network=ActorNet(net_arch=(64, 64)),
)  # fmt: skip
DETERMINISTIC = td3.Config(
    total_timesteps=4_000, n_envs=4, gradient_steps=4, batch_size=64, buffer_size=10_000, learning_starts=500,
    learning_rate=1e-3, gamma=0.9, tau=0.02, replay=HER(), network=ActorNet(net_arch=(64, 64)),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("module", "config"), [(sac, SOFT), (td3, DETERMINISTIC)], ids=["sac", "td3"])
def test_places_are_reached_with_hindsight(module: Any, config: Any, tmp_path: Path) -> None:
    """On average a goal is five steps away."""
    assert score(tmp_path, module, config, Control(Reach, LIMITED)) > -8.0


def test_the_rewards_and_ends_are_those_of_the_environment() -> None:
    reward, terminated = Control(Bits).goals()
    achieved, desired = torch.tensor([[0.0] * 10, [1.0] * 10]), torch.zeros(2, 10)
    assert reward(achieved, desired).tolist() == [0.0, -1.0] and reward(achieved, desired).dtype == torch.float32
    assert terminated is not None and terminated(achieved, desired).tolist() == [True, False]
    paid, ends = Control(Reach, LIMITED).goals()  # behind the wrapper that limits it
    assert ends is None and paid(torch.zeros(1, 2), torch.ones(1, 2)).tolist() == [-1.0]

    class Endless(Reach):
        def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> bool:
            return False  # one for all, as robots have it

    _, ends = Control(Endless).goals()
    assert ends is not None and ends(torch.zeros(3, 2), torch.ones(3, 2)).tolist() == [False] * 3


def test_the_setting_is_typed_by_name() -> None:
    for name in ("dqn", "sac", "td3"):
        start_from = defaults(find.algorithm(name), "Reach")
        changed = change_all(start_from, {"replay": "her", "replay_n_sampled_goal": 2}).config
        assert changed.replay == HER(2, "future")
        assert from_json(type(changed), to_json(changed)) == changed


def test_what_hindsight_cannot_do_is_said_before_the_run() -> None:
    with pytest.raises(ConfigError, match="hindsight changes single steps, got recurrent='lstm'"):
        dqn.Config(replay=HER(), network=QNet(recurrent="lstm"))
    for module in (dqn, sac, td3):
        with pytest.raises(
            ConfigError, match=r"expected no exploration_bonus with hindsight, .* got Counts; leave one"
        ):
            module.Config(replay=HER(), exploration_bonus=Counts())
        assert module.Config(exploration_bonus=Counts()).exploration_bonus == Counts()
        with pytest.raises(ConfigError, match=r"expected no shaping with hindsight, .* got RewardScale; leave one out"):
            replay_of(module.Config(replay=HER()), Control(Reach), Path("nowhere"), 10, [RewardScale(0.9)])
    with pytest.raises(ConfigError, match="expected n_sampled_goal of HER of at least 1, got 0"):
        HER(0)
    with pytest.raises(SpaceError, match="hindsight needs a Dict of observation, achieved_goal and desired_goal"):
        dqn.check(bits(HER()), Control("CartPole-v1"))

    class Silent(Reach):
        compute_reward = None  # type: ignore[assignment]

    class Scalar(Reach):
        def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
            return -float(np.linalg.norm(achieved - desired) > 0.1)

    with pytest.raises(WorldError, match=r"Silent has no compute_reward\(achieved_goal, desired_goal, info\)"):
        sac.check(SOFT, Control(Silent))
    with pytest.raises(WorldError, match=r"expected compute_reward of Scalar .* rewards \[K\], got \[\] for K = 2"):
        td3.check(DETERMINISTIC, Control(Scalar))

    class Single(Reach):
        def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> bool:
            return bool(np.linalg.norm(achieved - desired) < 0.1)

    class Broken(Reach):
        def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
            return -float(info["distance"])

    with pytest.raises(WorldError, match=r"expected compute_terminated of Single .* ends \[K\], got \[\] for K = 2"):
        sac.check(SOFT, Control(Single))
    with pytest.raises(WorldError, match=r"compute_reward of Broken raised KeyError: 'distance'; .* \[2, 2\], and an"):
        sac.check(SOFT, Control(Broken))

    class Bare:
        name = "bare"

    task = Control(Reach)
    replay = Replay(task.observation_space, task.action_space, 1, 10, seed=0)
    with pytest.raises(ConfigError, match=r"hindsight needs a task with goals\(\), what each goal pays; bare has none"):
        with_goals(replay, HER(), Bare())
    assert with_goals(replay, Uniform(), Bare()) is replay
    assert isinstance(with_goals(replay, HER(), task), Hindsight)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config = replace(SOFT, total_timesteps=400, learning_starts=100)
    task = Control(Reach, LIMITED)
    whole = sac.train(config, task, start(tmp_path / "whole", sac, config, task, checkpoint_freq=200))
    run = start(tmp_path / "half", sac, config, task, checkpoint_freq=200)
    save = run.save

    class Stop(Exception):
        pass

    def stop() -> Path:
        save()
        raise Stop

    run.save = stop  # type: ignore[method-assign]
    with pytest.raises(Stop):
        sac.train(config, task, run)
    again = sac.train(config, task, start(tmp_path / "half", sac, config, task, resume=True, checkpoint_freq=200))
    mine, theirs = (list(policy.state_dict().values()) for policy in (whole, again))
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))
