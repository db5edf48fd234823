"""Exact values in NumPy, straight from Gymnasium's tables: no model, solver or end state of torchward's takes part.

A transition that ends the episode is left out of the matrix, whose rows then sum to less than 1.
"""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from torch import Tensor

Array = np.ndarray[Any, Any]
TAXI = "Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3"


class Table(NamedTuple):
    goes: Array
    """``[S, A, S]``: the probability to go there and on from there."""
    pays: Array
    """``[S, A]``: the expected reward."""
    start: Array
    """``[S]``: the probability to begin there."""


def table(name: str, **kwargs: Any) -> Table:
    env: Any = gym.make(name, **kwargs).unwrapped
    states, actions = len(env.P), len(env.P[0])
    goes, pays = np.zeros((states, actions, states)), np.zeros((states, actions))
    for s in range(states):
        for a in range(actions):
            for probability, following, reward, ends in env.P[s][a]:
                goes[s, a, following] += 0.0 if ends else probability
                pays[s, a] += probability * reward
    return Table(goes, pays, np.asarray(env.initial_state_distrib))


def values(world: Table, policy: Tensor, gamma: float) -> Array:
    """What each state is worth under the policy ``[S, A]``, by a linear solve."""
    probs = policy.numpy()
    chain = np.einsum("sa,sat->st", probs, world.goes)
    solved: Array = np.linalg.solve(np.eye(len(probs)) - gamma * chain, (probs * world.pays).sum(1))
    return solved


def worth(world: Table, policy: Tensor, gamma: float) -> float:
    """The expected return from the start under the policy."""
    return float(world.start @ values(world, policy, gamma))


def advantage(world: Table, value: Array, gamma: float) -> Array:
    """``[S, A]``: how much better than ``value`` it is to take an action once. No entry above 0: nothing is better."""
    better: Array = world.pays + gamma * world.goes @ value - value[:, None]
    return better


def best_soft(world: Table, epsilon: float, gamma: float) -> float:
    """The expected return of the best policy that acts at random with probability epsilon, by brute iteration."""
    value = np.zeros(len(world.start))
    for _ in range(100_000):
        q = world.pays + gamma * world.goes @ value
        improved = (1.0 - epsilon) * q.max(1) + epsilon * q.mean(1)
        if np.abs(improved - value).max() < 1e-13:
            break
        value = improved
    return float(world.start @ improved)
