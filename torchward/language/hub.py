"""Weights to and from transformers: GPT-2, Llama, Qwen2, BERT, RoBERTa, T5 and BART, as its models or directories.

A directory is config.json and safetensors: no code is in it, and reading or writing one needs no transformers.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchward.config import ConfigError
from torchward.language.families import FAMILIES
from torchward.language.family import Family, Json, Rule
from torchward.nets.hub_model import library
from torchward.nets.lora import merged
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import Kind, TransformerConfig

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


REMOTE = "hub:"
"""What a model's name begins with if it is to be downloaded: ``hub:owner/name``."""
DOWNLOADED = ("*.json", "*.safetensors", "*.jinja")
PLAIN = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""What weights are made of that need no scales beside them."""


class Unlike(ConfigError):
    """A model that torchward's transformer is not, though transformers may have it."""


def load(directory: Path | str, *, value_head: bool = False, dtype: torch.dtype = torch.float32) -> Transformer:
    """The transformer in a directory that transformers, or :func:`save`, has written; with ``value_head``, a new one.
    It has no dropout, whatever it was trained with.

    Raises ConfigError where there is none or where it is a pickle, and Unlike, which is one, for a model that
    torchward's transformer is not."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    directory = Path(directory)
    try:
        files, data = _files(directory), dict(json.loads((directory / CONFIG).read_text(encoding="utf-8")))
        _family(data, str(directory))  # before much is read
        tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    except ConfigError:
        raise
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"the model in {directory} cannot be read ({error}); it is damaged or foreign") from error
    return _built(data, tensors, str(directory), value_head).to(dtype)


def save(model: Transformer, directory: Path | str, *, model_type: str | None = None, **extra: Any) -> None:
    """Write ``model`` so that transformers loads it, its adapters merged into it. ``extra`` goes into config.json:
    ``eos_token_id``, for example. Of several kinds that it could be written as, a RoBERTa being also a BERT, it is the
    one named ``model_type``, or else the best known.

    A value head is left out, for transformers has none. The parts of a larger model that lay there before are removed.
    Raises ConfigError for a model that is none of its kinds, and where there is a file in place of a directory."""
    from safetensors.torch import save_file

    data, tensors = _written(model, extra, model_type)
    directory = made(directory)
    save_file({name: tensor.cpu() for name, tensor in tensors.items()}, directory / WEIGHTS, metadata={"format": "pt"})
    _remove_parts(directory)
    (directory / CONFIG).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def made(directory: Path | str) -> Path:
    """The directory, which is made where there is none. Raises ConfigError where there is a file."""
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"expected a directory at {directory}, got a file: give another place to write to") from error
    return directory


def described(directory: Path | str) -> Json:
    """What the config.json in a directory says; nothing where there is none. Raises ConfigError for one that is no
    object in JSON."""
    path = Path(directory) / CONFIG
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"expected JSON in {path}, got what cannot be read ({error}): write it anew") from error
    if not isinstance(data, dict):
        raise ConfigError(f"expected an object in {path}, got a {type(data).__name__}: let transformers save it anew")
    return data


def from_transformers(model: Any, *, value_head: bool = False) -> Transformer:
    """A transformer with the weights of one of transformers' models, as :func:`load` gives it.

    Raises ConfigError for a model that torchward's transformer is not."""
    return _built(model.config.to_dict(), model.state_dict(), type(model).__name__, value_head)


def to_transformers(model: Transformer, *, model_type: str | None = None, **extra: Any) -> Any:
    """One of transformers' models with the weights of ``model``; ``extra`` goes into its config, and ``model_type`` is
    as in :func:`save`.

    Raises ImportError without transformers, and ConfigError for a model that is none of its kinds."""
    theirs = library("turns weights into its models")
    data, tensors = _written(model, extra, model_type)
    cls = getattr(theirs, data["architectures"][0])
    return cls.from_pretrained(None, config=cls.config_class.from_dict(data), state_dict=tensors).eval()


