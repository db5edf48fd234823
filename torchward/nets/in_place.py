"""Activations that overwrite what they are given, and their gradients, which can be told from their values alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_aten: Any = torch.ops.aten
FORWARD: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "elu": nn.functional.elu_,
}
BACKWARD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda g, y: _aten.threshold_backward.grad_input(g, y, 0.0, grad_input=g),
    "tanh": lambda g, y: _aten.tanh_backward.grad_input(g, y, grad_input=g),
    "elu": lambda g, y: _aten.elu_backward.grad_input(g, 1.0, 1.0, 1.0, True, y, grad_input=g),
}
"""The gradient before an activation, from that behind it, which it overwrites, and the activation's value."""
