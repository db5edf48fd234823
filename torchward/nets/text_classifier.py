"""A classifier of texts: a pretrained body, one vector for each text, and a linear layer of a score for each label.

The body may be an encoder (Devlin et al. 2019, section 3.2) or a decoder (Radford et al. 2018, equation 3).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from torchward.config import ConfigError
from torchward.nets import body_description, saving
from torchward.nets.body import Body, BodyConfig, layers_of
from torchward.nets.dropout import without_dropout
from torchward.nets.encoder_decoder import EncoderDecoder
from torchward.nets.hub_model import HubModel
from torchward.nets.pooling import Pooling, pool
from torchward.nets.spaces import Discrete, Space


class TextClassifier(nn.Module):
    """Which of ``labels`` a text has. ``vocabulary`` is what its tokenizer is made of, as JSON.

    At first all labels are equally likely, for the last layer begins at 0."""

    def __init__(
        self, body: Body, vocabulary: Mapping[str, Any], labels: Sequence[str], pooling: Pooling = "mean"
    ) -> None:
        super().__init__()
        if isinstance(body, EncoderDecoder) or body.config.kind == "encoder-decoder":
            raise ConfigError(
                "expected an encoder or a decoder to classify with, got a model of kind 'encoder-decoder'"
            )
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise ValueError(f"expected two labels or more, all different, got {', '.join(labels) or 'none'}")
        if pooling not in get_args(Pooling):
            raise ValueError(f"expected a pooling of {', '.join(get_args(Pooling))}, got {pooling!r}")
        if pooling == "first" and body.config.kind == "decoder":
            raise ConfigError(
                "expected a pooling of mean or last for a decoder, whose first token sees nothing of the text, got "
                "'first'"
            )
        self.body = body
        self.vocabulary = vocabulary
        self.labels, self.pooling = tuple(labels), pooling
        self.score = nn.Linear(body.config.hidden_size, len(self.labels), device=body.token.weight.device)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    @property
    def config(self) -> BodyConfig:
        """What its body is."""
        return self.body.config

    @property
    def observation_space(self) -> Space:
        """A token."""
        return Discrete(self.config.vocab_size)

    @property
    def action_space(self) -> Space:
        """A label."""
        return Discrete(len(self.labels))

    def forward(
        self, tokens: Int64[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch labels"]:
        """The logits of each text's labels, float32. Texts are padded at the right, where ``mask`` is False."""
        # A decoder sees no padding at its right, and without a mask attention is faster.
        seen = None if self.config.kind == "decoder" or bool(mask.all()) else mask
        vector = pool(self.body.forward(tokens, seen), mask, self.pooling)
        with torch.autocast(vector.device.type, enabled=False):  # what is compared is not rounded
            logits: Tensor = self.score(vector.float())
        return logits

    @torch.no_grad()
    def probabilities(
        self, tokens: Int64[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch labels"]:
        """Of each text's labels, without dropout."""
        with without_dropout(self):
            return self.forward(tokens, mask).softmax(-1)

    def layers(self) -> list[list[nn.Parameter]]:
        """Its parameters from below: the embeddings, each layer, and what stands above them."""
        return layers_of(self, self.body)

    def description(self) -> dict[str, Any]:
        """What it was made from. A body that is no transformer of this package goes as ``encoder``, by its name."""
        made = {"vocabulary": dict(self.vocabulary), "labels": list(self.labels), "pooling": self.pooling}
        return {**body_description.of(self.body), **made}

    @classmethod
    def described(
        cls, observation: Space, action: Space, data: dict[str, Any], encoder: nn.Module | None
    ) -> "TextClassifier":
        """One as ``data`` says, with any parameters; ``encoder`` is the body that is no transformer of this package."""
        body: Any = body_description.made(data) if encoder is None else encoder
        return cls(body, data["vocabulary"], data["labels"], data["pooling"])

    def save(self, directory: Path) -> None:
        """Write it into ``directory``, for :func:`torchward.load`."""
        saving.save(self, directory)
        if isinstance(self.body, HubModel):  # what kind of model it is, transformers has to say
            self.body.save(directory)
