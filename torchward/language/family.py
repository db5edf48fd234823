"""What a family of transformers' models is to the converters: its config.json, and a rule for each of its weights."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, get_args

from torchward.config import ConfigError
from torchward.nets.transformer_config import Activation, Kind, TransformerConfig

Json: TypeAlias = dict[str, Any]

ACTIVATIONS: dict[str, Activation] = {
    **{name: name for name in get_args(Activation) if name != "gelu_tanh"},
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
}
"""By the names that transformers has for them."""


@dataclass(frozen=True)
class Rule:
    """One of our tensors, and those of transformers that it is made of, one below the other."""

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    """How many rows each of them has, where there are several."""
    transposed: bool = False
    """Whether theirs are ``[inputs, outputs]``, as GPT-2's are."""
    before: int = 0
    """How many rows theirs begin with that ours have not, such as RoBERTa's positions of padding; they are written as
    0."""
    as_row: bool = False
    """Whether theirs is ``[1, outputs]`` and ours ``[outputs]``."""
    optional: bool = False
    """Whether a model without a head has none of it: then ours stays as it is made, 0."""


class Family(Protocol):
    """One kind of model."""

    kind: Kind
    model_type: str
    prefix: str
    """What the weights below the head begin with, and those of a model without a head do not."""
    embedding: str
    """The embedding's matrix."""
    head: str
    """The head's matrix."""

    def read(self, data: Json, names: Collection[str]) -> TransformerConfig:
        """What a config.json and the names of the weights say. Raises ConfigError for what torchward's transformer has
        not, and KeyError where a size is missing."""
        ...

    def write(self, config: TransformerConfig) -> Json:
        """A config.json, which says all of ``config`` that this kind of model can."""
        ...

    def rules(self, config: TransformerConfig) -> Iterator[Rule]:
        """Every tensor of a transformer, but for the head and what is no part of a language model."""
        ...


def both(ours: str, theirs: str) -> Iterator[Rule]:
    """Weight and bias of one of our modules that is one of theirs."""
    yield from several(ours, (theirs,), ())


def several(ours: str, theirs: tuple[str, ...], rows: tuple[int, ...]) -> Iterator[Rule]:
    """Weight and bias of one of our modules that is several of theirs."""
    for kind in ("weight", "bias"):
        yield Rule(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs), rows)


def attention_rows(config: TransformerConfig) -> tuple[int, int, int]:
    """How many outputs queries, keys and values have."""
    others = config.key_value_heads * config.head_size
    return config.num_attention_heads * config.head_size, others, others


def activation(name: str) -> Activation:
    """Ours by the name that transformers has for it; ConfigError for one that torchward has not."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"expected an activation of {', '.join(sorted(ACTIVATIONS))}, got {name!r}")
    return ACTIVATIONS[name]


def their_activation(config: TransformerConfig) -> str:
    """The name that transformers has for ours."""
    return next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)


def refuse(data: Json, **settings: bool) -> None:
    """ConfigError for a setting with a value that torchward's transformer has nothing for."""
    for name, value in settings.items():
        if data.get(name, not value) == value:
            raise ConfigError(f"expected a {data.get('model_type')} model without {name}={value}, got one with it")
