"""Any causal model in a local directory of transformers as the body of a policy.

One that our converters know becomes a :class:`~torchward.nets.transformer.Transformer`. Of every other one transformers
computes the hidden states: it becomes a :class:`~torchward.nets.hub_model.HubModel`.
"""

from pathlib import Path
from typing import Any

import torch

from torchward.config import ConfigError
from torchward.language import hub
from torchward.nets.hub_model import HubModel, library
from torchward.nets.transformer import Transformer


def load(directory: Path | str, *, vocab_size: int = 0, dtype: torch.dtype = torch.float32) -> Transformer | HubModel:
    """The causal model in a local directory of transformers, with a new value head and without dropout. Where its
    embedding has fewer rows than ``vocab_size``, it gets more, each the mean of the others.

    Raises ConfigError where there is none that can be read, and ImportError in one sentence without transformers, which
    reads what our converters do not."""
    directory = hub.local(directory)
    try:
        model = hub.load(directory, value_head=True, dtype=dtype)
    except hub.Unlike:
        return HubModel(_grown(_theirs(directory, dtype), vocab_size)).eval()
    if model.config.kind != "decoder":
        raise ConfigError(f"expected a causal model in {directory}, got one of kind {model.config.kind!r}")
    return hub.grown(model, vocab_size)


def _theirs(directory: Path, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError

    theirs = library("reads what torchward's converters do not")
    where: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = theirs.AutoConfig.from_pretrained(str(directory), **where)
        for name, value in vars(config.get_text_config()).items():
            if "drop" in name and isinstance(value, float):
                setattr(config.get_text_config(), name, 0.0)
        model, found = theirs.AutoModelForCausalLM.from_pretrained(
            str(directory), config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **where
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"the model in {directory} cannot be read: {said}") from error
    if found["missing_keys"]:
        raise ConfigError(f"expected a weight {min(found['missing_keys'])} in {directory}, got none")
    return model


def _grown(model: Any, vocab_size: int) -> Any:
    before = model.get_input_embeddings().weight.shape[0]
    if vocab_size > before:
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
        with torch.no_grad():
            for part in (model.get_input_embeddings(), model.get_output_embeddings()):
                part.weight[before:] = part.weight[:before].mean(0)
    return model
