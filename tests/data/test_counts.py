"""Counts: visits by hand, cells by hand, and a table that goes on where it stopped."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator

from tests.nets.examples import ACTIONS, OBSERVATIONS, observations
from torchward.checkpoint import load_tree, save_tree
from torchward.config import ConfigError
from torchward.data.bonus import Steps
from torchward.data.counts import Counts, Visits, cells
from torchward.nets.spaces import MASK, Box, Dict, Discrete, MultiBinary


def to(*places: int, by: int = 0) -> Steps:
    place = torch.tensor(places)
    return place * 0 + 7, torch.full_like(place, by), place


def test_a_visit_pays_the_inverse_root_of_the_visits_with_it() -> None:
    visits = Visits(Counts(), Discrete(9), Discrete(2))
    told: dict[int, int] = {}
    generator = Generator().manual_seed(0)
    for _ in range(20):
        places = torch.randint(9, (6,), generator=generator).tolist()
        expected = [1.0 / math.sqrt(told.get(place, 0) + 1) for place in places]
        assert visits.measure(to(*places)).tolist() == pytest.approx(expected)
        metrics = visits.learn(to(*places))
        for place in places:
            told[place] = told.get(place, 0) + 1
        assert metrics["cells_visited"] == len(told)


@pytest.mark.parametrize(("low", "high"), [(10.0, 20.0), (0.0, 1.0), (-2.0, 2.0), (-1.0, 1.0)])
def test_actions_are_counted_in_the_units_of_policies(low: float, high: float) -> None:
    """Between bounds they choose from -1 to 1, whatever the environment is given for it."""
    visits = Visits(Counts(of="pairs", bins=4), Discrete(9), Dict({"a": Box((1,), low, high), "b": Box((1,))}))
    chosen = torch.tensor([[-5.0], [-1.0], [-0.6], [-0.4], [0.1], [0.4], [0.6], [1.0], [7.0]])
    place = torch.zeros(len(chosen), dtype=torch.int64)
    rows = visits.rows((place, {"a": chosen, "b": chosen * 0}, place))
    assert rows[:, 1].tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3]


def test_pairs_are_of_where_one_was_and_what_one_did() -> None:
    visits = Visits(Counts(of="pairs"), Discrete(9), Discrete(2))
    visits.learn(to(1, 2, 3, by=0))  # three times the action 0 in state 7
    assert visits.measure(to(5, by=0)).tolist() == [0.5]
    assert visits.measure(to(1, by=1)).tolist() == [1.0]


def numbers(space: Any, tree: Any, **settings: Any) -> list[Any]:
    return list(np.concatenate(list(cells(space, tree, Counts(**settings))), 1).tolist())


def test_numbers_between_bounds_lie_in_cells_of_equal_width() -> None:
    space = Box((2,), (-1.0, 0.0), (1.0, 10.0))
    x = torch.tensor([[-1.0, 0.0], [-0.51, 2.49], [-0.49, 2.51], [0.99, 9.99], [1.0, 10.0]])
    assert numbers(space, x, bins=4) == [[0, 0], [0, 0], [1, 1], [3, 3], [3, 3]]


def test_numbers_without_bounds_lie_in_cells_of_a_given_width() -> None:
    huge = 3.4028235e38  # how some environments write that there is none
    space = Box((3,), (-math.inf, -huge, -1.0), (math.inf, huge, 1.0))
    x = torch.tensor([[0.74, -0.1, 0.0], [0.76, 0.1, 0.0], [1e9, -1e9, 0.0]])
    assert numbers(space, x, cell_width=0.75, bins=2) == [[0, -1, 1], [1, 0, 1], [1333333333, -1333333334, 1]]


def test_no_number_is_too_large_for_a_cell_of_its_own() -> None:
    visits, states = Visits(Counts(), Discrete(100_000), Discrete(2)), torch.arange(30_000, 100_000, 7)
    steps = (states, torch.zeros_like(states), states)
    assert visits.learn(steps) == {"cells_visited": 10_000.0}
    assert visits.measure(steps).tolist() == pytest.approx([0.5**0.5] * 10_000)
    assert visits.measure(to(30_001, 99_999)).tolist() == [1.0, 1.0]
    far = torch.tensor([[1e300, -math.inf], [math.inf, 0.0]], dtype=torch.float64)
    assert numbers(Box((2,)), far) == [[2**62, -(2**62)], [2**62, 0]]


def test_what_cannot_vary_has_one_cell() -> None:
    space = Box((2,), (1.0, 0.0), (1.0, 2.0))
    assert numbers(space, torch.tensor([[1.0, 0.1], [1.0, 1.9]]), bins=2) == [[0, 0], [0, 1]]


def test_a_table_of_smaller_numbers_is_read() -> None:
    """As the checkpoints of older runs hold it."""
    one, other = (Visits(Counts(), Discrete(9), Discrete(2)) for _ in range(2))
    one.learn(to(1, 2, 2))
    other.load_state_dict({**one.state_dict(), "cells": np.array([[1], [2]], np.int16)})
    assert other.table == one.table


@pytest.mark.parametrize("last", [True, False])
def test_images_are_fields_of_grey(last: bool) -> None:
    image = torch.zeros(1, 36, 40, 3, dtype=torch.uint8)
    image[:, :18, :20] = 255
    image[:, 18:, 20:] = 100
    space = Box((36, 40, 3), 0.0, 255.0, "uint8") if last else Box((3, 36, 40), 0.0, 255.0, "uint8")
    seen = image if last else image.permute(0, 3, 1, 2)
    assert numbers(space, seen, image_size=2, bins=8) == [[7, 0, 0, 3]]


def test_masks_are_no_part_of_a_state() -> None:
    space = Dict({MASK: MultiBinary(2), "x": Discrete(3)})
    tree = {MASK: torch.tensor([[0, 1], [1, 1]]), "x": torch.tensor([2, 2])}
    assert numbers(space, tree) == [[2], [2]]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_all_spaces_are_counted_and_the_table_is_kept(observation: str, action: str, tmp_path: Path) -> None:
    space, acts, generator = OBSERVATIONS[observation], ACTIONS[action], Generator().manual_seed(0)
    settings = Counts(of="pairs")
    one, other = (Visits(settings, space, acts) for _ in range(2))
    other.load_state_dict(one.state_dict())  # also while there is nothing in it
    steps = (observations(space, (9,), generator), observations(acts, (9,), generator), ())
    one.learn(steps)
    assert bool((one.measure(steps) < 0.75).all())
    save_tree(tmp_path, one.state_dict())
    other.load_state_dict(load_tree(tmp_path))
    assert other.table == one.table and list(other.table) == list(one.table)


@pytest.mark.parametrize("settings", [{"bins": 0}, {"image_size": 0}, {"cell_width": 0.0}])
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"expected {next(iter(settings))} of Counts"):
        Counts(**settings)