def _built(data: Json, tensors: Mapping[str, Tensor], where: str, value_head: bool) -> Transformer:
    family = _family(data, where)
    tensors = _modern(tensors, family)
    _check_plain(tensors, (family.embedding, family.head), where)
    embedding = tensors.get(family.embedding)
    head = tensors.get(family.head, embedding)
    tied = head is embedding or (head is not None and embedding is not None and torch.equal(head, embedding))
    try:
        config = family.read(data, tensors.keys() - {family.head} if tied else tensors.keys())
        config = replace(config, tie_word_embeddings=config.tie_word_embeddings and tied, value_head=value_head)
    except ConfigError as error:
        raise Unlike(f"{error}, in {where}") from error
    except KeyError as error:
        raise ConfigError(f"expected {error.args[0]} in the config of {where}, got none") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the config of {where} is that of no {family.model_type}: {error}") from error
    model = Transformer(config)
    own = model.state_dict()
    try:
        if model.head is not None:
            own["head.weight"] = tensors[family.head if family.head in tensors else family.embedding]
        for rule in family.rules(config):
            if rule.ours not in own or (rule.optional and rule.theirs[0] not in tensors):
                continue  # a bias that there is not is in no file
            _check_plain(tensors, rule.theirs, where)
            own[rule.ours] = torch.cat([_read(tensors[name], rule) for name in rule.theirs])
        model.load_state_dict(own)
    except KeyError as error:
        raise ConfigError(f"expected a weight {error.args[0]} of {family.model_type} in {where}, got none") from None
    except RuntimeError as error:
        raise ConfigError(f"{where} does not fit its config: {' '.join(str(error).split())[:300]}") from error
    return model.eval()


def _written(model: Transformer, extra: Json, model_type: str | None = None) -> tuple[Json, dict[str, Tensor]]:
    """The config.json and the weights of ``model``, in memory of their own, as transformers has them."""
    config, family = model.config, _kind_of(model.config, model_type)
    own = merged(model).state_dict()
    data = {
        "model_type": family.model_type,
        "bos_token_id": None,
        "eos_token_id": None,
        **family.write(config),
        **extra,
    }
    tensors: dict[str, Tensor] = {}
    for rule in family.rules(config):
        if rule.ours in own:
            parts = own[rule.ours].split(rule.rows or len(own[rule.ours]))
            for name, part in zip(rule.theirs, parts, strict=True):
                tensors[name] = _as_theirs(part, rule)
    if model.head is not None:
        tensors[family.head] = own["head.weight"].clone()
    if data["architectures"] in (["BertModel"], ["RobertaModel"]):
        tensors = {name.removeprefix(family.prefix): tensor for name, tensor in tensors.items()}
    return {**data, "dtype": str(model.token.weight.dtype).removeprefix("torch.")}, tensors


def kind(data: Json) -> Kind:
    """What kind of model a config.json is of, also of one that the converters do not know."""
    family = next((family for family in FAMILIES if family.model_type == data.get("model_type")), None)
    if family is not None and not (family.kind == "encoder" and data.get("is_decoder")):
        return family.kind
    if data.get("is_encoder_decoder"):
        return "encoder-decoder"
    return "encoder" if any(name.endswith("ForMaskedLM") for name in data.get("architectures") or ()) else "decoder"


def is_remote(place: Path | str) -> bool:
    """Whether it is to be downloaded: ``hub:owner/name``."""
    return str(place).startswith(REMOTE)


def local(place: Path | str) -> Path:
    """The local directory that ``place`` is; of ``hub:owner/name``, and of nothing else, one that is downloaded.

    Its configs, tokenizer and safetensors are, and nothing else. Raises ConfigError where that fails, and ImportError
    in one sentence without transformers, whose library does it."""
    if not is_remote(place):
        return Path(place)
    said = str(place)
    library("brings the library that downloads models")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(said.removeprefix(REMOTE), allow_patterns=list(DOWNLOADED)))
    except Exception as error:  # whatever a network and a library for it may raise
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"the model {said} cannot be downloaded ({reason}); a local directory needs none") from error


def _read(theirs: Tensor, rule: Rule) -> Tensor:
    theirs = theirs[0] if rule.as_row else theirs[rule.before :]
    return theirs.T if rule.transposed else theirs


def _as_theirs(ours: Tensor, rule: Rule) -> Tensor:
    """In memory of its own."""
    ours = ours[None] if rule.as_row else ours.T if rule.transposed else ours
    return torch.cat([ours.new_zeros(rule.before, *ours.shape[1:]), ours])


def _check_plain(tensors: Mapping[str, Tensor], names: Iterable[str], where: str) -> None:
    """Raises ConfigError for numbers that mean nothing without scales."""
    for name in names:
        if name in tensors and (dtype := tensors[name].dtype) not in PLAIN:
            known = ", ".join(str(each).removeprefix("torch.") for each in PLAIN)
            raise ConfigError(f"expected weights of {known} in {where}, got {name} of {dtype}: save it dequantised")


