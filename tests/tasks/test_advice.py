"""What is seen of a task is what is there, and the advice follows from it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from tests.algorithms.test_goals import Bits, Reach
from torchward import launch
from torchward.cli.train import read
from torchward.data.preferences import PreferenceTask
from torchward.data.texts import CorpusTask, GroupTask, LabelledTask, MaskedTask, TextTask
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.nets import spaces
from torchward.tasks import find
from torchward.tasks.advice import REMARKS, RULES, Advice, advise, table
from torchward.tasks.facts import Facts, free_memory, look

VECTOR, PICTURE = spaces.Box((4,)), spaces.Box((4, 84, 84), 0.0, 255.0, "uint8")
CHOICE, REAL = spaces.Discrete(3), spaces.Box((2,), -1.0, 1.0)
PLAIN = Facts(
    name="world", observation=VECTOR, action=CHOICE, steps=5000, seconds=5e-5, episodes=100, horizon=50.0, limited=0.0,
    rewarded=0.5, distinct=1.0, mean_return=3.0, std_return=1.0, scale=1.0, has_model=False, has_goals=False,
)  # fmt: skip


class Clock(gym.Env[Any, Any]):
    """Ten steps of which the fifth and the last pay, -30 and 8; they end it, or a limit does."""

    observation_space: gym.Space[Any] = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def __init__(self, limit: bool = False) -> None:
        self.limit = limit

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.array([0.0, -40.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        over, paid = self.time == 10, {5: -30.0, 10: 8.0}.get(self.time, 0.0)
        return np.array([self.time, 0.0], np.float32), paid, over and not self.limit, over and self.limit, {}


class TestFacts:
    @pytest.mark.parametrize("limit", [False, True])
    @pytest.mark.parametrize("how", ["sync", "async"])
    def test_they_are_those_of_the_world(self, limit: bool, how: Any) -> None:
        seen = look(Control(Clock, EnvOptions(vectorization=how, env_kwargs={"limit": limit})), 0.05)
        assert seen.steps >= 50 and seen.seconds > 0.0 and seen.episodes in (seen.steps // 10, seen.steps // 10 + 1)
        assert seen.horizon == 10.0 and seen.limited == float(limit)
        assert seen.rewarded == pytest.approx(0.2, abs=0.02) and seen.distinct == 0.0
        assert (seen.mean_return, seen.std_return, seen.scale) == (-22.0, 0.0, 40.0)
        assert not seen.has_model and not seen.has_goals and seen.is_sparse == (seen.episodes >= 10)

    def test_models_and_goals(self) -> None:
        lake = look(Control("FrozenLake-v1"), 0.1)
        assert lake.has_model and not lake.has_goals and lake.pairs == 64 and lake.scale == 0.0
        bits, reach = look(Control(Bits), 0.1), look(Control(Reach), 0.1)
        assert bits.has_goals and reach.has_goals and not bits.has_model
        assert reach.episodes == 0 and reach.horizon == reach.steps and reach.limited == 0.0

        class Mute(Clock):
            observation_space = Reach().observation_space

            def reset(self, **kwargs: Any) -> Any:
                return Reach().reset(**kwargs)

            def step(self, action: Any) -> Any:
                return self.reset()[0], 0.0, False, False, {}

        assert not look(Control(Mute), 0.05).has_goals

    @pytest.mark.parametrize("fault", ["of one goal alone", "of its info", "an end of one goal alone"])
    def test_goals_that_are_not_judged_in_batches_are_none(self, fault: str) -> None:
        class Judge(Reach):
            def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
                if fault == "of one goal alone":
                    return -1.0
                from_info = fault == "of its info" and achieved.ndim == 2
                return info["paid"] if from_info else super().compute_reward(achieved, desired, info)

            def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
                return np.zeros(3, bool) if fault == "an end of one goal alone" else np.zeros(len(achieved), bool)

        assert not look(Control(Judge), 0.05).has_goals

    def test_a_vector_is_played_as_it_is(self) -> None:
        task = Control(lambda: SyncVectorEnv([Clock] * 3))
        seen = look(task, 0.05)
        assert seen.horizon == 10.0 and seen.mean_return == -22.0
        assert abs(10 * seen.episodes - seen.steps) < 3 * 10
        advices, _ = advise(seen, task, None)
        assert "--n-envs 3" in advices[0].command("mine.py")
        assert "--n-envs" not in advise(seen, Control(Clock), None)[0][0].command("mine.py")

        class Endless(Clock):
            def step(self, action: Any) -> Any:
                return self.reset()[0], 0.0, False, False, {}

        endless = look(Control(lambda: SyncVectorEnv([Endless] * 3)), 0.01)
        assert 3 * endless.horizon == endless.steps and endless.episodes == 0

    def test_few_episodes_are_judged_by_their_steps(self) -> None:
        few = replace(PLAIN, episodes=1, distinct=0.0)
        assert not replace(few, rewarded=0.02).is_sparse and replace(few, rewarded=0.001).is_sparse
        assert replace(PLAIN, distinct=0.01).is_sparse and not replace(PLAIN, rewarded=0.0).is_sparse


def best(facts: Facts, **settings: Any) -> Advice:
    """The advice for a task of these spaces without tuned settings."""
    task = Spaces(facts)
    return advise(facts, task, None)[0][0]


class Spaces:
    """A task with nothing but spaces, for which algorithms are asked whether they take them."""

    def __init__(self, facts: Facts) -> None:
        self.name, self.observation_space, self.action_space = "world", facts.observation, facts.action

    def worlds(self, n: int) -> Any:
        raise AssertionError("nobody steps them")

    def model(self) -> Any:
        return None


@pytest.mark.parametrize(
    ("facts", "algorithm"),
    [
        (replace(PLAIN, observation=spaces.Discrete(16), has_model=True), "dynamic_programming"),
        (replace(PLAIN, observation=spaces.Discrete(500)), "q_learning"),
        (replace(PLAIN, observation=spaces.Discrete(10**6)), "ppo"),
        (replace(PLAIN, has_goals=True, action=REAL), "sac"),
        (replace(PLAIN, has_goals=True), "dqn"),
        (replace(PLAIN, action=REAL), "sac"),
        (replace(PLAIN, action=REAL, observation=PICTURE), "sac"),
        (replace(PLAIN, action=spaces.Dict({"how": CHOICE, "where": REAL})), "sac"),
        (replace(PLAIN, action=spaces.MultiDiscrete((2, 3))), "ppo"),
        (replace(PLAIN, action=spaces.MultiBinary(3)), "ppo"),
        (replace(PLAIN, action=spaces.Tuple((REAL, spaces.MultiBinary(3)))), "sac"),
        (PLAIN, "ppo"),
        (replace(PLAIN, seconds=0.01), "dqn"),
        (replace(PLAIN, seconds=0.01, observation=PICTURE), "ppo"),
    ],
)
def test_the_first_rule_that_holds_is_the_advice(facts: Facts, algorithm: str) -> None:
    assert best(facts).rule.algorithm == algorithm


ROWS: dict[str, spaces.Space] = {
    "one of several": CHOICE,
    "real numbers": REAL,
    "both at once": spaces.Dict({"how": CHOICE, "where": REAL}),
    "several choices": spaces.MultiDiscrete((2, 3)),
}


def takes(name: str, facts: Facts) -> bool:
    module = find.algorithm(name).module
    try:
        module.check(module.Config(), Spaces(facts))
    except ValueError:
        return False
    return True


OF_TEXT = (CorpusTask, TextTask, GroupTask, PreferenceTask, MaskedTask, LabelledTask)


def test_the_spaces_of_the_chapter_are_those_that_algorithms_take() -> None:
    """Its table, cell by cell: all of a cell's algorithms take the actions of its row, or none does."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "which-algorithm.md").read_text(encoding="utf-8")
    section = page.partition("## What the spaces allow")[2]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line] for line in lines)
    named = [re.findall(r"`(\w+)`", cell) for cell in head[1:]]
    tasks = {name: get_type_hints(find.algorithm(name).module.train)["task"] for name in find.algorithms()}
    of_text = {name for name, kind in tasks.items() if kind in OF_TEXT}
    assert {name for names in named for name in names} == set(tasks) - of_text
    assert of_text | {"ppo"} == set(re.findall(r"`(\w+)`", section.partition("\nText ")[2].partition("\n\n")[0]))
    assert len(rows) == len(ROWS)
    for (begin, action), (what, *cells) in zip(ROWS.items(), rows, strict=True):
        assert what.startswith(begin)
        facts = replace(PLAIN, action=action)
        for names, cell in zip(named, cells, strict=True):
            numbered = replace(facts, observation=spaces.Discrete(5))
            assert {takes(name, facts) for name in names} == {cell == "yes"}, (what, names)
            assert {takes(name, numbered) for name in names} == {cell != ""}, (what, names)


