"""The state of anything that has one, as a tree: modules, sources, and generators of random numbers."""

import random
from typing import Any

import numpy as np
import torch


def can_hold(thing: object) -> bool:
    """True for what `capture` and `restore` take: generators, and objects with state_dict and load_state_dict."""
    if isinstance(thing, (torch.Generator, np.random.Generator)):
        return True
    return callable(getattr(thing, "state_dict", None)) and callable(getattr(thing, "load_state_dict", None))


def capture(thing: Any) -> Any:
    """The state of `thing` as a tree that a checkpoint can hold."""
    if isinstance(thing, torch.Generator):
        return thing.get_state()
    if isinstance(thing, np.random.Generator):
        return dict(thing.bit_generator.state)
    return thing.state_dict()


def restore(thing: Any, state: Any) -> None:
    """Bring `thing` back to a captured state."""
    if isinstance(thing, torch.Generator):
        thing.set_state(state)
    elif isinstance(thing, np.random.Generator):
        thing.bit_generator.state = state
    else:
        thing.load_state_dict(state)


def capture_global() -> dict[str, Any]:
    """The states of the generators that torch, CUDA, NumPy and Python share between all callers."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 (other people's environments use it)
        "python": random.getstate(),
    }


def restore_global(state: dict[str, Any]) -> None:
    """Bring the shared generators back to what `capture_global` found."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        for device, each in enumerate(state["cuda"][: torch.cuda.device_count()]):  # here there may be fewer
            torch.cuda.set_rng_state(each, device)
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])
