"""Linear layers with an activation between them, differentiated by hand.

On small networks the bookkeeping of autograd costs as much as the arithmetic that it arranges (docs/log.md). Here is
that arithmetic alone, in the memory that is there already.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchward.nets.in_place import BACKWARD, FORWARD


class Dense:
    """``layers`` with an activation between them, ``[N, inputs] -> [N, outputs]``. Their parameters need gradients to
    write into, as those of :class:`~torchward.nets.flat.Flat` have."""

    def __init__(self, layers: Sequence[nn.Linear], activation: str) -> None:
        self.layers, self.activation = list(layers), activation

    @staticmethod
    def serves(activation: str) -> bool:
        """Whether it knows the activation's derivative."""
        return activation in FORWARD

    @torch.no_grad()
    def record(self, x: Tensor) -> "Recorded":
        """The outputs, remembered so that gradients can be asked for."""
        forward, values = FORWARD[self.activation], [x]
        own: list[Any] = [layer._parameters for layer in self.layers]
        for each in own[:-1]:
            values.append(forward(F.linear(values[-1], each["weight"], each["bias"])))
        return Recorded(F.linear(values[-1], own[-1]["weight"], own[-1]["bias"]), values, own, self.activation)


class Recorded:
    """What layers answered, and what went into each."""

    def __init__(self, outputs: Tensor, values: list[Tensor], own: list[Any], activation: str) -> None:
        self.outputs, self.values, self.own, self.activation = outputs, values, own, activation

    @torch.no_grad()
    def backward(self, by_outputs: Tensor) -> None:
        """Write the gradients of a loss by the parameters, from that by the outputs ``[N, outputs]``: they are not
        added to what was there."""
        gradient, backward = by_outputs, BACKWARD[self.activation]
        for layer in range(len(self.own) - 1, -1, -1):
            weight, bias = self.own[layer]["weight"], self.own[layer]["bias"]
            torch.mm(gradient.t(), self.values[layer], out=weight.grad)
            torch.sum(gradient, 0, out=bias.grad)
            if layer:
                gradient = backward(torch.mm(gradient, weight), self.values[layer])