def test_tuned_settings_outweigh_a_rule_and_a_model_outweighs_both() -> None:
    dear = replace(PLAIN, seconds=0.01)
    advices, _ = advise(dear, Control("CartPole-v1"), "CartPole-v1")
    assert [advice.rule.algorithm for advice in advices] == ["dqn", "ppo"] and advices[0].tuned
    assert advices[0].command("CartPole-v1") == "torchward train dqn CartPole-v1"
    lake = replace(PLAIN, observation=spaces.Discrete(16), action=spaces.Discrete(4), has_model=True)
    advices, _ = advise(lake, Control("FrozenLake-v1"), "FrozenLake-v1")
    assert advices[0].rule.algorithm == "dynamic_programming" and advices[1].rule.algorithm == "q_learning"
    real = replace(PLAIN, observation=spaces.Box((3,)), action=REAL, mean_return=-1000.0, std_return=300.0)
    advices, remarks = advise(real, Control("Pendulum-v1"), "Pendulum-v1")
    assert advices[0].rule.algorithm == "sac" and advices[0].tuned and not advices[0].settings
    assert not remarks, "who tuned them has minded that"


def test_what_is_to_be_minded_becomes_settings_that_exist() -> None:
    """Each remark, for each algorithm that may be advised."""
    hard = replace(
        PLAIN, distinct=0.0, episodes=0, limited=1.0, scale=50.0, std_return=500.0, horizon=1000.0, rewarded=0.0
    )
    masked = replace(hard, observation=spaces.Dict({"a": VECTOR, spaces.MASK: spaces.MultiBinary(3)}))
    said = set()
    for facts in (
        masked,
        replace(hard, observation=spaces.Discrete(9)),
        replace(hard, action=REAL),
        replace(hard, has_goals=True),
        replace(hard, action=REAL, has_goals=True),
        replace(masked, seconds=0.1),
    ):
        advices, remarks = advise(facts, Spaces(facts), None)
        said |= {remark.when for remark in remarks}
        for advice in advices:
            algorithm = find.algorithm(advice.rule.algorithm)
            changed = launch.change_all(launch.defaults(algorithm, None), dict(advice.settings))
            assert advice.settings and changed.config != algorithm.Config()
            command = advice.command("world", " --action-mask")
            assert command.startswith(f"torchward train {algorithm.name} world --action-mask --")
            assert command.endswith(f" --total-timesteps {advice.steps}")
            _, _, *typed = command.split()
            asked = read("train", typed)
            assert asked.algorithm.name == algorithm.name and asked.settings.env.action_mask
            assert asked.settings.config == replace(changed.config, total_timesteps=advice.steps)
    assert said == {remark.when for remark in REMARKS}
    assert best(masked).settings["exploration_bonus"] == "random_distillation"
    assert " --exploration-bonus random_distillation " in best(masked).command("world")


