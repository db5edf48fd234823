"""What a transformer is made of, in one dataclass, and its best known makes: GPT-2, Llama, BERT and T5."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torchward.config import ConfigError
from torchward.nets.positions import Learned, Positions, Relative, Rotary

Kind: TypeAlias = Literal["decoder", "encoder", "encoder-decoder"]
Activation: TypeAlias = Literal["gelu", "gelu_tanh", "relu", "silu"]


@dataclass(frozen=True)
class TransformerConfig:
    """The parts of a transformer and their sizes. The names of sizes are those of transformers' Llama."""

    vocab_size: int = 512
    """Number of tokens. A run that makes a new model takes that of its tokenizer instead."""
    hidden_size: int = 128
    """Width of the stream that the layers read and add to."""
    num_hidden_layers: int = 4
    """Layers; of an encoder-decoder, those of its decoder."""
    num_encoder_layers: int | None = None
    """Layers of the encoder of an encoder-decoder; None: as many as its decoder has."""
    num_attention_heads: int = 4
    """Heads, each with its own queries."""
    num_key_value_heads: int | None = None
    """Heads of keys and values, each shared by a group of queries; None: one for each head."""
    head_dim: int | None = None
    """Width of a head; None: hidden_size / num_attention_heads."""
    intermediate_size: int | None = None
    """Width of the feed-forward layers; None: 4 hidden_size."""
    max_position_embeddings: int = 1024
    """The longest sequence. Relative positions set no limit, and none set none: there it is a cache's default size."""
    kind: Kind = "decoder"
    """A decoder attends to the past (GPT), an encoder to everything (BERT), an encoder-decoder's decoder also to what
    its encoder read (T5)."""
    positions: Positions | None = field(default_factory=Learned)
    """How a token knows where it stands; None: by the causal mask alone."""
    type_vocab_size: int = 0
    """Number of kinds of segments, each with a vector that is added to its tokens' embeddings; 0: none."""
    norm: Literal["layer", "rms"] = "layer"
    """LayerNorm (Ba et al. 2016), or RMSNorm (Zhang and Sennrich 2019), which neither centres nor shifts."""
    norm_eps: float = 1e-5
    """Added to the variance."""
    norm_place: Literal["pre", "post"] = "pre"
    """Before each sublayer and once at the end, or after each addition to the stream (Xiong et al. 2020)."""
    embedding_norm: bool = False
    """Normalise the sum of the embeddings."""
    embedding_scale: float = 1.0
    """What token embeddings are multiplied by; Vaswani et al. 2017 take the square root of hidden_size."""
    activation: Activation = "gelu"
    """Within the feed-forward layers: GELU exactly or in its tanh form (Hendrycks and Gimpel 2016), ReLU, or SiLU."""
    gated: bool = False
    """Multiply the activation with a second product: with SiLU this is SwiGLU (Shazeer 2020)."""
    attention_bias: Literal["all", "qkv", "none"] = "all"
    """Which products of the attention have a bias: all, or queries, keys and values, or none."""
    mlp_bias: bool = True
    """Whether the feed-forward products have a bias."""
    attention_scale: float | None = None
    """What scores are multiplied by; None: 1 / sqrt(head_dim)."""
    tie_word_embeddings: bool = True
    """Whether the head is the embedding's matrix (Press and Wolf 2017)."""
    head_transform: bool = False
    """One more layer before the head: product, activation, norm (BERT)."""
    head_bias: bool = False
    """Whether the head has a bias."""
    head_scale: float = 1.0
    """What the last hidden state is multiplied by before the head."""
    value_head: bool = False
    """A second head that gives each position a value, for algorithms with a critic."""
    dropout: float = 0.0
    """Share of the embeddings, attention weights and sublayers' outputs that is dropped in training."""
    initializer_range: float | None = None
    """Standard deviation of the initial weights; of those that end in the stream, divided by sqrt(2 layers). None:
    0.02 at GPT-2's width of 768, and as much larger in a narrower model as keeps what a product gives."""

    @property
    def initial_std(self) -> float:
        """Standard deviation of the initial weights."""
        return 0.02 * (768 / self.hidden_size) ** 0.5 if self.initializer_range is None else self.initializer_range

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
        optional = ("num_encoder_layers", "num_key_value_heads", "head_dim", "intermediate_size")
        for name in (*sizes, *(name for name in optional if getattr(self, name) is not None)):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"expected hidden_size a multiple of num_attention_heads, or head_dim given, got "
                f"hidden_size={self.hidden_size} and num_attention_heads={self.num_attention_heads}"
            )
        if self.num_attention_heads % self.key_value_heads:
            raise ConfigError(
                "expected num_attention_heads a multiple of num_key_value_heads, got "
                f"{self.num_attention_heads} and {self.num_key_value_heads}"
            )
        if isinstance(self.positions, Rotary) and self.head_size % 2:
            raise ConfigError(f"expected an even head_dim for rotary positions, got {self.head_size}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"expected dropout within [0, 1), got {self.dropout}")

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_attention_heads if self.num_key_value_heads is None else self.num_key_value_heads

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_attention_heads if self.head_dim is None else self.head_dim

    @property
    def feed_forward_size(self) -> int:
        """Width of the feed-forward layers."""
        return 4 * self.hidden_size if self.intermediate_size is None else self.intermediate_size

    @property
    def encoder_layers(self) -> int:
        """Layers of an encoder-decoder's encoder."""
        return self.num_hidden_layers if self.num_encoder_layers is None else self.num_encoder_layers


def gpt2(
    vocab_size: int = 50257, hidden_size: int = 768, layers: int = 12, heads: int = 12, length: int = 1024
) -> TransformerConfig:
    """A decoder like GPT-2 (Radford et al. 2019); the defaults are its smallest, of 124 million parameters."""
    return TransformerConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=length,
        activation="gelu_tanh",
    )


