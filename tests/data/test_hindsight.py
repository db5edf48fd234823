"""Hindsight: new goals are what the same episode achieved later, and everything else follows from them."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.data.stories import LIVES, Goals, N, Story, Told, begun
from tests.data.test_replay import replay_of, within_chance
from tests.nets.examples import leaf, row
from torchward.data.hindsight import Hindsight
from torchward.data.replay import Prioritised, Replay
from torchward.nets.spaces import Box, Dict, Discrete, SpaceError

HORIZONS = (7, 1, 12, 3, 20, 5, 1, 1, 9, 16)


def earns(achieved: Any, desired: Any) -> Any:
    """Quarters of the distance, of whichever goals."""
    return -abs(achieved[..., 0] - desired[..., 0]) / 4.0


def ends(achieved: Tensor, desired: Tensor) -> Tensor:
    return (achieved == desired).all(-1)


def later(story: Story, world: int, number: int) -> list[Told]:
    """The step, and those that followed it in its episode."""
    steps = []
    for step in story.worlds[world][number:]:
        steps.append(step)
        if step.ended:
            break
    return steps


@pytest.mark.parametrize("kind", LIVES)
@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("strategy", ["future", "final"])
@pytest.mark.parametrize("goals_end", [False, True])
def test_a_step_with_another_goal_is_what_would_have_happened(
    kind: str, n_steps: int, strategy: Any, goals_end: bool
) -> None:
    story, source, policy = begun(kind, Goals)
    replay = Hindsight(replay_of(source, N * 40), earns, 4, strategy, ends if goals_end else None)
    met: Counter[str] = Counter()
    for horizon in HORIZONS * 2:
        replay.add(source.collect(policy, horizon))
        batch = replay.sample(30, 0.5, n_steps)
        for i in range(30):
            seen, following = row(batch.observation, i), row(batch.next_observation, i)
            world, number = story.find(seen)
            steps, goal = later(story, world, number), leaf(seen, "desired_goal").numpy()
            own = np.array_equal(goal, steps[0].seen["desired_goal"])
            met["own" if own else "other"] += 1
            places = [j for j, step in enumerate(steps) if np.array_equal(step.following["achieved_goal"], goal)]
            assert own or len(places) == 1
            assert own or strategy == "future" or places == [len(steps) - 1]
            total, factor = 0.0, 1.0
            for step in steps[:n_steps]:
                achieved = step.following["achieved_goal"]
                total += factor * (step.reward if own else float(earns(achieved, goal)))
                factor *= 0.5
                terminal = np.array_equal(achieved, goal) if goals_end and not own else step.terminated
                if terminal:
                    break
            assert float(batch.reward[i]) == total and float(batch.discount[i]) == (0.0 if terminal else factor)
            met["terminal" if terminal else "not"] += 1
            for tree, told in ((seen, steps[0].seen), (following, step.following)):
                assert np.array_equal(leaf(tree, "desired_goal").numpy(), goal)
                for name in ("observation", "achieved_goal"):
                    assert np.array_equal(leaf(tree, name).numpy(), told[name])
    assert min(met.values()) > 50 and met["other"] / (met["own"] + met["other"]) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("ended", [0.15, 0.002])
def test_any_later_observation_of_the_episode_has_the_same_chance(ended: float) -> None:
    """Chi-square with a fixed seed, over short episodes, and over long ones that still run, by tenths of what came."""
    story, source, policy = begun("same step", Goals, ended)
    replay = Hindsight(replay_of(source, N * 500), earns, 1)
    replay.add(source.collect(policy, 200))
    chosen: dict[int, Counter[int]] = defaultdict(Counter)
    for _ in range(20):
        batch = replay.sample(1000, 1.0)
        goals = leaf(batch.observation, "desired_goal")[:, 0].tolist()
        for goal, (world, number, *_) in zip(goals, leaf(batch.observation, "observation").tolist(), strict=True):
            if goal > 0:  # its own is below 0
                length = len(later(story, int(world), int(number)))
                chosen[length][int(goal) - int(number) - 1] += 1
    assert all(0 <= place < length for length, places in chosen.items() for place in places)
    if ended > 0.1:
        often = {length: places for length, places in chosen.items() if places.total() >= 5 * length}
        assert {1, 2, 3, 5, 8} < set(often)
        cells = [(often[length][place], often[length].total() / length) for length in often for place in range(length)]
        observed, expected = np.array(cells).T
        assert within_chance(observed, expected, len(often))
    else:
        tenths = np.zeros(10)
        for length, places in chosen.items():
            for place, count in places.items():
                tenths[10 * place // length] += count if length % 10 == 0 else 0
        assert max(chosen) > 150 and tenths.sum() > 500
        assert within_chance(tenths, np.full(10, tenths.sum() / 10))


def test_priorities_weights_and_state_are_those_of_the_replay() -> None:
    _, source, policy = begun("same step", Goals)
    inner = replay_of(source, N * 50, prioritised=Prioritised())
    replay = Hindsight(inner, earns)
    replay.add(source.collect(policy, 20))
    replay.cut()
    assert len(replay) == len(inner) == N * 20 and replay.nbytes == inner.nbytes
    batch = replay.sample(20, 0.9)
    replay.update_priorities(batch.index, torch.arange(20.0))
    replay.beta = 0.7
    assert inner.beta == replay.beta == 0.7 and inner.largest > 18.9
    again = Hindsight(replay_of(source, N * 50, prioritised=Prioritised()), earns)
    again.load_state_dict(replay.state_dict())
    one, other = replay.sample(50, 0.9, 2), again.sample(50, 0.9, 2)
    assert torch.equal(one.index, other.index) and torch.equal(one.reward, other.reward)
    assert torch.equal(one.weight, other.weight) and float(one.weight.min()) < 1.0
    assert torch.equal(leaf(one.observation, "desired_goal"), leaf(other.observation, "desired_goal"))


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    box = Box((2,))
    for space in (box, Dict({"observation": box, "achieved_goal": box, "desired_goal": Box((3,))})):
        with pytest.raises(SpaceError, match="hindsight needs a Dict of observation, achieved_goal and desired_goal"):
            Hindsight(Replay(space, Discrete(2), 1, 10, seed=0), earns)
    goals = Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
    with pytest.raises(ValueError, match="expected n_sampled_goal of at least 1, got 0"):
        Hindsight(Replay(goals, Discrete(2), 1, 10, seed=0), earns, 0)
