"""One layer of a transformer: attention, perhaps cross-attention, and feed-forward, each added to the stream."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchward.nets.attention import Attention, CrossAttention, Linear, Scope
from torchward.nets.gelu import gelu_tanh
from torchward.nets.kv_cache import Pair
from torchward.nets.transformer_config import TransformerConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
}
"""What each name of an activation stands for."""


class Norm(nn.Module):
    """LayerNorm, or RMSNorm, over the last axis."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.shape, self.eps, self.is_layer = (config.hidden_size,), config.norm_eps, config.norm == "layer"
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.register_parameter("bias", nn.Parameter(torch.zeros(config.hidden_size)) if self.is_layer else None)

    def forward(self, x: Tensor) -> Tensor:
        own: Any = self._parameters
        if self.is_layer:
            return torch.layer_norm(x, self.shape, own["weight"], own["bias"], self.eps)
        return F.rms_norm(x, self.shape, own["weight"], self.eps)


class FeedForward(nn.Module):
    """``down(activation(up(x)))``; gated, ``down(activation(gate(x)) * up(x))`` with gate and up as one product
    (Shazeer 2020, equation 6)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation, self.gated = ACTIVATIONS[config.activation], config.gated
        width, inner = config.hidden_size, config.feed_forward_size
        self.up = Linear(width, 2 * inner if config.gated else inner, bias=config.mlp_bias)
        self.down = Linear(inner, width, bias=config.mlp_bias)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        parts: Any = self._modules
        inner = parts["up"].forward(x)
        if self.gated:
            gate, inner = inner.chunk(2, -1)
            inner = self.activation(gate) * inner
        else:
            inner = self.activation(inner)
        output: Tensor = parts["down"].forward(inner)
        return output


class Block(nn.Module):
    """One layer. Each sublayer is added to the stream: ``x + f(norm(x))``, or with post-norm ``norm(x + f(x))``."""

    def __init__(self, config: TransformerConfig, has_cross: bool) -> None:
        super().__init__()
        self.pre, self.dropout = config.norm_place == "pre", config.dropout
        self.attention_norm, self.attention = Norm(config), Attention(config)
        self.cross_norm = Norm(config) if has_cross else None
        self.cross = CrossAttention(config) if has_cross else None
        self.feed_forward_norm, self.feed_forward = Norm(config), FeedForward(config)

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        scope: Scope,
        slots: Pair | None = None,
        memory: Pair | None = None,
        memory_bias: Tensor | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """``[B, T, width]``; ``slots`` is this layer's part of a cache, ``memory`` its keys and values of what the
        encoder read, and ``memory_bias`` forbids the padding there."""
        x = self._added(x, self.attention_norm, lambda y: self.attention(y, scope, slots))
        if self.cross is not None and self.cross_norm is not None:
            cross = self.cross
            x = self._added(x, self.cross_norm, lambda y: cross(y, memory, memory_bias))
        return self._added(x, self.feed_forward_norm, self.feed_forward)

    def step(
        self,
        x: Float[Tensor, "batch width"],
        scope: Scope,
        slots: Pair,
        memory: Pair | None = None,
        memory_bias: Tensor | None = None,
    ) -> Float[Tensor, "batch width"]:
        """:meth:`forward` of one token for each row, without gradient or dropout; ``x`` is overwritten."""
        parts: Any = self._modules
        pre = self.pre
        norm = parts["attention_norm"].forward
        x = x.add_(parts["attention"].step(norm(x) if pre else x, scope, slots))
        x = x if pre else norm(x)
        if memory is not None:
            norm = parts["cross_norm"].forward
            x = x.add_(parts["cross"].step(norm(x) if pre else x, memory, memory_bias))
            x = x if pre else norm(x)
        norm = parts["feed_forward_norm"].forward
        x = x.add_(parts["feed_forward"].forward(norm(x) if pre else x))
        return x if pre else norm(x)

    def _added(self, x: Tensor, norm: Norm, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        change = F.dropout(sublayer(norm(x) if self.pre else x), self.dropout, self.training)
        added: Tensor = x + change if self.pre else norm(x + change)
        return added
