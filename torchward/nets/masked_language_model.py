"""A masked language model: an encoder that reads a text in both directions, and says what stands in its gaps.

It is no policy, for it chooses nothing token by token. What it has learnt of text serves classifiers and rewards
(Devlin et al. 2019).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from torchward.nets import body_description, saving
from torchward.nets.body import Body, BodyConfig, layers_of, scores_at
from torchward.nets.dropout import without_dropout
from torchward.nets.language_model import NONE
from torchward.nets.pooling import Pooling, pool
from torchward.nets.spaces import Discrete, Space
from torchward.nets.token_scores import PIECE, TokenScores


class MaskedLanguageModel(nn.Module):
    """A body that is an encoder, with what its tokenizer is made of, as JSON, as a
    :class:`~torchward.nets.language_model.LanguageModel` has it."""

    def __init__(self, body: Body, vocabulary: Mapping[str, Any]) -> None:
        super().__init__()
        if body.config.kind != "encoder":
            raise ValueError(f"expected an encoder to fill gaps with, got a model of kind {body.config.kind!r}")
        self.body = body
        self.vocabulary = vocabulary

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
        """A token: what a gap is filled with."""
        return Discrete(self.config.vocab_size)

    def scores(
        self,
        hidden: Float[Tensor, "batch time width"],
        action: Int64[Tensor, "batch time"],
        with_entropy: bool = True,
    ) -> TokenScores:
        """Log-probability ``[B, T]`` of what stood at a place, and the entropy there; 0 where the action is -1: that
        costs nothing."""
        return scores_at(self.body, hidden, action != NONE, action, with_entropy=with_entropy)

    @torch.no_grad()
    def likeliest(
        self, hidden: Float[Tensor, "batch time width"], where: Bool[Tensor, "batch time"]
    ) -> Int64[Tensor, " places"]:
        """The likeliest token of each place ``[N]`` where ``where`` is True, row by row; logits of a few at a time."""
        picked = hidden.flatten(0, 1)[where.flatten()]
        pieces = picked.split(max(1, PIECE // self.config.vocab_size))
        return torch.cat([self.body.logits(piece).argmax(-1) for piece in pieces])

    @torch.no_grad()
    def fill(
        self,
        tokens: Int64[Tensor, "batch time"],
        where: Bool[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "places vocab"]:
        """The probabilities of every token at the places ``where``, row by row, without dropout. ``mask`` is True where
        there is no padding."""
        with without_dropout(self):
            hidden = self.body.forward(tokens, mask)
            return self.body.logits(hidden[where]).float().softmax(-1)

    @torch.no_grad()
    def embed(
        self,
        tokens: Int64[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"] | None = None,
        pooling: Pooling = "mean",
    ) -> Float[Tensor, "batch width"]:
        """A vector of each text, without dropout; ``mask`` is True where there is no padding."""
        seen = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        with without_dropout(self):
            return pool(self.body.forward(tokens, mask), seen, pooling).float()

    def layers(self) -> list[list[nn.Parameter]]:
        """Its parameters from below: the embeddings, each layer, and what stands above them."""
        return layers_of(self, self.body)

    def description(self) -> dict[str, Any]:
        """What it was made from. A body that is no transformer of this package goes as ``encoder``, by its name."""
        return {**body_description.of(self.body), "vocabulary": dict(self.vocabulary)}

    @classmethod
    def described(
        cls, observation: Space, action: Space, data: dict[str, Any], encoder: nn.Module | None
    ) -> "MaskedLanguageModel":
        """One as ``data`` says, with any parameters; ``encoder`` is the body that is no transformer of this package."""
        body: Any = body_description.made(data) if encoder is None else encoder
        return cls(body, data["vocabulary"])

    def save(self, directory: Path) -> None:
        """Write it into ``directory``, for :func:`torchward.load`."""
        saving.save(self, directory)
