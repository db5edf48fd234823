"""The policy of SAC: a tanh-Gaussian of the real numbers in an action, and a categorical of its choices."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from torchward.nets import predict, saving
from torchward.nets.action_parts import ActionParts
from torchward.nets.actor_body import ActorBody, ActorNet
from torchward.nets.heads import FORBIDDEN, gumbel
from torchward.nets.outputs import Acted, Evaluated
from torchward.nets.spaces import Space, Tree
from torchward.nets.squashed import Squashed, squash, squashed_entropy, squashed_log_prob


class Drawn(NamedTuple):
    """What a policy thinks of doing: a sample of the real numbers, and the probabilities of all choices, which need no
    sample."""

    reals: Squashed
    """``[N, reals]``"""
    log_probs: Tensor | None
    """``[N, choices]``; None where nothing is to be chosen."""

    def rows(self, rows: slice) -> "Drawn":
        """Some of them."""
        return Drawn(self.reals.rows(rows), None if self.log_probs is None else self.log_probs[rows])

    def by_outputs(self, by_reals: Tensor, by_log_prob: Tensor | float, by_log_probs: Tensor | None) -> Tensor:
        """The gradient ``[N, outputs]`` of a loss by what the network said, from those by the reals ``[N, reals]``, by
        their log-probability (one number for all), and by the log-probabilities of the choices ``[N, choices]``."""
        found = self.reals.by_outputs(by_reals, by_log_prob)
        if by_log_probs is None:
            return found
        assert self.log_probs is not None
        by_logits = by_log_probs - self.log_probs.exp() * by_log_probs.sum(-1, keepdim=True)
        return torch.cat([found, by_logits], -1)


class SoftActor(nn.Module):
    """A :class:`~torchward.data.protocols.Policy` for Box, Discrete, MultiDiscrete and MultiBinary actions, and for any
    Dict or Tuple of them. Given the observation, reals and choice are independent (Delalleau et al. 2019).

    ``encoder``, if given, is a module of the user's own from observations to features ``[N, encoder.features]``. Raises
    :class:`~torchward.nets.spaces.SpaceError` for spaces that do not fit."""

    history = False

    def __init__(
        self,
        observation_space: Space,
        action_space: Space,
        network: ActorNet | None = None,
        *,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.network, self.parts = network or ActorNet(), ActionParts(action_space)
        choices = self.parts.choices if self.parts.factors else 0
        self.body = ActorBody(observation_space, action_space, 2 * self.parts.reals + choices, self.network, encoder)

    def initial_state(self, batch: int) -> Tree:
        return ()

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        """Normal noise ``[*batch, reals]`` and, where there are choices, Gumbel noise ``[*batch, choices]``."""
        normal = torch.randn((*batch, self.parts.reals), generator=generator, device=generator.device)
        return (normal, gumbel((*batch, self.parts.choices), generator)) if self.parts.factors else (normal,)

    def draw(self, outputs: Tensor, allowed: Tensor | None, noise: Tensor) -> Drawn:
        """What the network's ``outputs`` ``[..., outputs]`` make of normal ``noise`` ``[..., reals]``, where
        ``allowed`` ``[..., choices]`` (None: everything is) are the choices."""
        if not self.parts.factors:
            return Drawn(squash(outputs, noise), None)
        reals, logits = outputs.split([2 * self.parts.reals, self.parts.choices], -1)
        return Drawn(squash(reals, noise), _log_probs(logits, allowed))

    def allowed(self, observation: Tree) -> Tensor | None:
        """The choices ``[..., choices]`` that are allowed; None where observations carry no mask."""
        return self.parts.allowed(self.body.mask(observation))

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        drawn: Any = noise
        outputs = self.body.outputs(self.body.encode(observation))
        normal = outputs.new_zeros(*outputs.shape[:-1], self.parts.reals) if drawn is None else drawn[0]
        reals, log_probs = self.draw(outputs, self.allowed(observation), normal)
        log_prob, choice = reals.log_prob, None
        if log_probs is not None:
            choice = (log_probs if drawn is None else log_probs + drawn[1]).argmax(-1)
            log_prob = log_prob + _chosen(log_probs, choice)
        return Acted(self.parts.join(reals.action, choice), log_prob, None, state)

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        """None: the critics belong to the learner."""
        return None

    def evaluate_actions(self, observation: Tree, action: Tree, state: Tree, boundary: Tensor) -> Evaluated:
        outputs = self.body.outputs(self.body.encode(observation))
        reals, logits = outputs.split([2 * self.parts.reals, outputs.shape[-1] - 2 * self.parts.reals], -1)
        done, choice = self.parts.split(action)
        log_prob, entropy = squashed_log_prob(reals, done), squashed_entropy(reals)
        if choice is not None:
            log_probs = _log_probs(logits, self.allowed(observation))
            log_prob, entropy = log_prob + _chosen(log_probs, choice), entropy - (log_probs.exp() * log_probs).sum(-1)
        return Evaluated(log_prob, entropy, None)

    def absorb(self, observation: Tree, mask: Tensor | None = None) -> None:
        """Let the normaliser take in what was seen; called after a rollout was learnt from, never before."""
        self.body.absorb(observation, mask)

    def predict(
        self, observation: Any, state: Tree | None = None, deterministic: bool = True, seed: int | None = None
    ) -> tuple[Any, Tree]:
        """As :meth:`torchward.nets.actor_critic.ActorCritic.predict`."""
        return predict.predict(self, observation, state, deterministic, seed)

    def save(self, directory: Path | str) -> None:
        """Write ``policy.json`` and ``policy.safetensors``; :func:`torchward.load` reads them."""
        saving.save(self, Path(directory))

    def description(self) -> dict[str, Any]:
        """What it was made from, as :class:`torchward.nets.saving.Saved` says."""
        return {"network": asdict(self.network), "encoder": saving.name_of(self.body.encoder)}

    @classmethod
    def described(
        cls, observation: Space, action: Space, data: dict[str, Any], encoder: nn.Module | None
    ) -> "SoftActor":
        """One as :meth:`description` says."""
        return cls(observation, action, saving.settings(ActorNet, data["network"]), encoder=encoder)


def _log_probs(logits: Tensor, allowed: Tensor | None) -> Tensor:
    return (logits if allowed is None else logits.masked_fill(~allowed, FORBIDDEN)).log_softmax(-1)


def _chosen(log_probs: Tensor, choice: Tensor) -> Tensor:
    return log_probs.gather(-1, choice.unsqueeze(-1)).squeeze(-1)
