"""Perceptrons side by side, with a gradient written by hand: the actor of SAC and TD3, and their twin critics.

What autograd would do of itself takes a sixth longer on a CPU (docs/log.md). Written by hand, activations and their
gradients stay in the memory that they are in, matrices of one column are multiplied the fast way round, each critic's
output layer included, and no gradient is computed that nobody asked for: not that of a critic's weights in an actor's
step, nor that of what was observed.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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

    def forward(
        self, *inputs: Float[Tensor, "batch _"], frozen: bool = False, learnt: int | None = None
    ) -> Float[Tensor, "{self.count} batch {self.outputs}"]:
        """``inputs`` ``[N, ...]``, side by side, to ``[count, N, outputs]``. ``frozen``: the weights are constants.
        ``learnt``: only the first so many rows are learnt from, as if what comes of the others were constant; no
        gradient flows into the inputs then."""
        return self._apply_layers(inputs, learnt, self._weights(frozen))

    def first(self, *inputs: Float[Tensor, "batch _"]) -> Float[Tensor, "batch {self.outputs}"]:
        """The first of them alone, with constant weights: ``[N, outputs]``."""
        return self._apply_layers(inputs, None, [weight[:1] for weight in self._weights(True)])[0]

    def _weights(self, frozen: bool) -> list[Tensor]:
        own: Any = self._parameters  # a module's attributes take longer to look up than a small operation
        weights = [own[name] for name in self.names]
        return [weight.detach() for weight in weights] if frozen else weights

    def _apply_layers(self, inputs: tuple[Tensor, ...], learnt: int | None, weights: list[Tensor]) -> Tensor:
        if not torch.is_grad_enabled():
            return _compute(self.activation, inputs, weights)[-1]
        outputs: Tensor = _Layers.apply(self.activation, learnt, len(inputs), *inputs, *weights)  # type: ignore[no-untyped-call]
        return outputs


def _compute(activation: str, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """What goes into each layer, and what comes out of the last; ``weights`` and biases take turns."""
    whole = inputs[0] if len(inputs) == 1 else torch.cat(list(inputs), -1)
    values = [whole.expand(len(weights[0]), *whole.shape)]
    for weight, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        values.append(_FORWARD[activation](torch.baddbmm(bias, values[-1], weight)))
    # Rows of weights times columns of values: so round, a few outputs take half the time that they take the other way.
    return [*values, torch.baddbmm(weights[-1], weights[-2], values[-1].transpose(1, 2)).transpose(1, 2)]


class _Layers(torch.autograd.Function):
    """All layers as one operation."""

    @staticmethod
    def forward(ctx: Any, activation: str, learnt: int | None, parts: int, *tensors: Tensor) -> Tensor:
        *values, outputs = _compute(activation, tensors[:parts], tensors[parts:])
        ctx.activation, ctx.learnt, ctx.widths = activation, learnt, [part.shape[-1] for part in tensors[:parts]]
        ctx.save_for_backward(*tensors[parts::2], *(values if learnt is None else [v[:, :learnt] for v in values]))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        depth, parts = len(ctx.saved_tensors) // 2, len(ctx.widths)
        weights, values = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        wanted = list(ctx.needs_input_grad[3:])
        if ctx.learnt is not None:
            gradient = gradient[:, : ctx.learnt]
            wanted[:parts] = [False] * parts
        found: list[Tensor | None] = [None] * len(wanted)
        for layer in reversed(range(depth)):
            last, place = layer == depth - 1, parts + 2 * layer
            if not last:
                _BACKWARD[ctx.activation](gradient, values[layer + 1])
            if wanted[place]:
                pair = (gradient, values[layer]) if last else (values[layer], gradient)
                found[place] = torch.bmm(pair[0].transpose(1, 2), pair[1])
                bias = gradient.sum(1, keepdim=True)
                found[place + 1] = bias.transpose(1, 2) if last else bias
            forth = weights[layer] if last else weights[layer].transpose(1, 2)
            if layer:
                if not any(wanted[:place]):
                    break
                # A matrix of one column times one of one row is an outer product: as such it takes a third of the time.
                gradient = gradient * forth if gradient.shape[-1] == 1 else torch.bmm(gradient, forth)
        start = 0
        for i, width in enumerate(ctx.widths):
            if wanted[i]:
                found[i] = torch.bmm(gradient, forth[..., start : start + width]).sum(0)
            start += width
        return None, None, None, *found