def llama(
    vocab_size: int = 32000,
    hidden_size: int = 2048,
    layers: int = 22,
    heads: int = 32,
    key_value_heads: int | None = 4,
    intermediate_size: int | None = 5632,
    length: int = 2048,
) -> TransformerConfig:
    """A decoder like Llama (Touvron et al. 2023); the defaults are those of TinyLlama, of 1.1 billion parameters.

    Without ``intermediate_size``, SwiGLU's three matrices have about as many parameters as two of 4 hidden_size."""
    return TransformerConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        intermediate_size=round(hidden_size * 8 / 3 / 8) * 8 if intermediate_size is None else intermediate_size,
        max_position_embeddings=length,
        positions=Rotary(),
        norm="rms",
        activation="silu",
        gated=True,
        attention_bias="none",
        mlp_bias=False,
        tie_word_embeddings=False,
    )


def bert(
    vocab_size: int = 30522, hidden_size: int = 768, layers: int = 12, heads: int = 12, length: int = 512
) -> TransformerConfig:
    """An encoder like BERT (Devlin et al. 2019); the defaults are its base, of 110 million parameters."""
    return TransformerConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=length,
        kind="encoder",
        type_vocab_size=2,
        norm_eps=1e-12,
        norm_place="post",
        embedding_norm=True,
        head_transform=True,
        head_bias=True,
    )


def t5(
    vocab_size: int = 32128,
    hidden_size: int = 512,
    layers: int = 6,
    heads: int = 8,
    head_dim: int = 64,
    intermediate_size: int | None = 2048,
    length: int = 512,
) -> TransformerConfig:
    """An encoder-decoder like T5 (Raffel et al. 2020); the defaults are its smallest, of 60 million parameters."""
    return TransformerConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        head_dim=head_dim,
        intermediate_size=intermediate_size,
        max_position_embeddings=length,
        kind="encoder-decoder",
        positions=Relative(),
        norm="rms",
        norm_eps=1e-6,
        activation="relu",
        attention_bias="none",
        mlp_bias=False,
        attention_scale=1.0,
        head_scale=hidden_size**-0.5,
    )
