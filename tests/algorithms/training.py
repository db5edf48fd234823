"""Training in a test: a run in a directory, judged by fresh episodes."""

from pathlib import Path
from types import ModuleType
from typing import Any

from torchward.config import to_json
from torchward.data.protocols import Policy, Task
from torchward.run import Run, RunOptions


def start(path: Path, algorithm: ModuleType, config: Any, task: Task, resume: bool = False, **options: Any) -> Run:
    """The run of ``config`` in ``path``, with nothing drawn or shown."""
    manifest = {"algorithm": algorithm.__name__, "task": task.name, "config": to_json(config)}
    quiet = RunOptions(**{"tensorboard": False, "progress": False, "eval_freq": -1, "checkpoint_freq": -1, **options})
    return Run(path, quiet, total=config.total_timesteps, manifest=manifest, resume=resume)


def score(path: Path, algorithm: ModuleType, config: Any, task: Task, episodes: int = 100) -> float:
    """The mean return of ``episodes`` fresh episodes after training."""
    policy: Policy = algorithm.train(config, task, start(path, algorithm, config, task))
    returns = task.evaluate(policy, episodes, 12345).returns
    assert len(returns) == episodes
    return sum(returns) / episodes
