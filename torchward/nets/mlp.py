"""Multilayer perceptrons, and the initialisation that policy gradients like."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchward.config import ConfigError

Activation: TypeAlias = Literal["tanh", "relu", "elu", "silu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh_,  # in place: it overwrites a product that nothing else needs
    "relu": torch.relu_,
    "elu": nn.functional.elu,
    "silu": nn.functional.silu,
}
"""What each name of an activation stands for."""


def verify_widths(**widths: Sequence[int]) -> None:
    """Raises ConfigError for a layer without units, naming the setting that asks for it."""
    for name, each in widths.items():
        if any(width < 1 for width in each):
            raise ConfigError(f"expected widths of at least 1 as {name}, got {' '.join(map(str, each))}")


def orthogonal(module: nn.Module, gain: float = math.sqrt(2.0)) -> nn.Module:
    """Every weight matrix below ``module`` orthogonal with ``gain``, every bias 0 (Saxe et al. 2014; the 2nd of the
    "37 implementation details of PPO", Huang et al. 2022). Returns ``module``."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


class Towers(nn.Module):
    """``count`` perceptrons of one shape side by side, which share no weight: an actor and its critic, twin critics, an
    ensemble. Each layer of all of them is one batched multiplication: on small networks, what costs is the number of
    operations, not their size.

    The weights are orthogonal with gain sqrt(2). An empty ``net_arch`` is the identity."""

    def __init__(self, count: int, inputs: int, net_arch: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.count, self.activation, self.features = count, ACTIVATIONS[activation], inputs
        self.layers: list[tuple[str, str]] = []
        for i, width in enumerate(net_arch):
            layers = [nn.init.orthogonal_(torch.empty(width, self.features), math.sqrt(2.0)).T for _ in range(count)]
            self.register_parameter(f"weight{i}", nn.Parameter(torch.stack(layers)))
            self.register_parameter(f"bias{i}", nn.Parameter(torch.zeros(count, 1, width)))
            self.layers.append((f"weight{i}", f"bias{i}"))
            self.features = width

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "count batch features"]:
        """``[N, inputs] -> [count, N, features]``."""
        x = x.expand(self.count, *x.shape)
        for weight, bias in self._layers():
            x = self.activation(torch.baddbmm(bias, x, weight))
        return x

    def one(self, index: int, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch features"]:
        """One of them: ``[N, inputs] -> [N, features]``."""
        for weight, bias in self._layers():
            x = self.activation(torch.addmm(bias[index], x, weight[index]))
        return x

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        # By the dictionary: an attribute of a module takes as long to look up as a small layer takes to compute.
        own: Any = self._parameters
        return [(own[weight], own[bias]) for weight, bias in self.layers]
