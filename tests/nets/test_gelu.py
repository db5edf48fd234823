"""GELU's tanh form by a sigmoid, beside PyTorch's own."""

import torch
from torch.nn import functional as F

from torchward.nets.gelu import gelu_tanh


def test_it_is_pytorchs() -> None:
    x = torch.cat([torch.linspace(-12.0, 12.0, 2001), torch.tensor([-1e30, 1e30, 0.0])])
    assert torch.allclose(gelu_tanh(x), F.gelu(x, approximate="tanh"), atol=2e-6, rtol=1e-6)
    assert torch.equal(gelu_tanh(x.double()), F.gelu(x.double(), approximate="tanh"))


def test_so_is_its_gradient() -> None:
    x = torch.linspace(-12.0, 12.0, 2001)
    upstream = torch.randn(2001, generator=torch.Generator().manual_seed(0))
    gradients = []
    for function in (gelu_tanh, lambda x: F.gelu(x, approximate="tanh")):
        leaf = x.clone().requires_grad_()
        function(leaf).backward(upstream)
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert torch.allclose(gradients[0], gradients[1], atol=2e-6, rtol=1e-5)


def test_what_goes_in_is_left_alone() -> None:
    x = torch.linspace(-1.0, 1.0, 11)
    before = x.clone()
    with torch.no_grad():
        gelu_tanh(x)
    gelu_tanh(x.requires_grad_()).sum().backward()
    assert torch.equal(x, before)
