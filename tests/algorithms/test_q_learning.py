"""Q-learning and its kin: the update, time limits and resets, exact resume, and optima by Gymnasium's own tables."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from tests.algorithms.exact import TAXI, best_soft, table, worth
from tests.algorithms.training import start
from torchward.algorithms import q_learning
from torchward.algorithms.q_learning import (
    Config,
    Learner,
    Linear,
    Transition,
    VisitCount,
    Walk,
    learn,
)
from torchward.checkpoint import load_tree
from torchward.config import ConfigError, from_json, to_json
from torchward.data.exploration import Boltzmann, EpsilonGreedy
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.metrics import read_metrics
from torchward.nets import saving
from torchward.nets.actor_critic import ActorCritic
from torchward.nets.spaces import SpaceError
from torchward.nets.tabular import TabularPolicy
from torchward.run import Run, RunError

Method = Literal["q_learning", "sarsa", "expected_sarsa", "double_q"]
METHODS: tuple[Method, ...] = ("q_learning", "sarsa", "expected_sarsa", "double_q")


def train(path: Path, config: Config, task: Control, policy: TabularPolicy | None = None, **options: Any) -> Any:
    q_learning.check(config, task)
    return q_learning.train(config, task, start(path, q_learning, config, task, **options), policy)


# The update


def column(*values: Any) -> Tensor:
    return torch.tensor(values)


def ends(states: Tensor, actions: Tensor, rewards: Tensor) -> Transition:
    """Steps that end their episodes: their targets are their rewards, whatever the table holds."""
    yes = torch.ones_like(states, dtype=torch.bool)
    return Transition(states, actions, rewards.double(), yes, torch.zeros_like(states), yes)


@pytest.mark.parametrize("rate", [Linear(0.3, 0.3), Linear(1.0, 1.0), VisitCount(1.0, 1.0), VisitCount(0.2, 0.7)])
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_moves_the_table_as_its_steps_would_one_after_the_other(
    method: Method, rate: Linear | VisitCount
) -> None:
    config = Config(method=method, learning_rate=rate, initial_q=2.0)
    together, apart = Learner(3, 2, config), Learner(3, 2, config)
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        n = 10  # steps for 6 pairs: most come twice
        states, actions = torch.randint(3, (n,), generator=draw), torch.randint(2, (n,), generator=draw)
        tables = torch.randint(len(together.q), (n,), generator=draw)
        step = ends(states, actions, torch.randn(n, generator=draw))
        chosen = torch.zeros_like(states)
        together.update(step, chosen, tables)
        for i in range(n):
            one = Transition(*(values[i : i + 1] for values in step))
            apart.update(one, chosen[i : i + 1], tables[i : i + 1])
    torch.testing.assert_close(together.q, apart.q, rtol=1e-12, atol=1e-12)
    assert torch.equal(together.visits, apart.visits) and together.visits.sum() == 30


def test_a_step_size_of_one_over_n_holds_the_mean_of_the_targets() -> None:
    learner = Learner(2, 1, Config(learning_rate=VisitCount(1.0, 1.0), initial_q=100.0))
    rewards = torch.randn(40, generator=torch.Generator().manual_seed(1))
    zeros = torch.zeros(8, dtype=torch.int64)
    for batch in rewards.split(8):
        learner.update(ends(zeros, zeros, batch), zeros, zeros)
    assert float(learner.q[0, 0, 0]) == pytest.approx(float(rewards.double().mean()), abs=1e-12)
    assert float(learner.q[0, 1, 0]) == 100.0


def test_the_methods_differ_in_what_comes_next() -> None:
    q = [[1.0, 5.0, 3.0], [2.0, 0.0, 4.0]]
    half = EpsilonGreedy(0.5, 0.5)
    for method, expected in {
        "q_learning": [5.0, 4.0],
        "sarsa": [3.0, 2.0],
        "expected_sarsa": [0.5 * 5 + 0.5 * 3, 0.5 * 4 + 0.5 * 2],
    }.items():
        learner = Learner(2, 3, Config(method=method, exploration=half))  # type: ignore[arg-type]
        learner.q[0] = torch.tensor(q)
        value = learner.next_value(column(0, 1), column(2, 0), column(0, 0))
        assert value.tolist() == pytest.approx(expected)
    learner = Learner(2, 3, Config(method="double_q"))
    learner.q[0], learner.q[1] = torch.tensor(q), torch.tensor([[7.0, 8.0, 9.0], [9.0, 8.0, 7.0]])
    assert learner.next_value(column(0, 0, 1, 1), column(0, 0, 0, 0), column(0, 1, 0, 1)).tolist() == [8, 3, 7, 2]


def test_exploration_is_annealed_and_actions_are_as_frequent_as_it_says() -> None:
    learner = Learner(1, 3, Config(exploration=EpsilonGreedy(0.9, 0.3, fraction=0.5)))
    learner.q[0, 0] = torch.tensor([0.0, 1.0, 0.0])
    state = torch.zeros(30_000, dtype=torch.int64)
    for progress, epsilon in ((0.0, 0.9), (0.25, 0.6), (0.5, 0.3), (1.0, 0.3)):
        learner.progress = progress
        noise, _ = learner.draw(1, len(state))
        frequency = learner.choose(state, noise[0, 0]).bincount(minlength=3) / len(state)
        expected = torch.tensor([epsilon / 3, 1 - 2 * epsilon / 3, epsilon / 3])
        torch.testing.assert_close(frequency, expected, atol=0.01, rtol=0)
    soft = Boltzmann(2.0, 0.5, fraction=1.0)
    odds = soft.probs(torch.tensor([[0.0, 1.0]]), 0.5).log().diff()
    assert float(odds) == pytest.approx(1.0 / 1.25)
    assert Boltzmann(1.0, 0.1, fraction=0.0).probs(torch.tensor([[0.0, 1.0]]), 0.0).log().diff() == pytest.approx(10.0)


# Time limits and resets


class Corridor(gym.Env[Any, Any]):
    """From place 10 to 11 to 12, whatever is done, for a reward of 1 each; then it ends, or its time is up."""

    def __init__(self, terminates: bool) -> None:
        self.terminates = terminates
        self.observation_space = gym.spaces.Discrete(3, start=10)
        self.action_space = gym.spaces.Discrete(2, start=5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 10
        return self.place, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in self.action_space
        self.place += 1
        over = self.place == 12
        return self.place, 1.0, over and self.terminates, over and not self.terminates, {}


def corridor(terminates: bool, mode: AutoresetMode | None) -> Control:
    if mode is None:
        return Control(lambda: Corridor(terminates))
    return Control(SyncVectorEnv([lambda: Corridor(terminates) for _ in range(4)], autoreset_mode=mode))


@pytest.mark.parametrize("mode", [None, *AutoresetMode])
@pytest.mark.parametrize("terminates", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_time_limit_is_bootstrapped_through_and_an_end_is_not(
    method: Method, terminates: bool, mode: AutoresetMode | None
) -> None:
    """Place 12 is never acted in, so its value stays what it was: 7. A reset row that were learnt from would change it,
    and a limit that bootstrapped from the next episode would give place 11 another value."""
    config = Config(method=method, gamma=0.5, initial_q=7.0, learning_rate=Linear(1.0, 1.0), n_envs=4)
    learner, walk = Learner(3, 2, config), Walk(corridor(terminates, mode), config)
    learn(learner, walk, 60, lambda t: 0.0)
    last = 1.0 if terminates else 1.0 + 0.5 * 7.0
    expected = torch.tensor([1.0 + 0.5 * last, last, 7.0], dtype=torch.float64)
    torch.testing.assert_close(learner.q, expected[:, None].expand_as(learner.q), rtol=0, atol=1e-12)
    assert {(episode.return_, episode.length) for episode in walk.episodes()} == {(2.0, 2)}
    assert learner.visits.sum() == 4 * (40 if mode is AutoresetMode.NEXT_STEP else 60)


@pytest.mark.parametrize("method", METHODS)
def test_sarsa_does_what_its_target_says_and_the_others_choose_after_learning(method: Method) -> None:
    task = Control("FrozenLake-v1")
    config = Config(method=method, n_envs=5, exploration=EpsilonGreedy(1.0, 1.0))
    walk, seen = Walk(task, config), []

    class Recorder(Learner):
        def update(self, step: Transition, chosen: Tensor, table: Tensor) -> Tensor:
            seen.append((step, chosen))
            return super().update(step, chosen, table)

    learn(Recorder(16, 4, config), walk, 200, lambda t: 0.0)
    agree, went_on = [], []
    for (step, chosen), (following, _) in itertools.pairwise(seen):
        same = ~step.terminated & (step.following == following.state)
        went_on.append(same)
        agree.append((chosen == following.action)[same])
    assert torch.cat(went_on).float().mean() > 0.5
    assert bool(torch.cat(agree).all()) == (method == "sarsa")


# What is learnt

FIRM = EnvOptions(env_kwargs={"is_slippery": False})
SHORT = EnvOptions(max_episode_steps=200)
QUICK = Config(n_envs=16, exploration=EpsilonGreedy(0.5, 0.1), learning_rate=Linear(0.5, 0.5))


def test_q_learning_walks_the_cliff_optimally(tmp_path: Path) -> None:
    policy = train(tmp_path, replace(QUICK, total_timesteps=20_000), Control("CliffWalking-v1", SHORT))
    world = table("CliffWalking-v1")
    assert worth(world, policy.probs, 0.99) == pytest.approx(best_soft(world, 0.0, 0.99), abs=1e-9)
    returns = [row["return"] for row in read_metrics(tmp_path) if "return" in row]
    assert returns[-1] > returns[0]


@pytest.mark.parametrize("method", ["sarsa", "expected_sarsa"])
def test_sarsa_stays_away_from_the_cliff_that_it_might_stumble_into(tmp_path: Path, method: Method) -> None:
    """Near the best epsilon-greedy policy; the shortest way, walked with these stumbles, is less than half as good."""
    rate = Linear(0.2, 0.01) if method == "sarsa" else Linear(0.5, 0.5)
    config = replace(QUICK, method=method, total_timesteps=30_000, learning_rate=rate)
    policy = train(tmp_path, config, Control("CliffWalking-v1", SHORT))
    world = table("CliffWalking-v1")
    assert worth(world, policy.probs, 0.99) >= 1.08 * best_soft(world, 0.1, 0.99)


@pytest.mark.parametrize(
    ("method", "exploration"), [("double_q", EpsilonGreedy(1.0, 0.1)), ("q_learning", Boltzmann(1.0, 0.05))]
)
def test_the_shortest_way_over_firm_ice_is_found(
    tmp_path: Path, method: Method, exploration: EpsilonGreedy | Boltzmann
) -> None:
    config = replace(QUICK, method=method, exploration=exploration, total_timesteps=15_000)
    policy = train(tmp_path, config, Control("FrozenLake-v1", FIRM))
    assert worth(table("FrozenLake-v1", is_slippery=False), policy.probs, 0.99) == pytest.approx(0.99**5, abs=1e-9)


def test_a_slippery_lake_is_crossed_within_two_percent_of_the_optimum(tmp_path: Path) -> None:
    config = Config(total_timesteps=40_000, n_envs=16, exploration=EpsilonGreedy(1.0, 0.1))
    policy = train(tmp_path, config, Control("FrozenLake-v1"))
    world = table("FrozenLake-v1")
    assert worth(world, policy.probs, config.gamma) >= 0.98 * best_soft(world, 0.0, config.gamma)
    judged = Control("FrozenLake-v1").evaluate(saving.load(tmp_path), 50, 1)
    assert sum(judged.returns) / 50 > 0.55


@pytest.mark.slow
def test_taxi_is_driven_optimally_from_every_start(tmp_path: Path) -> None:
    config = Config(total_timesteps=200_000, exploration=EpsilonGreedy(0.5, 0.5), learning_rate=Linear(1.0, 1.0))
    policy = train(tmp_path, config, Control(TAXI))
    world = table(TAXI)
    assert worth(world, policy.probs, config.gamma) == pytest.approx(best_soft(world, 0.0, config.gamma), abs=1e-9)


# Runs


class Stopped(Exception):
    pass


def stop_at_checkpoint(run: Run, number: int) -> Run:
    """Killed just after its ``number``-th checkpoint (the first is that of step 0)."""
    save, count = run.save, [0]

    def counted() -> Path:
        path = save()
        count[0] += 1
        if count[0] == number:
            raise Stopped
        return path

    run.save = counted  # type: ignore[method-assign]
    return run


@pytest.mark.parametrize(
    ("method", "exploration"),
    [
        ("q_learning", EpsilonGreedy()),
        ("q_learning", Boltzmann()),
        ("sarsa", EpsilonGreedy()),
        ("expected_sarsa", Boltzmann()),
        ("double_q", EpsilonGreedy()),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method, exploration: EpsilonGreedy | Boltzmann
) -> None:
    monkeypatch.setattr(q_learning, "CHUNK", 16)
    task = Control("FrozenLake-v1")
    config = Config(method=method, exploration=exploration, total_timesteps=2_000, n_envs=7)
    options: dict[str, Any] = {"checkpoint_freq": 400, "eval_freq": 900, "n_eval_episodes": 2}
    whole = train(tmp_path / "whole", config, task, **options)
    run = stop_at_checkpoint(start(tmp_path / "cut", q_learning, config, task, **options), 4)
    with pytest.raises(Stopped):
        q_learning.train(config, task, run)
    assert 0 < run.step < 2_000
    resumed = train(tmp_path / "cut", config, task, resume=True, **options)
    assert torch.equal(resumed.q, whole.q) and torch.equal(resumed.probs, whole.probs)
    timed = ("time", "steps_per_second")
    told = [
        [{name: value for name, value in row.items() if name not in timed} for row in read_metrics(tmp_path / name)]
        for name in ("cut", "whole")
    ]
    assert told[0] == told[1]


def test_worlds_that_cannot_be_brought_back_begin_anew_at_every_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(q_learning, "CHUNK", 16)

    def made(path: Path, stop: bool) -> Any:
        task = corridor(False, AutoresetMode.NEXT_STEP)
        config = Config(method="sarsa", total_timesteps=900, n_envs=4, learning_rate=Linear(0.5, 0.5))
        options: dict[str, Any] = {"checkpoint_freq": 200}
        if stop:
            with pytest.raises(Stopped):
                run = start(path, q_learning, config, task, **options)
                q_learning.train(config, task, stop_at_checkpoint(run, 3))
            task = corridor(False, AutoresetMode.NEXT_STEP)
        return train(path, config, task, resume=stop, **options)

    assert not Walk(corridor(False, AutoresetMode.NEXT_STEP), Config(n_envs=4)).resumable
    assert torch.equal(made(tmp_path / "whole", False).q, made(tmp_path / "cut", True).q)


def test_a_seed_is_a_run(tmp_path: Path) -> None:
    task, config = Control("FrozenLake-v1"), Config(total_timesteps=2_000)
    tables = [train(tmp_path / f"{i}", replace(config, seed=seed), task).q for i, seed in enumerate((0, 0, 1))]
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])


def test_it_goes_on_from_a_policy(tmp_path: Path) -> None:
    task, config = Control("FrozenLake-v1"), Config(total_timesteps=10, n_envs=10)
    policy = TabularPolicy.empty(task.observation_space, task.action_space)
    policy.q.copy_(torch.arange(64.0).reshape(16, 4))
    assert np.count_nonzero((train(tmp_path / "one", config, task, policy).q != policy.q).numpy()) <= 10
    other: Any = ActorCritic(task.observation_space, task.action_space)
    with pytest.raises(ConfigError, match="begins from a TabularPolicy, got ActorCritic"):
        train(tmp_path / "two", config, task, other)


def test_what_has_no_numbers_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"needs Discrete observations, but CartPole-v1 has Box\(4\)"):
        q_learning.check(Config(), Control("CartPole-v1"))

    class Continuous(Corridor):
        def __init__(self) -> None:
            super().__init__(True)
            self.action_space: Any = gym.spaces.Box(-1.0, 1.0, (2,))

    with pytest.raises(SpaceError, match=r"needs Discrete actions, but Continuous has Box\(2\)"):
        q_learning.check(Config(), Control(Continuous))


def test_a_reward_that_is_no_number_stops_the_run_before_it_is_learnt_from(tmp_path: Path) -> None:
    class Broken(Corridor):
        def __init__(self) -> None:
            super().__init__(False)

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            seen, reward, *rest = super().step(action)
            return seen, np.nan if self.place == 12 else reward, *rest

    with pytest.raises(RunError, match="Broken returned NaN or infinity as reward of world 0"):
        train(tmp_path, Config(total_timesteps=100), Control(Broken))
    assert load_tree(tmp_path / "failed" / "learner")["q"].isfinite().all()


def test_config_travels_and_refuses_what_cannot_be() -> None:
    config = Config(exploration=Boltzmann(2.0, 1.0), learning_rate=Linear(0.5, 0.1))
    assert from_json(Config, to_json(config)) == config
    for cls, wrong in (
        (Config, {"gamma": -0.1}),
        (Config, {"n_envs": 0}),
        (EpsilonGreedy, {"end": 1.5}),
        (Boltzmann, {"end": 0.0}),
        (Linear, {"start": 2.0}),
        (VisitCount, {"power": -1.0}),
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            cls(**wrong)
