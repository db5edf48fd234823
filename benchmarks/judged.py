"""One training run, to its end, and the judgement of its final policy; an interrupted one is taken up again."""

import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

JUDGE = 10_000
"""Episodes that judge are seeded from here, far from any seed of a training run."""
LATER = {"exploration_bonus": {"type": "NoBonus"}}
"""Settings that configs were given later, at what stands for none: what was measured before them still counts."""


def train_and_judge(
    environment: Any,
    path: Path,
    settings: Mapping[str, Any],
    episodes: int,
    fresh: bool = False,
    algorithm: str = "ppo",
) -> dict[str, Any]:
    """Train in the run directory `path`, and play whole episodes with its last policy, deterministically.

    A run that lies there half done is resumed, if it is of these settings; a finished one is only judged."""
    import torch

    from torchward import launch
    from torchward.config import to_json
    from torchward.envs.task import Control
    from torchward.metrics import read_metrics
    from torchward.nets import saving
    from torchward.run import read_manifest
    from torchward.tasks import find

    torch.set_num_threads(1)
    start = launch.change_all(launch.defaults(find.algorithm(algorithm), environment), settings)
    own = to_json(start.config)
    same = (path / "config.json").exists() and read_manifest(path)["manifest"]["config"] == own
    if fresh or not same:
        shutil.rmtree(path, ignore_errors=True)
    objects = {} if isinstance(environment, str) else {"task": environment}
    if not (path / "config.json").exists():
        launch.train(algorithm, environment, path=path, threads=1, tensorboard=False, progress=False, **settings)
    elif not (path / launch.RESULT).exists():
        launch.resume(path, **objects)
    if not (path / launch.RESULT).exists():
        raise SystemExit(130)  # a signal came

    policy: Any = saving.load(path, which="last")
    judged = Control(environment, start.env).evaluate(policy, episodes, JUDGE + own["seed"])
    rows = [row for row in read_metrics(path) if row.get("return") is not None]
    thin = rows[:: max(1, len(rows) // 100)]
    return {
        "mean": statistics.fmean(judged.returns),
        "std": statistics.pstdev(judged.returns),
        "returns": judged.returns,
        "episodes": episodes,
        "config": own,
        "steps": rows[-1]["step"],
        "training_seconds": rows[-1]["time"],
        "curve": [[row["step"], row["return"]] for row in thin],
    }


def preset(environment: Any, settings: Mapping[str, Any] | None = None, algorithm: str = "ppo") -> dict[str, Any]:
    """The settings that an algorithm has for an environment when none are given but these; without the seed."""
    from torchward import launch
    from torchward.config import to_json
    from torchward.tasks import find

    start = launch.change_all(launch.defaults(find.algorithm(algorithm), environment), settings or {})
    told = to_json(start.config)
    return {name: value for name, value in told.items() if name != "seed" and (name, value) not in LATER.items()}
