"""A pretrained encoder in a local directory of transformers, as a model that fills gaps, with its tokenizer."""

from pathlib import Path

import torch

from torchward.language import hub, hub_tokenizer, pretrained
from torchward.language.documents import TextError
from torchward.nets.masked_language_model import MaskedLanguageModel

KINDS = ("bert", "roberta")
"""The kinds of encoders that become our transformer."""


def is_encoder(directory: Path | str) -> bool:
    """Whether the config.json in ``directory`` is that of an encoder; False where there is none. Raises ConfigError
    where it cannot be read."""
    data = hub.described(directory)
    return data.get("model_type") in KINDS and not data.get("is_decoder", False)


def load(directory: Path | str, *, dtype: torch.dtype = torch.float32) -> MaskedLanguageModel:
    """The encoder in ``directory``. One without the head that fills gaps has its embedding as head, untrained for that.

    Raises ConfigError or TextError where there is none that can be read, or whose tokenizer has no token for what is
    masked, and ImportError in one sentence without transformers. No code of the model's own runs."""
    tokenizer = hub_tokenizer.load(directory)
    if tokenizer.mask_id is None:
        raise TextError(f"expected a tokenizer with a mask_token in {directory}, as encoders have one, got one without")
    return MaskedLanguageModel(pretrained.load_encoder(directory, dtype=dtype).body, tokenizer.description())
