"""Observation statistics, inside the policy that is saved and exported."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class RunningNorm(nn.Module):
    """Maps ``[..., D]`` to zero mean and unit variance by running statistics, clipped to ``[-clip, clip]``.

    The statistics stand still until :meth:`absorb` is called: while a rollout is collected and learnt from they must
    not move, or the first probability ratio would not be 1. Batches are merged by Chan et al. (1979), in float64."""

    mean: Tensor
    var: Tensor
    count: Tensor
    scale: Tensor
    center: Tensor

    def __init__(self, features: int, clip: float = 10.0, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.clip = clip
        self.epsilon = epsilon
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("var", torch.ones(features, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("center", torch.zeros(features))

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        # Subtracted first: x * scale - mean * scale would lose what a small deviation has to tell beside a large mean.
        return ((x - self.center) * self.scale).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def absorb(self, x: Float[Tensor, "*batch features"], mask: Bool[Tensor, "*batch"] | None = None) -> None:
        """Merge the statistics of ``x`` ``[..., D]``, of the entries where ``mask`` ``[...]`` is True."""
        rows = x[mask] if mask is not None else x.reshape(-1, x.shape[-1])
        if len(rows) == 0:
            return
        rows = rows.double()
        mean, var, count = rows.mean(0), rows.var(0, unbiased=False), float(len(rows))
        total = self.count + count
        delta = mean - self.mean
        merged = self.var * self.count + var * count + delta.square() * self.count * count / total
        self.mean += delta * count / total
        self.var.copy_(merged / total)
        self.count.copy_(total)
        self.scale.copy_((self.var + self.epsilon).rsqrt())
        self.center.copy_(self.mean)
