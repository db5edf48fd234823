"""A reward by what words mean to a model: BERTScore (Zhang et al. 2020) over any body of a transformer.

Each token of one text looks for the token of the other one whose embedding is most like its own. An embedding is the
hidden state behind the body's last layer, so it knows the words around it.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from torchward.config import ConfigError
from torchward.language.rewards import references
from torchward.language.tokenizer import Tokenizer, readable
from torchward.nets.encoder_decoder import EncoderDecoder

PAIRS = 64
"""How many pairs of texts are matched at a time."""


class Embedded(NamedTuple):
    """Texts as an encoder sees them, padded at the right."""

    vectors: Float[Tensor, "texts time width"]
    mask: Bool[Tensor, "texts time"]
    """True where there is a token."""
    tokens: list[list[int]]
    """The tokens of each text."""


class Encoder(Protocol):
    """What embeds texts, several at a time."""

    def __call__(self, texts: Sequence[str]) -> Embedded: ...


@dataclass(frozen=True)
class BodyEncoder:
    """The hidden states of a body, of a decoder or an encoder, for texts in its own tokens. It is not learnt here.

    Of a longer text than the body can read the first tokens count, and characters that the tokenizer does not know
    count for nothing: a policy may write what no text has."""

    body: nn.Module
    """A :class:`~torchward.nets.body.Body`, or an encoder of the same shape."""
    tokenizer: Tokenizer
    batch_size: int = 32
    """How many texts are read at a time; they are sorted by length, so that little of it is padding."""

    def __post_init__(self) -> None:
        if isinstance(self.body, EncoderDecoder):
            raise ConfigError(
                "expected an encoder or a decoder to compare texts by, got an encoder-decoder, of whose source nothing "
                "is known"
            )
        if self.batch_size < 1:
            raise ConfigError(f"expected batch_size of at least 1, got {self.batch_size}")

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Embedded:
        config: Any = self.body.config
        device = next(self.body.parameters()).device
        known = [readable(text, self.tokenizer) for text in texts]
        tokens = [self.tokenizer.encode(text)[: config.max_position_embeddings] for text in known]
        longest = max(map(len, tokens), default=0)
        vectors = torch.zeros(len(texts), longest, config.hidden_size)
        mask = torch.arange(longest) < torch.tensor([len(each) for each in tokens])[:, None]
        order = sorted((i for i, each in enumerate(tokens) if each), key=lambda i: len(tokens[i]))
        was_training = self.body.training
        self.body.eval()
        try:
            for start in range(0, len(order), self.batch_size):
                some = order[start : start + self.batch_size]
                length = len(tokens[some[-1]])
                rows = [tokens[i] + [self.tokenizer.pad_id] * (length - len(tokens[i])) for i in some]
                seen = mask[some, :length]
                hidden = self.body(torch.tensor(rows, device=device), seen.to(device))
                vectors[some, :length] = hidden.float().cpu() * seen[:, :, None]
        finally:
            self.body.train(was_training)
        return Embedded(vectors, mask, tokens)


class Scores(NamedTuple):
    """How well the tokens of candidates are found in references, and the other way round; each within [-1, 1]."""

    precision: Float[Tensor, " texts"]
    recall: Float[Tensor, " texts"]
    f1: Float[Tensor, " texts"]


def greedy_match(
    candidate: Float[Tensor, "texts time width"],
    reference: Float[Tensor, "texts other width"],
    candidate_weight: Float[Tensor, "texts time"],
    reference_weight: Float[Tensor, "texts other"],
) -> Scores:
    """BERTScore of pairs of texts (Zhang et al. 2020, section 3, with its importance weighting).

    Precision is the mean over the candidate's tokens, by their weights, of the cosine to the nearest token of the
    reference; recall the same from the reference's side; F1 their harmonic mean, 0 unless both are above 0. A
    weight below 0 says that there is no token, and a text without tokens, or whose tokens weigh nothing, scores 0."""
    one, other = (nn.functional.normalize(x, dim=-1) for x in (candidate, reference))
    cosine = one @ other.transpose(1, 2)  # [texts, time, other]
    here, there = candidate_weight >= 0.0, reference_weight >= 0.0
    cosine = cosine.masked_fill(~(here[:, :, None] & there[:, None, :]), -torch.inf)
    precision = _weighted(cosine, 2, candidate_weight)
    recall = _weighted(cosine, 1, reference_weight)
    above = torch.minimum(precision, recall) > 0.0  # of numbers with different signs it may be anything
    f1 = torch.where(above, 2.0 * precision * recall / (precision + recall).where(above, 1.0), 0.0)
    return Scores(precision, recall, f1)


def _weighted(cosine: Tensor, over: int, weight: Tensor) -> Tensor:
    if 0 in cosine.shape:
        return torch.zeros(len(weight))
    best = cosine.amax(over)
    best = torch.where(best.isfinite(), best, 0.0)  # no token, or none on the other side
    weight = weight.clamp_min(0.0)
    total = weight.sum(1)
    return torch.where(total > 0.0, (best * weight).sum(1) / total.where(total > 0.0, 1.0), 0.0)


def inverse_document_frequency(texts: Iterable[Sequence[int]]) -> dict[int, float]:
    """How rare tokens are among the tokens of some texts: log((N + 1) / (n + 1)), of N texts n with the token, as the
    authors' own bert_score smooths it. A token that none has weighs log(N + 1): see :class:`Similarity`."""
    counts: Counter[int] = Counter()
    total = 0
    for tokens in texts:
        counts.update(set(tokens))
        total += 1
    return {-1: math.log(total + 1)} | {token: math.log((total + 1) / (n + 1)) for token, n in counts.items()}


