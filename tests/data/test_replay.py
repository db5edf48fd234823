"""What a replay gives is what happened: held against the list of steps that the worlds themselves wrote down."""

import math
from collections import Counter
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.stories import LIVES, N, Pictures, World, ZeroPictures, begun, same
from tests.nets.examples import equal, leaf, row
from torchward.data.replay import Prioritised, Replay
from torchward.data.rollout import Finals, Rollout
from torchward.data.tree import tree_leaves
from torchward.envs.collect import EnvSource
from torchward.nets.spaces import Box, Dict, Discrete, MultiBinary, SpaceError

HORIZONS = (7, 1, 12, 3, 20, 5, 1, 1, 9, 16)
STACKED: dict[Any, dict[str, Any]] = {
    World: {},
    Pictures: {"frame_stack": 4},
    ZeroPictures: {"frame_stack": 4, "stack_padding": "zero"},
}


def replay_of(source: EnvSource, capacity: int, **options: Any) -> Replay:
    spaces = source.worlds.observation_space, source.worlds.action_space
    return Replay(*spaces, N, capacity, **{"seed": 0, **options})


@pytest.mark.parametrize("kind", LIVES)
@pytest.mark.parametrize("world", STACKED)
@pytest.mark.parametrize("n_steps", [1, 3, 8])
def test_transitions_are_what_happened(kind: str, world: Any, n_steps: int) -> None:
    """Also after the ring has gone round several times. All numbers are exact: halves of quarters."""
    story, source, policy = begun(kind, world)
    replay = replay_of(source, N * 40, **STACKED[world])
    met: Counter[str] = Counter()
    for horizon in HORIZONS * 2:
        replay.add(source.collect(policy, horizon))
        batch = replay.sample(30, 0.5, n_steps)
        allowed = story.kept(40)
        assert len(replay) == len(allowed)
        for i in range(30):
            place = story.find(row(batch.observation, i))
            assert place in allowed
            step = story.worlds[place[0]][place[1]]
            reward, discount, following = story.outcome(*place, 0.5, n_steps)
            assert same(row(batch.observation, i), step.seen)
            assert same(row(batch.action, i), step.action)
            assert same(row(batch.next_observation, i), following)
            assert float(batch.reward[i]) == reward and float(batch.discount[i]) == discount
            met["terminal" if discount == 0 else "cut short" if discount > 0.5**n_steps else "whole"] += 1
    assert torch.equal(batch.weight, torch.ones(30)) and batch.index.dtype == torch.int64
    assert set(met) == {"terminal", "whole"} | ({"cut short"} if n_steps > 1 else set())


@pytest.mark.parametrize("kind", LIVES)
@pytest.mark.parametrize("world", STACKED)
def test_sequences_are_what_happened(kind: str, world: Any) -> None:
    story, source, policy = begun(kind, world)
    replay = replay_of(source, N * 40, **STACKED[world])
    for horizon in HORIZONS * 2:
        replay.add(source.collect(policy, horizon))
        if replay.streams.written.min() < 6:
            continue
        batch = replay.sample_sequences(6, 6)
        for i in range(6):
            place, number = story.find(row(batch.observation, i, 0))
            rows = story.rows(place)
            begin = rows.index(number)
            assert number in rows[-40:] and begin + 6 <= len(rows)
            for t in range(6):
                number_, seen = rows[begin + t], row(batch.observation, i, t)
                chosen, boundary = bool(batch.loss_mask[i, t]), bool(batch.boundary[i, t])
                if number_ is None:  # the final observation of the step before
                    before = story.worlds[place][rows[begin + t - 1] or 0]
                    assert (chosen, boundary, bool(batch.terminated[i, t])) == (False, True, False)
                    assert float(batch.reward[i, t]) == 0.0 and same(seen, before.following)
                    action = row(batch.action, i, t)
                    assert kind == "next step" or not any(leaf.any() for leaf in tree_leaves(action))
                    continue
                step = story.worlds[place][number_]
                assert (chosen, boundary, bool(batch.terminated[i, t])) == (True, step.ended, step.terminated)
                assert same(seen, step.seen) and same(row(batch.action, i, t), step.action)
                assert float(batch.reward[i, t]) == step.reward
    assert batch.weight.shape == batch.index.shape == (6,)


