"""Perceptrons side by side: the actor of SAC and TD3, and their twin critics. Their gradient can be had by hand.

``forward`` is what anybody calls, and autograd differentiates it. ``record`` and ``Recorded`` are the same two ways
without autograd, for learners to which its bookkeeping would cost a seventh of the time (docs/log.md): values and their
gradients stay in the memory that they are in, matrices of a single column are multiplied the fast way round, and
nothing is computed that is not asked for.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

Activation: TypeAlias = Literal["relu", "tanh", "elu"]
"""Those whose derivative can be told from their value, so that they may overwrite what they were given."""

_aten: Any = torch.ops.aten
_FORWARD: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "elu": nn.functional.elu_,
}
_BACKWARD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda g, y: _aten.threshold_backward.grad_input(g, y, 0.0, grad_input=g),
    "tanh": lambda g, y: _aten.tanh_backward.grad_input(g, y, grad_input=g),
    "elu": lambda g, y: _aten.elu_backward.grad_input(g, 1.0, 1.0, 1.0, True, y, grad_input=g),
}
"""The gradient before an activation, from that behind it, which it overwrites, and the activation's value."""


class Recorded(NamedTuple):
    """What perceptrons answered, and what they need to be differentiated: weights and biases in turn, and what went
    into each layer."""

    outputs: Tensor
    """``[count, N, outputs]``"""
    activation: str
    weights: list[Tensor]
    values: list[Tensor]
    """``[count, N, ...]`` each."""

    def rows(self, rows: slice) -> "Recorded":
        """Of some rows alone."""
        values = [value[:, rows] for value in self.values]
        return Recorded(self.outputs[:, rows], self.activation, self.weights, values)

    @torch.no_grad()
    def gradients(self, by_outputs: Tensor, inputs: slice | None = None) -> tuple[list[Tensor], Tensor | None]:
        """The gradients of a loss by weights and biases in turn, from that by the outputs ``[count, N, outputs]``; and,
        if asked for, that by some of the inputs."""
        found = [by_outputs.sum(1).unsqueeze(-1), torch.bmm(by_outputs.transpose(1, 2), self.values[-1])]
        gradient = by_outputs
        for layer in range(len(self.values) - 1, 0, -1):
            gradient = self._before(layer, gradient)
            found += [gradient.sum(1, keepdim=True), torch.bmm(self.values[layer - 1].transpose(1, 2), gradient)]
        return found[::-1], None if inputs is None else self._first(gradient, inputs)

    @torch.no_grad()
    def by_inputs(self, by_outputs: Tensor, inputs: slice) -> Tensor:
        """The gradient ``[N, ...]`` by some of the inputs, which all perceptrons share, and by nothing else."""
        gradient = by_outputs
        for layer in range(len(self.values) - 1, 0, -1):
            gradient = self._before(layer, gradient)
        return self._first(gradient, inputs)

    def _first(self, gradient: Tensor, inputs: slice) -> Tensor:
        """The gradient before the first layer, from that behind it."""
        weight = self.weights[0] if len(self.values) == 1 else self.weights[0].transpose(1, 2)
        return torch.bmm(gradient, weight[..., inputs]).sum(0)

    def _before(self, layer: int, gradient: Tensor) -> Tensor:
        """The gradient before the activation whose value goes into ``layer``, from that behind the layer."""
        weight = self.weights[2 * layer]
        if layer < len(self.values) - 1:
            before = torch.bmm(gradient, weight.transpose(1, 2))
        elif gradient.shape[-1] == 1:  # an outer product: as such it takes a third of the time
            before = gradient * weight
        else:
            before = torch.bmm(gradient, weight)
        return _BACKWARD[self.activation](before, self.values[layer])


class Perceptrons(nn.Module):
    """``count`` perceptrons of one shape, which share no weight and see the same: an actor (1), twin critics (2), an
    ensemble. Each layer of all of them is one batched multiplication.

    Weights and biases begin as those of ``torch.nn.Linear``: uniform within 1 / sqrt(inputs of the layer). Weights of
    hidden layers are ``[count, inputs, outputs]``, of the last ``[count, outputs, inputs]``: the faster ways round."""

    def __init__(
        self, count: int, inputs: int, net_arch: Sequence[int], outputs: int, activation: Activation = "relu"
    ) -> None:
        super().__init__()
        self.count, self.outputs, self.activation = count, outputs, activation
        widths = [inputs, *net_arch]
        shapes = [((count, a, b), (count, 1, b)) for a, b in pairwise(widths)]
        shapes.append(((count, outputs, widths[-1]), (count, outputs, 1)))
        self.names: list[str] = []
        for i, (each, fan_in) in enumerate(zip(shapes, widths, strict=True)):
            for name, shape in zip((f"weight{i}", f"bias{i}"), each, strict=True):
                bound = 1.0 / math.sqrt(fan_in)
                self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))
                self.names.append(name)

    def forward(self, *inputs: Float[Tensor, "batch _"]) -> Float[Tensor, "{self.count} batch {self.outputs}"]:
        """``inputs`` ``[N, ...]``, side by side, to ``[count, N, outputs]``."""
        return self._layers(inputs, self.count)[0]

    @torch.no_grad()
    def record(self, *inputs: Float[Tensor, "batch _"], count: int | None = None) -> Recorded:
        """The same, remembered so that gradients can be asked for; of the first ``count`` alone, if it is given."""
        return Recorded(*self._layers(inputs, count or self.count))

    def _layers(self, inputs: tuple[Tensor, ...], count: int) -> tuple[Tensor, str, list[Tensor], list[Tensor]]:
        own: Any = self._parameters  # a module's attributes take longer to look up than a small operation
        weights = [own[name] for name in self.names]
        if count < self.count:
            weights = [weight[:count] for weight in weights]
        whole = inputs[0] if len(inputs) == 1 else torch.cat(inputs, -1)
        values = [whole.expand(count, *whole.shape)]
        for weight, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            values.append(_FORWARD[self.activation](torch.baddbmm(bias, values[-1], weight)))
        # Rows of weights times columns of values: so a few outputs take half the time that they take the other way.
        outputs = torch.baddbmm(weights[-1], weights[-2], values[-1].transpose(1, 2)).transpose(1, 2)
        return outputs, self.activation, weights, values
