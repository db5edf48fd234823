"""What ``torch.hub`` finds here: the policy of a run, and a fresh transformer.

policy = torch.hub.load("path/to/torchward", "policy", "runs/mine", source="local")
model = torch.hub.load("path/to/torchward", "transformer", "llama", hidden_size=256, source="local")
"""

import dataclasses
import typing

# torch.hub offers whatever can be called here: so modules are imported, and no names of theirs.

dependencies = ["torch", "numpy", "jaxtyping", "safetensors"]


def policy(path: str, which: str | None = None) -> typing.Any:
    """The policy of a run, or of a policy directory, as ``torchward.load`` gives it: the best one of a run that was
    evaluated, else the last; ``which`` may be "best" or "last"."""
    import torchward

    return torchward.load(path, which=which)


def transformer(preset: str = "gpt2", **settings: typing.Any) -> typing.Any:
    """A transformer with random weights: like "gpt2", "llama", "bert" or "t5", with ``settings`` of
    ``torchward.nets.transformer_config.TransformerConfig`` changed. Raises ValueError for another preset."""
    from torchward.nets import transformer_config
    from torchward.nets.transformer import Transformer

    presets = {name: getattr(transformer_config, name) for name in ("gpt2", "llama", "bert", "t5")}
    if preset not in presets:
        raise ValueError(f"expected a preset of {', '.join(presets)}, got {preset!r}")
    return Transformer(dataclasses.replace(presets[preset](), **settings))
