"""Small Markov decision processes in float64, for exact answers."""

from typing import NamedTuple

import torch
from torch import Tensor


class World(NamedTuple):
    """`transition` [states, actions, states], `reward` [states, actions], `start` [states]."""

    transition: Tensor
    reward: Tensor
    start: Tensor


def random_world(states: int, actions: int, seed: int, *, episodic: bool = False) -> World:
    """Sparse random transitions; if episodic, the last state is terminal and every step may lead there."""
    generator = torch.Generator().manual_seed(seed)
    transition = torch.rand(states, actions, states, generator=generator, dtype=torch.float64) ** 4
    reward = torch.randn(states, actions, generator=generator, dtype=torch.float64)
    start = torch.rand(states, generator=generator, dtype=torch.float64)
    if episodic:
        transition[..., -1] = 0.25 * transition[..., :-1].sum(-1)
        transition[-1] = 0.0
        transition[-1, :, -1] = 1.0
        reward[-1] = 0.0
        start[-1] = 0.0
    return World(transition / transition.sum(-1, keepdim=True), reward, start / start.sum())


def random_policy(states: int, actions: int, seed: int) -> Tensor:
    """Rows of a softmax: [states, actions]."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(states, actions, generator=generator, dtype=torch.float64).softmax(-1)


def walk(length: int) -> World:
    """A fair walk on 0 ... length whatever the action; both ends are terminal and the upper one pays 1."""
    transition = torch.zeros(length + 1, 2, length + 1, dtype=torch.float64)
    reward = torch.zeros(length + 1, 2, dtype=torch.float64)
    for state in range(1, length):
        transition[state, :, state - 1] = transition[state, :, state + 1] = 0.5
    transition[0, :, 0] = transition[length, :, length] = 1.0
    reward[length - 1] = 0.5
    return World(transition, reward, torch.full((length + 1,), 1.0 / (length + 1), dtype=torch.float64))


def grid(side: int) -> World:
    """A square of cells; up, down, left, right, or stay put at a wall; -1 a step until one of two opposite corners."""
    states = side * side
    transition = torch.zeros(states, 4, states, dtype=torch.float64)
    reward = torch.full((states, 4), -1.0, dtype=torch.float64)
    for state in range(states):
        row, column = divmod(state, side)
        for action, (down, right) in enumerate([(-1, 0), (1, 0), (0, -1), (0, 1)]):
            inside = 0 <= row + down < side and 0 <= column + right < side
            transition[state, action, state + side * down + right if inside else state] = 1.0
    for corner in (0, states - 1):
        transition[corner] = 0.0
        transition[corner, :, corner] = 1.0
        reward[corner] = 0.0
    return World(transition, reward, torch.full((states,), 1.0 / states, dtype=torch.float64))
