"""Action values: from an observation to a value for each action, or to a distribution of the return for each."""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from torchward.functional.value_losses import categorical_value
from torchward.nets.dense import Dense
from torchward.nets.features import Encoder, Features, action_mask, encode_rows, width_of
from torchward.nets.heads import require_mask
from torchward.nets.in_place import FORWARD
from torchward.nets.mlp import ACTIVATIONS, Activation, verify_widths
from torchward.nets.quick import Forward, in_numpy
from torchward.nets.recurrent import Recurrent, State
from torchward.nets.spaces import Discrete, Space, SpaceError, Tree, describe, mask_space


@dataclass(frozen=True)
class QNet:
    """The shape of a network of action values."""

    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    activation_fn: Activation = "relu"
    """What follows each hidden layer."""
    encoder: Encoder = "nature"
    """The convolutional encoder of image observations."""
    recurrent: Literal["none", "lstm", "gru"] = "none"
    """A recurrent layer between features and hidden layers."""
    lstm_hidden_size: int = 64
    """Width of the recurrent layer."""
    normalize_observation: bool = False
    """Bring observations to zero mean and unit variance by running statistics that are saved with the policy."""
    dueling: bool = False
    """Two streams from the last hidden layer on, for the state's value and for the actions' advantages."""
    noisy: bool = False
    """Explore by noise on the weights behind the features, whose size is learnt."""
    noisy_std: float = 0.5
    """The initial size of that noise."""

    def __post_init__(self) -> None:
        verify_widths(net_arch=self.net_arch, lstm_hidden_size=(self.lstm_hidden_size,))


@dataclass(frozen=True)
class C51:
    """The return's probabilities of some fixed atoms (Bellemare et al. 2017)."""

    n_atoms: int = 51
    """The number of atoms."""
    v_min: float = -10.0
    """The lowest one; no return is thought to lie below."""
    v_max: float = 10.0
    """The highest one."""


@dataclass(frozen=True)
class QR:
    """The return's quantiles (Dabney et al. 2018)."""

    n_quantiles: int = 200
    """The number of quantiles."""
    kappa: float = 1.0
    """The error from which on their loss is linear."""


Distribution: TypeAlias = C51 | QR


