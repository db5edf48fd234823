"""AdamW in groups, around PyTorch's own fused kernel: the Adam of :mod:`torchward.nets.adam` with decoupled decay."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Group:
    """Parameters that are moved alike."""

    parameters: tuple[Tensor, ...]
    weight_decay: float = 0.0
    """Share of each parameter that is taken away at a step, times the learning rate."""
    lr_scale: float = 1.0
    """Their learning rate over that of the optimiser."""


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    The numbers are those of ``torch.optim.AdamW(fused=True)``, bit for bit. ``lr`` may be set between steps. A
    parameter that has no gradient stays, and so does its decay."""

    def __init__(
        self, groups: Sequence[Group], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.groups = [group for group in groups if group.parameters]
        self.lr, self.betas, self.eps = lr, betas, eps
        self.means = [[torch.zeros_like(p) for p in group.parameters] for group in self.groups]
        self.squares = [[torch.zeros_like(p) for p in group.parameters] for group in self.groups]
        self.counts = [[torch.zeros((), device=p.device) for p in group.parameters] for group in self.groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self, max_grad_norm: float | None = None) -> Tensor:
        """Move each parameter by its gradient. With ``max_grad_norm`` the gradient of all together is first scaled down
        to that norm where it is longer. Returns the norm that it had, 0-dimensional, in float32 or finer."""
        gradients = [p.grad for group in self.groups for p in group.parameters if p.grad is not None]
        if not gradients:
            raise ValueError("expected a gradient to step by, got none: call backward() first")
        wide = reduce(torch.promote_types, {gradient.dtype for gradient in gradients}, torch.float32)
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2, wide)))
        divisor = None if max_grad_norm is None else (norm / max_grad_norm).clamp_min(1.0).float()
        for group, means, squares, counts in zip(self.groups, self.means, self.squares, self.counts, strict=True):
            having = [i for i, parameter in enumerate(group.parameters) if parameter.grad is not None]
            if not having:
                continue
            lists = [[each[i] for i in having] for each in (group.parameters, means, squares, counts)]
            gradients = [gradient for p in group.parameters if (gradient := p.grad) is not None]
            torch._foreach_add_(lists[3], 1)
            torch._fused_adamw_(
                lists[0], gradients, lists[1], lists[2], [], lists[3], lr=self.lr * group.lr_scale,
                beta1=self.betas[0], beta2=self.betas[1], weight_decay=group.weight_decay, eps=self.eps,
                amsgrad=False, maximize=False, grad_scale=divisor,
            )  # fmt: skip
        return norm

    def state_dict(self) -> dict[str, Any]:
        counts = [[float(count) for count in each] for each in self.counts]
        return {"lr": self.lr, "means": self.means, "squares": self.squares, "counts": counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.lr = float(state["lr"])
        for name in ("means", "squares"):
            for own, stored in zip(getattr(self, name), state[name], strict=True):
                for tensor, kept in zip(own, stored, strict=True):
                    tensor.copy_(kept)
        for own, counts in zip(self.counts, state["counts"], strict=True):
            for tensor, count in zip(own, counts, strict=True):
                tensor.fill_(count)


def decayed(parameters: Iterable[nn.Parameter], weight_decay: float, lr_scale: float = 1.0) -> list[Group]:
    """Two groups: matrices, which decay, and what is added or multiplied entry by entry, which does not."""
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    matrices = tuple(parameter for parameter in wanted if parameter.dim() > 1)
    others = tuple(parameter for parameter in wanted if parameter.dim() <= 1)
    return [Group(matrices, weight_decay, lr_scale), Group(others, 0.0, lr_scale)]
