"""Low-rank adapters (Hu et al. 2021): a model is tuned by small matrices beside its own, which stay as they are.

To each adapted product is added that of two matrices of rank ``r``. The second begins at zero, so at first the model is
its base; and whoever leaves the adapters out has the base again, without a copy of it.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchward.config import ConfigError
from torchward.nets.attention import Linear
from torchward.nets.hub_model import HubModel

Target: TypeAlias = Literal["query_key_value", "cross_query_key_value", "out", "up", "down"]
"""A product of each layer: into attention's queries, keys and values; into those of the attention of an
encoder-decoder's decoder to what was read; out of either; up and down in the feed-forward layers."""
CROSS = ("query", "key_value")
"""The products of ``cross_query_key_value``."""
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class NoLoRA:
    """No new adapters: the parameters of the model are tuned; of a model that came with adapters, these alone."""


@dataclass(frozen=True)
class LoRA:
    """New adapters are tuned, and nothing else. The names are PEFT's."""

    r: int = 8
    """Rank of what is added to a matrix."""
    lora_alpha: float = 16.0
    """What is added is multiplied by lora_alpha / r."""
    lora_dropout: float = 0.0
    """Share of an adapter's inputs that is dropped in training, where no log-probability is compared."""
    target_modules: tuple[Target, ...] = ("query_key_value", "cross_query_key_value", "out", "up", "down")
    """The products of each layer that get an adapter; a model without cross-attention has none into it."""

    def __post_init__(self) -> None:
        if self.r < 1 or not self.lora_alpha > 0.0 or not 0.0 <= self.lora_dropout < 1.0:
            raise ConfigError(
                f"expected r of at least 1, lora_alpha above 0 and lora_dropout within [0, 1), got {self.r}, "
                f"{self.lora_alpha} and {self.lora_dropout}"
            )
        if not self.target_modules:
            raise ConfigError("expected at least one of target_modules to adapt, got none")


Adaptation: TypeAlias = NoLoRA | LoRA


class AdaptedLinear(Linear):
    """``x W^T + b + (lora_alpha / r) dropout(x) A^T B^T`` (Hu et al. 2021, equation 3), of which A and B learn.

    They are float32 whatever W is, so that small steps of the optimiser are not rounded away."""

    def __init__(self, base: nn.Linear, lora: LoRA) -> None:
        """``base`` gives its parameters, which are shared. A is drawn on the CPU, as nn.Linear's weights are."""
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.lora, self.scale, self.is_on = lora, lora.lora_alpha / lora.r, True
        self.weight, self.bias = base.weight, base.bias
        a, device = torch.empty(lora.r, base.in_features), base.weight.device
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        self.lora_a = nn.Parameter(a.to(device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, lora.r, device=device))
        self.train(base.training)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        own: Any = self._parameters
        base = F.linear(x, own["weight"], own["bias"])
        if not self.is_on:
            return base
        if self.training:
            x = F.dropout(x, self.lora.lora_dropout)
        a, b = own["lora_a"], own["lora_b"]
        return torch.add(base, F.linear(F.linear(x.to(a.dtype), a), b).to(base.dtype), alpha=self.scale)

    @torch.no_grad()
    def merged(self) -> Linear:
        """The plain product that is equal to it, with a matrix of its own."""
        plain = Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        change = self.scale * self.lora_b @ self.lora_a
        plain.weight, plain.bias = nn.Parameter((self.weight + change).to(self.weight.dtype)), self.bias
        return plain.train(self.training)


def adapt(model: M, lora: LoRA) -> M:
    """Give the model's products new adapters and freeze all else but a value head, in place; return the model.

    A is drawn from torch's global generator. Those of a model that transformers computes are peft's. Raises ConfigError
    where the model has adapters, or none of the products: a network of another library's, whose products have other
    names; and ImportError in one sentence without peft, where that is needed."""
    if is_adapted(model):
        raise ConfigError("expected a model without adapters, got one that has some: merge them into it first")
    names = {*lora.target_modules, *(CROSS if "cross_query_key_value" in lora.target_modules else ())}
    found, theirs = _products(model, Linear, names), _theirs(model)
    if not found and not theirs:
        raise ConfigError(
            f"expected a transformer of torchward with products called {', '.join(lora.target_modules)} to adapt, got "
            f"none in {type(getattr(model, 'body', model)).__name__}"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("value_head" in name.split("."))
    for parent, name, product in found:
        setattr(parent, name, AdaptedLinear(product, lora))
    for body in theirs:
        body.adapt(lora)
    return model


def merged(model: M) -> M:
    """A plain model that is equal to it, in which all can learn; the model itself where it has no adapters."""
    if not is_adapted(model):
        return model
    plain = deepcopy(model)
    for parent, name, product in _products(plain, AdaptedLinear):
        assert isinstance(product, AdaptedLinear)
        setattr(parent, name, product.merged())
    for body in _theirs(plain):
        body.merge()
    return plain.requires_grad_(True)


@contextmanager
def without_adapters(model: M) -> Iterator[M]:
    """Within it the model is its base: the reference of what is tuned, without a copy. No gradient flows."""
    adapted = [module for module in model.modules() if isinstance(module, AdaptedLinear | HubModel)]
    were = [module.is_on for module in adapted]
    try:
        for module in adapted:
            module.is_on = False
        with torch.no_grad():
            yield model
    finally:
        for module, was in zip(adapted, were, strict=True):
            module.is_on = was


def adaptation(model: nn.Module) -> Adaptation:
    """What adapters the model has."""
    found = (module.lora for module in model.modules() if isinstance(module, AdaptedLinear | HubModel))
    return next((lora for lora in found if lora is not None), NoLoRA())


def is_adapted(model: nn.Module) -> bool:
    """Whether the model has adapters."""
    return isinstance(adaptation(model), LoRA)


def _theirs(model: nn.Module) -> list[HubModel]:
    """What transformers computes of a model."""
    return [module for module in model.modules() if isinstance(module, HubModel)]


def _products(
    model: nn.Module, kind: type[Linear], names: Collection[str] | None = None
) -> list[tuple[nn.Module, str, Linear]]:
    """The products of a kind, each with the module that it is in and its name there; None: whatever they are called."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, kind) and (names is None or name in names)
    ]
