"""What a language model needs of a network: :class:`~torchward.nets.transformer.Transformer` is one."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from torchward.nets.kv_cache import Cache
from torchward.nets.token_scores import Head


@runtime_checkable
class BodyConfig(Protocol):
    """What it is."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def max_position_embeddings(self) -> int:
        """The longest text."""
        ...

    @property
    def kind(self) -> str:
        """A decoder: a token sees those before it alone."""
        ...

    @property
    def value_head(self) -> bool: ...


@runtime_checkable
class Body(Protocol):
    """A module from tokens to hidden states, and from these to logits and values.

    A cache is that of :mod:`torchward.nets.kv_cache`, whatever the network is, so rows leave and enter alike."""

    checkpointing: bool
    """Compute layers again in the backward pass instead of keeping what they computed."""

    @property
    def config(self) -> BodyConfig: ...

    @property
    def token(self) -> nn.Embedding:
        """The embedding."""
        ...

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers from below."""
        ...

    def forward(self, tokens: Tensor, segments: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Hidden states ``[B, T, width]`` of tokens ``[B, T]``; those with equal ``segments`` see each other."""
        ...

    def before_head(self, hidden: Tensor) -> tuple[Tensor, Head]:
        """What the head's product is taken of, and with."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """``[..., width]`` to ``[..., vocab_size]``."""
        ...

    def value(self, hidden: Tensor) -> Tensor:
        """``[..., width]`` to ``[...]``."""
        ...

    def cache(self, batch: int, size: int | None = None) -> Cache:
        """An empty one of ``batch`` rows and ``size`` slots, by default as many as the longest text has tokens."""
        ...

    def extend(
        self, tokens: Tensor, cache: Cache, mask: Tensor | None = None, span: int | None = None
    ) -> tuple[Tensor, Cache]:
        """Tokens ``[B, T]`` behind what the cache holds, where ``mask`` is True; ``span`` bounds the longest row
        afterwards."""
        ...

    def step(self, tokens: Tensor, cache: Cache, span: int | None = None) -> tuple[Tensor, Cache]:
        """One token ``[B]`` behind what the cache holds."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """All modules that it is made of."""
        ...
