"""The nouns: Policy, Source, Shaping and Task. Whoever knows these knows the library.

They are protocols, so nothing inherits from them: an object that has the verbs is one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from torchward.data.rollout import Rollout
from torchward.data.tree import Tree
from torchward.nets.outputs import Acted, Evaluated
from torchward.nets.spaces import Space

__all__ = [
    "Absorbing",
    "Acted",
    "Episode",
    "Evaluated",
    "Evaluation",
    "InArrays",
    "Policy",
    "Shaping",
    "Source",
    "Task",
    "Tree",
    "absorb",
    "on_device",
]


@runtime_checkable
class Policy(Protocol):
    """A module that chooses, and can say how likely its choices were.

    ``history`` is True where a step can only be judged with the row that it stands in (an LSTM, a GPT); learners
    then keep rows whole. A GPT is a recurrent policy whose state is its key-value cache.
    """

    history: bool

    def initial_state(self, batch: int) -> Tree:
        """The state of ``batch`` rows before their first step; ``()`` where there is none."""
        ...

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        """All the randomness of ``batch`` choices, so that :meth:`act` is a pure function."""
        ...

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        """Choose for ``[B]`` rows; without noise, the mode. ``value`` may be None where ``history`` is False: the
        values of all steps are then computed at once by :meth:`value`."""
        ...

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        """What observations ``[...]`` are worth; None for a policy without a critic."""
        ...

    def evaluate_actions(self, observation: Tree, action: Tree, state: Tree, boundary: Tensor) -> Evaluated:
        """Log-probability, entropy and value of ``[B, T]`` steps, from the state before the first. The state is reset
        after every row at which ``boundary`` is True."""
        ...


class InArrays(Protocol):
    """What a policy of Discrete actions may offer as ``in_arrays``: to act on arrays in ``rows`` worlds, where that is
    faster; else None. It is given the noise ``[T, rows]``, and answers by a function from a step of it and what is
    observed there, an array ``[rows, ...]``, to the action and its log-probability, ``[rows]`` or one for all. They
    are what ``act`` would give, but for rounding."""

    def __call__(
        self, noise: Tree, rows: int
    ) -> Callable[[int, NDArray[Any]], tuple[NDArray[np.int64], NDArray[np.float32] | np.float32]] | None: ...


@dataclass(frozen=True)
class Episode:
    """A finished episode: the sum of its rewards and its number of steps."""

    return_: float
    length: int


@dataclass(frozen=True)
class Evaluation:
    """Episodes played to judge a policy, in environments of their own."""

    returns: list[float]
    lengths: list[int]


@runtime_checkable
class Source(Protocol):
    """Hands out rollouts. Stepping environments is one, sampling completions another; a learner cannot tell."""

    resumable: bool
    """True if :meth:`state_dict` brings the worlds back exactly where they stood."""

    def collect(self, policy: Policy, horizon: int | None) -> Rollout:
        """The next ``horizon`` steps of every row, from where the last rollout stopped. None: one whole episode for
        each row, begun anew; what pads a row that ended early has ``loss_mask`` False."""
        ...

    def episodes(self) -> list[Episode]:
        """The episodes that have ended since the last call."""
        ...

    def cut(self) -> bool:
        """End the running episodes as truncations where the source is not resumable; else do nothing. True if it did:
        what the next rollout begins with then came after nothing, which a replay has to be told. Loops call it at
        every scheduled checkpoint, so that an interrupted run and an uninterrupted one live through the same."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Shaping(Protocol):
    """Changes what a rollout earned, visibly, in the loop: a reward scale, curiosity, KL to a reference."""

    def shape(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor | float]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Task(Protocol):
    """What is to be learnt: its spaces, where experience comes from, and how a policy is judged."""

    @property
    def name(self) -> str: ...

    @property
    def observation_space(self) -> Space: ...

    @property
    def action_space(self) -> Space: ...

    def source(self, n_envs: int, seed: int, device: str = "cpu") -> Source:
        """``n_envs`` worlds to learn from. Equal seeds give equal worlds; rollouts lie on ``device``."""
        ...

    def evaluate(self, policy: Policy, episodes: int, seed: int) -> Evaluation:
        """Play whole episodes in environments of their own, with the policy's mode."""
        ...


@runtime_checkable
class Absorbing(Protocol):
    """A policy with statistics of its own, such as a normaliser's."""

    def absorb(self, observation: Tree, mask: Tensor | None = None) -> None: ...


def absorb(policy: Policy, rollout: Rollout) -> None:
    """Let the policy's statistics, if it has any, take in a rollout. Called after it was learnt from, never before:
    while they stand still, the first probability ratio is 1."""
    if hasattr(policy, "absorb"):  # whether it is an instance of Absorbing takes 40 us to ask
        cast(Absorbing, policy).absorb(rollout.observation, rollout.loss_mask)


_P = TypeVar("_P", bound=Policy)


def on_device(policy: _P, device: str) -> _P:
    """The policy, moved to ``device``. Raises TypeError for one that is not a module and so could not be learnt."""
    if not isinstance(policy, nn.Module):
        raise TypeError(f"expected a policy that is a torch.nn.Module, got {type(policy).__name__}")
    policy.to(device)
    return policy
