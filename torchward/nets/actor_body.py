"""What the actors of SAC and TD3 have in common: features of what is seen, and a perceptron above them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchward.nets.features import Encoder, Features, action_mask, encode_rows, width_of
from torchward.nets.heads import require_mask
from torchward.nets.mlp import verify_widths
from torchward.nets.perceptrons import Activation, Perceptrons
from torchward.nets.spaces import Space, Tree, mask_space


@dataclass(frozen=True)
class ActorNet:
    """The shape of an actor, and of the critics that it learns from."""

    net_arch: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of the actor, and of each critic; none of them is shared."""
    activation_fn: Activation = "relu"
    """What follows each hidden layer."""
    encoder: Encoder = "nature"
    """The convolutional encoder of image observations, which actor and critics share: the critics alone train it."""
    normalize_observation: bool = False
    """Bring observations to zero mean and unit variance by running statistics that are saved with the policy."""

    def __post_init__(self) -> None:
        verify_widths(net_arch=self.net_arch)


class ActorBody(nn.Module):
    """From observations to features ``[..., size]``, and from features to ``outputs`` numbers.

    The features, be they an image's encoder or an ``encoder`` of the user's own, also serve the critics: they are
    computed once for both. Raises :class:`~torchward.nets.spaces.SpaceError` for spaces that do not fit."""

    def __init__(
        self, observation_space: Space, action_space: Space, outputs: int, network: ActorNet, encoder: nn.Module | None
    ) -> None:
        super().__init__()
        if (mask := mask_space(observation_space)) is not None:
            require_mask(action_space, mask)
        self.observation_space, self.encoder, self.features = observation_space, encoder, None
        if encoder is None:
            self.features = Features(observation_space, network.encoder, network.normalize_observation)
            self.size = self.features.size
        else:
            self.size = width_of(encoder)
        self.perceptron = Perceptrons(1, self.size, network.net_arch, outputs, network.activation_fn)

    def encode(self, observation: Tree) -> Tensor:
        """The features ``[..., size]``. A gradient through them is the critics' to use."""
        features: Any = self._modules.get("features")
        if features is not None:
            return features.forward(observation)  # type: ignore[no-any-return]
        assert self.encoder is not None
        return encode_rows(self.encoder, self.observation_space, observation)

    def encoder_parameters(self) -> list[nn.Parameter]:
        """What an image's encoder, or the user's own, has to learn: by the critics' loss."""
        encoder = self.features if self.encoder is None else self.encoder
        assert encoder is not None
        return [parameter for parameter in encoder.parameters() if parameter.requires_grad]

    def outputs(self, features: Tensor) -> Tensor:
        """The perceptron's answer ``[..., outputs]`` to features."""
        perceptron: Any = self._modules["perceptron"]
        answer: Tensor = perceptron.forward(features.reshape(-1, features.shape[-1]))[0]
        return answer if features.ndim == 2 else answer.reshape(*features.shape[:-1], -1)

    def mask(self, observation: Tree) -> Tree | None:
        """The action mask that observations carry, or None."""
        return action_mask(self.observation_space, observation)

    @torch.no_grad()
    def absorb(self, observation: Tree, mask: Tensor | None) -> None:
        """Let the normaliser take in what was seen."""
        if self.features is not None:
            self.features.absorb(observation, mask)
