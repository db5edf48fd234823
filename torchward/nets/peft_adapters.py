"""Low-rank adapters of a model that transformers computes: peft makes them, and its format is theirs on disk.

They are set into the model in place, so it stays the module that it was, with other products within.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchward.config import ConfigError

if TYPE_CHECKING:
    from torchward.nets.lora import LoRA

NAME = "default"
"""What peft calls the one adapter that there is."""
WEIGHTS = "adapter_model.safetensors"
KINDS: dict[str, tuple[str, ...]] = {
    "query_key_value": ("q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn"),
    "out": ("o_proj", "out_proj", "dense"),
    "up": ("up_proj", "gate_proj", "gate_up_proj", "c_fc", "fc_in", "fc1", "dense_h_to_4h"),
    "down": ("down_proj", "c_proj", "fc_out", "fc2", "dense_4h_to_h"),
}
"""What families call the products of a layer, by what they are to :class:`~torchward.nets.lora.LoRA`."""


def inject(model: Any, lora: "LoRA", blocks: Collection[int]) -> None:
    """Give the products within the layers, whose ids ``blocks`` are, new adapters, and freeze all else. Where all four
    kinds are to have some, so have products whose names tell no kind. A is drawn from torch's global generator.

    Raises ConfigError where there are none, and ImportError in one sentence without peft."""
    theirs, is_whole = library(), set(KINDS) <= set(lora.target_modules)
    within = {
        f"{prefix}.{name}"
        for prefix, block in model.named_modules()
        if id(block) in blocks
        for name, product in block.named_modules()
        if isinstance(product, nn.Linear) and (is_whole or _kind(name) in lora.target_modules)
    }
    if not within:
        raise ConfigError(
            f"expected products of the kinds {', '.join(lora.target_modules)} to adapt, got none in "
            f"{type(model).__name__}"
        )
    config = theirs.LoraConfig(
        r=lora.r, lora_alpha=lora.lora_alpha, lora_dropout=lora.lora_dropout, target_modules=sorted(within)
    )
    theirs.inject_adapter_in_model(config, model, NAME)
    for _, _, layer in _layers(model):
        for name, parameter in layer.named_parameters():
            if "lora_" in name:  # in float32, so that small steps of the optimiser are not rounded away
                parameter.data = parameter.data.float()


def merge(model: Any) -> None:
    """Add the adapters to the matrices and leave them out, in place."""
    for parent, name, layer in list(_layers(model)):
        layer.merge()
        setattr(parent, name, layer.get_base_layer())


def are_on(model: Any) -> bool:
    """Whether adapters are part of what is computed."""
    return not any(layer.disable_adapters for _, _, layer in _layers(model))


def switch(model: Any, on: bool) -> None:
    """Leave adapters out, or let them be part again. What learns does not change by it."""
    for _, _, layer in _layers(model):
        layer._disable_adapters = not on  # enable_adapters would change requires_grad, and so what an optimiser has


@contextmanager
def taken_out(model: Any) -> Iterator[None]:
    """Within it the model is made of its own products again, by their own names."""
    found = list(_layers(model))
    try:
        for parent, name, layer in found:
            setattr(parent, name, layer.get_base_layer())
        yield
    finally:
        for parent, name, layer in found:
            setattr(parent, name, layer)


def save(model: Any, directory: Path) -> None:
    """Write the adapters as peft does: ``adapter_config.json`` and safetensors."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    model.peft_config[NAME].save_pretrained(str(directory))
    save_file({_peft_name(name): tensor for name, tensor in _tensors(model).items()}, directory / WEIGHTS)


def load(model: Any, directory: Path) -> None:
    """Read adapters into those that the model has. Raises ConfigError where they are others."""
    from safetensors.torch import load_file

    read = load_file(directory / WEIGHTS)
    with torch.no_grad():
        for name, tensor in _tensors(model, copied=False).items():
            if (found := read.get(_peft_name(name))) is None or found.shape != tensor.shape:
                raise ConfigError(f"expected an adapter {_peft_name(name)} of {tuple(tensor.shape)} in {directory}")
            tensor.copy_(found)


def library() -> Any:
    """peft. Raises ImportError in one sentence without it."""
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            "expected peft, which adapts models that transformers computes; install it: pip install 'torchward[hf]'"
        ) from error
    return peft


def _kind(name: str) -> str | None:
    *path, leaf = name.split(".")
    if leaf == "c_proj" and any("attn" in part for part in path):
        return "out"
    return next((kind for kind, names in KINDS.items() if leaf in names), None)


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Each adapted product, with the module that it is in and its name there."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if hasattr(child, "lora_A") and hasattr(child, "get_base_layer"):
                yield parent, name, child


def _tensors(model: nn.Module, copied: bool = True) -> dict[str, Tensor]:
    found = {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}
    return {name: p.detach().cpu().clone().contiguous() if copied else p.detach() for name, p in found.items()}


def _peft_name(name: str) -> str:
    return "base_model.model." + name.replace(f".{NAME}.", ".")
