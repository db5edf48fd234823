"""Layers differentiated by hand: what autograd says of them."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from torchward.nets.dense import Dense
from torchward.nets.flat import Flat


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("widths", [(4, 3), (4, 6, 3), (4, 6, 5, 1)])
def test_gradients_are_those_of_autograd(widths: tuple[int, ...], activation: str) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    own = [p for layer in layers for p in layer.parameters()]
    x, by_outputs = torch.randn(7, 4), torch.randn(7, widths[-1])
    latent = x
    for layer in layers[:-1]:
        latent = getattr(torch, activation)(layer(latent))
    outputs = layers[-1](latent)
    expected = torch.autograd.grad((outputs * by_outputs).sum(), own)
    Flat(own)
    dense = Dense(layers, activation)
    for _ in range(2):  # written, not added to what was there
        recorded = dense.record(x)
        torch.testing.assert_close(recorded.outputs, outputs)
        recorded.backward(by_outputs.clone())
        for parameter, gradient in zip(own, expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
    assert not recorded.outputs.requires_grad and Dense.serves(activation) and not Dense.serves("silu")
