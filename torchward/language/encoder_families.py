"""How transformers writes BERT and RoBERTa down."""

from collections.abc import Collection, Iterator

from torchward.config import ConfigError
from torchward.language.family import (
    Json,
    Rule,
    activation,
    attention_rows,
    both,
    refuse,
    several,
    their_activation,
)
from torchward.nets.transformer_config import Kind, TransformerConfig


class Bert:
    """BERT with the head that fills gaps, or without one."""

    kind: Kind = "encoder"
    model_type, prefix = "bert", "bert."
    embedding, head = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"

    def read(self, data: Json, names: Collection[str]) -> TransformerConfig:
        refuse(data, is_decoder=True, add_cross_attention=True)
        if (kind := data.get("position_embedding_type") or "absolute") != "absolute":
            raise ConfigError(f"expected BERT with absolute positions, got {kind!r}")
        has_head = "cls.predictions.transform.dense.weight" in names
        return _read(data, has_head, data["max_position_embeddings"])

    def write(self, config: TransformerConfig) -> Json:
        return {"architectures": ["BertForMaskedLM" if config.head_transform else "BertModel"], **_written(config)}

    def rules(self, config: TransformerConfig) -> Iterator[Rule]:
        yield from _below_head(config, self.prefix, 0)
        if config.head_transform:
            yield from both("transform", "cls.predictions.transform.dense")
            yield from both("transform_norm", "cls.predictions.transform.LayerNorm")
            yield Rule("head_bias", ("cls.predictions.bias",))
            if not config.tie_word_embeddings:  # then transformers has two, and this is the one that counts
                yield Rule("head_bias", ("cls.predictions.decoder.bias",))


class Roberta:
    """RoBERTa with the head that fills gaps, or without one: a BERT whose first positions are those of padding."""

    kind: Kind = "encoder"
    model_type, prefix = "roberta", "roberta."
    embedding, head = "roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight"
    padding = 1
    """The token whose positions are all this number; those of text begin behind it."""

    def read(self, data: Json, names: Collection[str]) -> TransformerConfig:
        refuse(data, is_decoder=True, add_cross_attention=True)
        if (pad := data.get("pad_token_id", self.padding)) != self.padding:
            raise ConfigError(f"expected a RoBERTa that is padded with token {self.padding}, got {pad}")
        has_head = "lm_head.dense.weight" in names
        if has_head and activation(data.get("hidden_act", "gelu")) != "gelu":  # its head has GELU, whatever is below
            raise ConfigError(f"expected a RoBERTa with gelu below its head, got {data['hidden_act']}")
        return _read(data, has_head, data["max_position_embeddings"] - self.padding - 1)

    def write(self, config: TransformerConfig) -> Json:
        return {
            "architectures": ["RobertaForMaskedLM" if config.head_transform else "RobertaModel"],
            **_written(config),
            "max_position_embeddings": config.max_position_embeddings + self.padding + 1,
            "pad_token_id": self.padding,
        }

    def rules(self, config: TransformerConfig) -> Iterator[Rule]:
        yield from _below_head(config, self.prefix, self.padding + 1)
        if config.head_transform:
            yield from both("transform", "lm_head.dense")
            yield from both("transform_norm", "lm_head.layer_norm")
            yield Rule("head_bias", ("lm_head.bias",))


def _read(data: Json, has_head: bool, length: int) -> TransformerConfig:
    """What both say in the same words."""
    return TransformerConfig(
        vocab_size=data["vocab_size"],
        hidden_size=data["hidden_size"],
        num_hidden_layers=data["num_hidden_layers"],
        num_attention_heads=data["num_attention_heads"],
        intermediate_size=data["intermediate_size"],
        max_position_embeddings=length,
        kind="encoder",
        type_vocab_size=data.get("type_vocab_size", 2),
        norm_eps=data.get("layer_norm_eps", 1e-12),
        norm_place="post",
        embedding_norm=True,
        activation=activation(data.get("hidden_act", "gelu")),
        tie_word_embeddings=data.get("tie_word_embeddings", True),
        head_transform=has_head,
        head_bias=has_head,
    )


def _written(config: TransformerConfig) -> Json:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.feed_forward_size,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": config.type_vocab_size,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": their_activation(config),
        "tie_word_embeddings": config.tie_word_embeddings,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
    }


def _below_head(config: TransformerConfig, prefix: str, before: int) -> Iterator[Rule]:
    """``before`` is how many positions theirs has for padding."""
    embeddings = f"{prefix}embeddings"
    yield Rule("token.weight", (f"{embeddings}.word_embeddings.weight",))
    yield Rule("stack.place.weight", (f"{embeddings}.position_embeddings.weight",), before=before)
    yield Rule("token_type.weight", (f"{embeddings}.token_type_embeddings.weight",))
    yield from both("stack.embedding_norm", f"{embeddings}.LayerNorm")
    parts = {
        "attention.out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
        "feed_forward_norm": "output.LayerNorm",
    }
    for i in range(config.num_hidden_layers):
        ours, theirs = f"stack.layers.{i}", f"{prefix}encoder.layer.{i}"
        qkv = tuple(f"{theirs}.attention.self.{part}" for part in ("query", "key", "value"))
        yield from several(f"{ours}.attention.query_key_value", qkv, attention_rows(config))
        for own, other in parts.items():
            yield from both(f"{ours}.{own}", f"{theirs}.{other}")
