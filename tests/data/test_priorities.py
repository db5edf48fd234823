"""Prioritised replay: chances that are exactly the priorities', and weights that make up for them."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.stories import N, World, begun
from tests.data.test_replay import padded, replay_of, within_chance
from tests.nets.examples import leaf
from torchward.data.replay import Prioritised, Replay
from torchward.data.sum_tree import FAN, TOP, SumTree
from torchward.nets.spaces import Box, Discrete

SIZES = (1, 2, FAN, FAN + 1, 300, TOP, TOP + 1, 20 * TOP, FAN * TOP + 3)


@pytest.mark.parametrize("size", SIZES)
def test_an_index_is_found_on_as_long_a_stretch_as_its_number(size: int) -> None:
    """Whole numbers, whose sums are exact: of shares in equal steps, each index gets as many as its number is."""
    random = np.random.default_rng(size)
    tree, numbers = SumTree(size), np.zeros(size, np.int64)
    for _ in range(4):
        index = random.integers(size, size=random.integers(1, 3 * size + 2))
        value = random.integers(0, 3, size=len(index))
        tree.set(index, value.astype(np.float64))
        for i, x in zip(index, value, strict=True):
            numbers[i] = x
        if not numbers.any():
            numbers[size - 1] = 1
            tree.set(np.array([size - 1]), 1.0)
        total = int(numbers.sum())
        found = tree.find((np.arange(total) + 0.5) / total)
        assert np.array_equal(found, np.repeat(np.arange(size), numbers))
        assert np.array_equal(tree.leaves, numbers)


@pytest.mark.parametrize("size", SIZES[:-1])
def test_what_is_zero_is_never_found(size: int) -> None:
    """Also at the very ends, with numbers from tiny to huge, whose sums are rounded."""
    random = np.random.default_rng(size)
    for _ in range(20):
        numbers = 10.0 ** random.uniform(-12, 12, size)
        numbers[random.random(size) < 0.7] = 0.0
        numbers[random.integers(size)] = 1.0
        tree = SumTree(size)
        tree.set(np.arange(size), numbers)
        share = np.concatenate([[0.0, np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0)], random.random(200)])
        sums = numbers.cumsum()
        edges = sums[random.integers(size, size=50)] / sums[-1]
        share = np.concatenate([share, np.minimum(edges, np.nextafter(1.0, 0.0)), np.nextafter(edges, 0.0)])
        assert numbers[tree.find(share)].all()


def test_the_last_share_is_that_of_the_last_number() -> None:
    """Sums of a node's children differ in their last digit, one after the other and in numpy's order."""
    random, last = np.random.default_rng(0), np.nextafter(np.ones(1), 0.0)
    for _ in range(300):
        tree = SumTree(TOP + 1)
        tree.set(np.arange(FAN), random.random(FAN))
        assert tree.find(last) == FAN - 1


@pytest.mark.parametrize("size", [300, 20 * TOP])
def test_a_tree_is_what_its_numbers_are_not_how_they_came(size: int) -> None:
    random = np.random.default_rng(0)
    tree, again = SumTree(size), SumTree(size)
    for count in (1, 5, 2000, 3):
        tree.set(random.integers(size, size=count), random.random(count))
    again.set(np.arange(size), tree.leaves.copy())
    assert all(np.array_equal(mine, its) for mine, its in zip(tree.levels, again.levels, strict=True))
    assert tree.nbytes == sum(level.nbytes for level in tree.levels) > 8 * size


def told(prioritised: Prioritised, errors: torch.Tensor) -> Replay:
    """A replay of as many steps as there are errors, each of which was told."""
    replay = Replay(Box((1,)), Discrete(2), 2, 2 * 40, seed=0, prioritised=prioritised)
    replay.add(padded(2, len(errors) // 2 + 1, list(range(len(errors) // 2))))
    index = torch.cat([replay.sample(40, 1.0).index for _ in range(30)]).unique()
    assert len(index) == len(replay) == len(errors)
    replay.update_priorities(index, errors)
    return replay


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_chances_are_the_priorities(alpha: float) -> None:
    """Errors of both signs. Every share of a stratified sample holds one draw, so that counts are nearly exact."""
    errors = torch.linspace(-3.0, 1.0, 24)
    replay = told(Prioritised(alpha=alpha, eps=1e-3), errors)
    chances = (errors.double().abs() + 1e-3) ** alpha
    chances = chances / chances.sum()
    count, batch = 24_000, replay.sample(24_000, 1.0)
    names, counts = batch.index.unique(return_counts=True)
    assert len(names) == 24
    assert bool(((counts.double() - count * chances).abs() < 2.0).all())
    small = Counter[int]()
    for _ in range(600):
        small.update(replay.sample(8, 1.0).index.tolist())
    observed = np.array([small[int(name)] for name in names])
    assert bool((np.abs(observed - 4800 * chances.numpy()) < 5 * np.sqrt(4800 * chances.numpy())).all())


@pytest.mark.parametrize("length", [1, 4])
def test_weights_make_up_for_chances(length: int) -> None:
    """By the definition (N P)^-beta over the greatest of the batch; at beta 1 a weighted mean is that of all steps."""
    errors = torch.linspace(0.1, 2.0, 24)
    replay = told(Prioritised(alpha=0.7), errors)
    chances = {}
    for name, error in zip(replay.sample(4000, 1.0).index.unique().tolist(), errors.tolist(), strict=True):
        chances[name] = (error + 1e-6) ** 0.7
    if length > 1:  # each row has 12 steps and one more row
        chances = {name: chance for name, chance in chances.items() if name // 2 + length <= 13}
    total = sum(chances.values())
    for beta in (0.4, 1.0, 0.0):
        replay.beta = beta
        batch: Any = replay.sample(30, 1.0) if length == 1 else replay.sample_sequences(30, length)
        weights = [(len(chances) * chances[name] / total) ** -beta for name in batch.index.tolist()]
        assert batch.weight.tolist() == pytest.approx([weight / max(weights) for weight in weights], rel=1e-6)
    replay.beta = 1.0
    many: Any = replay.sample(40_000, 1.0) if length == 1 else replay.sample_sequences(40_000, length)
    names, counts = many.index.unique(return_counts=True)
    assert set(names.tolist()) == set(chances)
    expected = np.array([40_000 * chances[name] / total for name in names.tolist()])
    assert length == 1 or within_chance(counts.numpy(), expected)
    number = (many.index // 2).double()
    mean = float((many.weight.double() * number).sum() / many.weight.double().sum())
    assert mean == pytest.approx(sum(name // 2 for name in chances) / len(chances), abs=0.05)


def test_new_steps_are_as_likely_as_the_likeliest_so_far() -> None:
    replay = Replay(Box((1,)), Discrete(2), 1, 40, seed=0, prioritised=Prioritised(alpha=1.0, eps=0.5))
    replay.add(padded(1, 11, list(range(10))))
    assert replay.priorities is not None
    assert replay.priorities.leaves[:12].tolist() == [1.0] * 10 + [0.0, 0.0]
    replay.update_priorities(torch.tensor([3, 4]), torch.tensor([-7.5, 0.5]))
    replay.update_priorities(torch.tensor([3]), torch.tensor([0.0]))
    replay.cut()
    replay.add(padded(1, 3, [0, 1, 2]))
    assert replay.priorities.leaves[:15].tolist() == [1, 1, 1, 0.5, 1, 1, 1, 1, 1, 1, 0, 0, 8, 8, 8]


def test_what_has_left_is_not_drawn_and_not_told() -> None:
    """With worlds that end by chance, round and round: steps of the window have a chance, all else has none."""
    story, source, policy = begun("same step", World)
    replay = replay_of(source, N * 30, prioritised=Prioritised())
    assert replay.priorities is not None
    late: list[torch.Tensor] = []
    for horizon in (5, 9, 1, 14, 3, 8, 2, 2, 12, 6, 1, 10):
        replay.add(source.collect(policy, horizon))
        kept = story.kept(30)
        assert int((replay.priorities.leaves > 0).sum()) == len(kept) == len(replay)
        batch = replay.sample(300, 1.0)
        drawn = {(int(world), int(number)) for world, number, *_ in leaf(batch.observation).tolist()}
        assert drawn <= kept and len(drawn) > len(kept) / 2
        late.append(batch.index)
        for index in late:  # some were drawn long ago
            replay.update_priorities(index, torch.rand(len(index)))
    assert int((replay.priorities.leaves > 0).sum()) == len(replay)


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"expected alpha within \[0, 1\], got 2"):
        Prioritised(alpha=2.0)
    with pytest.raises(ValueError, match="expected eps above 0, got 0"):
        Prioritised(eps=0.0)
    replay = told(Prioritised(), torch.ones(24))
    with pytest.raises(ValueError, match="expected finite errors"):
        replay.update_priorities(torch.tensor([0]), torch.tensor([float("nan")]))


def test_a_uniform_replay_takes_no_notice_of_errors() -> None:
    replay = Replay(Box((1,)), Discrete(2), 1, 40, seed=0)
    replay.add(padded(1, 11, list(range(10))))
    replay.update_priorities(torch.tensor([3]), torch.tensor([1e9]))
    assert torch.equal(replay.sample(5, 1.0).weight, torch.ones(5))