@pytest.mark.parametrize("kind", LIVES)
@pytest.mark.parametrize("world", STACKED)
def test_where_worlds_were_broken_off_nothing_follows(kind: str, world: Any) -> None:
    """Also where they had just ended by themselves, and where a cut comes at once behind another."""
    story, source, policy = begun(kind, world, ends=0.3)
    source.resumable = False
    replay = replay_of(source, N * 40, **STACKED[world])
    replay.cut()
    assert not replay.streams.written.any()
    for horizon in HORIZONS * 2:
        replay.add(source.collect(policy, horizon))
        for _ in range(horizon % 3):
            assert source.cut()
            replay.cut()
        assert len(replay) == len(story.kept(40))
        batch = replay.sample(20, 0.5, 3)
        for i in range(20):
            reward, discount, following = story.outcome(*story.find(row(batch.observation, i)), 0.5, 3)
            assert same(row(batch.next_observation, i), following)
            assert float(batch.reward[i]) == reward and float(batch.discount[i]) == discount


@pytest.mark.parametrize("world", STACKED)
def test_the_way_of_a_gpu_gives_the_same(world: Any) -> None:
    """Rows are written by another operation where NumPy cannot: here NumPy is taken away."""
    _, source, policy = begun("same step", world)
    here, there = (replay_of(source, N * 40, **STACKED[world]) for _ in range(2))
    for column in [*there.streams.observation.columns, *there.streams.action.columns]:
        column.array = None
    for horizon in HORIZONS:
        rollout = source.collect(policy, horizon)
        here.add(rollout)
        there.add(rollout)
        mine, its = here.sample(20, 0.9, 3), there.sample(20, 0.9, 3)
        assert all(equal(getattr(mine, f.name), getattr(its, f.name)) for f in fields(mine))


