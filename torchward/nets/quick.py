"""A small network in NumPy, for acting in a few worlds on a CPU.

There an operation on tensors costs what it takes to call it, several times as much as one on arrays, and what it
leaves in the caches makes the environment's own step twice as slow (docs/log.md).
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

Forward: TypeAlias = Callable[[NDArray[Any]], NDArray[np.float32]]
MOST = 1 << 17
"""Multiplications in a layer from which on tensors are as fast."""
ACTIVATIONS: dict[str, Callable[..., Any]] = {"relu": lambda x: np.maximum(x, 0.0, out=x), "tanh": np.tanh}


def in_numpy(layers: Sequence[nn.Module], activation: str, rows: int) -> Forward | None:
    """``[rows, inputs] -> [rows, outputs]`` through linear layers with an activation between them, without gradient;
    None where that is not the faster way. It looks at the parameters where they lie: what is learnt in place is seen,
    but not that they move to another place."""
    own: list[Any] = [layer._parameters for layer in layers]
    largest = max(each["weight"].numel() for each in own)
    if activation not in ACTIVATIONS or own[0]["weight"].device.type != "cpu" or rows * largest > MOST:
        return None
    function = ACTIVATIONS[activation]
    *hidden, last = [(each["weight"].detach().numpy().T, each["bias"].detach().numpy()) for each in own]

    def forward(x: NDArray[Any]) -> NDArray[np.float32]:
        for weight, bias in hidden:
            x = x @ weight
            x += bias
            x = function(x)
        x = x @ last[0]
        x += last[1]
        return x

    return forward
