"""The policy of control: features, an optional recurrent layer, an actor and a critic."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Generator, Tensor, nn

from torchward.nets import predict, saving
from torchward.nets.features import Encoder, Features, action_mask, encode_rows, width_of
from torchward.nets.heads import affine, head, require_mask
from torchward.nets.mlp import Activation, Towers, orthogonal, verify_widths
from torchward.nets.outputs import Acted, Evaluated
from torchward.nets.recurrent import Recurrent
from torchward.nets.spaces import Space, Tree, mask_space


@dataclass(frozen=True)
class Network:
    """The shape of an actor-critic."""

    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the actor, and of the critic, which share none of them."""
    activation_fn: Activation = "tanh"
    """What follows each hidden layer."""
    encoder: Encoder = "nature"
    """The convolutional encoder of image observations; actor and critic share it."""
    recurrent: Literal["none", "lstm", "gru"] = "none"
    """A recurrent layer between features and hidden layers; actor and critic share it."""
    lstm_hidden_size: int = 64
    """Width of the recurrent layer."""
    normalize_observation: bool = False
    """Bring observations to zero mean and unit variance by running statistics that are saved with the policy."""
    log_std_init: float = 0.0
    """Initial logarithm of the standard deviation of continuous actions; a bounded action space is [-1, 1]."""

    def __post_init__(self) -> None:
        verify_widths(net_arch=self.net_arch, lstm_hidden_size=(self.lstm_hidden_size,))


class ActorCritic(nn.Module):
    """A :class:`~torchward.data.protocols.Policy` for any observation and action space.

    ``encoder``, if given, is a module of the user's own from observations (a tree of tensors ``[N, ...]``) to features
    ``[N, encoder.features]`` and takes the place of the built-in features. ``critic=False`` leaves the critic out."""

    def __init__(
        self,
        observation_space: Space,
        action_space: Space,
        network: Network | None = None,
        *,
        encoder: nn.Module | None = None,
        critic: bool = True,
    ) -> None:
        super().__init__()
        network = network or Network()
        self.observation_space, self.action_space, self.network = observation_space, action_space, network
        if (mask := mask_space(observation_space)) is not None:
            require_mask(action_space, mask)
        self.encoder, self.features = encoder, None
        if encoder is None:
            self.features = Features(observation_space, network.encoder, network.normalize_observation)
            inputs = self.features.size
        else:
            inputs = width_of(encoder)
        self.core: Recurrent | None = None
        if network.recurrent != "none":
            self.core = Recurrent(inputs, network.lstm_hidden_size, network.recurrent)
            inputs = network.lstm_hidden_size
        self.towers = Towers(2 if critic else 1, inputs, network.net_arch, network.activation_fn)
        self.head: Any = head(self.towers.features, action_space, network.log_std_init)
        self.critic = orthogonal(nn.Linear(self.towers.features, 1), 1.0) if critic else None
        self.has_critic = critic
        self.history = self.core is not None

    def initial_state(self, batch: int) -> Tree:
        return self.core.initial_state(batch) if self.core is not None else ()

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        noise: Tree = self.head.noise(batch, generator)
        return noise

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        parts: Any = self._modules  # as in Towers: looking up attributes of a module would cost more than its layers
        head, towers = parts["head"], parts["towers"]
        latent = self._encode(observation)
        if self.history:
            latent, state = parts["core"].step(latent, state)
        params = head.forward(towers.one(0, latent), action_mask(self.observation_space, observation))
        action = head.sample(params, noise)
        value = self._criticise(towers.one(1, latent)) if self.history and self.has_critic else None
        return Acted(action, head.log_prob(params, action), value, state)

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        if not self.has_critic:
            return None
        latent = self._encode(observation)
        if self.core is not None:
            latent, _ = self.core.step(latent, _tensors(state))
        return self._criticise(self.towers.one(1, latent.reshape(-1, latent.shape[-1]))).reshape(latent.shape[:-1])

    def evaluate_actions(self, observation: Tree, action: Tree, state: Tree, boundary: Tensor) -> Evaluated:
        latent = self._encode(observation)
        if self.core is not None:
            latent = self.core.unroll(latent, _tensors(state), boundary)
        # unbind, since the gradient of towers[0] and that of towers[1] would each be a tensor as large as both
        actor, *critic = self.towers.forward(latent.reshape(-1, latent.shape[-1])).unbind(0)
        head = self.head
        params = head.forward(actor.reshape(*boundary.shape, -1), action_mask(self.observation_space, observation))
        value = affine(self, critic[0], "critic").view(boundary.shape) if critic else None
        return Evaluated(head.log_prob(params, action), head.entropy(params), value)

    def absorb(self, observation: Tree, mask: Tensor | None = None) -> None:
        """Let the normaliser take in what was seen; called after a rollout was learnt from, never before."""
        if self.features is not None:
            self.features.absorb(observation, mask)

    def predict(
        self, observation: Any, state: Tree | None = None, deterministic: bool = True, seed: int | None = None
    ) -> tuple[Any, Tree]:
        """The environment's action for one observation or a batch of them, NumPy in and NumPy out, and the next state.

        Raises :class:`~torchward.nets.spaces.SpaceError` for an observation that does not fit the space."""
        return predict.predict(self, observation, state, deterministic, seed)

    def save(self, directory: Path | str) -> None:
        """Write ``policy.json`` and ``policy.safetensors``; :func:`torchward.load` reads them."""
        saving.save(self, Path(directory))

    def description(self) -> dict[str, Any]:
        """What it was made from, as :class:`torchward.nets.saving.Saved` says."""
        return {
            "network": asdict(self.network),
            "critic": self.has_critic,
            "encoder": saving.name_of(self.encoder),
        }

    @classmethod
    def described(
        cls, observation: Space, action: Space, data: dict[str, Any], encoder: nn.Module | None
    ) -> "ActorCritic":
        """One as :meth:`description` says."""
        network = saving.settings(Network, data["network"])
        return cls(observation, action, network, encoder=encoder, critic=data["critic"])

    def _encode(self, observation: Tree) -> Tensor:
        features: Any = self._modules.get("features")
        if features is not None:
            return features.forward(observation)  # type: ignore[no-any-return]
        assert self.encoder is not None
        return encode_rows(self.encoder, self.observation_space, observation)

    def _criticise(self, latent: Tensor) -> Tensor:
        return affine(self, latent, "critic").squeeze(-1)


def _tensors(state: Tree) -> tuple[Tensor, ...]:
    """A recurrent layer's state, out of what may be any tree."""
    return tuple(part for part in state if isinstance(part, Tensor))
