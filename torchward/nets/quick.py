"""A small network in NumPy, for acting in a few worlds on a CPU.

There an operation on tensors costs what it takes to call it, several times as much as one on arrays, and what it
leaves in the caches makes the environment's own step twice as slow (docs/log.md).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MOST = 1 << 17
"""Multiplications in a layer from which on tensors are as fast."""
ACTIVATIONS: dict[str, Callable[..., Any]] = {"relu": lambda x: np.maximum(x, 0.0, out=x), "tanh": np.tanh}


class Quick:
    """Linear layers with an activation between them, as ``layers`` compute it, without gradient.

    The parameters are looked at where they lie, so that what is learnt in place is seen; where they have moved, they
    are looked up again."""

    def __init__(self, layers: Sequence[nn.Module], activation: str) -> None:
        self.layers, self.activation = list(layers), ACTIVATIONS[activation]
        self.places: list[int] = []
        self.arrays: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self.most = 0

    def serves(self, x: Tensor) -> bool:
        """Whether this is the faster way for ``x`` ``[N, inputs]``, and nothing can be learnt from it."""
        if not torch.is_inference_mode_enabled() or x.device.type != "cpu":
            return False
        own: list[Any] = [layer._parameters for layer in self.layers]
        places = [each["weight"].data_ptr() for each in own]
        if places != self.places:
            pairs = [(each["weight"].detach().numpy(), each["bias"].detach().numpy()) for each in own]
            self.arrays = [(weight.T, bias) for weight, bias in pairs]
            self.most = MOST // max(weight.size for weight, _ in pairs)
            self.places = places
        return x.shape[0] <= self.most

    def __call__(self, x: Tensor) -> NDArray[np.float32]:
        """``[N, inputs] -> [N, outputs]``, where :meth:`serves` has said yes."""
        latent: NDArray[Any] = x.numpy()
        *hidden, (weight, bias) = self.arrays
        for each, shift in hidden:
            latent = latent @ each
            latent += shift
            latent = self.activation(latent)
        latent = latent @ weight
        latent += bias
        return latent
