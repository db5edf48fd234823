"""A policy as a directory of data: ``policy.json`` says what it is, ``policy.safetensors`` holds its tensors.

Reading one executes nothing: a module of the user's own is never imported by name, it has to be handed in.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from torch import Tensor, nn

from torchward.nets import spaces
from torchward.nets.spaces import Space

if TYPE_CHECKING:
    from torchward.nets.actor_critic import ActorCritic
    from torchward.nets.deterministic_actor import DeterministicActor
    from torchward.nets.q_policy import QPolicy
    from torchward.nets.soft_actor import SoftActor
    from torchward.nets.tabular import TabularPolicy

Loaded: TypeAlias = "ActorCritic | DeterministicActor | QPolicy | SoftActor | TabularPolicy"
FORMAT = 1
HOMES = {
    "ActorCritic": "actor_critic",
    "DeterministicActor": "deterministic_actor",
    "QPolicy": "q_policy",
    "LanguageModel": "language_model",
    "RewardModel": "reward_model",
    "MaskedLanguageModel": "masked_language_model",
    "SoftActor": "soft_actor",
    "TabularPolicy": "tabular",
    "TextClassifier": "text_classifier",
}
"""The policies that can be saved, and the modules of this package that they are in."""

HUB = "body.model."
"""What the names of those tensors begin with that transformers computes with: they lie in files of its own format."""

S = TypeVar("S")


class PolicyError(ValueError):
    """A directory that holds no policy, or one that does not fit."""


class Saved(Protocol):
    """A policy that can be saved: it says in plain JSON what it is, and is built again from that."""

    @property
    def observation_space(self) -> Space: ...

    @property
    def action_space(self) -> Space: ...

    def description(self) -> dict[str, Any]:
        """What it was made from, beside its spaces. A module of the user's own goes as ``encoder``, by its name."""
        ...

    @classmethod
    def described(cls, observation: Space, action: Space, data: dict[str, Any], encoder: nn.Module | None) -> Any:
        """One as ``data`` says, with any parameters."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]: ...


def save(policy: Saved, directory: Path, apart: str | None = None) -> None:
    """Write ``policy`` into ``directory``, which is made; but for tensors whose names begin with ``apart``, which lie
    in files of their own."""
    from safetensors.torch import save_file

    description: dict[str, Any] = {
        "format": FORMAT,
        "policy": type(policy).__name__,
        "observation_space": spaces.to_json(policy.observation_space),
        "action_space": spaces.to_json(policy.action_space),
        **policy.description(),
    }
    directory.mkdir(parents=True, exist_ok=True)
    # Cloned: safetensors takes no tensors that share memory, as those of a tied encoder of the user's do.
    own = {name: x for name, x in policy.state_dict().items() if apart is None or not name.startswith(apart)}
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in own.items()}
    save_file(tensors, directory / "policy.safetensors")
    (directory / "policy.json").write_text(json.dumps(description, indent=2) + "\n")


def load(path: Path | str, *, encoder: nn.Module | None = None, which: str | None = None) -> Loaded:
    """The policy of a run, or of a policy directory.

    Of a run, the best one if it was evaluated, else the last; ``which="last"`` or ``"best"`` decides otherwise. A
    policy that was trained with an encoder of your own needs an instance of it in ``encoder``.
    Raises :class:`PolicyError` where there is no policy, or it does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    directory = find(Path(path), which)
    try:
        data = json.loads((directory / "policy.json").read_text())
        tensors = load_file(directory / "policy.safetensors")
        policy = _build(data, encoder, directory)
        if "hub" in data:  # the others have been read
            tensors |= {name: x for name, x in policy.state_dict().items() if name.startswith(HUB)}
        policy.load_state_dict(tensors)
    except PolicyError:
        raise
    except (ValueError, SafetensorError, KeyError, TypeError, AttributeError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PolicyError(f"the policy in {directory} cannot be read ({reason}); it is damaged or foreign") from error
    policy.eval()
    return policy


def put_weights(policy: Any, directory: Path) -> None:
    """Put the weights that lie in ``directory``, if there are such, into a module of the user's own that :func:`load`
    cannot build. Raises :class:`PolicyError` where they do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights = directory / "policy.safetensors"
    if not weights.is_file() or not isinstance(policy, nn.Module):
        return
    try:
        policy.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PolicyError(f"the weights in {directory} do not fit a {type(policy).__name__} ({reason})") from error


def find(path: Path, which: str | None = None) -> Path:
    """The policy directory of a run: ``policy/best`` if there is one, else ``policy/last``; or ``path`` itself."""
    choices = [which] if which else ["best", "last"]
    candidates = [path, *(path / "policy" / choice for choice in choices)]
    for candidate in candidates:
        if (candidate / "policy.json").is_file():
            return candidate
    if _is_of_transformers(path):
        raise PolicyError(
            f"expected a run or a policy directory at {path}, but it holds a model of transformers: begin a run from "
            f"it with --init {path}"
        )
    what = "no such directory" if not path.exists() else "it holds no policy yet"
    raise PolicyError(f"expected a run or a policy directory at {path}, but {what}; `torchward train` makes one")


def _is_of_transformers(path: Path) -> bool:
    """Whether a directory says that it holds a model of transformers. A run has a config.json too, without this."""
    try:
        data = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "model_type" in data


def name_of(encoder: nn.Module | None) -> str | None:
    """What a message calls an encoder of the user's own."""
    return None if encoder is None else f"{type(encoder).__module__}.{type(encoder).__qualname__}"


def settings(cls: type[S], data: dict[str, Any]) -> S:
    """A dataclass of plain settings, such as a network's shape, from its JSON. Fields that it does not know are left
    out, as a later version may have more."""
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    found = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items() if name in known}
    return cls(**found)


def _build(data: dict[str, Any], encoder: nn.Module | None, directory: Path) -> Loaded:
    if data.get("format") != FORMAT:
        raise PolicyError(
            f"expected a policy of format {FORMAT} in {directory}, got {data.get('format')!r}; use the torchward that "
            "wrote it"
        )
    observation_space, action_space = (spaces.from_json(data[key]) for key in ("observation_space", "action_space"))
    name = data["policy"]
    if name not in HOMES:
        raise PolicyError(f"expected a policy of {', '.join(HOMES)} in {directory}, got {name!r}")
    if "hub" in data and encoder is None:
        from torchward.nets import hub_model, peft_adapters

        body = hub_model.read(directory / hub_model.MODEL)
        policy: Loaded = _class(name).described(observation_space, action_space, data, body)
        if "lora" in data:
            peft_adapters.load(body.model, directory / hub_model.ADAPTER)
        return policy
    own = data.get("encoder")
    if own is not None and encoder is None:
        raise PolicyError(
            f"the policy in {directory} has an encoder of your own; pass it: load(path, encoder={own}(...))"
        )
    if own is None and encoder is not None:
        raise PolicyError(f"the policy in {directory} has no encoder of your own; leave it out: load(path)")
    made: Loaded = _class(name).described(observation_space, action_space, data, encoder)
    return made


def _class(name: str) -> type[Saved]:
    cls: type[Saved] = getattr(import_module(f"torchward.nets.{HOMES[name]}"), name)
    return cls