def test_a_replay_fits_into_half_of_the_free_memory() -> None:
    """CarRacing's pictures of 96 x 96 x 3 bytes: a million steps of them, with three numbers done, one earned and three
    marks, are 27.7 GB."""
    racing = replace(
        PLAIN, observation=spaces.Box((96, 96, 3), 0.0, 255.0, "uint8"), action=spaces.Box((3,), -1.0, 1.0)
    )
    row = 96 * 96 * 3 + 3 * 4 + 4 + 3
    for memory, size in ((10 * 10**9, 180_000), (row * 100 * 2, 99), (100 * 10**9, None), (0, None)):
        facts = replace(racing, memory=memory)
        (first, *_), remarks = advise(facts, Spaces(facts), None)
        assert first.rule.algorithm == "sac" and first.settings.get("buffer_size") == size
        assert size is None or first.settings["buffer_size"] * row <= memory / 2
        assert (size is None) == (not any("memory are free" in remark.says for remark in remarks))
        assert (size is None) == ("--buffer-size" not in first.command("CarRacing-v3"))
    facts = replace(racing, memory=10 * 10**9)
    _, remarks = advise(facts, Spaces(facts), None)
    assert "a replay of 1,000,000 steps would take 27.7 GB, and 10 GB of memory are free" in remarks[-1].says
    facts = replace(facts, action=CHOICE)
    first, other = advise(facts, Spaces(facts), None)[0]
    assert "buffer_size" not in first.settings and other.settings["buffer_size"] == 180_000
    cart = replace(PLAIN, memory=10_000, seconds=0.01)
    advices, remarks = advise(cart, Control("CartPole-v1"), "CartPole-v1")
    assert advices[0].tuned and "--buffer-size" in advices[0].command("CartPole-v1"), "also of tuned settings"
    assert "would take" in remarks[-1].says
    assert look(Control(Clock), 0.01).memory == pytest.approx(free_memory(), rel=0.5) and free_memory() >= 0


def test_the_table_is_all_rules_and_remarks() -> None:
    lines = table().splitlines()
    assert len(lines) == len(RULES) + len(REMARKS) + 5
    assert {rule.algorithm for rule in RULES} <= set(find.algorithms())
    assert all(line.startswith("|") and line.endswith("|") for line in lines if line)
