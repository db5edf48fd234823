"""The policy that action values stand for: their argmax, with epsilon-greedy or Boltzmann exploration around it."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from torchward.nets import predict, saving
from torchward.nets.heads import gumbel
from torchward.nets.outputs import Acted, Evaluated
from torchward.nets.q_network import C51, QR, Distribution, QNet, QNetwork
from torchward.nets.spaces import Space, Tree

Array: TypeAlias = NDArray[Any]
Choice: TypeAlias = tuple[Array, Any]
"""Named here, as annotations of a function within another are evaluated whenever it is made."""


class QPolicy(nn.Module):
    """A :class:`~torchward.data.protocols.Policy` that looks up a :class:`~torchward.nets.q_network.QNetwork`.

    With noise it explores: by any action with probability ``epsilon``, or, where ``temperature`` is above 0, by
    softmax(Q / temperature); by noisy weights where the network has them. Both are plain attributes, 0 at first, that a
    learner sets. Without noise it is greedy. Log-probabilities are those of the exploring policy."""

    def __init__(
        self,
        observation_space: Space,
        action_space: Space,
        network: QNet | None = None,
        distribution: Distribution | None = None,
        *,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.network, self.distribution = network or QNet(), distribution
        self.q = QNetwork(observation_space, action_space, self.network, distribution, encoder)
        self.history = self.q.history
        self.epsilon, self.temperature = 0.0, 0.0

    def initial_state(self, batch: int) -> Tree:
        return self.q.initial_state(batch)

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        """Uniform numbers ``[*batch]``, which say whether to explore and, unless that depends on values or masks, by
        which action; else Gumbel noise for each action ``[*batch, actions]``; and that of noisy weights, where there
        are such."""
        q, device = self.q, generator.device
        parts: tuple[Tensor, ...] = (torch.rand(batch, generator=generator, device=device),)
        if not q.plain or self.temperature > 0.0:
            parts = (*parts, gumbel((*batch, q.actions), generator))
        return (*parts, q.noise(batch, generator)) if q.noisy else parts

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        q, drawn = self.q, noise
        assert drawn is None or isinstance(drawn, tuple)
        outputs, state = q.step(observation, state, drawn[-1] if drawn is not None and q.noisy else None)  # type: ignore[arg-type]
        values = q.allowed(q.values(outputs), observation)
        action = best = values.argmax(-1)
        if drawn is not None and self.temperature > 0.0:
            action = (values / self.temperature + drawn[1]).argmax(-1)  # type: ignore[operator]
        elif drawn is not None and self.epsilon > 0.0:
            uniform, other = drawn[0], best
            assert isinstance(uniform, Tensor)
            if q.plain:  # what is uniform and below epsilon is uniform below it
                other = (uniform * (q.actions / self.epsilon)).long().clamp_(max=q.actions - 1)
            else:
                other = q.allowed(drawn[1], observation).argmax(-1)  # type: ignore[arg-type]
            action = torch.where(uniform < self.epsilon, other, best)
        return Acted(action, _chosen(self._log_probs(values, best), action), None, state)

    def in_arrays(self, noise: Tree, rows: int) -> Any:
        """To act epsilon-greedily on arrays, see :class:`torchward.data.protocols.InArrays`; None for all else."""
        forward = self.q.in_numpy(rows) if self.temperature == 0.0 else None
        if forward is None:
            return None
        assert isinstance(noise, tuple) and isinstance(noise[0], Tensor)
        uniform: NDArray[np.float32] = noise[0].numpy()
        share = self.epsilon / self.q.actions
        explore: NDArray[np.bool_] = uniform < self.epsilon
        other = np.minimum((uniform * (1.0 / share if share else 0.0)).astype(np.int64), self.q.actions - 1)
        some: Any = explore.any(-1)
        likely, unlikely = np.float32(math.log(share + 1.0 - self.epsilon)), np.float32(math.log(share or 1.0))

        def choose(t: int, observation: Array) -> Choice:
            best: Array = forward(observation).argmax(-1)
            if not some[t]:
                return best, likely
            action = np.where(explore[t], other[t], best)
            return action, np.where(action == best, likely, unlikely)

        return choose

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        """None: what is learnt from a replay is judged when it is sampled, so no source need judge what it collects.
        :meth:`q_values` tells what observations are worth."""
        return None

    def q_values(self, observation: Tree, state: Tree = ()) -> Tensor:
        """The values ``[N, actions]`` of the actions at observations ``[N, ...]``; -infinity for what is forbidden."""
        if self.history and state == ():
            state = self.initial_state(_rows(observation))
        return self.q.allowed(self.q.values(self.q.step(observation, state)[0]), observation)

    def evaluate_actions(self, observation: Tree, action: Tree, state: Tree, boundary: Tensor) -> Evaluated:
        """Where a uniform policy acted in its place there is no ``state``: rows then begin as episodes do."""
        assert isinstance(action, Tensor)
        if self.history and state == ():
            state = self.initial_state(len(action))
        values = self.q.allowed(self.q.values(self.q.unroll(observation, state, boundary)), observation)
        log_probs = self._log_probs(values, values.argmax(-1))
        entropy = -(log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(-1)
        return Evaluated(_chosen(log_probs, action), entropy, None)

    def absorb(self, observation: Tree, mask: Tensor | None = None) -> None:
        """Let the normaliser take in what was seen; called after a rollout was learnt from, never before."""
        if self.q.features is not None:
            self.q.features.absorb(observation, mask)

    def predict(
        self, observation: Any, state: Tree | None = None, deterministic: bool = True, seed: int | None = None
    ) -> tuple[Any, Tree]:
        """As :meth:`torchward.nets.actor_critic.ActorCritic.predict`."""
        return predict.predict(self, observation, state, deterministic, seed)

    def save(self, directory: Path | str) -> None:
        """Write ``policy.json`` and ``policy.safetensors``; :func:`torchward.load` reads them."""
        saving.save(self, Path(directory))

    def description(self) -> dict[str, Any]:
        """What it was made from, as :class:`torchward.nets.saving.Saved` says; and how it explores."""
        of = self.distribution
        return {
            "network": asdict(self.network),
            "distribution": None if of is None else {"type": type(of).__name__, **asdict(of)},
            "encoder": saving.name_of(self.q.encoder),
            "epsilon": self.epsilon,
            "temperature": self.temperature,
        }

    @classmethod
    def described(cls, observation: Space, action: Space, data: dict[str, Any], encoder: nn.Module | None) -> "QPolicy":
        """One as :meth:`description` says."""
        stored = data["distribution"]
        kinds: dict[str, type[Distribution]] = {"C51": C51, "QR": QR}
        distribution = None if stored is None else saving.settings(kinds[stored["type"]], stored)
        policy = cls(observation, action, saving.settings(QNet, data["network"]), distribution, encoder=encoder)
        policy.epsilon, policy.temperature = float(data["epsilon"]), float(data["temperature"])
        return policy

    def _log_probs(self, values: Tensor, best: Tensor) -> Tensor:
        """Of all actions. Where several are the best it is the first of them that is taken."""
        if self.temperature > 0.0:
            return (values / self.temperature).log_softmax(-1)
        allowed = (values > -math.inf).to(values)
        share = allowed * (self.epsilon / allowed.sum(-1, keepdim=True))
        greedy = nn.functional.one_hot(best, values.shape[-1])
        return torch.add(share, greedy, alpha=1.0 - self.epsilon).log()


def _chosen(log_probs: Tensor, action: Tensor) -> Tensor:
    return log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def _rows(observation: Tree) -> int:
    while not isinstance(observation, Tensor):
        observation = next(iter(observation.values() if isinstance(observation, dict) else observation))
    return observation.shape[0]
