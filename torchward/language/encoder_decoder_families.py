"""How transformers writes T5 and BART down."""

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
from torchward.nets.positions import Relative
from torchward.nets.transformer_config import Kind, TransformerConfig


class T5:
    """T5 and its version 1.1."""

    kind: Kind = "encoder-decoder"
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


class Bart:
    """BART."""

    kind: Kind = "encoder-decoder"
    model_type, prefix, embedding, head = "bart", "model.", "model.shared.weight", "lm_head.weight"
    before = 2
    """Positions that are no text's."""

    def read(self, data: Json, names: Collection[str]) -> TransformerConfig:
        for one, other in (
            ("encoder_attention_heads", "decoder_attention_heads"),
            ("encoder_ffn_dim", "decoder_ffn_dim"),
        ):
            if data[one] != data[other]:
                raise ConfigError(f"expected a BART of equal {one} and {other}, got {data[one]} and {data[other]}")
        refuse(data, tie_word_embeddings=False)  # then transformers' encoder and decoder read by different ones
        width = data["d_model"]
        return TransformerConfig(
            vocab_size=data["vocab_size"],
            hidden_size=width,
            num_hidden_layers=data["decoder_layers"],
            num_encoder_layers=data["encoder_layers"],
            num_attention_heads=data["decoder_attention_heads"],
            intermediate_size=data["decoder_ffn_dim"],
            max_position_embeddings=data["max_position_embeddings"],
            kind="encoder-decoder",
            norm_place="post",
            embedding_norm=True,
            embedding_scale=width**0.5 if data.get("scale_embedding") else 1.0,
            activation=activation(data.get("activation_function", "gelu")),
            head_bias=True,
        )

    def write(self, config: TransformerConfig) -> Json:
        each = {
            "attention_heads": config.num_attention_heads,
            "ffn_dim": config.feed_forward_size,
        }
        return {
            "architectures": ["BartForConditionalGeneration"],
            "vocab_size": config.vocab_size,
            "d_model": config.hidden_size,
            "decoder_layers": config.num_hidden_layers,
            "encoder_layers": config.encoder_layers,
            **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in each.items()},
            "max_position_embeddings": config.max_position_embeddings,
            "scale_embedding": config.embedding_scale != 1.0,
            "activation_function": their_activation(config),
            "tie_word_embeddings": True,
            "is_encoder_decoder": True,
            "pad_token_id": None,
            "decoder_start_token_id": None,
            "forced_eos_token_id": None,
            "dropout": config.dropout,
        }

    def rules(self, config: TransformerConfig) -> Iterator[Rule]:
        yield Rule("token.weight", (self.embedding,))
        yield Rule("head_bias", ("final_logits_bias",), as_row=True, optional=True)
        for ours, theirs, layers in (
            ("encoder", "model.encoder", config.encoder_layers),
            ("stack", "model.decoder", config.num_hidden_layers),
        ):
            yield Rule(f"{ours}.place.weight", (f"{theirs}.embed_positions.weight",), before=self.before)
            yield from both(f"{ours}.embedding_norm", f"{theirs}.layernorm_embedding")
            for i in range(layers):
                yield from self._layer(config, f"{ours}.layers.{i}", f"{theirs}.layers.{i}", ours == "stack")

    def _layer(self, config: TransformerConfig, ours: str, theirs: str, has_cross: bool) -> Iterator[Rule]:
        rows = attention_rows(config)
        own = tuple(f"{theirs}.self_attn.{part}_proj" for part in "qkv")
        yield from several(f"{ours}.attention.query_key_value", own, rows)
        yield from both(f"{ours}.attention.out", f"{theirs}.self_attn.out_proj")
        yield from both(f"{ours}.attention_norm", f"{theirs}.self_attn_layer_norm")
        if has_cross:
            query, *others = (f"{theirs}.encoder_attn.{part}_proj" for part in "qkv")
            yield from both(f"{ours}.cross.query", query)
            yield from several(f"{ours}.cross.key_value", tuple(others), rows[1:])
            yield from both(f"{ours}.cross.out", f"{theirs}.encoder_attn.out_proj")
            yield from both(f"{ours}.cross_norm", f"{theirs}.encoder_attn_layer_norm")
        yield from both(f"{ours}.feed_forward.up", f"{theirs}.fc1")
        yield from both(f"{ours}.feed_forward.down", f"{theirs}.fc2")
        yield from both(f"{ours}.feed_forward_norm", f"{theirs}.final_layer_norm")
