"""An encoder-decoder as the body of a language model: a row is what is read, then what is written behind it.

A row of tokens is a source, the start token, and a target. The encoder reads the source, with an end token behind it;
the decoder reads from the start token on. So a rollout's row is that of every language model, and the algorithms do not
know. The start token is the first one of its number in a row: no source has it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from torchward.nets import kv_cache
from torchward.nets.kv_cache import Cache
from torchward.nets.token_scores import Head
from torchward.nets.transformer import Memory, Transformer
from torchward.nets.transformer_config import TransformerConfig
from torchward.nets.transformer_stack import check_counted, places


@dataclass(frozen=True)
class EncoderDecoderConfig:
    """What it is."""

    transformer: TransformerConfig
    """Its parts and their sizes."""
    start_id: int
    """The token that its decoder begins with: T5's padding, BART's end-of-text."""
    end_id: int
    """The token behind what its encoder reads, which no row holds."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.transformer.vocab_size

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.transformer.hidden_size

    @property
    def max_position_embeddings(self) -> int:
        """The longest row, source and target together: so each of the two fits."""
        return self.transformer.max_position_embeddings

    @property
    def kind(self) -> Literal["decoder"]:
        """Of its rows a decoder: what it says of a token depends on those before it alone."""
        return "decoder"

    @property
    def value_head(self) -> bool:
        """Whether it has one."""
        return self.transformer.value_head


