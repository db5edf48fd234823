"""What a language model needs of a network: :class:`~torchward.nets.transformer.Transformer` is one."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from torchward.nets.kv_cache import Cache
from torchward.nets.token_scores import Head, TokenScores, token_scores


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


class Worded(Protocol):
    """A model of text, with what its tokenizer is made of."""

    @property
    def config(self) -> BodyConfig: ...
    @property
    def vocabulary(self) -> Mapping[str, Any]: ...


def same_words(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two vocabularies have the same tokens. The day on which one was loaded, which its chats may tell, makes
    no others, nor does the length that somebody once cut or filled a text up to, of which older descriptions tell."""
    return _words(first) == _words(second)


def _words(vocabulary: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: part for name, part in vocabulary.items() if name != "date"}
    if isinstance(backend := kept.get("backend"), Mapping):
        kept["backend"] = {name: part for name, part in backend.items() if name not in ("truncation", "padding")}
    return kept


class Scoring(Protocol):
    """A model that says how likely tokens are: one that writes, or one that fills gaps."""

    @property
    def body(self) -> Body: ...
    def scores(self, hidden: Tensor, /, action: Tensor, *, with_entropy: bool) -> TokenScores: ...
    def train(self) -> object: ...
    def eval(self) -> object: ...


def scores_at(
    body: Body,
    hidden: Float[Tensor, "batch time width"],
    where: Bool[Tensor, "batch time"],
    target: Int64[Tensor, "batch time"],
    temperature: float = 1.0,
    support: Tensor | None = None,
    with_entropy: bool = True,
) -> TokenScores:
    """Log-probability and entropy ``[B, T]`` of targets by hidden states, ``where`` it is True; elsewhere 0, at no
    cost. ``support`` ``[B, T, bytes]``: see :func:`~torchward.nets.token_scores.token_scores`."""
    places = where.flatten().nonzero().squeeze(1)
    picked, head = body.before_head(hidden.flatten(0, 1).index_select(0, places))
    bits = None if support is None else support.flatten(0, 1).index_select(0, places)
    scores = token_scores(
        picked, head, target.flatten().index_select(0, places), temperature, bits, with_entropy=with_entropy
    )
    return TokenScores(*(_spread(score, places, target) for score in scores))


def compile_layers(body: Body, same_shapes: bool) -> None:
    """Let PyTorch's compiler make one function of each layer from now on, the same for all that are alike.

    Without ``same_shapes`` shapes are unknowns from the beginning, so that it does not matter, also for the last bit,
    which ones came first; with it each new shape is compiled by itself. Decoding steps, and what is read into a cache,
    are left as they are."""
    for block in body.blocks:
        block.compile(dynamic=not same_shapes)


def layers_of(model: nn.Module, body: Body) -> list[list[nn.Parameter]]:
    """The parameters of a model from below: its body's embeddings, each layer, and what stands above them."""
    blocks = [list(block.parameters()) for block in body.blocks]
    within = {id(parameter) for block in blocks for parameter in block}
    embeddings = [
        parameter for module in body.modules() if isinstance(module, nn.Embedding) for parameter in module.parameters()
    ]
    below = {id(parameter) for parameter in embeddings}
    above = [parameter for parameter in model.parameters() if id(parameter) not in within | below]
    return [embeddings, *blocks, above]


def _spread(scores: Tensor, where: Tensor, like: Tensor) -> Tensor:
    """Scores ``[N]`` at their places of a tensor shaped as ``like``, and 0 elsewhere."""
    flat = scores.new_zeros(like.numel())
    return flat.index_copy(0, where, scores).view(like.shape)
