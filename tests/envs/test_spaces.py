"""Gymnasium's spaces as ours, and trees of arrays shaped by them."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.nets.examples import leaf
from torchward.envs import spaces as sp
from torchward.nets.spaces import (
    MASK,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    SpaceError,
    Tuple,
    env_action,
)

g = gym.spaces

KNOWN: list[tuple[gym.Space[Any], Space]] = [
    (g.Box(-1, 2, (3,)), Box((3,), -1.0, 2.0)),
    (g.Box(np.array([0, -np.inf], "f4"), np.array([1, np.inf], "f4")), Box((2,), (0.0, -np.inf), (1.0, np.inf))),
    (g.Box(-1, 1, (2,), np.float64), Box((2,), -1.0, 1.0)),
    (g.Box(0, 255, (84, 84, 3), np.uint8), Box((84, 84, 3), 0.0, 255.0, "uint8")),
    (g.Box(0, 9, (), np.int64), Box((), 0.0, 9.0)),
    (g.Discrete(4, start=-1), Discrete(4, -1)),
    (g.MultiDiscrete([2, 3]), MultiDiscrete((2, 3))),
    (g.MultiBinary(4), MultiBinary(4)),
    (
        g.Dict(b=g.Discrete(2), a=g.Tuple((g.Discrete(3), g.MultiBinary(1)))),
        Dict({"a": Tuple((Discrete(3), MultiBinary(1))), "b": Discrete(2)}),
    ),
]


@pytest.mark.parametrize(("theirs", "ours"), KNOWN)
def test_every_space(theirs: gym.Space[Any], ours: Space) -> None:
    assert sp.from_gym(theirs) == ours
    theirs.seed(0)
    batch = sp.empty(ours, (3,))
    samples = [theirs.sample() for _ in range(3)]
    for i, sample in enumerate(samples):
        assert sp.fits(ours, sample)
        sp.put(batch, i, sample)
    for i, sample in enumerate(samples):
        taken = sp.leaves(sp.take(batch, i))
        flat = [np.asarray(leaf) for leaf in taken]
        parts = [sample] if not isinstance(sample, dict) else [*sample["a"], sample["b"]]
        assert all(np.allclose(a, b) for a, b in zip(flat, parts, strict=True))
    tensors = sp.tensors(batch)
    assert all(np.array_equal(a, b) for a, b in zip(sp.leaves(sp.numpy(tensors)), sp.leaves(batch), strict=True))


def test_integers_that_are_done_keep_their_dtype() -> None:
    theirs = g.Dict(a=g.Tuple((g.Box(0, 9, (2,), np.int64), g.Discrete(3))), b=g.Box(0, 1, (1,), np.float64))
    ours = Dict({"a": Tuple((Box((2,), 0.0, 9.0, "int64"), Discrete(3))), "b": Box((1,), 0.0, 1.0)})
    assert sp.from_gym(theirs, of_actions=True) == ours
    assert sp.from_gym(g.Box(0, 255, (4,), np.uint8), of_actions=True) == Box((4,), 0.0, 255.0, "uint8")


def test_memory_is_shared_or_not() -> None:
    array = np.zeros(3, np.float32)
    arrays: sp.Arrays = {"x": array, "y": (np.zeros(2),)}
    tensors, copied = sp.tensors(arrays), sp.copy(arrays)
    array[0] = 5.0
    assert leaf(tensors, "x")[0] == 5 and sp.leaves(copied)[0][0] == 0


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (g.Text(4), "expected Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple, got Text"),
        (g.Dict(a=g.Sequence(g.Discrete(2))), "got Sequence"),
        (g.MultiDiscrete(np.full((2, 2), 3)), "a MultiDiscrete of one axis that starts at 0"),
        (g.MultiDiscrete([2, 3], start=[1, 0]), "a MultiDiscrete of one axis that starts at 0"),
        (g.MultiBinary((2, 2)), "a MultiBinary of one axis"),
    ],
)
def test_what_cannot_be_described_is_told(space: gym.Space[Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        sp.from_gym(space)


@pytest.mark.parametrize(
    ("space", "seen", "fits"),
    [
        (Box((2,)), [0.0, 1.0], True),
        (Box((2,)), np.zeros(1), False),
        (Discrete(3), 2, True),
        (Discrete(3), np.int64(2), True),
        (Discrete(3), [2], False),
        (Dict({"a": Discrete(2)}), {"a": 1, "more": 2}, True),
        (Dict({"a": Discrete(2)}), {"b": 1}, False),
        (Dict({"a": Discrete(2)}), 1, False),
        (Tuple((Discrete(2), Box(()))), (1, 0.5), True),
        (Tuple((Discrete(2), Box(()))), (1,), False),
    ],
)
def test_what_fits(space: Space, seen: Any, fits: bool) -> None:
    assert sp.fits(space, seen) is fits


def test_masks() -> None:
    assert sp.mask_space(Discrete(3)) == MultiBinary(3) == sp.mask_space(MultiBinary(3))
    assert sp.mask_space(MultiDiscrete((2, 3))) == MultiBinary(5)
    both = sp.mask_space(Tuple((Discrete(3), Box((2,)), Discrete(2))))
    assert both == Dict({"0": MultiBinary(3), "2": MultiBinary(2)})
    for space in (Box((2,)), Dict({"a": Box((2,))})):
        with pytest.raises(SpaceError, match="an action mask needs discrete actions"):
            sp.mask_space(space)
    assert sp.with_mask(Box((2,)), MultiBinary(3)) == Dict({"observation": Box((2,)), MASK: MultiBinary(3)})
    assert sp.with_mask(Dict({"x": Box((2,))}), MultiBinary(3)) == Dict({"x": Box((2,)), MASK: MultiBinary(3)})


def test_tensors_land_where_they_are_wanted() -> None:
    assert leaf(sp.tensors((np.zeros(2),), torch.device("cpu")), 0).device.type == "cpu"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_action_leaves_its_space_by_a_rounding(dtype: Any) -> None:
    """0.1 and 0.6 have no equal in float32, and the nearest ones lie outside."""
    low, high = np.array([-0.6, -0.1, -np.inf], dtype), np.array([0.1, 0.6, np.inf], dtype)
    theirs = g.Box(low, high, dtype=dtype)
    ours = sp.from_gym(theirs, of_actions=True)
    assert isinstance(ours, Box)
    for edge in (-1.0, 1.0):
        action = env_action(ours, torch.full((3,), edge))
        assert isinstance(action, torch.Tensor) and theirs.contains(action.numpy().astype(dtype))
    assert np.allclose(ours.low, low, rtol=1e-6) and np.allclose(ours.high, high, rtol=1e-6)


def test_bounds_that_float32_cannot_hold() -> None:
    most = float(np.finfo(np.float64).max)
    wide = sp.from_gym(g.Box(-most, most, (2,), np.float64), of_actions=True)
    assert wide == Box((2,), -np.inf, np.inf)
    largest = float(np.finfo(np.float32).max)
    half = g.Box(np.array([-largest, 0.0, -1.0]), np.array([largest, np.inf, 1.0]), dtype=np.float64)
    ours = sp.from_gym(half, of_actions=True)
    assert ours == Box((3,), (-np.inf, 0.0, -1.0), (np.inf, np.inf, 1.0))
    action = env_action(ours, torch.full((3,), 0.5))
    assert isinstance(action, torch.Tensor) and action.tolist() == [0.5, 0.5, 0.5]
    point = sp.from_gym(g.Box(0.1, 0.1, (2,), np.float64), of_actions=True)
    assert point == Box((2,), 0.1, 0.1)
