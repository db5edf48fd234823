"""What a masked language model puts into the gaps of a text."""

from typing import NamedTuple

import torch

from torchward.language.documents import TextError
from torchward.language.tokenizer import Tokenizer, described, mask_id_of
from torchward.nets.masked_language_model import MaskedLanguageModel

GAP = "[MASK]"
"""How a gap is written in a text, whatever the tokenizer calls it. It stands for one token."""


class Guess(NamedTuple):
    """What may stand in a gap."""

    token: str
    """Its text; where words bring the space before them, with it."""
    probability: float


def fill(model: MaskedLanguageModel, text: str, top_k: int = 5) -> list[list[Guess]]:
    """For each ``[MASK]`` of a text its ``top_k`` likeliest tokens, the likeliest first; each gap is judged while the
    others are open. Where words of the tokenizer bring the space before them, a gap brings it too: it is left out.

    Raises TextError for a text without a gap, or one that is longer than the model reads."""
    tokenizer = described(model.vocabulary, "the model")
    ids = tokens(text, tokenizer)
    if len(ids) > (limit := model.config.max_position_embeddings):
        raise TextError(f"expected a text of at most {limit} tokens, as many as the model reads, got {len(ids)}")
    gaps = [token == mask_id_of(tokenizer) for token in ids]
    if not any(gaps):
        raise TextError(f"expected a text with {GAP} where something is to be guessed, got {text[:60]!r} without")
    device = model.body.token.weight.device
    given, where = torch.tensor([ids], device=device), torch.tensor([gaps], device=device)
    found = model.fill(given, where).topk(min(top_k, tokenizer.vocab_size))
    return [
        [Guess(tokenizer.decode([token]), p) for token, p in zip(row, probabilities, strict=True)]
        for row, probabilities in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def tokens(text: str, tokenizer: Tokenizer) -> list[int]:
    """A text with its start, its end and its gaps. Raises TextError where the tokenizer has no token for a gap."""
    ids, (first, *rest) = [tokenizer.start_id], text.split(GAP)
    spaced = brings_space(tokenizer)
    ids += tokenizer.encode(first.removesuffix(" ") if spaced and rest else first)
    for number, part in enumerate(rest, start=1):
        last = number == len(rest)
        ids += [mask_id_of(tokenizer), *tokenizer.encode(part if last or not spaced else part.removesuffix(" "))]
    return [*ids, tokenizer.eos_id]


def brings_space(tokenizer: Tokenizer) -> bool:
    """Whether words of the tokenizer begin with the space before them, as those of byte pairs do."""
    spaced = (tokenizer.bytes_of(token) for token in range(tokenizer.vocab_size))
    return any(len(word) > 1 and word.startswith(b" ") for word in spaced)