def _family(data: Json, where: str) -> Family:
    """Raises Unlike for a model of none of the families, and ConfigError for a quantised one of any."""
    found = next((family for family in FAMILIES if family.model_type == data.get("model_type")), None)
    if found is None:
        known = ", ".join(family.model_type for family in FAMILIES)
        raise Unlike(f"expected a model of {known} in {where}, got {data.get('model_type')!r}")
    if quantised := data.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise ConfigError(f"expected plain weights in {where}, got quantised ones ({method}): save it dequantised")
    return found


def _kind_of(config: TransformerConfig, model_type: str | None) -> Family:
    """The first family whose config.json says all that ``config`` does."""
    for family in FAMILIES:
        if model_type not in (None, family.model_type):
            continue
        heads = {"cls.predictions.transform.dense.weight", "lm_head.dense.weight"}
        names = heads if config.head_transform else set()
        names |= set() if config.tie_word_embeddings else {family.head}
        data = {"model_type": family.model_type, **family.write(config)}
        try:
            read = family.read(data, names)
        except ValueError:  # what this family cannot say may not even fit together in it
            continue
        if _essence(read) == _essence(config):
            return family
    known = model_type or ", ".join(family.model_type for family in FAMILIES)
    raise ConfigError(f"expected a transformer that is one of {known} to write it for transformers, got {config}")


def _essence(config: TransformerConfig) -> TransformerConfig:
    """What the outputs depend on, with nothing left to defaults."""
    scale = config.head_size**-0.5 if config.attention_scale is None else config.attention_scale
    return replace(
        config,
        num_encoder_layers=config.encoder_layers,
        num_key_value_heads=config.key_value_heads,
        head_dim=config.head_size,
        intermediate_size=config.feed_forward_size,
        attention_scale=scale,
        value_head=False,
        dropout=0.0,
        initializer_range=0.0,
    )


def _modern(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """By the names of a model with a head, as transformers has them today."""
    has_head = any(name.startswith(family.prefix) for name in tensors)
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(("LayerNorm.gamma", "LayerNorm.beta")):
            name = name.removesuffix("gamma").removesuffix("beta") + ("weight" if name.endswith("gamma") else "bias")
        found[name if has_head else family.prefix + name] = tensor
    return found


def _files(directory: Path) -> list[Path]:
    """Where the weights are: in one file, or else in the parts that an index names."""
    files = [directory / WEIGHTS]
    if not files[0].is_file() and (directory / INDEX).is_file():
        files = _parts(directory)
    if not (directory / CONFIG).is_file() or not all(file.is_file() for file in files):
        pickled = any(directory.glob("*.bin"))
        raise ConfigError(
            f"expected {CONFIG} and {files[0].name} in {directory}, got "
            + ("a pickle, which is not read: let transformers save it anew" if pickled else "no such files")
        )
    return files


def _parts(directory: Path) -> list[Path]:
    """The files of the index, by the last part of what it says alone: what is read stays within the directory."""
    index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
    return sorted({directory / Path(name).name for name in index["weight_map"].values()})


def _remove_parts(directory: Path) -> None:
    """Remove the index and the parts of a model that lay there before: they are not those of the one file."""
    if not (directory / INDEX).is_file():
        return
    with suppress(ValueError, KeyError, AttributeError, TypeError):  # an index that cannot be read names no parts
        for part in _parts(directory):
            if part.suffix == ".safetensors" and part.name != WEIGHTS:
                part.unlink(missing_ok=True)
    (directory / INDEX).unlink()


def grown(model: Transformer, vocab_size: int) -> Transformer:
    """The model, or where it has fewer than ``vocab_size`` tokens, one with more: the vector of each new one is the
    mean of the others', in the head as in the embedding."""
    if vocab_size <= model.config.vocab_size:
        return model
    made = Transformer(replace(model.config, vocab_size=vocab_size)).to(model.token.weight)
    own = model.state_dict()
    for name in ("token.weight", "head.weight", "head_bias"):
        if name in own:
            more = vocab_size - len(own[name])
            own[name] = torch.cat([own[name], own[name].mean(0, keepdim=True).expand(more, *own[name].shape[1:])])
    made.load_state_dict(own)
    return made.train(model.training)
