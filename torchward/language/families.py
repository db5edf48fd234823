"""How transformers writes GPT-2, Llama, Qwen2, BERT and T5 down: what config.json says, what each weight is called."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, get_args

from torchward.config import ConfigError
from torchward.nets.positions import Relative, Rotary
from torchward.nets.transformer_config import Activation, TransformerConfig

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


class Family(Protocol):
    """One kind of model."""

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


class GPT2:
    """GPT-2."""

    model_type, prefix = "gpt2", "transformer."
    embedding, head = "transformer.wte.weight", "lm_head.weight"

    def read(self, data: Json, names: Collection[str]) -> TransformerConfig:
        refuse(data, scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True, add_cross_attention=True)
        return TransformerConfig(
            vocab_size=data["vocab_size"],
            hidden_size=data["n_embd"],
            num_hidden_layers=data["n_layer"],
            num_attention_heads=data["n_head"],
            intermediate_size=data.get("n_inner"),
            max_position_embeddings=data["n_positions"],
            norm_eps=data.get("layer_norm_epsilon", 1e-5),
            activation=activation(data.get("activation_function", "gelu_new")),
            tie_word_embeddings=data.get("tie_word_embeddings", True),
        )

    def write(self, config: TransformerConfig) -> Json:
        return {
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": config.vocab_size,
            "n_embd": config.hidden_size,
            "n_layer": config.num_hidden_layers,
            "n_head": config.num_attention_heads,
            "n_inner": config.intermediate_size,
            "n_positions": config.max_position_embeddings,
            "layer_norm_epsilon": config.norm_eps,
            "activation_function": their_activation(config),
            "tie_word_embeddings": config.tie_word_embeddings,
            **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), config.dropout),
        }

    def rules(self, config: TransformerConfig) -> Iterator[Rule]:
        yield Rule("token.weight", (self.embedding,))
        yield Rule("stack.place.weight", ("transformer.wpe.weight",))
        products = {
            "attention.query_key_value": "attn.c_attn",
            "attention.out": "attn.c_proj",
            "feed_forward.up": "mlp.c_fc",
            "feed_forward.down": "mlp.c_proj",
        }
        for i in range(config.num_hidden_layers):
            ours, theirs = f"stack.layers.{i}", f"transformer.h.{i}"
            for own, other in products.items():
                yield Rule(f"{ours}.{own}.weight", (f"{theirs}.{other}.weight",), transposed=True)
                yield Rule(f"{ours}.{own}.bias", (f"{theirs}.{other}.bias",))
            yield from both(f"{ours}.attention_norm", f"{theirs}.ln_1")
            yield from both(f"{ours}.feed_forward_norm", f"{theirs}.ln_2")
        yield from both("stack.final_norm", "transformer.ln_f")


class Llama:
    """Llama, and what differs from it by a bias on queries, keys and values: Qwen2."""

    prefix, embedding, head = "model.", "model.embed_tokens.weight", "lm_head.weight"

    def __init__(self, model_type: str, architecture: str) -> None:
        self.model_type, self.architecture = model_type, architecture

    def read(self, data: Json, names: Collection[str]) -> TransformerConfig:
        refuse(data, use_sliding_window=True)
        rope: Json = data.get("rope_parameters") or data.get("rope_scaling") or {}
        if (kind := rope.get("rope_type", rope.get("type", "default"))) != "default":
            raise ConfigError(f"expected rotary positions of rope_type 'default', got {kind!r}")
        if (factor := rope.get("partial_rotary_factor", 1.0)) != 1.0:
            raise ConfigError(f"expected rotary positions of whole heads, got partial_rotary_factor={factor}")
        has_bias = self.model_type == "qwen2"
        return TransformerConfig(
            vocab_size=data["vocab_size"],
            hidden_size=data["hidden_size"],
            num_hidden_layers=data["num_hidden_layers"],
            num_attention_heads=data["num_attention_heads"],
            num_key_value_heads=data.get("num_key_value_heads"),
            head_dim=data.get("head_dim"),
            intermediate_size=data["intermediate_size"],
            max_position_embeddings=data["max_position_embeddings"],
            positions=Rotary(float(rope.get("rope_theta") or data.get("rope_theta") or 10000.0)),
            norm="rms",
            norm_eps=data.get("rms_norm_eps", 1e-6),
            activation=activation(data.get("hidden_act", "silu")),
            gated=True,
            attention_bias="qkv" if has_bias else "all" if data.get("attention_bias") else "none",
            mlp_bias=data.get("mlp_bias", False),
            tie_word_embeddings=data.get("tie_word_embeddings", False),
        )

    def write(self, config: TransformerConfig) -> Json:
        theta = config.positions.rope_theta if isinstance(config.positions, Rotary) else 10000.0
        own: Json = {"attention_bias": config.attention_bias == "all", "mlp_bias": config.mlp_bias}
        return {
            "architectures": [self.architecture],
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.key_value_heads,
            "intermediate_size": config.feed_forward_size,
            "max_position_embeddings": config.max_position_embeddings,
            "rope_theta": theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
            "rms_norm_eps": config.norm_eps,
            "hidden_act": their_activation(config),
            "tie_word_embeddings": config.tie_word_embeddings,
            "attention_dropout": config.dropout,
            **(own if self.model_type == "llama" else {}),
            **({} if config.head_dim is None else {"head_dim": config.head_dim}),
        }

    def rules(self, config: TransformerConfig) -> Iterator[Rule]:
        yield Rule("token.weight", (self.embedding,))
        inner = config.feed_forward_size
        for i in range(config.num_hidden_layers):
            ours, theirs = f"stack.layers.{i}", f"model.layers.{i}"
            yield Rule(f"{ours}.attention_norm.weight", (f"{theirs}.input_layernorm.weight",))
            yield Rule(f"{ours}.feed_forward_norm.weight", (f"{theirs}.post_attention_layernorm.weight",))
            qkv = tuple(f"{theirs}.self_attn.{part}_proj" for part in "qkv")
            yield from several(f"{ours}.attention.query_key_value", qkv, attention_rows(config))
            yield from both(f"{ours}.attention.out", f"{theirs}.self_attn.o_proj")
            yield from several(
                f"{ours}.feed_forward.up", (f"{theirs}.mlp.gate_proj", f"{theirs}.mlp.up_proj"), (inner, inner)
            )
            yield from both(f"{ours}.feed_forward.down", f"{theirs}.mlp.down_proj")
        yield Rule("stack.final_norm.weight", ("model.norm.weight",))


class Bert:
    """BERT with the head that fills gaps, or without one."""

    model_type, prefix = "bert", "bert."
    embedding, head = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"

    def read(self, data: Json, names: Collection[str]) -> TransformerConfig:
        refuse(data, is_decoder=True, add_cross_attention=True)
        if (kind := data.get("position_embedding_type") or "absolute") != "absolute":
            raise ConfigError(f"expected BERT with absolute positions, got {kind!r}")
        has_head = "cls.predictions.transform.dense.weight" in names
        return TransformerConfig(
            vocab_size=data["vocab_size"],
            hidden_size=data["hidden_size"],
            num_hidden_layers=data["num_hidden_layers"],
            num_attention_heads=data["num_attention_heads"],
            intermediate_size=data["intermediate_size"],
            max_position_embeddings=data["max_position_embeddings"],
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

    def write(self, config: TransformerConfig) -> Json:
        return {
            "architectures": ["BertForMaskedLM" if config.head_transform else "BertModel"],
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

    def rules(self, config: TransformerConfig) -> Iterator[Rule]:
        names = {"token": "word", "stack.place": "position", "token_type": "token_type"}
        for own, other in names.items():
            yield Rule(f"{own}.weight", (f"bert.embeddings.{other}_embeddings.weight",))
        yield from both("stack.embedding_norm", "bert.embeddings.LayerNorm")
        parts = {
            "attention.out": "attention.output.dense",
            "attention_norm": "attention.output.LayerNorm",
            "feed_forward.up": "intermediate.dense",
            "feed_forward.down": "output.dense",
            "feed_forward_norm": "output.LayerNorm",
        }
        for i in range(config.num_hidden_layers):
            ours, theirs = f"stack.layers.{i}", f"bert.encoder.layer.{i}"
            qkv = tuple(f"{theirs}.attention.self.{part}" for part in ("query", "key", "value"))
            yield from several(f"{ours}.attention.query_key_value", qkv, attention_rows(config))
            for own, other in parts.items():
                yield from both(f"{ours}.{own}", f"{theirs}.{other}")
        if config.head_transform:
            yield from both("transform", "cls.predictions.transform.dense")
            yield from both("transform_norm", "cls.predictions.transform.LayerNorm")
            yield Rule("head_bias", ("cls.predictions.bias",))
            if not config.tie_word_embeddings:  # then transformers has two, and this is the one that counts
                yield Rule("head_bias", ("cls.predictions.decoder.bias",))


class T5:
    """T5 and its version 1.1."""

    model_type, prefix, embedding, head = "t5", "", "shared.weight", "lm_head.weight"

    def read(self, data: Json, names: Collection[str]) -> TransformerConfig:
        kind = str(data.get("feed_forward_proj", "relu"))
        width, layers = data["d_model"], data["num_layers"]
        # Version 1.1 says that it is not tied. To transformers this means not to scale; what is tied, the files show.
        scaled = data.get("scale_decoder_outputs", data.get("tie_word_embeddings") is not False)
        return TransformerConfig(
            vocab_size=data["vocab_size"],
            hidden_size=width,
            num_hidden_layers=layers if data.get("num_decoder_layers") is None else data["num_decoder_layers"],
            num_encoder_layers=layers,
            num_attention_heads=data["num_heads"],
            head_dim=data["d_kv"],
            intermediate_size=data["d_ff"],
            max_position_embeddings=data.get("n_positions", 512),
            kind="encoder-decoder",
            positions=Relative(
                data.get("relative_attention_num_buckets", 32), data.get("relative_attention_max_distance", 128)
            ),
            norm="rms",
            norm_eps=data.get("layer_norm_epsilon", 1e-6),
            activation="gelu_tanh" if kind == "gated-gelu" else activation(kind.removeprefix("gated-")),
            gated=kind.startswith("gated-"),
            attention_bias="none",
            mlp_bias=False,
            attention_scale=1.0,
            tie_word_embeddings="lm_head.weight" not in names,
            head_scale=width**-0.5 if scaled else 1.0,
        )

    def write(self, config: TransformerConfig) -> Json:
        relative = config.positions if isinstance(config.positions, Relative) else Relative()
        return {
            "architectures": ["T5ForConditionalGeneration"],
            "vocab_size": config.vocab_size,
            "d_model": config.hidden_size,
            "d_kv": config.head_size,
            "d_ff": config.feed_forward_size,
            "num_layers": config.encoder_layers,
            "num_decoder_layers": config.num_hidden_layers,
            "num_heads": config.num_attention_heads,
            "n_positions": config.max_position_embeddings,
            "relative_attention_num_buckets": relative.num_buckets,
            "relative_attention_max_distance": relative.max_distance,
            "layer_norm_epsilon": config.norm_eps,
            "feed_forward_proj": ("gated-" if config.gated else "") + their_activation(config),
            "tie_word_embeddings": config.head_scale != 1.0,
            "scale_decoder_outputs": config.head_scale != 1.0,
            "is_encoder_decoder": True,
            "dropout_rate": config.dropout,
        }

    def rules(self, config: TransformerConfig) -> Iterator[Rule]:
        yield Rule("token.weight", (self.embedding,))
        for ours, theirs, layers in (
            ("encoder", "encoder", config.encoder_layers),
            ("stack", "decoder", config.num_hidden_layers),
        ):
            first = f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            yield Rule(f"{ours}.distance.weight", (first,))
            for i in range(layers):
                yield from self._block(config, f"{ours}.layers.{i}", f"{theirs}.block.{i}.layer", ours == "stack")
            yield Rule(f"{ours}.final_norm.weight", (f"{theirs}.final_layer_norm.weight",))

    def _block(self, config: TransformerConfig, ours: str, theirs: str, has_cross: bool) -> Iterator[Rule]:
        rows = attention_rows(config)
        own = tuple(f"{theirs}.0.SelfAttention.{part}.weight" for part in "qkv")
        yield Rule(f"{ours}.attention_norm.weight", (f"{theirs}.0.layer_norm.weight",))
        yield Rule(f"{ours}.attention.query_key_value.weight", own, rows)
        yield Rule(f"{ours}.attention.out.weight", (f"{theirs}.0.SelfAttention.o.weight",))
        if has_cross:
            key, value = (f"{theirs}.1.EncDecAttention.{part}.weight" for part in "kv")
            yield Rule(f"{ours}.cross_norm.weight", (f"{theirs}.1.layer_norm.weight",))
            yield Rule(f"{ours}.cross.query.weight", (f"{theirs}.1.EncDecAttention.q.weight",))
            yield Rule(f"{ours}.cross.key_value.weight", (key, value), rows[1:])
            yield Rule(f"{ours}.cross.out.weight", (f"{theirs}.1.EncDecAttention.o.weight",))
        last = f"{theirs}.{2 if has_cross else 1}"
        inner = config.feed_forward_size
        products = ("wi_0", "wi_1") if config.gated else ("wi",)
        up = tuple(f"{last}.DenseReluDense.{name}.weight" for name in products)
        yield Rule(f"{ours}.feed_forward_norm.weight", (f"{last}.layer_norm.weight",))
        yield Rule(f"{ours}.feed_forward.up.weight", up, (inner,) * len(up))
        yield Rule(f"{ours}.feed_forward.down.weight", (f"{last}.DenseReluDense.wo.weight",))


FAMILIES: tuple[Family, ...] = (
    GPT2(),
    Llama("llama", "LlamaForCausalLM"),
    Llama("qwen2", "Qwen2ForCausalLM"),
    Bert(),
    T5(),
)


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
