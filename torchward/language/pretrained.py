"""A pretrained model in a local directory of transformers as a policy, with its tokenizer and its chat template."""

import json
from pathlib import Path
from typing import NamedTuple

import torch

from torchward.language import hub_model, hub_tokenizer
from torchward.language.chat import Template
from torchward.language.hub_template import template_of
from torchward.language.hub_tokenizer import HubTokenizer
from torchward.nets.language_model import LanguageModel
from torchward.nets.sampling import Sampling


class Pretrained(NamedTuple):
    """What a directory of transformers holds."""

    policy: LanguageModel
    tokenizer: HubTokenizer
    template: Template


def load(directory: Path | str, *, sampling: Sampling | None = None, dtype: torch.dtype = torch.float32) -> Pretrained:
    """The causal model in ``directory``, with a new value head. One that our converters know becomes our transformer;
    of others transformers computes the hidden states.

    Raises ConfigError or TextError where there is none that can be read, and ImportError in one sentence without
    transformers. No code of the model's own runs, and no pickle is read."""
    tokenizer = hub_tokenizer.load(directory)
    body = hub_model.load(directory, vocab_size=tokenizer.vocab_size, dtype=dtype)
    return Pretrained(LanguageModel(body, tokenizer.description(), sampling), tokenizer, template_of(tokenizer))


def lies_in(directory: Path | str) -> bool:
    """Whether a directory says that it holds a model of transformers."""
    described = Path(directory) / "config.json"
    return described.is_file() and json.loads(described.read_text()).get("model_type") is not None
