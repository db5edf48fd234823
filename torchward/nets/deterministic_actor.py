"""The policy of TD3: one action for each state, squashed by tanh, and normal noise around it while it explores."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from torchward.nets import predict, saving, spaces
from torchward.nets.action_parts import ActionParts
from torchward.nets.actor_body import ActorBody, ActorNet
from torchward.nets.outputs import Acted, Evaluated
from torchward.nets.spaces import Space, SpaceError, Tree


class DeterministicActor(nn.Module):
    """A :class:`~torchward.data.protocols.Policy` for Box actions, and for any Dict or Tuple of them.

    With noise it explores by a normal distribution of deviation ``noise_std``, a plain attribute, 0 at first, that a
    learner sets; what it makes lie outside of [-1, 1] is clipped. Log-probabilities are densities of that distribution
    before it is clipped. ``encoder`` is as in :class:`~torchward.nets.soft_actor.SoftActor`. Raises
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
        if self.parts.factors:
            raise SpaceError(
                f"expected Box actions for a deterministic policy, got {spaces.describe(action_space)}; sac takes any"
            )
        self.body = ActorBody(observation_space, action_space, self.parts.reals, self.network, encoder)
        self.noise_std = 0.0

    def initial_state(self, batch: int) -> Tree:
        return ()

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        return torch.randn((*batch, self.parts.reals), generator=generator, device=generator.device)

    def reals(self, features: Tensor) -> Tensor:
        """The action ``[..., reals]`` at ``features`` ``[..., size]``, as flat numbers within [-1, 1]."""
        return self.body.outputs(features).tanh()

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        mode = self.reals(self.body.encode(observation))
        if noise is None or self.noise_std == 0.0:
            return Acted(self.parts.join(mode, None), mode.new_zeros(mode.shape[:-1]), None, state)
        assert isinstance(noise, Tensor)
        action = torch.add(mode, noise, alpha=self.noise_std).clamp(-1.0, 1.0)
        return Acted(self.parts.join(action, None), self._density(mode, action), None, state)

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        """None: the critics belong to the learner."""
        return None

    def evaluate_actions(self, observation: Tree, action: Tree, state: Tree, boundary: Tensor) -> Evaluated:
        mode = self.reals(self.body.encode(observation))
        if self.noise_std == 0.0:
            return Evaluated(mode.new_zeros(mode.shape[:-1]), mode.new_zeros(mode.shape[:-1]), None)
        entropy = self.parts.reals * (math.log(self.noise_std) + 0.5 * math.log(2.0 * math.pi * math.e))
        log_prob = self._density(mode, self.parts.split(action)[0])
        return Evaluated(log_prob, torch.full_like(log_prob, entropy), None)

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
        """What it was made from, as :class:`torchward.nets.saving.Saved` says; and how it explores."""
        network, encoder = asdict(self.network), saving.name_of(self.body.encoder)
        return {"network": network, "encoder": encoder, "noise_std": self.noise_std}

    @classmethod
    def described(
        cls, observation: Space, action: Space, data: dict[str, Any], encoder: nn.Module | None
    ) -> "DeterministicActor":
        """One as :meth:`description` says."""
        policy = cls(observation, action, saving.settings(ActorNet, data["network"]), encoder=encoder)
        policy.noise_std = float(data["noise_std"])
        return policy

    def _density(self, mode: Tensor, action: Tensor) -> Tensor:
        z = (action - mode) / self.noise_std
        constant = math.log(self.noise_std) + 0.5 * math.log(2.0 * math.pi)
        return -(0.5 * z.square() + constant).sum(-1)
