"""Heads: from a latent vector to a distribution over actions, one class for each kind of action space.

A head is four pure functions around one linear layer: parameters of the distribution from the latent, an action from
parameters and noise (without noise, the mode), a log-probability, an entropy. An action mask sets the logits of what
it forbids so low that their probability is exactly 0 in float32, with no gradient and no share in the entropy.
"""

import math
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from torchward.nets import spaces
from torchward.nets.mlp import orthogonal
from torchward.nets.spaces import Space, Tree

FORBIDDEN = -1e30  # its exponential is 0, and its product with a loss's weight is still finite: 0 times it is 0


class Head(Protocol):
    """What every head can do; ``params`` is whatever its ``forward`` gave."""

    def __call__(self, latent: Tensor, mask: Tree | None) -> Tree: ...
    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree: ...
    def sample(self, params: Tree, noise: Tree | None) -> Tree: ...
    def log_prob(self, params: Tree, action: Tree) -> Tensor: ...
    def entropy(self, params: Tree) -> Tensor: ...


def gumbel(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard Gumbel noise: the argmax of logits plus it is a sample (Gumbel 1954; Maddison et al. 2014)."""
    exponential = torch.empty(shape, device=generator.device).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(torch.float32).tiny).log()


def affine(module: nn.Module, latent: Tensor, name: str = "linear") -> Tensor:
    """``module.<name>(latent)`` in float32, without the cost of a module's call, which is that of the product."""
    own: Any = module._modules[name]._parameters  # type: ignore[union-attr]
    return nn.functional.linear(latent, own["weight"], own["bias"]).float()


class Categorical(nn.Module):
    """One choice among ``n``: actions ``[...]`` of int64. The mask is ``[..., n]``."""

    def __init__(self, features: int, n: int) -> None:
        super().__init__()
        self.n = n
        self.linear = orthogonal(nn.Linear(features, n), 0.01)

    def forward(self, latent: Tensor, mask: Tree | None) -> Tensor:
        logits = affine(self, latent)
        if mask is not None:
            assert isinstance(mask, Tensor)
            logits = logits.masked_fill(mask == 0, FORBIDDEN)
        return logits.log_softmax(-1)

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tensor:
        return gumbel((*batch, self.n), generator)

    def sample(self, params: Tensor, noise: Tensor | None) -> Tensor:
        return (params if noise is None else params + noise).argmax(-1)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        return params.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, params: Tensor) -> Tensor:
        return -(params.exp() * params).sum(-1)


class MultiCategorical(nn.Module):
    """Independent choices among ``nvec[i]``: actions ``[..., k]`` of int64. The mask is ``[..., sum(nvec)]``."""

    def __init__(self, features: int, nvec: tuple[int, ...]) -> None:
        super().__init__()
        self.nvec = list(nvec)
        self.linear = orthogonal(nn.Linear(features, sum(nvec)), 0.01)

    def forward(self, latent: Tensor, mask: Tree | None) -> Tensor:
        logits = affine(self, latent)
        if mask is not None:
            assert isinstance(mask, Tensor)
            logits = logits.masked_fill(mask == 0, FORBIDDEN)
        return torch.cat([part.log_softmax(-1) for part in logits.split(self.nvec, -1)], -1)

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tensor:
        return gumbel((*batch, sum(self.nvec)), generator)

    def sample(self, params: Tensor, noise: Tensor | None) -> Tensor:
        scores = params if noise is None else params + noise
        return torch.stack([part.argmax(-1) for part in scores.split(self.nvec, -1)], -1)

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        starts = torch.tensor([sum(self.nvec[:i]) for i in range(len(self.nvec))], device=action.device)
        return params.gather(-1, action + starts).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        return -(params.exp() * params).sum(-1)


class Bernoulli(nn.Module):
    """``n`` independent bits: actions ``[..., n]`` of int64. Where the mask ``[..., n]`` is 0, a bit stays 0."""

    def __init__(self, features: int, n: int) -> None:
        super().__init__()
        self.n = n
        self.linear = orthogonal(nn.Linear(features, n), 0.01)

    def forward(self, latent: Tensor, mask: Tree | None) -> Tensor:
        logits = affine(self, latent)
        if mask is not None:
            assert isinstance(mask, Tensor)
            logits = logits.masked_fill(mask == 0, FORBIDDEN)
        return logits

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tensor:
        """Logistic noise: a logit plus it is positive with the logit's probability."""
        shape = (*batch, self.n)
        return gumbel(shape, generator) - gumbel(shape, generator)

    def sample(self, params: Tensor, noise: Tensor | None) -> Tensor:
        return ((params if noise is None else params + noise) > 0).long()

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        return -nn.functional.binary_cross_entropy_with_logits(params, action.float(), reduction="none").sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        p = params.sigmoid()
        return nn.functional.binary_cross_entropy_with_logits(params, p, reduction="none").sum(-1)


