"""A policy that is a table: one row of action probabilities for each state, and the action values behind them."""

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from torchward.nets import predict, saving
from torchward.nets.heads import gumbel
from torchward.nets.outputs import Acted, Evaluated
from torchward.nets.spaces import Discrete, Space, SpaceError, Tree


class TabularPolicy(nn.Module):
    """Action probabilities ``[S, A]`` and action values ``[S, A]`` of a problem with numbered states and actions.

    Raises :class:`~torchward.nets.spaces.SpaceError` unless both spaces are Discrete."""

    history = False
    probs: Tensor
    q: Tensor

    def __init__(self, observation_space: Space, action_space: Space, probs: Tensor, q: Tensor) -> None:
        super().__init__()
        if not isinstance(observation_space, Discrete) or not isinstance(action_space, Discrete):
            raise SpaceError("a table needs Discrete observations and Discrete actions")
        self.observation_space, self.action_space = observation_space, action_space
        self.register_buffer("probs", probs)
        self.register_buffer("q", q)

    @classmethod
    def empty(cls, observation_space: Space, action_space: Space) -> "TabularPolicy":
        """A uniform policy with action values of zero."""
        if not isinstance(observation_space, Discrete) or not isinstance(action_space, Discrete):
            raise SpaceError("a table needs Discrete observations and Discrete actions")
        shape = (observation_space.n, action_space.n)
        zeros = torch.zeros(shape, dtype=torch.float64)
        return cls(observation_space, action_space, torch.full_like(zeros, 1.0 / action_space.n), zeros)

    def initial_state(self, batch: int) -> Tree:
        return ()

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        return gumbel((*batch, self.probs.shape[1]), generator)

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        log_probs = self.probs[self._row(observation)].log()
        scores = log_probs if noise is None else log_probs + noise  # type: ignore[operator]
        action = scores.argmax(-1)
        return Acted(action, log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1).float(), None, state)

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        row = self._row(observation)
        return (self.probs[row] * self.q[row]).sum(-1).float()

    def evaluate_actions(self, observation: Tree, action: Tree, state: Tree, boundary: Tensor) -> Evaluated:
        probs = self.probs[self._row(observation)]
        assert isinstance(action, Tensor)
        log_prob = probs.gather(-1, action.unsqueeze(-1)).squeeze(-1).log()
        return Evaluated(log_prob.float(), torch.special.entr(probs).sum(-1).float(), self.value(observation, state))

    def predict(
        self, observation: Any, state: Tree | None = None, deterministic: bool = True, seed: int | None = None
    ) -> tuple[Any, Tree]:
        """As :meth:`torchward.nets.actor_critic.ActorCritic.predict`."""
        return predict.predict(self, observation, state, deterministic, seed)

    def save(self, directory: Path | str) -> None:
        """Write ``policy.json`` and ``policy.safetensors``; :func:`torchward.load` reads them."""
        saving.save(self, Path(directory))

    def description(self) -> dict[str, Any]:
        """Nothing but its spaces, as :class:`torchward.nets.saving.Saved` says."""
        return {}

    @classmethod
    def described(
        cls, observation: Space, action: Space, data: dict[str, Any], encoder: nn.Module | None
    ) -> "TabularPolicy":
        """An empty one."""
        return cls.empty(observation, action)

    def _row(self, observation: Tree) -> Tensor:
        assert isinstance(observation, Tensor) and isinstance(self.observation_space, Discrete)
        return observation.long() - self.observation_space.start
