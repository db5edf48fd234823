"""Counts: a reward for each visit that falls with the number of visits before it (Strehl and Littman 2008)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from torchward.config import ConfigError
from torchward.data.bonus import Steps
from torchward.nets import spaces
from torchward.nets.spaces import Space, Tree

MOST = 2**62
"""The largest number of a cell: within int64, and a float without rounding."""


@dataclass(frozen=True)
class Counts:
    """coef / sqrt(n): n is how often one has been there, in cells that the observation is divided into."""

    coef: float = 1.0
    """The bonus of a first visit, in units of reward (beta in the paper)."""
    of: Literal["states", "pairs"] = "states"
    """What is counted: the states that steps lead to (Bellemare et al. 2016), or pairs of a state and an action."""
    episodic: bool = True
    """Whether the end of an episode ends what the bonus still promises."""
    bins: int = 20
    """Cells into which each bounded number is divided, and shades of grey."""
    cell_width: float = 0.25
    """Width of the cells of a number without bounds."""
    image_size: int = 8
    """Images are scaled down to so many rows and columns of grey."""

    def __post_init__(self) -> None:
        for name in ("bins", "image_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected {name} of Counts of at least 1, got {getattr(self, name)}")
        if not self.cell_width > 0.0:
            raise ConfigError(f"expected cell_width of Counts above 0, got {self.cell_width}")


class Visits:
    """A :class:`~torchward.data.bonus.Novelty`: ``1 / sqrt(n + 1)``, with n visits before the rollout."""

    def __init__(self, settings: Counts, observation_space: Space, action_space: Space) -> None:
        self.settings, self.space, self.actions = settings, observation_space, _as_chosen(action_space)
        self.table: dict[bytes, int] = {}
        """The visits of each cell, by the bytes of its numbers: nothing is hashed that could collide."""

    def measure(self, steps: Steps) -> Tensor:
        rows = self.rows(steps)
        before = np.array([self.table.get(row.tobytes(), 0) for row in rows], np.float32)
        return torch.from_numpy((before + 1.0) ** -0.5).to(_device(steps))

    def learn(self, steps: Steps) -> dict[str, Tensor | float]:
        for row in self.rows(steps):
            key = row.tobytes()
            self.table[key] = self.table.get(key, 0) + 1
        return {"cells_visited": float(len(self.table))}

    def rows(self, steps: Steps) -> NDArray[np.int64]:
        """The numbers ``[N, D]`` of the cell of each step."""
        if self.settings.of == "states":
            parts = list(cells(self.space, steps[2], self.settings))
        else:
            parts = [*cells(self.space, steps[0], self.settings), *cells(self.actions, steps[1], self.settings)]
        return np.concatenate(parts, 1)

    def state_dict(self) -> dict[str, Any]:
        visits = np.array(list(self.table.values()), np.int64)
        numbers = np.frombuffer(b"".join(self.table), np.int64)
        return {"cells": numbers.reshape(len(visits), -1).copy() if len(visits) else None, "visits": visits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        keys: Any = [] if state["cells"] is None else np.asarray(state["cells"], np.int64)  # once they were int16
        self.table = {row.tobytes(): int(n) for row, n in zip(keys, state["visits"], strict=True)}


def _as_chosen(space: Space) -> Space:
    """A space of actions as policies choose them: between bounds, from -1 to 1 (see
    :func:`~torchward.nets.spaces.env_action`)."""
    match space:
        case spaces.Dict():
            return spaces.Dict({name: _as_chosen(inner) for name, inner in space.spaces.items()})
        case spaces.Tuple():
            return spaces.Tuple(tuple(_as_chosen(inner) for inner in space.spaces))
        case spaces.Box():
            low, high = (bound.expand(space.shape).flatten() for bound in space.bounds())
            scaled = low.isfinite() & high.isfinite()
            low, high = torch.where(scaled, -1.0, low), torch.where(scaled, 1.0, high)
            return spaces.Box(space.shape, tuple(low.tolist()), tuple(high.tolist()))
    return space


def cells(space: Space, tree: Tree, settings: Counts) -> Iterator[NDArray[np.int64]]:
    """The numbers ``[N, D]`` of the cells in which elements of a space lie, part by part.

    What is discrete is its own cell. A number between bounds has one of ``bins`` cells of equal width, one without
    bounds the cell ``floor(x / cell_width)``. Of an image the mean grey of each of ``image_size`` squared fields has
    one of ``bins`` shades. An action mask is no part of a state."""
    match space:
        case spaces.Dict():
            assert isinstance(tree, dict)
            for name, inner in space.spaces.items():
                if name != spaces.MASK:
                    yield from cells(inner, tree[name], settings)
        case spaces.Tuple():
            assert isinstance(tree, tuple)
            for inner, part in zip(space.spaces, tree, strict=True):
                yield from cells(inner, part, settings)
        case spaces.Box() if space.is_image:
            assert isinstance(tree, Tensor)
            channels = -1 if space.shape[2] <= space.shape[0] else 1
            grey = F.adaptive_avg_pool2d(tree.float().mean(channels), settings.image_size)
            yield _numbers((grey * (settings.bins / 256.0)).floor())
        case spaces.Box():
            assert isinstance(tree, Tensor)
            yield _numbers(_of_numbers(space, tree.double(), settings))
        case _:
            assert isinstance(tree, Tensor)
            yield _numbers(tree)


def _of_numbers(box: spaces.Box, x: Tensor, settings: Counts) -> Tensor:
    low, high = (bound.to(x).expand(box.shape) for bound in box.bounds())
    bounded = (low.abs() < 1e9) & (high.abs() < 1e9)  # some environments write the largest float for none
    width = torch.where(bounded & (high > low), high - low, 1.0)  # what cannot vary has a single cell
    within = ((x - low) / width * settings.bins).clamp(0, settings.bins - 1)
    return torch.where(bounded, within, x / settings.cell_width).floor()


def _numbers(x: Tensor) -> NDArray[np.int64]:
    rows: NDArray[np.int64] = x.clamp(-MOST, MOST).reshape(len(x), -1).cpu().numpy().astype(np.int64)
    return rows


def _device(tree: Any) -> torch.device:
    while not isinstance(tree, Tensor):
        tree = next(iter(tree.values() if isinstance(tree, dict) else tree))
    return tree.device
