"""Adam around PyTorch's own fused kernel, without ``torch.optim.Optimizer``.

That class imports PyTorch's compiler when it is built, which takes as long as importing PyTorch, and looks its
parameters over at every step, which on small networks takes as long as the step. The arithmetic is PyTorch's kernel, so
the numbers are those of ``torch.optim.Adam(fused=True)``, bit for bit.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) for parameters that all have a gradient at every step.

    ``lr`` may be set between steps."""

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps = lr, betas, eps
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        device = self.parameters[0].device if self.parameters else None
        self.count = torch.zeros(len(self.parameters), device=device)
        self.steps = list(self.count.unbind())  # one addition counts them all

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, max_grad_norm: float | None = None) -> Tensor | None:
        """Move each parameter by its gradient. One that has none, because the loss does not reach it, stays.

        With ``max_grad_norm`` the gradient of all parameters together is first scaled down to that norm where it is
        longer (Pascanu et al. 2013, algorithm 1); returns the norm that it had, 0-dimensional, in float32 or finer."""
        gradients = [gradient for p in self.parameters if (gradient := p.grad) is not None]
        lists = [self.parameters, self.means, self.squares, self.steps]
        if len(gradients) == len(self.parameters):
            self.count += 1
        else:
            having = [i for i, parameter in enumerate(self.parameters) if parameter.grad is not None]
            lists = [[each[i] for i in having] for each in lists]
            torch._foreach_add_(lists[3], 1)
        if not gradients:
            return None
        norm = divisor = None
        if max_grad_norm is not None:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            norm = torch.linalg.vector_norm(flat, dtype=torch.promote_types(flat.dtype, torch.float32))
            divisor = (norm / max_grad_norm).clamp_min(1.0).float()
        torch._fused_adam_(
            lists[0], gradients, lists[1], lists[2], [], lists[3], lr=self.lr, beta1=self.betas[0],
            beta2=self.betas[1], weight_decay=0.0, eps=self.eps, amsgrad=False, maximize=False, grad_scale=divisor,
        )  # fmt: skip
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {"lr": self.lr, "means": self.means, "squares": self.squares, "steps": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.lr = float(state["lr"])
        self.count.copy_(state["steps"])
        for name in ("means", "squares"):
            for own, stored in zip(getattr(self, name), state[name], strict=True):
                own.copy_(stored)
