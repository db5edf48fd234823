"""How transformers writes GPT-2, Llama and Qwen2 down, and which families beside them the converters know."""

from collections.abc import Collection, Iterator

from torchward.config import ConfigError
from torchward.language.encoder_decoder_families import T5, Bart
from torchward.language.encoder_families import Bert, Roberta
from torchward.language.family import (
    Family,
    Json,
    Rule,
    activation,
    attention_rows,
    both,
    refuse,
    several,
    their_activation,
)
from torchward.nets.positions import Rotary
from torchward.nets.transformer_config import Kind, TransformerConfig


class GPT2:
    """GPT-2."""

    kind: Kind = "decoder"
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

    kind: Kind = "decoder"
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


FAMILIES: tuple[Family, ...] = (
    GPT2(),
    Llama("llama", "LlamaForCausalLM"),
    Llama("qwen2", "Qwen2ForCausalLM"),
    Bert(),
    Roberta(),
    T5(),
    Bart(),
)
"""Where two of them can say the same of a model, the first one is written."""
