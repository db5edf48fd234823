"""Masking: which tokens of packed rows are to be guessed, and what is shown in their place."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from torchward.config import ConfigError
from torchward.data.packing import Rows

__all__ = ["Masking"]


@dataclass(frozen=True)
class Masking:
    """The masking of BERT (Devlin et al. 2019, section 3.1), drawn anew each time that a row is read, as RoBERTa has it
    (Liu et al. 2019, section 4.1). Fields have the names of transformers' DataCollatorForLanguageModeling.

    Only tokens that stand for text are masked or put in another's place: no start, no end, no padding."""

    mask_id: int
    """The token that is shown in the place of most."""
    ordinary: Bool[Tensor, " vocab"]
    """True for each token that stands for text."""
    mlm_probability: float = 0.15
    """Share of the tokens that are to be guessed."""
    mask_replace_prob: float = 0.8
    """Share of these that are replaced by the mask."""
    random_replace_prob: float = 0.1
    """Share of these that are replaced by an ordinary token, any of them; what is left is shown as it is."""

    def __post_init__(self) -> None:
        if not 0.0 < self.mlm_probability <= 1.0:
            raise ConfigError(f"expected mlm_probability within (0, 1], got {self.mlm_probability}")
        shares = self.mask_replace_prob, self.random_replace_prob
        if min(shares) < 0.0 or sum(shares) > 1.0 + 1e-9:
            raise ConfigError(
                "expected mask_replace_prob and random_replace_prob of at least 0 and at most 1 together, got "
                f"{shares[0]} and {shares[1]}"
            )
        if not bool(self.ordinary.any()):
            raise ConfigError("expected a vocabulary with tokens that stand for text, got special ones alone")

    def __call__(self, rows: Rows, generator: Generator) -> Rows:
        """Rows whose ``tokens`` are masked, ``targets`` are what stood there, and ``loss_mask`` is True for what is to
        be guessed: one token at least, where there is one that stands for text. Three draws for each place."""
        tokens = rows.tokens
        which, how = (torch.rand(tokens.shape, generator=generator) for _ in range(2))
        words = self.ordinary.nonzero().squeeze(1)
        other = words[torch.randint(len(words), tokens.shape, generator=generator)]
        can = self.ordinary[tokens]
        chosen = can & (which < self.mlm_probability)
        if not bool(chosen.any()):
            first = which.masked_fill(~can, 2.0).flatten().argmin()
            chosen.view(-1)[first] = bool(can.any())
        shown = torch.where(chosen & (how < self.mask_replace_prob), self.mask_id, tokens)
        by_chance = (how >= self.mask_replace_prob) & (how < self.mask_replace_prob + self.random_replace_prob)
        shown = torch.where(chosen & by_chance, other, shown)
        return replace(rows, tokens=shown, targets=tokens, loss_mask=chosen)