@dataclass(frozen=True)
class Similarity:
    """BERTScore of an answer with its reference; with several references that of the best."""

    encoder: Encoder
    """What embeds both."""
    measure: Literal["precision", "recall", "f1"] = "f1"
    """Precision asks whether what is said stands in the reference, recall whether all of the reference is said."""
    column: str | None = None
    """The column of the reference; None: reference, answer or completion, the first that there is."""
    idf: Mapping[int, float] | None = field(default=None, hash=False)
    """What tokens weigh, by :func:`inverse_document_frequency`, whose entry -1 is for those that it has not seen; None:
    all the same."""
    baseline: float = 0.0
    """What unrelated texts score: rewards are (score - baseline) / (1 - baseline). Cosines of hidden states lie close
    together, and without it all rewards do."""

    def __post_init__(self) -> None:
        if not -1.0 <= self.baseline < 1.0:
            raise ConfigError(f"expected baseline within [-1, 1), got {self.baseline}")

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """Raises TextError without references."""
        known = references(columns, self.column)
        owner = [i for i, right in enumerate(known) for _ in right]
        said = list(dict.fromkeys(completions))  # answers of one group are often the same
        right = list(dict.fromkeys(text for each in known for text in each))
        place_said, place_right = ({text: i for i, text in enumerate(texts)} for texts in (said, right))
        one, other = self.encoder(said), self.encoder(right)
        rows = torch.tensor([place_said[completions[i]] for i in owner], dtype=torch.int64)
        columns_ = torch.tensor([place_right[text] for each in known for text in each], dtype=torch.int64)
        weights, other_weights = self._weights(one), self._weights(other)
        found: list[Tensor] = []
        for a, b in zip(rows.split(PAIRS), columns_.split(PAIRS), strict=True):
            pairs = greedy_match(one.vectors[a], other.vectors[b], weights[a], other_weights[b])
            found.append(getattr(pairs, self.measure))
        scores = torch.cat(found) if found else torch.zeros(0)
        best = torch.full((len(completions),), -torch.inf).scatter_reduce(0, torch.tensor(owner), scores, "amax")
        return [float(each) for each in (best - self.baseline) / (1.0 - self.baseline)]

    def _weights(self, of: Embedded) -> Tensor:
        """``[texts, time]``, -1 where there is no token."""
        weights = torch.ones(of.mask.shape)
        if self.idf is not None:
            unseen = self.idf.get(-1, 0.0)
            for row, tokens in enumerate(of.tokens):
                weights[row, : len(tokens)] = torch.tensor([self.idf.get(each, unseen) for each in tokens])
        return weights.masked_fill(~of.mask, -1.0)
