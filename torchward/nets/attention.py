"""Attention: multi-head or grouped-query; causal, bidirectional or cross; with or without a cache."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchward.nets.kv_cache import Pair, write
from torchward.nets.positions import rotate
from torchward.nets.product_attention import attend_by_products, is_quicker
from torchward.nets.transformer_config import TransformerConfig

FEW = 64
"""So many tokens are few, where they are read into a new cache."""
HAS_BAGS = "fbgemm" in torch.backends.quantized.supported_engines
"""Whether PyTorch was built with the kernel that sums bags."""


class Linear(nn.Linear):
    """A product and its bias.

    Here, and wherever else a decoding step comes by in every layer, parameters and modules are taken from the
    dictionaries of their module, and ``forward`` is called directly: an attribute of a module takes as long to look up
    as a small operation, and a step is made of those. What reads many tokens at once is written as everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        own: Any = self._parameters
        return F.linear(x, own["weight"], own["bias"])


class Bags(NamedTuple):
    """Where the values lie that each query of a decoding step mixes: all of them as one table of rows ``[size]``."""

    rows: Tensor
    """``[B groups span]`` int32, those of the first query, then those of the second, and so on."""
    offset: Tensor
    """``[B groups]`` int32: where in ``rows`` each query's begin."""


class Scope(NamedTuple):
    """Where tokens stand and what they may attend to: the same for all layers of a stack."""

    bias: Tensor | None = None
    """Added to the scores, broadcasts with ``[B, heads, T, S]``: the lowest number where it is forbidden to look."""
    causal: bool = False
    """Nobody looks ahead: if there is a bias, it forbids that, too."""
    turn: Tensor | None = None
    """What queries and keys are turned by, out of :func:`torchward.nets.positions.rotary_table`:
    ``[T, 1, 2 head_size]`` or ``[B, T, 1, 2 head_size]``."""
    into: tuple[Tensor, Tensor] | None = None
    """With a cache: the row and the slot of each token that is written there; None: it is a new one, without padding,
    and tokens are written from its first slot on."""
    real: Tensor | None = None
    """With a cache: which of the ``B T`` tokens these are; None: all."""
    span: int = 0
    """With a cache: how many slots are looked at."""
    bags: Bags | None = None
    """In a decoding step: where values lie, if they are to be mixed so (see :func:`bags`)."""


def attend(
    query: Float[Tensor, "batch heads time size"],
    key: Float[Tensor, "batch groups source size"],
    value: Float[Tensor, "batch groups source size"],
    bias: Tensor | None,
    causal: bool,
    scale: float,
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads time size"]:
    """``softmax(scale query key^T + bias) value`` for each head (Vaswani et al. 2017, equation 1); with ``causal``
    nobody looks ahead, which a bias has to forbid, too. ``heads / groups`` neighbouring heads share their keys and
    values (Ainslie et al. 2023)."""
    if dropout == 0.0 and is_quicker(query, key, bias, causal):
        return attend_by_products(query, key, value, bias, causal, scale)
    shared = query.shape[1] != key.shape[1]
    if shared and query.is_cuda and (bias is not None or query.dtype == torch.float32):
        # Of PyTorch's kernels for a GPU only one shares keys, in half precision and without a mask.
        key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], 1) for each in (key, value))
        shared = False
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, dropout_p=dropout, is_causal=causal and bias is None, scale=scale,
        enable_gqa=shared,
    )  # fmt: skip


def attend_to_few(
    query: Float[Tensor, "batch heads time size"],
    key: Float[Tensor, "batch heads time size"],
    value: Float[Tensor, "batch heads time size"],
    scale: float,
) -> Float[Tensor, "batch heads time size"]:
    """What :func:`attend` gives for tokens that do not look ahead, on a CPU: of few, two products take a fraction of
    the time of PyTorch's one operation."""
    batch, _, time, _ = query.shape
    query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    bias = torch.full((time, time), torch.finfo(query.dtype).min, dtype=query.dtype).triu(1)
    scores = torch.baddbmm(bias, query, key.mT, alpha=scale).softmax(-1)
    return torch.bmm(scores, value).view(batch, -1, time, value.shape[2])


def attend_once(
    query: Float[Tensor, "batch heads size"],
    key: Float[Tensor, "batch groups source size"],
    value: Float[Tensor, "batch groups source size"],
    bias: Float[Tensor, "batch_groups rest span"],
    scale: float,
    bags: Bags | None = None,
) -> Float[Tensor, "batch heads_size"]:
    """What :func:`attend` gives for one query of each head and the first ``span`` keys and values, on a CPU: there two
    products take less time than PyTorch's one operation, and sums of bags (:func:`bags`) less than the second one.
    ``bias`` is ``[B groups, 1 or heads / groups, span]``."""
    span = bias.shape[2]
    key = key.flatten(0, 1).narrow(1, 0, span)
    scores = torch.baddbmm(bias, query.reshape(key.shape[0], -1, key.shape[2]), key.mT, alpha=scale).softmax(-1)
    if bags is None or scores.dtype != value.dtype:  # autocast rounds products alone
        return torch.bmm(scores, value.flatten(0, 1).narrow(1, 0, span)).view(query.shape[0], -1)
    # A bag's sum of weighted rows is what a table of embeddings is asked for; its kernel fetches rows ahead.
    mixture = torch.embedding_bag(
        value.flatten(0, 2), bags.rows, bags.offset, False, 0, False, scores.flatten(), False
    )[0]  # fmt: skip
    return mixture.view(query.shape[0], -1)