def test_only_a_source_that_cut_says_so() -> None:
    assert begun("in process", World)[1].cut() is False


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("kind", ["next step", "same step"])
def test_every_step_has_the_same_chance(kind: str, length: int) -> None:
    """Chi-square with a fixed seed; windows differ in length, and a third of the rows are no steps."""
    story, source, policy = begun(kind, World, ends=0.3)
    replay = replay_of(source, N * 60)
    replay.add(source.collect(policy, 25))
    if length == 1:
        fit = story.kept(60)
    else:
        rows = {world: story.rows(world) for world in range(N)}
        fit = {(w, n) for w in rows for i, n in enumerate(rows[w]) if n is not None and i + length <= len(rows[w])}
    draws, counts = 200 * len(fit), Counter[tuple[int, int]]()
    for _ in range(20):
        if length == 1:
            seen = leaf(replay.sample(draws // 20, 1.0).observation)
        else:
            seen = leaf(replay.sample_sequences(draws // 20, length).observation)[:, 0]
        counts.update((int(world), int(number)) for world, number, *_ in seen.tolist())
    assert set(counts) == fit and len({len(story.rows(world)) for world in range(N)}) == (
        1 if kind == "next step" else 3
    )
    assert within_chance(np.array(list(counts.values())), np.full(len(fit), draws / len(fit)))


def within_chance(observed: Any, expected: Any, groups: int = 1) -> bool:
    """Whether chi-square is where it lies in all but 1 case of 1000 (Wilson and Hilferty 1931), of counts in so many
    groups whose sums are given."""
    statistic, degrees = float(((observed - expected) ** 2 / expected).sum()), len(observed) - groups
    spread = math.sqrt(2.0 / (9.0 * degrees))
    deviation: float = abs((statistic / degrees) ** (1.0 / 3.0) - (1.0 - 2.0 / (9.0 * degrees)))
    return deviation < 3.29 * spread


def test_the_test_of_chances_sees_a_third_too_much() -> None:
    expected = np.full(60, 200.0)
    random = np.random.default_rng(0)
    fair = random.multinomial(12_000, np.full(60, 1 / 60))
    weights = np.ones(60)
    weights[:10] += 1 / 3
    assert within_chance(fair, expected)
    assert not within_chance(random.multinomial(12_000, weights / weights.sum()), expected)


def padded(batch: int, time: int, chosen: list[int]) -> Rollout:
    """Rows of which only some, early ones, were chosen, as those of whole episodes are."""
    step = torch.arange(batch * time).reshape(batch, time).float()
    mask = torch.zeros(batch, time, dtype=torch.bool)
    mask[:, chosen] = True
    ends = torch.zeros_like(mask)
    ends[:, chosen[-1]] = True
    facts = {"terminated": ends, "boundary": ends, "loss_mask": mask}
    return Rollout(step[..., None], step.long(), step, step, **facts, last=step[:, :1])  # type: ignore[arg-type]


@pytest.mark.parametrize("prioritised", [None, Prioritised()])
def test_steps_are_found_among_many_rows_that_are_none(prioritised: Prioritised | None) -> None:
    replay = Replay(Box((1,)), Discrete(2), 2, 4000, seed=0, prioritised=prioritised)
    replay.add(padded(2, 2000, [0, 1, 2]))
    assert len(replay) == 6
    counts = Counter(leaf(replay.sample(1200, 1.0).observation).flatten().tolist())
    assert set(counts) == {0, 1, 2, 2000, 2001, 2002} and min(counts.values()) > 150
    sequences = Counter(leaf(replay.sample_sequences(400, 1998).observation)[:, 0, 0].tolist())
    assert set(sequences) == {0, 1, 2, 2000, 2001, 2002} and min(sequences.values()) > 40


@pytest.mark.parametrize("prioritised", [None, Prioritised()])
def test_long_sequences_are_found_that_only_a_few_steps_begin(prioritised: Prioritised | None) -> None:
    replay = Replay(Box((1,)), Discrete(2), 2, 2000, seed=0, prioritised=prioritised)
    replay.add(padded(2, 1000, list(range(1000))))
    begins = Counter(leaf(replay.sample_sequences(120, 999).observation)[:, 0, 0].tolist())
    assert set(begins) == {0, 1, 1000, 1001} and min(begins.values()) > 15
    with pytest.raises(ValueError, match="expected a step with 1000 rows behind it in the replay"):
        replay.sample_sequences(1, 1001)


def test_a_million_frames_take_less_than_seven_and_a_half_gigabytes() -> None:
    images = Box((4, 84, 84), 0, 255, "uint8")
    for prioritised in (None, Prioritised()):
        options: dict[str, Any] = {"seed": 0, "frame_stack": 4, "prioritised": prioritised}
        small, large = (Replay(images, Discrete(18), 8, frames, **options).nbytes for frames in (4096, 8192))
        of_a_frame = (large - small) / 4096
        assert 84 * 84 < of_a_frame <= 7500 and large <= 7500 * (8192 + 8 * 4)


def test_bits_take_a_byte_and_come_back_as_they_were() -> None:
    space = Dict({"x": Box((2,)), "action_mask": MultiBinary(100)})
    replay = Replay(space, Discrete(2), 1, 50, seed=0)
    assert replay.nbytes < 51 * (8 + 100 + 8 + 4 + 3 + 1)
    mask = torch.randint(2, (1, 6, 100))
    rollout = replace(padded(1, 6, [0, 1, 2, 3, 4]), observation={"action_mask": mask, "x": torch.zeros(1, 6, 2)})
    replay.add(replace(rollout, last={"x": torch.zeros(1, 2), "action_mask": mask[:, 0]}))
    batch = replay.sample(20, 1.0)
    assert leaf(batch.observation, "action_mask").dtype == torch.int64
    assert torch.equal(leaf(batch.observation, "action_mask"), mask[0, leaf(batch.action)])


def test_one_seed_one_order() -> None:
    def drawn(seed: int) -> list[int]:
        replay = Replay(Box((1,)), Discrete(2), 1, 50, seed=seed)
        replay.add(padded(1, 30, list(range(29))))
        return leaf(replay.sample(20, 1.0).action).tolist()

    assert drawn(0) == drawn(0) != drawn(1)


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    box, discrete = Box((1,)), Discrete(2)
    with pytest.raises(ValueError, match="expected capacity of at least 1, got 0"):
        Replay(box, discrete, 1, 0, seed=0)
    with pytest.raises(SpaceError, match="frame_stack = 4 needs images"):
        Replay(box, discrete, 1, 10, seed=0, frame_stack=4)
    with pytest.raises(SpaceError, match="whose 3 channels are no multiple"):
        Replay(Box((3, 84, 84), 0, 255, "uint8"), discrete, 1, 10, seed=0, frame_stack=2)
    replay = Replay(box, discrete, 2, 20, seed=0)
    with pytest.raises(ValueError, match="expected a step in the replay before it is sampled"):
        replay.sample(1, 1.0)
    with pytest.raises(ValueError, match="n_envs = 2 rows, got 1"):
        replay.add(padded(1, 4, [0, 1]))
    with pytest.raises(ValueError, match="at most 10 rows of each environment, got 11"):
        replay.add(padded(2, 11, [0, 1]))
    with pytest.raises(ValueError, match="`last` says what was seen after it"):
        replay.add(replace(padded(2, 4, [0, 1]), last=None))
    with pytest.raises(SpaceError, match=r"rows of shape \(1,\), got \(2,\)"):
        replay.add(replace(padded(2, 4, [0, 1]), observation=torch.zeros(2, 4, 2)))


def test_an_end_without_what_it_ended_in_is_refused() -> None:
    whole = padded(1, 4, [0, 1, 2, 3])
    ended = torch.tensor([[False, True, False, False]])
    replay = Replay(Box((1,)), Discrete(2), 1, 20, seed=0)
    with pytest.raises(ValueError, match="expected the observation in which an episode ended"):
        replay.add(replace(whole, boundary=ended))
    final = Finals(torch.tensor([0]), torch.tensor([1]), torch.tensor([[9.0]]))
    replay.add(replace(whole, boundary=ended, terminated=ended, finals=final))
    replay.add(replace(whole, terminated=ended & False))  # its last row is a boundary: what comes next is a reset row,
    with pytest.raises(ValueError, match="expected the observation in which an episode ended"):
        replay.add(whole)
    replay.cut()  # or was broken off
    replay.add(replace(whole, boundary=ended, terminated=ended, finals=final))
    batch = replay.sample(200, 1.0, 4)
    ends = leaf(batch.next_observation)[(leaf(batch.observation) == 1.0)[:, 0]]
    assert set(ends.flatten().tolist()) == {9.0, 0.0}


@pytest.mark.parametrize("wrong", ["padding", "order", "skipped"])
def test_stacks_that_would_be_rebuilt_otherwise_are_refused(wrong: str) -> None:
    _, source, policy = begun("next step", Pictures, ends=0.05)
    options = {**STACKED[Pictures], **({"stack_padding": "zero"} if wrong == "padding" else {})}
    replay = replay_of(source, N * 40, **options)
    rollout = source.collect(policy, 20)
    if wrong == "order":
        frames = leaf(rollout.observation).unflatten(2, (4, 2)).flip(2).flatten(2, 3)
        rollout = replace(rollout, observation=frames)
    if wrong == "skipped":
        names = ("action", "log_prob", "reward", "terminated", "boundary", "loss_mask", "observation")
        rollout = replace(rollout, **{name: getattr(rollout, name)[:, [0, 2, 3]] for name in names})
    with pytest.raises(SpaceError, match="expected images of frame_stack = 4 frames, the newest last"):
        replay.add(rollout)
