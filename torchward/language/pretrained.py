"""A pretrained model in a local directory of transformers: as a policy, or as an encoder, with its tokenizer."""

import json
from pathlib import Path
from typing import NamedTuple

import torch

from torchward.config import ConfigError
from torchward.language import hub, hub_model, hub_tokenizer
from torchward.language.chat import Template
from torchward.language.family import Json
from torchward.language.hub_template import template_of
from torchward.language.hub_tokenizer import GENERATION, HubTokenizer
from torchward.language.tokenizer import described
from torchward.nets.encoder_decoder import EncoderDecoder
from torchward.nets.hub_model import HubModel
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import merged
from torchward.nets.sampling import Sampling
from torchward.nets.transformer import Transformer


class Pretrained(NamedTuple):
    """What a directory of transformers holds that writes."""

    policy: LanguageModel
    tokenizer: HubTokenizer
    template: Template


class Encoder(NamedTuple):
    """What a directory of transformers holds that reads alone."""

    body: Transformer
    """Of ``config.kind == "encoder"``: ``forward(tokens, mask)`` gives hidden states ``[B, T, width]``."""
    tokenizer: HubTokenizer
    """Whose ``encode_source`` gives a text's tokens, with those that stand at its beginning and its end."""


def load(directory: Path | str, *, sampling: Sampling | None = None, dtype: torch.dtype = torch.float32) -> Pretrained:
    """The causal model or the encoder-decoder in ``directory``, with a new value head. One that our converters know
    becomes our transformer; of other causal ones transformers computes the hidden states. ``hub:owner/name`` is
    downloaded; nothing else reaches for a network.

    Raises ConfigError or TextError where there is none that can be read, and ImportError in one sentence without
    transformers. No code of the model's own runs, and no pickle is read."""
    directory = hub.local(directory)
    tokenizer = hub_tokenizer.load(directory)
    size = tokenizer.vocab_size
    match tokenizer.kind:
        case "encoder":
            raise ConfigError(
                f"expected a model that writes in {directory}, got an encoder: pretrained.load_encoder reads it"
            )
        case "encoder-decoder":
            both = hub.grown(hub.load(directory, value_head=True, dtype=dtype), size)
            body: EncoderDecoder | Transformer | HubModel
            body = EncoderDecoder(both, tokenizer.decoder_start[0], tokenizer.eos_id).eval()
        case "decoder":
            body = hub_model.load(directory, vocab_size=size, dtype=dtype)
    return Pretrained(LanguageModel(body, tokenizer.description(), sampling), tokenizer, template_of(tokenizer))


def lies_in(directory: Path | str) -> bool:
    """Whether a directory says that it holds a model of transformers. Raises ConfigError where what it says cannot be
    read."""
    return hub.described(directory).get("model_type") is not None


def load_encoder(directory: Path | str, *, dtype: torch.dtype = torch.float32) -> Encoder:
    """The encoder in ``directory``, BERT's or RoBERTa's, with its head if the directory has that; for what stands on
    hidden states: rewards, classes, filled gaps. Raises as :func:`load`."""
    directory = hub.local(directory)
    tokenizer = hub_tokenizer.load(directory)
    body = hub.load(directory, dtype=dtype)
    if body.config.kind != "encoder":
        raise ConfigError(f"expected an encoder in {directory}, got a model of kind {body.config.kind!r}: use load")
    return Encoder(hub.grown(body, tokenizer.vocab_size), tokenizer)


def save(policy: LanguageModel, directory: Path | str) -> None:
    """Write a policy as a directory that transformers loads, and :func:`load`: its adapters merged, with its tokenizer
    where that came from transformers, and without its value head, for which transformers has no place.

    Raises ConfigError for a model that transformers has nothing like, and where there is a file in place of a
    directory."""
    directory = Path(directory)
    body, tokenizer = merged(policy).body, described(policy.vocabulary, "the policy")
    by = tokenizer.end_ids
    ends: Json = {"eos_token_id": by[0] if len(by) == 1 else [*by], "pad_token_id": tokenizer.pad_id}
    match body:
        case Transformer():
            hub.save(body, directory, **ends)
        case EncoderDecoder():
            starts: Json = {"decoder_start_token_id": body.config.start_id, "forced_eos_token_id": None}
            hub.save(body.transformer, directory, **ends, **starts)
            if isinstance(tokenizer, HubTokenizer) and (behind := tokenizer.decoder_start[1:]):
                starts["forced_bos_token_id"] = behind[0]
            (directory / GENERATION).write_text(json.dumps({**ends, **starts}, indent=2) + "\n", encoding="utf-8")
        case HubModel():
            body.model.save_pretrained(str(hub.made(directory)))
        case _:
            raise ConfigError(f"expected a model that transformers has something like, got {type(body).__name__}")
    if isinstance(tokenizer, HubTokenizer):
        tokenizer.to_transformers.save_pretrained(str(directory))