class NoisyLinear(nn.Module):
    """A linear layer whose weights are noisy (Fortunato et al. 2018, equations 9 to 11, factorised noise).

        y = (W + S * f(e_out) f(e_in)^T) x + b + s * f(e_out),   f(e) = sign(e) sqrt|e|

    W and b begin uniform within 1 / sqrt(inputs), S and s at std / sqrt(inputs) (their section 3.2)."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_std = nn.Parameter(torch.full((outputs, inputs), std * bound))
        self.bias_std = nn.Parameter(torch.full((outputs,), std * bound))


class QNetwork(nn.Module):
    """Observations ``[..., *event]`` to outputs ``[..., actions]``, the values of the actions; with a ``distribution``
    ``[..., actions, n]``, the logits of its atoms or its quantiles, of which :meth:`values` makes values.

    ``encoder``, if given, is a module of the user's own from observations (a tree of tensors ``[N, ...]``) to features
    ``[N, encoder.features]`` and takes the place of the built-in features. Raises
    :class:`~torchward.nets.spaces.SpaceError` unless actions are Discrete."""

    support: Tensor

    def __init__(
        self,
        observation_space: Space,
        action_space: Space,
        network: QNet | None = None,
        distribution: Distribution | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        network = network or QNet()
        if not isinstance(action_space, Discrete):
            raise SpaceError(
                f"a network of action values has one for each of Discrete actions, got {describe(action_space)}; ppo "
                "takes any action"
            )
        if (mask := mask_space(observation_space)) is not None:
            require_mask(action_space, mask)
        self.observation_space, self.actions, self.distribution = observation_space, action_space.n, distribution
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
        self.history = self.core is not None
        self.plain = distribution is None and mask is None  # outputs are values, and all of them are allowed
        self.size = 1  # outputs of an action
        match distribution:
            case C51():
                self.size = distribution.n_atoms
                self.register_buffer("support", torch.linspace(distribution.v_min, distribution.v_max, self.size))
            case QR():
                self.size = distribution.n_quantiles
        self.noisy, self.dueling = network.noisy, network.dueling
        self.activation_fn = network.activation_fn
        self.activation = FORWARD.get(network.activation_fn, ACTIVATIONS[network.activation_fn])
        self.hidden = nn.ModuleList()
        self.noises: list[int] = []  # how many numbers each noisy layer takes, for its inputs and for its outputs

        def dense(inputs: int, outputs: int) -> nn.Module:
            self.noises += [inputs, outputs]
            return NoisyLinear(inputs, outputs, network.noisy_std) if network.noisy else nn.Linear(inputs, outputs)

        for i, width in enumerate(network.net_arch):
            last = i == len(network.net_arch) - 1
            self.hidden.append(dense(inputs, 2 * width if last and network.dueling else width))
            inputs = width
        self.width = inputs
        self.advantage = dense(inputs, self.actions * self.size)
        self.value = dense(inputs, self.size) if network.dueling else None
        # In plain lists: an attribute of a module takes as long to look up as a small layer takes to compute.
        self.layers = list(self.hidden)
        self.heads = [self.advantage, *([self.value] if self.value is not None else [])]
        vectors = self.features is not None and self.features.is_plain and self.features.norm is None
        # Layers upon a vector, and nothing else: what acts on arrays.
        self.is_stack = vectors and self.plain and not (self.history or self.noisy or self.dueling)
        self.forward_of: tuple[list[int], Forward | None] = [], None

    def forward(self, observation: Tree, noise: Tensor | None = None) -> Tensor:
        """The outputs ``[..., actions]`` or ``[..., actions, n]`` of a network without a recurrent layer. ``noise``
        ``[..., k]`` is what :meth:`noise` gave, for each row or for all of them; None: none."""
        return self.read(self.encode(observation), noise)

    def step(self, observation: Tree, state: Tree, noise: Tensor | None = None) -> tuple[Tensor, Tree]:
        """Outputs for one step of ``[B]`` rows, and the next state."""
        latent = self.encode(observation)
        if self.core is not None:
            latent, state = self.core.step(latent, _tensors(state))
        return self.read(latent, noise), state

    def unroll(self, observation: Tree, state: Tree, reset: Tensor, noise: Tensor | None = None) -> Tensor:
        """Outputs for rows ``[B, T]`` from the state before their first step; the state is zero after every step at
        which ``reset`` ``[B, T]`` is True."""
        latent = self.encode(observation)
        if self.core is not None:
            latent = self.core.unroll(latent, _tensors(state), reset)
        return self.read(latent, noise)

    @torch.no_grad()
    def burn_in(self, observation: Tree, reset: Tensor) -> Tree:
        """The state behind rows ``[B, T]`` that began with zeros, without gradient (Kapturowski et al. 2019, R2D2,
        section 2.3: burn-in)."""
        assert self.core is not None
        state: State = self.core.initial_state(len(reset))
        if not reset.shape[1]:
            return state
        latent = self.encode(observation)
        for t in range(latent.shape[1]):
            _, state = self.core.step(latent[:, t], state)
            state = tuple(part.masked_fill(reset[:, t, None], 0.0) for part in state)
        return state

    def initial_state(self, batch: int) -> Tree:
        """The state of ``batch`` rows before their first step."""
        return self.core.initial_state(batch) if self.core is not None else ()

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tensor:
        """``f(e)`` for all noisy layers ``[*batch, k]``, inputs and outputs."""
        e = torch.randn((*batch, sum(self.noises)), generator=generator, device=generator.device)
        return e.sign() * e.abs().sqrt()

    def values(self, outputs: Tensor) -> Tensor:
        """The values ``[..., actions]`` that outputs stand for: the means of the distributions."""
        match self.distribution:
            case C51():
                return categorical_value(outputs, self.support)
            case QR():
                return outputs.mean(-1)
        return outputs

    def allowed(self, values: Tensor, observation: Tree) -> Tensor:
        """``values`` ``[..., actions]`` with -infinity for what the observation's mask forbids. A mask that forbids
        everything, as that of a final observation may, is none."""
        mask = action_mask(self.observation_space, observation)
        if mask is None:
            return values
        assert isinstance(mask, Tensor)
        open_ = mask != 0
        return values.masked_fill(open_.any(-1, keepdim=True) & ~open_, -math.inf)

    def in_numpy(self, rows: int) -> Forward | None:
        """The same from arrays ``[rows, inputs]``, for some layers upon a vector; None for all else, and where that is
        no faster."""
        if not self.is_stack:
            return None
        layers = [*self.layers, *self.heads]
        places = [rows, *(layer._parameters["weight"].data_ptr() for layer in layers)]  # type: ignore[union-attr]
        if places != self.forward_of[0]:
            self.forward_of = places, in_numpy(layers, self.activation_fn, rows)
        return self.forward_of[1]

    def dense(self) -> Dense | None:
        """Its layers upon the features, to be differentiated by hand; None where that is not all there is to learn."""
        learns = self.history or self.features is None or len(self.features.encoders) > 0
        if learns or self.noisy or self.dueling or self.distribution is not None:
            return None
        layers = [layer for layer in (*self.layers, *self.heads) if isinstance(layer, nn.Linear)]
        return Dense(layers, self.activation_fn) if Dense.serves(self.activation_fn) else None

    def encode(self, observation: Tree) -> Tensor:
        """The features ``[..., F]``."""
        features: Any = self._modules.get("features")
        if features is not None:
            return features.forward(observation)  # type: ignore[no-any-return]
        assert self.encoder is not None
        return encode_rows(self.encoder, self.observation_space, observation)

    def read(self, latent: Tensor, noise: Tensor | None = None) -> Tensor:
        """The outputs that features, or what a recurrent layer made of them, stand for."""
        parts = iter(noise.split(self.noises, -1)) if noise is not None and self.noisy else None
        for layer in self.layers:
            latent = self.activation(_affine(layer, latent, parts))
        if not self.dueling:
            plain = _affine(self.heads[0], latent, parts).float()
            return plain.unflatten(-1, (self.actions, self.size)) if self.distribution is not None else plain
        # Wang et al. 2016, equation 9: the mean is taken from the advantages, or only their sum with V would be learnt.
        left, right = (latent[..., : self.width], latent[..., -self.width :]) if self.layers else (latent, latent)
        advantage = _affine(self.heads[0], left, parts).float().unflatten(-1, (self.actions, self.size))
        value = _affine(self.heads[1], right, parts).float().unsqueeze(-2)
        combined: Tensor = value + advantage - advantage.mean(-2, keepdim=True)
        return combined.squeeze(-1) if self.distribution is None else combined


def _affine(layer: nn.Module, x: Tensor, noise: Any) -> Tensor:
    """A layer of plain or noisy weights; ``noise`` gives its inputs' and its outputs'."""
    own: Any = layer._parameters
    y: Tensor = F.linear(x, own["weight"], own["bias"])
    if noise is None:
        return y
    inputs: Tensor = next(noise)
    outputs: Tensor = next(noise)
    return y + outputs * F.linear(inputs * x, own["weight_std"], own["bias_std"])


def _tensors(state: Tree) -> State:
    """A recurrent layer's state, out of what may be any tree."""
    return tuple(part for part in state if isinstance(part, Tensor))
