"""The exact model of an environment that carries one: Gymnasium's toy-text worlds keep theirs in ``P``."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchward.envs.faults import WorldError


class Model(NamedTuple):
    """A finite Markov decision process in float64. Terminal states are absorbing and pay nothing, so sums over time
    need no case for the end. The last state is one that was added, where every terminal transition leads."""

    transition: Tensor
    """``[S + 1, A, S + 1]``: the probability of the next state."""
    reward: Tensor
    """``[S + 1, A]``: the expected reward."""
    start: Tensor
    """``[S + 1]``: the probability of beginning there."""


def tabular_model(env: Any, name: str) -> Model:
    """The model of ``env``, whose ``P[s][a]`` lists ``(probability, next state, reward, terminated)``.

    Raises :class:`WorldError` for an environment without such a table."""
    table = getattr(env.unwrapped, "P", None)
    if table is None:
        raise WorldError(
            f"{name} has no table of transition probabilities; dynamic programming needs one (FrozenLake, Taxi and "
            "CliffWalking have it)"
        )
    states, actions = len(table), len(table[0])
    transition = torch.zeros(states + 1, actions, states + 1, dtype=torch.float64)
    reward = torch.zeros(states + 1, actions, dtype=torch.float64)
    transition[states, :, states] = 1.0
    for s in range(states):
        for a in range(actions):
            for probability, following, earned, terminated in table[s][a]:
                transition[s, a, states if terminated else following] += probability
                reward[s, a] += probability * earned
    start = torch.zeros(states + 1, dtype=torch.float64)
    distribution = torch.as_tensor(env.unwrapped.initial_state_distrib, dtype=torch.float64)
    start[:states] = distribution / distribution.sum()
    return Model(transition, reward, start)
