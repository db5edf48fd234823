"""torchward: reinforcement learning on PyTorch 2, from Bellman's equation to language models, on one core.

Three lines are enough::

    import torchward
    run = torchward.train("ppo", "CartPole-v1")
    action, state = torchward.load(run.path).predict(observation)

Names are resolved when they are first used, so that ``import torchward`` costs nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load", "resume", "train"]

if TYPE_CHECKING:
    from torchward.launch import resume, train
    from torchward.nets.saving import load

_HOMES = {"train": "torchward.launch", "resume": "torchward.launch", "load": "torchward.nets.saving"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'torchward' has no attribute {name!r}; it offers {', '.join(__all__)}")
