"""The transformer: one module, of which a decoder (GPT), an encoder (BERT) and an encoder-decoder (T5) are settings."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from torchward.nets import kv_cache
from torchward.nets.attention import Linear
from torchward.nets.kv_cache import Cache
from torchward.nets.positions import Learned, Rotary, Sinusoidal
from torchward.nets.token_scores import Head
from torchward.nets.transformer_block import ACTIVATIONS, Norm
from torchward.nets.transformer_config import TransformerConfig
from torchward.nets.transformer_stack import Stack


class Memory(NamedTuple):
    """What an encoder has read, for its decoder."""

    hidden: Tensor
    """``[B, S, width]``"""
    mask: Tensor
    """``[B, S]`` bool: True where there is no padding."""


class Transformer(nn.Module):
    """Tokens to hidden states, and these to logits and values.

    :meth:`forward` stops at the hidden states ``[B, T, width]``: whoever wants log-probabilities of a few tokens asks
    :meth:`logits` for those alone, or in pieces, and the logits of all never stand in memory."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, layers = config.hidden_size, config.num_hidden_layers
        both = config.kind == "encoder-decoder"
        self.token = nn.Embedding(config.vocab_size, width)
        self.token_type = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.encoder = Stack(config, config.encoder_layers, causal=False, has_cross=False) if both else None
        self.stack = Stack(config, layers, causal=config.kind != "encoder", has_cross=both)
        self.transform, self.transform_norm = None, None
        if config.head_transform:
            self.transform, self.transform_norm = Linear(width, width), Norm(config)
        self.head = None if config.tie_word_embeddings else Linear(width, config.vocab_size, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.head_bias else None
        self.value_head = Linear(width, 1) if config.value_head else None
        self._initialise()

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The encoder of an encoder-decoder and its decoder, or the one stack that there is."""
        return (self.stack,) if self.encoder is None else (self.encoder, self.stack)

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers from below; of an encoder-decoder, the encoder's first."""
        return [block for stack in self.stacks for block in stack.layers]

    @property
    def checkpointing(self) -> bool:
        """Compute layers again in the backward pass instead of keeping what they computed (Chen et al. 2016)."""
        return self.stack.checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        for stack in self.stacks:
            stack.checkpointing = on

    def forward(
        self,
        tokens: Int64[Tensor, "batch time"],
        segments: Tensor | None = None,
        positions: Int64[Tensor, "batch time"] | None = None,
        *,
        token_types: Int64[Tensor, "batch time"] | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """The hidden states of tokens ``[B, T]``.

        ``segments`` ``[B, T]`` says who attends to whom: those with equal entries, be it a mask, True where there is
        no padding, or the numbers of the sequences that a row is packed with. A decoder needs no mask for padding at
        the right, which nothing that counts can see, and is faster without. ``positions`` are counted within segments
        unless they are given. ``token_types`` are BERT's two kinds of segments, and ``memory`` is what :meth:`encode`
        gave a decoder to look at. Raises ValueError for a row that is too long, and for a memory that is missing or
        that nothing would look at."""
        self._check_length(tokens.shape[1])
        self._check_memory(memory)
        x = self._embed(tokens, token_types)
        if memory is None:
            return self.stack.forward(x, segments, positions)
        return self.stack.forward(x, segments, positions, self.stack.cross_keys_values(memory.hidden), memory.mask)

    def encode(self, tokens: Int64[Tensor, "batch source"], mask: Bool[Tensor, "batch source"] | None = None) -> Memory:
        """What the encoder of an encoder-decoder makes of tokens ``[B, S]``; ``mask`` is True where there is no
        padding."""
        if self.encoder is None:
            raise ValueError(f"expected an encoder-decoder to encode with, got a model of kind {self.config.kind!r}")
        self._check_length(tokens.shape[1])
        hidden = self.encoder.forward(self._embed(tokens, None), mask, None)
        return Memory(hidden, torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask)

    def logits(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocab"]:
        """The head: hidden states ``[..., width]`` to logits ``[..., vocab_size]``."""
        hidden, head = self.before_head(hidden)
        return F.linear(hidden, head.weight, head.bias)

    def before_head(self, hidden: Float[Tensor, "*batch width"]) -> tuple[Float[Tensor, "*batch width"], Head]:
        """What the head's product is taken of, and with: for who wants logits piece by piece."""
        if self.transform is not None and self.transform_norm is not None:
            hidden = self.transform_norm(ACTIVATIONS[self.config.activation](self.transform(hidden)))
        if self.config.head_scale != 1.0:
            hidden = hidden * self.config.head_scale
        return hidden, Head(self.token.weight if self.head is None else self.head.weight, self.head_bias)

    def value(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """The value head: hidden states ``[..., width]`` to values ``[...]``. Raises ValueError without one."""
        if self.value_head is None:
            raise ValueError("expected a model with value_head, got one without")
        value: Tensor = self.value_head(hidden)
        return value.squeeze(-1)

    def cache(self, batch: int, size: int | None = None, memory: Memory | None = None) -> Cache:
        """An empty cache of ``batch`` rows and ``size`` slots, by default max_position_embeddings; of an
        encoder-decoder with what its decoder is to look at. Raises ValueError for an encoder."""
        size = self.config.max_position_embeddings if size is None else size
        self._check_length(size)
        self._check_memory(memory)
        if not self.stack.causal:
            raise ValueError("expected a decoder to make a cache for, got a model of kind 'encoder'")
        made = kv_cache.empty(self.config, batch, size, self.token.weight)
        if memory is None:
            return made
        with torch.no_grad():
            keys, values = zip(*self.stack.cross_keys_values(memory.hidden), strict=True)
        keys, values = (tuple(leaf.contiguous() for leaf in leaves) for leaves in (keys, values))
        return made._replace(cross_keys=keys, cross_values=values, source=(memory.mask,))

    @torch.no_grad()
    def extend(
        self,
        tokens: Int64[Tensor, "batch time"],
        cache: Cache,
        mask: Bool[Tensor, "batch time"] | None = None,
        span: int | None = None,
    ) -> tuple[Float[Tensor, "batch time width"], Cache]:
        """Tokens ``[B, T]`` behind what ``cache`` holds: their hidden states, and the cache with them in it, whose
        slots are the same. Rows may be padded anywhere, where ``mask`` is False; what stands there is not kept.

        ``span`` is a bound on the length of the longest row afterwards, for who knows it: without it, it is read from
        the device. Raises ValueError where the cache is too small for that. No gradient flows."""
        length = cache.length
        if mask is None:
            place = length[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
            after, real = length + tokens.shape[1], None
        else:
            count = mask.cumsum(1)
            place = (length[:, None] + count - 1).clamp_min(0)
            after, real = length + count[:, -1], mask.flatten().nonzero().squeeze(1)
        span = self._span(cache, after, span)
        hidden = self.stack.extend(self._embed(tokens, None), cache, place, real, span)
        return hidden, cache._replace(length=after)

    @torch.no_grad()
    def step(
        self, tokens: Int64[Tensor, " batch"], cache: Cache, span: int | None = None
    ) -> tuple[Float[Tensor, "batch width"], Cache]:
        """One token ``[B]`` behind what ``cache`` holds, as :meth:`extend` does it."""
        after = cache.length + 1
        span = self._span(cache, after, span)
        x = self._embed(tokens, None)
        if x.device.type == "cpu":
            return self.stack.step(x, cache, span), cache._replace(length=after)
        hidden = self.stack.extend(x[:, None], cache, cache.length[:, None], None, span)
        return hidden.squeeze(1), cache._replace(length=after)

    def _embed(self, tokens: Tensor, token_types: Tensor | None) -> Tensor:
        x: Tensor = self.token(tokens)
        if self.config.embedding_scale != 1.0:
            x = x * self.config.embedding_scale
        if self.token_type is not None:
            x = x + (self.token_type.weight[0] if token_types is None else self.token_type(token_types))
        return x

    def _check_length(self, length: int) -> None:
        limit = self.config.max_position_embeddings
        if length > limit and isinstance(self.config.positions, Learned | Sinusoidal | Rotary):
            raise ValueError(f"expected at most max_position_embeddings={limit} tokens, got {length}")

    def _check_memory(self, memory: Memory | None) -> None:
        if (memory is None) != (self.encoder is None):
            wanted, found = ("no memory", "one") if self.encoder is None else ("memory, what encode() gives,", "none")
            raise ValueError(f"expected {wanted} for a model of kind {self.config.kind!r}, got {found}")

    @staticmethod
    def _span(cache: Cache, after: Tensor, span: int | None) -> int:
        span = int(after.max()) if span is None else span
        if span > cache.size:
            raise ValueError(f"expected a cache of at least {span} slots, got {cache.size}")
        return span

    @torch.no_grad()
    def _initialise(self) -> None:
        """Normal weights, and where a product ends in the stream, smaller ones the more layers there are (Radford et
        al. 2019, section 2.3); biases 0, and values too."""
        std = self.config.initial_std
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for stack in self.stacks:
            for name, parameter in stack.named_parameters():
                if name.endswith(("out.weight", "down.weight")):
                    nn.init.normal_(parameter, std=std / (2 * len(stack.layers)) ** 0.5)
        if self.value_head is not None:
            nn.init.zeros_(self.value_head.weight)