class DiagonalGaussian(nn.Module):
    """Independent normals with a learnt standard deviation that does not depend on the state: actions ``[..., *shape]``
    in units in which a bounded space is ``[-1, 1]``."""

    def __init__(self, features: int, shape: tuple[int, ...], log_std_init: float) -> None:
        super().__init__()
        self.shape = shape
        self.size = math.prod(shape)
        self.linear = orthogonal(nn.Linear(features, self.size), 0.01)
        self.log_std = nn.Parameter(torch.full((self.size,), log_std_init))

    def forward(self, latent: Tensor, mask: Tree | None) -> tuple[Tensor, Tensor]:
        if mask is not None:
            raise spaces.SpaceError("an action mask needs discrete actions; a Box has nothing to forbid")
        mean = affine(self, latent)
        return mean, self.log_std.float().expand_as(mean)

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tensor:
        return torch.randn((*batch, self.size), generator=generator, device=generator.device)

    def sample(self, params: tuple[Tensor, Tensor], noise: Tensor | None) -> Tensor:
        mean, log_std = params
        action = mean if noise is None else torch.addcmul(mean, log_std.exp(), noise)
        return action.reshape(*mean.shape[:-1], *self.shape)

    def log_prob(self, params: tuple[Tensor, Tensor], action: Tensor) -> Tensor:
        mean, log_std = params
        z = (action.reshape(mean.shape) - mean) * (-log_std).exp()
        return -(0.5 * z.square() + log_std).sum(-1) - 0.5 * math.log(2.0 * math.pi) * self.size

    def entropy(self, params: tuple[Tensor, Tensor]) -> Tensor:
        return params[1].sum(-1) + 0.5 * math.log(2.0 * math.pi * math.e) * self.size


class Composite(nn.Module):
    """Heads of a Dict or Tuple space side by side: log-probabilities and entropies add up. A mask, where there is one,
    is a dictionary with the masks of some of the parts (for a Tuple, by position: ``"0"``, ``"1"``, ...)."""

    def __init__(self, features: int, space: spaces.Dict | spaces.Tuple, log_std_init: float) -> None:
        super().__init__()
        self.is_dict = isinstance(space, spaces.Dict)
        named = space.spaces if isinstance(space, spaces.Dict) else {str(i): s for i, s in enumerate(space.spaces)}
        self.names = list(named)
        self.heads: Any = nn.ModuleList([head(features, inner, log_std_init) for inner in named.values()])

    def _pack(self, parts: list[Tree]) -> Tree:
        return dict(zip(self.names, parts, strict=True)) if self.is_dict else tuple(parts)

    def _unpack(self, tree: Tree | None) -> list[Tree | None]:
        if tree is None:
            return [None] * len(self.names)
        return [tree.get(name) if isinstance(tree, dict) else tree[i] for i, name in enumerate(self.names)]

    def forward(self, latent: Tensor, mask: Tree | None) -> Tree:
        if mask is not None and not isinstance(mask, dict):
            raise spaces.SpaceError("expected the action mask of a Dict or Tuple action space to be a Dict of masks")
        return self._pack([h(latent, part) for h, part in zip(self.heads, self._unpack(mask), strict=True)])

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        return self._pack([h.noise(batch, generator) for h in self.heads])

    def sample(self, params: Tree, noise: Tree | None) -> Tree:
        parts = zip(self.heads, self._unpack(params), self._unpack(noise), strict=True)
        return self._pack([h.sample(p, n) for h, p, n in parts])

    def log_prob(self, params: Tree, action: Tree) -> Tensor:
        parts = zip(self.heads, self._unpack(params), self._unpack(action), strict=True)
        return torch.stack([h.log_prob(p, a) for h, p, a in parts]).sum(0)

    def entropy(self, params: Tree) -> Tensor:
        parts = zip(self.heads, self._unpack(params), strict=True)
        return torch.stack([h.entropy(p) for h, p in parts]).sum(0)


def require_mask(action: Space, mask: Space) -> None:
    """Raise :class:`SpaceError` unless ``mask`` has one entry for each choice of ``action``."""
    if isinstance(action, spaces.Dict | spaces.Tuple):
        parts = action.spaces if isinstance(action, spaces.Dict) else {str(i): s for i, s in enumerate(action.spaces)}
        if not isinstance(mask, spaces.Dict) or not set(mask.spaces) <= set(parts):
            raise spaces.SpaceError(
                f"expected an action_mask that is a Dict with some of the entries {', '.join(parts)}, as the actions "
                f"are {spaces.describe(action)}; got {spaces.describe(mask)}"
            )
        for name, inner in mask.spaces.items():
            require_mask(parts[name], inner)
        return
    if isinstance(action, spaces.Box):
        raise spaces.SpaceError(f"expected discrete actions beside an action_mask, got {spaces.describe(action)}")
    choices = sum(action.nvec) if isinstance(action, spaces.MultiDiscrete) else action.n
    if isinstance(mask, spaces.Dict | spaces.Tuple) or spaces.event_shape(mask) != (choices,):
        raise spaces.SpaceError(
            f"expected an action_mask of {choices} entries for {spaces.describe(action)}, got {spaces.describe(mask)}"
        )


def head(features: int, space: Space, log_std_init: float = 0.0) -> nn.Module:
    """The head for an action space: a :class:`Head` that is also a module."""
    match space:
        case spaces.Discrete():
            return Categorical(features, space.n)
        case spaces.MultiDiscrete():
            return MultiCategorical(features, space.nvec)
        case spaces.MultiBinary():
            return Bernoulli(features, space.n)
        case spaces.Box():
            return DiagonalGaussian(features, space.shape, log_std_init)
        case spaces.Dict() | spaces.Tuple():
            return Composite(features, space, log_std_init)
