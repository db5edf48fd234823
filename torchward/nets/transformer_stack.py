"""Layers one upon the other, and what they are told of positions, padding and each other's tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from torchward.nets.attention import Scope, bags
from torchward.nets.kv_cache import Cache, Pair
from torchward.nets.positions import Learned, Relative, Rotary, Sinusoidal, buckets, rotary_table, sinusoids
from torchward.nets.transformer_block import Block, Norm
from torchward.nets.transformer_config import TransformerConfig


class Stack(nn.Module):
    """From embeddings to hidden states, both ``[B, T, width]``: a decoder if ``causal``, else an encoder."""

    def __init__(self, config: TransformerConfig, layers: int, causal: bool, has_cross: bool) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.checkpointing = False
        positions, length = config.positions, config.max_position_embeddings
        self.place = nn.Embedding(length, config.hidden_size) if isinstance(positions, Learned) else None
        self.distance: nn.Embedding | None = None
        table = None
        if isinstance(positions, Sinusoidal):
            table = sinusoids(length, config.hidden_size)
        elif isinstance(positions, Rotary):
            table = rotary_table(length, config.head_size, positions.rope_theta)
        elif isinstance(positions, Relative):
            self.distance = nn.Embedding(positions.num_buckets, config.num_attention_heads)
        self.table: Tensor | None
        self.register_buffer("table", table, persistent=False)
        self.embedding_norm = Norm(config) if config.embedding_norm else None
        self.layers = nn.ModuleList([Block(config, has_cross) for _ in range(layers)])
        self.final_norm = Norm(config) if config.norm_place == "pre" else None

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        segments: Tensor | None,
        positions: Int64[Tensor, "batch time"] | None,
        cross: Sequence[Pair] = (),
        source: Bool[Tensor, "batch source"] | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """All tokens at once. Those with equal ``segments`` ``[B, T]`` attend to each other; ``cross`` and ``source``
        are what a decoder attends to of an encoder's: for each layer keys and values, and where no padding was."""
        time = x.shape[1]
        if positions is None and segments is not None:
            positions = places(segments)
        place = torch.arange(time, device=x.device) if positions is None else positions
        bias = self._distance_bias(place, place)
        if segments is not None:
            seen = segments[:, None, :, None] == segments[:, None, None, :]
            bias = forbid(seen.tril() if self.causal else seen, x, bias)
        elif self.causal and bias is not None:
            bias = forbid(torch.ones(time, time, dtype=torch.bool, device=x.device).tril(), x, bias)
        scope = Scope(bias, self.causal, self._turn(place))
        return self._run(x, place, scope, (), cross, source)

    def extend(
        self,
        x: Float[Tensor, "batch time width"],
        cache: Cache,
        place: Int64[Tensor, "batch time"],
        real: Int64[Tensor, " tokens"] | None,
        span: int,
    ) -> Float[Tensor, "batch time width"]:
        """Tokens that follow what ``cache`` holds, at the slots ``place``, which are their positions. Only the ``real``
        ones are written; ``span`` is how many slots are looked at."""
        source = cache.source[0] if cache.source else None
        if real is None and span == x.shape[1] and self.distance is None:  # in all slots there is what comes now
            return self._run(x, place, Scope(None, True, self._turn(place)), cache.slots, cache.cross, source)
        slot = torch.arange(span, device=x.device)
        bias = forbid(slot <= place[:, None, :, None], x, self._distance_bias(place, slot))
        row = torch.arange(len(place), device=x.device)[:, None].expand_as(place).flatten()
        into = row, place.flatten()
        if real is not None:
            into = row.index_select(0, real), place.flatten().index_select(0, real)
        scope = Scope(bias, False, self._turn(place), into, real, span)
        return self._run(x, place, scope, cache.slots, cache.cross, source)

    def step(self, x: Float[Tensor, "batch width"], cache: Cache, span: int) -> Float[Tensor, "batch width"]:
        """:meth:`extend` by one token for each row, ``[B, width]``, on a CPU."""
        place = cache.length
        groups, heads = self.config.key_value_heads, self.config.num_attention_heads
        slot = torch.arange(span, device=x.device)
        bias = forbid(slot <= place[:, None], x, None).repeat_interleave(groups, 0).unsqueeze(1)
        distance = self._distance_bias(place[:, None], slot)
        if distance is not None:
            bias = bias + distance.reshape(-1, heads // groups, span)
        memory_bias = None
        if cache.source:
            memory_bias = forbid(cache.source[0], x, None).repeat_interleave(groups, 0).unsqueeze(1)
        into = torch.arange(len(place)), place
        scope = Scope(bias, False, self._turn(place), into, None, span, bags(cache.values[0], heads, span))
        x = self._placed(x, place)
        blocks: Any = self.layers
        cross: Sequence[Pair | None] = cache.cross or [None] * len(blocks)
        for block, slots, memory in zip(blocks, cache.slots, cross, strict=True):
            x = block.step(x, scope, slots, memory, memory_bias)
        return x if self.final_norm is None else self.final_norm(x)

    def cross_keys_values(self, memory: Float[Tensor, "batch source width"]) -> tuple[Pair, ...]:
        """For each layer, the keys and values of what the encoder read."""
        blocks: Any = self.layers
        return tuple(block.cross.keys_values(memory) for block in blocks)

    def _run(
        self,
        x: Tensor,
        place: Tensor,
        scope: Scope,
        slots: Sequence[Pair],
        cross: Sequence[Pair],
        source: Tensor | None,
    ) -> Tensor:
        x = self._placed(x, place)
        memory_bias = None if source is None else forbid(source[:, None, None, :], x, None)
        for i, block in enumerate(self.layers):
            given = scope, slots[i] if slots else None, cross[i] if cross else None, memory_bias
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, *given, use_reentrant=False)
            else:  # what is read into a cache has another length each time: nothing to compile
                x = block.forward(x, *given) if slots else block(x, *given)
        return x if self.final_norm is None else self.final_norm(x)

    def _placed(self, x: Tensor, place: Tensor) -> Tensor:
        """Embeddings with their positions added, where that is how they are told."""
        if self.place is not None:
            x = x + self.place(place)
        elif isinstance(self.config.positions, Sinusoidal) and self.table is not None:
            x = x + self.table[place]
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return F.dropout(x, self.config.dropout, self.training)

    def _turn(self, place: Tensor) -> Tensor | None:
        """What queries and keys at these positions are turned by: ``[T, 1, 2 size]`` or ``[B, T, 1, 2 size]``."""
        if not isinstance(self.config.positions, Rotary) or self.table is None:
            return None
        return self.table[place].unsqueeze(-2)

    def _distance_bias(self, query: Tensor, key: Tensor) -> Tensor | None:
        """What distances from queries ``[T]`` or ``[B, T]`` to keys add to the scores: ``[1 or B, heads, T, S]``."""
        relative = self.config.positions
        if self.distance is None or not isinstance(relative, Relative):
            return None
        distance = key[..., None, :] - query[..., :, None]
        bias: Tensor = self.distance(buckets(distance, relative, self.causal)).movedim(-1, -3)
        return bias if bias.dim() == 4 else bias[None]


def forbid(seen: Bool[Tensor, "..."], like: Tensor, bias: Tensor | None) -> Tensor:
    """``bias`` (None: 0) where ``seen``, else the lowest number; of the type of ``like``. It is not minus infinity, so
    that a token that sees nothing gets something finite."""
    lowest = torch.finfo(like.dtype).min
    return torch.where(seen, like.new_zeros(()) if bias is None else bias, lowest)


def check_counted(segments: Tensor | None, positions: Tensor | None) -> None:
    """Raises ValueError for positions that are not those of :func:`places`. In what pads a packed row, whose segments
    are below 0, they may be any."""
    if positions is None:
        return
    if segments is None or bool(((positions != places(segments)) & (segments >= 0)).any()):
        raise ValueError("expected positions that are counted within segments, got others")


def places(segments: Tensor) -> Int64[Tensor, "batch time"]:
    """Positions within segments ``[B, T]``. Of a mask, True where there is no padding: how many True came before. Of
    numbers: how long ago the number changed."""
    if segments.dtype == torch.bool:
        return (segments.cumsum(1) - 1).clamp_min(0)
    time = torch.arange(segments.shape[1], device=segments.device)
    changed = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0))
    return time - torch.where(changed, time, 0).cummax(1).values
