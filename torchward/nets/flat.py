"""The parameters of a network as one vector: what is done to all of them is then one operation.

On small networks the number of operations is what an optimiser's step, a bound on the gradient and a target network
cost.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


class Flat:
    """``value`` ``[P]``, of which the parameters become views; and ``value.grad``, in which their gradients are added
    up, if they have gradients. Build it when they lie on their device, as moving them there would part them from it.

    Raises ValueError for parameters of several types or devices."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        own = list(parameters)
        if len({(p.dtype, p.device, p.requires_grad) for p in own}) != 1:
            kinds = sorted({f"{p.dtype} on {p.device}{'' if p.requires_grad else ', frozen'}" for p in own})
            raise ValueError(f"expected parameters of one kind to put into a vector, got {'; '.join(kinds) or 'none'}")
        self.value = torch.cat([p.detach().flatten() for p in own])
        learnt = own[0].requires_grad
        self.value.grad = torch.zeros_like(self.value) if learnt else None
        start = 0
        for p in own:
            end = start + p.numel()
            p.data = self.value[start:end].view(p.shape)
            if self.value.grad is not None:
                p.grad = self.value.grad[start:end].view(p.shape)  # the backward pass adds to what is there
            start = end

    def zero_grad(self) -> None:
        """Forget the gradients."""
        assert self.value.grad is not None
        self.value.grad.zero_()

    def clip(self, max_norm: float) -> None:
        """Scale the gradients together to a norm of at most ``max_norm`` (Pascanu et al. 2013, algorithm 1)."""
        assert self.value.grad is not None
        self.value.grad.unsqueeze(0).renorm_(2.0, 0, max_norm)
