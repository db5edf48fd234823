"""The norm of a gradient, held within a bound."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients together to a norm of at most ``max_norm``, and return the norm that they had, which is not
    read. As ``torch.nn.utils.clip_grad_norm_``, which on small networks takes as long as a layer's backward pass."""
    gradients = [gradient for parameter in parameters if (gradient := parameter.grad) is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
