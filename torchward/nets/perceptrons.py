"""Perceptrons side by side: the actor of SAC and TD3, and their twin critics. Their gradient can be had by hand.

``forward`` is what anybody calls, and autograd differentiates it. ``record`` and ``Recorded`` are the same two ways
without autograd, for learners to which its bookkeeping would cost a tenth of the time (docs/log.md): values and their
gradients stay in the memory that they are in, matrices of a single column are multiplied the fast way round, and
nothing is computed that is not asked for.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchward.nets.in_place import BACKWARD, FORWARD

Activation: TypeAlias = Literal["relu", "tanh", "elu"]
"""Those of :mod:`torchward.nets.in_place`."""


class Perceptrons(nn.Module):
    """``count`` perceptrons of one shape, which share no weight and see the same: an actor (1), twin critics (2), an
    ensemble. Each layer of all of them is one batched multiplication.

    Weights and biases begin as those of ``torch.nn.Linear``: uniform within 1 / sqrt(inputs of the layer). Weights of
    hidden layers are ``[count, inputs, outputs]``, of the last ``[count, outputs, inputs]``: the faster ways round.
    What goes into the network has a 1 behind it, for which the first weights have a row: this is their bias."""

    def __init__(
        self, count: int, inputs: int, net_arch: Sequence[int], outputs: int, activation: Activation = "relu"
    ) -> None:
        super().__init__()
        self.count, self.inputs, self.outputs, self.activation = count, inputs, outputs, activation
        self.weights, self.biases = [f"weight{i}" for i in range(len(net_arch) + 1)], []
        before = inputs + 1
        for i, width in enumerate((*net_arch, outputs)):
            last = i == len(net_arch)
            bound = 1.0 / math.sqrt(before if i else inputs)
            self._register(f"weight{i}", bound, *((width, before) if last else (before, width)))
            if i:
                self.biases.append(f"bias{i}")
                self._register(f"bias{i}", bound, 1, width)
            before = width

    def _register(self, name: str, bound: float, *shape: int) -> None:
        self.register_parameter(name, nn.Parameter(torch.empty(self.count, *shape).uniform_(-bound, bound)))

    def forward(self, *inputs: Float[Tensor, "batch _"]) -> Float[Tensor, "{self.count} batch {self.outputs}"]:
        """``inputs`` ``[N, ...]``, side by side, to ``[count, N, outputs]``."""
        return self._compute(inputs, self.count).outputs

    @torch.no_grad()
    def record(self, *inputs: Float[Tensor, "batch _"], count: int | None = None) -> "Recorded":
        """The same, remembered so that gradients can be asked for; of the first ``count`` alone, if it is given."""
        return self._compute(inputs, count or self.count)

    def _compute(self, inputs: tuple[Tensor, ...], count: int) -> "Recorded":
        own: Any = self._parameters  # a module's attributes take longer to look up than a small operation
        weights, biases = [own[name] for name in self.weights], [own[name] for name in self.biases]
        if count < self.count:
            weights, biases = [weight[:count] for weight in weights], [bias[:count] for bias in biases]
        whole = torch.cat([*inputs, inputs[0].new_ones(inputs[0].shape[0], 1)], -1)
        values, forward = [whole.expand(count, *whole.shape)], FORWARD[self.activation]
        for layer, weight in enumerate(weights[:-1]):
            before = values[-1]
            after = torch.baddbmm(biases[layer - 1], before, weight) if layer else torch.bmm(before, weight)
            values.append(forward(after))
        # Rows of weights times columns of values: so a few outputs take half the time that they take the other way.
        columns = values[-1].transpose(1, 2)
        if biases:
            outputs = torch.baddbmm(biases[-1].transpose(1, 2), weights[-1], columns)
        else:
            outputs = torch.bmm(weights[-1], columns)
        return Recorded(outputs.transpose(1, 2), self.activation, weights, biases, values)


class Recorded(NamedTuple):
    """What perceptrons answered, and what they need to be differentiated: their weights, the biases of all layers but
    the first, and what went into each layer."""

    outputs: Tensor
    """``[count, N, outputs]``"""
    activation: str
    weights: list[Tensor]
    biases: list[Tensor]
    values: list[Tensor]
    """``[count, N, ...]`` each."""

    def rows(self, rows: slice) -> "Recorded":
        """Of some rows alone."""
        return self._replace(outputs=self.outputs[:, rows], values=[value[:, rows] for value in self.values])

    @torch.no_grad()
    def backward(self, by_outputs: Tensor, inputs: slice | None = None) -> Tensor | None:
        """Write the gradients of a loss by the weights and biases, from that by the outputs ``[count, N, outputs]``:
        they are not added to what was there. The answer is that by some of the ``inputs``, if it is asked for."""
        gradient, last = by_outputs, len(self.values) - 1
        _write(self.weights[last], torch.bmm, by_outputs.transpose(1, 2), self.values[last])
        for layer in range(last, 0, -1):
            _write(self.biases[layer - 1], torch.sum, gradient, 1, True)
            gradient = self._before(layer, gradient)
            _write(self.weights[layer - 1], torch.bmm, self.values[layer - 1].transpose(1, 2), gradient)
        return None if inputs is None else self._first(gradient, inputs)

    @torch.no_grad()
    def by_inputs(self, by_outputs: Tensor, inputs: slice) -> Tensor:
        """The gradient ``[N, ...]`` by some of the inputs, which all perceptrons share, and by nothing else."""
        gradient = by_outputs
        for layer in range(len(self.values) - 1, 0, -1):
            gradient = self._before(layer, gradient)
        return self._first(gradient, inputs)

    def _first(self, gradient: Tensor, inputs: slice) -> Tensor:
        """The gradient by what goes into the first layer, from that behind it."""
        weight = self.weights[0] if len(self.values) == 1 else self.weights[0].transpose(1, 2)
        return torch.bmm(gradient, weight[..., :-1][..., inputs]).sum(0)

    def _before(self, layer: int, gradient: Tensor) -> Tensor:
        """The gradient before the activation whose value goes into ``layer``, from that behind the layer."""
        weight = self.weights[layer]
        if layer < len(self.values) - 1:
            before = torch.bmm(gradient, weight.transpose(1, 2))
        elif gradient.shape[-1] == 1:  # an outer product: as such it takes a third of the time
            before = gradient * weight
        else:
            before = torch.bmm(gradient, weight)
        return BACKWARD[self.activation](before, self.values[layer])


def _write(parameter: Tensor, function: Callable[..., Tensor], *arguments: Any) -> None:
    """Compute a parameter's gradient where it lies, or in new memory if it has none."""
    parameter.grad = function(*arguments, out=parameter.grad)


def without_autograd(encodes: bool) -> AbstractContextManager[Any]:
    """Where no gradient is kept unless it is asked for, as through an encoder. Where nobody asks for any, tensors need
    not even be able to: that saves a twenty-fifth of an update on a CPU."""
    return torch.no_grad() if encodes else torch.inference_mode()