def bags(values: Float[Tensor, "batch groups source size"], heads: int, span: int) -> Bags | None:
    """Where the first ``span`` values of each query lie, where sums of bags are the quicker way: of float32, by a CPU's
    kernel for it, and with values that no queries share. None elsewhere."""
    batch, groups, source, _ = values.shape
    if not HAS_BAGS or groups != heads or values.dtype != torch.float32 or values.device.type != "cpu":
        return None
    first = torch.arange(0, batch * groups * source, source, dtype=torch.int32)
    rows = first[:, None] + torch.arange(span, dtype=torch.int32)
    return Bags(rows.flatten(), torch.arange(0, batch * groups * span, span, dtype=torch.int32))


class Attention(nn.Module):
    """Attention of tokens to each other. Queries, keys and values are one product."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.groups, self.size = config.num_attention_heads, config.key_value_heads, config.head_size
        self.scale = self.size**-0.5 if config.attention_scale is None else config.attention_scale
        self.dropout = config.dropout
        outputs = (self.heads + 2 * self.groups) * self.size
        self.query_key_value = Linear(config.hidden_size, outputs, bias=config.attention_bias != "none")
        self.out = Linear(self.heads * self.size, config.hidden_size, bias=config.attention_bias == "all")

    def forward(
        self, x: Float[Tensor, "batch time width"], scope: Scope, slots: Pair | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Tokens ``[B, T, width]`` among themselves; with ``slots``, one layer's keys and values of a cache, they are
        written there and attend to what stands there."""
        batch, time, _ = x.shape
        heads, groups, size = self.heads, self.groups, self.size
        mixed = self.query_key_value(x).view(batch, time, heads + 2 * groups, size)
        query, key, value = mixed.split((heads, groups, groups), 2)
        if scope.turn is not None:
            query, key = rotate(mixed[:, :, : heads + groups], scope.turn).split((heads, groups), 2)
        if slots is not None and scope.into is not None:
            for leaf, new in zip(slots, (key, value), strict=True):
                tokens = new.flatten(0, 1)
                write(leaf, scope.into, tokens if scope.real is None else tokens.index_select(0, scope.real))
            key, value = (leaf[:, :, : scope.span] for leaf in slots)
        else:
            key, value = key.transpose(1, 2), value.transpose(1, 2)
            for leaf, new in zip(slots or (), (key, value), strict=False):
                leaf[:, :, :time] = new
        query = query.transpose(1, 2)
        if slots is not None and time <= FEW and heads == groups and x.device.type == "cpu" and scope.into is None:
            mixture = attend_to_few(query, key, value, self.scale)
        else:
            dropout = self.dropout if self.training else 0.0
            mixture = attend(query, key, value, scope.bias, scope.causal, self.scale, dropout)
        merged: Tensor = self.out(mixture.transpose(1, 2).reshape(batch, time, heads * size))
        return merged

    def step(self, x: Float[Tensor, "batch width"], scope: Scope, slots: Pair) -> Float[Tensor, "batch width"]:
        """:meth:`forward` of one token for each row, ``[B, width]``, with as few operations as will do."""
        parts: Any = self._modules
        heads, groups = self.heads, self.groups
        mixed = parts["query_key_value"].forward(x).view(-1, heads + 2 * groups, self.size)
        query, key, value = mixed.split_with_sizes((heads, groups, groups), 1)
        if scope.turn is not None:
            query, key = rotate(mixed.narrow(1, 0, heads + groups), scope.turn).split_with_sizes((heads, groups), 1)
        assert scope.into is not None and scope.bias is not None
        keys, values = slots
        write(keys, scope.into, key)
        write(values, scope.into, value)
        merged: Tensor = parts["out"].forward(attend_once(query, keys, values, scope.bias, self.scale, scope.bags))
        return merged


class CrossAttention(nn.Module):
    """Attention of a decoder's tokens to what an encoder read. It knows no positions."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.groups, self.size = config.num_attention_heads, config.key_value_heads, config.head_size
        self.scale = self.size**-0.5 if config.attention_scale is None else config.attention_scale
        self.dropout = config.dropout
        has_bias = config.attention_bias != "none"
        self.query = Linear(config.hidden_size, self.heads * self.size, bias=has_bias)
        self.key_value = Linear(config.hidden_size, 2 * self.groups * self.size, bias=has_bias)
        self.out = Linear(self.heads * self.size, config.hidden_size, bias=config.attention_bias == "all")

    def keys_values(self, memory: Float[Tensor, "batch source width"]) -> Pair:
        """What :meth:`forward` attends to, computed once for all tokens of the decoder: keys and values
        ``[B, groups, S, size]``."""
        mixed: Tensor = self.key_value(memory)
        key, value = mixed.view(*memory.shape[:2], 2, self.groups, self.size).permute(2, 0, 3, 1, 4).unbind()
        return key, value

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        keys_values: Pair,
        bias: Tensor | None,
    ) -> Float[Tensor, "batch time width"]:
        """``[B, T, width]``; ``bias`` ``[B, 1, 1, S]`` is the lowest number at padding."""
        batch, time, _ = x.shape
        query = self.query(x).view(batch, time, self.heads, self.size).transpose(1, 2)
        key, value = keys_values
        dropout = self.dropout if self.training else 0.0
        mixture = attend(query, key, value, bias, False, self.scale, dropout)
        merged: Tensor = self.out(mixture.transpose(1, 2).reshape(batch, time, -1))
        return merged

    def step(self, x: Float[Tensor, "batch width"], keys_values: Pair, bias: Tensor) -> Float[Tensor, "batch width"]:
        """:meth:`forward` of one token for each row; ``bias`` is ``[B groups, 1, S]``."""
        parts: Any = self._modules
        query = parts["query"].forward(x).view(-1, self.heads, self.size)
        mixture = attend_once(query, *keys_values, bias, self.scale)
        merged: Tensor = parts["out"].forward(mixture)
        return merged