class EncoderDecoder(nn.Module):
    """A :class:`~torchward.nets.body.Body` of a :class:`~torchward.nets.transformer.Transformer` of two stacks.

    The hidden states of a source are 0: nothing is asked there, since nothing is known of it before its last token. In
    a cache ``length`` counts the target's tokens, and ``source`` holds beside the mask of what the encoder has read the
    tokens of the source plus 1, 0 where there is none: what is to be read when the start token comes."""

    def __init__(self, transformer: Transformer, start_id: int, end_id: int) -> None:
        """Raises ValueError for a transformer that is no encoder-decoder, and tokens that it has not."""
        super().__init__()
        config = transformer.config
        if config.kind != "encoder-decoder":
            raise ValueError(f"expected a transformer of kind 'encoder-decoder', got {config.kind!r}")
        if not (0 <= start_id < config.vocab_size and 0 <= end_id < config.vocab_size):
            raise ValueError(f"expected tokens below {config.vocab_size} to start and end by, got {start_id}, {end_id}")
        self.transformer = transformer
        self.config = EncoderDecoderConfig(config, start_id, end_id)

    @property
    def token(self) -> nn.Embedding:
        """The embedding."""
        return self.transformer.token

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers from below, the encoder's first."""
        return self.transformer.blocks

    @property
    def checkpointing(self) -> bool:
        """Compute layers again in the backward pass instead of keeping what they computed."""
        return self.transformer.checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.transformer.checkpointing = on

    def before_head(self, hidden: Tensor) -> tuple[Tensor, Head]:
        """What the head's product is taken of, and with."""
        return self.transformer.before_head(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """The head: hidden states ``[..., width]`` to logits ``[..., vocab_size]``."""
        return self.transformer.logits(hidden)

    def value(self, hidden: Tensor) -> Tensor:
        """The value head: hidden states ``[..., width]`` to values ``[...]``."""
        return self.transformer.value(hidden)

    def forward(
        self, tokens: Int64[Tensor, "batch time"], segments: Tensor | None = None, positions: Tensor | None = None
    ) -> Float[Tensor, "batch time width"]:
        """The hidden states of rows ``[B, T]``, padded at the right. Rows that are packed, or padded elsewhere, are
        told by ``segments`` and taken apart; ``positions`` are always counted within them.

        Raises ValueError for other positions, and for a row without the start token."""
        check_counted(segments, positions)
        if segments is None:
            if not bool((tokens == self.config.start_id).any(1).all()):
                raise ValueError(
                    f"expected the start token {self.config.start_id} in each row, behind what the encoder is to read, "
                    "got a row without it"
                )
            return self._read(tokens)
        place, real = places(segments), torch.ones_like(tokens, dtype=torch.bool)
        number = (place == 0).flatten().cumsum(0).view_as(place) - 1
        if segments.dtype == torch.bool:
            number, real = torch.arange(len(tokens), device=tokens.device)[:, None].expand_as(tokens), segments
        apart = tokens.new_zeros(int(number.max()) + 1, int(place.max()) + 1)
        apart[number[real], place[real]] = tokens[real]
        return self._read(apart)[number, place] * real[..., None]

    def _read(self, tokens: Tensor) -> Tensor:
        """Rows padded at the right, each with its source at the left. Where no target is, 0."""
        time, device = tokens.shape[1], tokens.device
        found = tokens == self.config.start_id
        sizes = torch.where(found.any(1), found.int().argmax(1), time)[:, None]
        column = torch.arange(int(sizes.max()) + 1, device=device)
        padded = torch.cat([tokens, tokens.new_zeros(len(tokens), 1)], 1)[:, : len(column)]
        memory = self._encode(padded, sizes, column)
        column = torch.arange(max(1, time - int(sizes.min())), device=device) + sizes
        target = tokens.gather(1, column.clamp_max(time - 1))
        hidden = self.transformer.forward(target, memory=memory)
        back = torch.arange(time, device=device) - sizes
        each = back.clamp(0, target.shape[1] - 1)[..., None].expand(-1, -1, hidden.shape[2])
        return hidden.gather(1, each) * (back >= 0)[..., None]

    def _encode(self, tokens: Tensor, sizes: Tensor, column: Tensor) -> Memory:
        """What the encoder makes of sources of ``sizes`` ``[B, 1]``, with an end token behind each."""
        tokens = torch.where(column == sizes, self.config.end_id, tokens)
        return self.transformer.encode(tokens, column <= sizes)

    # With a cache

    def cache(self, batch: int, size: int | None = None) -> Cache:
        """An empty cache of ``batch`` rows and ``size`` slots, by default as many as the longest row has tokens."""
        config, weight = self.config.transformer, self.token.weight
        size = config.max_position_embeddings if size is None else size
        own, other = kv_cache.empty(config, batch, size, weight), kv_cache.empty(config, batch, size, weight)
        source = weight.new_zeros(batch, size, dtype=torch.bool), own.length.new_zeros(batch, size)
        return own._replace(cross_keys=other.keys, cross_values=other.values, source=source)

    @torch.no_grad()
    def extend(
        self, tokens: Tensor, cache: Cache, mask: Tensor | None = None, span: int | None = None
    ) -> tuple[Tensor, Cache]:
        """Tokens ``[B, T]`` behind what ``cache`` holds, padded anywhere, where ``mask`` is False. The encoder reads a
        row's source once its start token comes. Hidden states of sources and padding are 0."""
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        read, kept = cache.source
        has_begun = read.any(1, keepdim=True)
        starts = real & (tokens == self.config.start_id)
        target = real & (has_begun | (starts.cumsum(1) > 0))
        source = real & ~target
        if bool(source.any()):
            place = (kept > 0).sum(1, keepdim=True) + source.cumsum(1) - 1
            if int(place[source].max()) + 2 > cache.size:
                raise ValueError(f"expected a cache of at least {int(place[source].max()) + 2} slots, got {cache.size}")
            row, column = source.nonzero(as_tuple=True)
            kept = kept.index_put((row, place[row, column]), tokens[row, column] + 1)
            cache = cache._replace(source=(read, kept))
        cache = self._begin(cache, (starts.any(1) & ~has_begun[:, 0]).nonzero()[:, 0])
        if not bool(target.any()):
            return self.token.weight.new_zeros(*tokens.shape, self.config.hidden_size), cache
        hidden, cache = self.transformer.extend(tokens, cache, None if bool(target.all()) else target, span)
        return hidden * target[..., None], cache

    def step(self, tokens: Tensor, cache: Cache, span: int | None = None) -> tuple[Tensor, Cache]:
        """One token ``[B]`` behind what ``cache`` holds: :meth:`extend`."""
        if bool(cache.source[0].any(1).all()):
            return self.transformer.step(tokens, cache, span)
        hidden, cache = self.extend(tokens[:, None], cache, None, span)
        return hidden[:, 0], cache

    def _begin(self, cache: Cache, rows: Tensor) -> Cache:
        """The encoder reads the sources of these rows, and what the decoder looks at is kept. What is no slot is not
        written in place: by it an old cache knows what it had read."""
        if not len(rows):
            return cache
        kept = cache.source[1][rows]
        sizes = (kept > 0).sum(1, keepdim=True)
        column = torch.arange(int(sizes.max()) + 1, device=rows.device)
        memory = self._encode((kept[:, : len(column)] - 1).clamp_min(0), sizes, column)
        made = self.transformer.stack.cross_keys_values(memory.hidden)
        for slots, new in zip(cache.cross, made, strict=True):
            for leaf, part in zip(slots, new, strict=True):
                leaf[rows, :, : len(column)] = part
        read = cache.source[0].clone()
        read[rows, : len(column)] = memory.mask
        return cache._replace(source=(read, cache.source[1]))
