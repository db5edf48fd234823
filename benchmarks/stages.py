"""Runs on a task of text that begin from one another: to pretrain, to fine-tune, and to learn by reward from there."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import RUNS, Work, child


class Trained(NamedTuple):
    """A run at its end."""

    path: Path
    steps: int
    seconds: float
    """Of the processor, without what was watched."""
    curve: list[list[float]]
    """What it was judged by on the way: step and return."""


@dataclass(frozen=True)
class Stages:
    """The stages of a benchmark that has the name of its task. Each is `torchward train` with the tuned settings.

    As for anybody who gives `--init RUN`, a stage begins from the best policy of the run before, by the text that is
    held out, where that was watched; what is reported of a run is its last."""

    name: str
    begins: Mapping[str, str]
    """From what a stage begins, where it begins from another."""
    algorithms: Mapping[str, str] = field(default_factory=dict)
    """What trains a stage that is not called by its algorithm."""

    def algorithm(self, stage: str) -> str:
        """What trains a stage."""
        return self.algorithms.get(stage, stage)

    def settings(self, stage: str) -> dict[str, Any]:
        """The tuned settings; those of what it begins from are part of them."""
        from torchward import launch
        from torchward.config import to_json
        from torchward.tasks import find

        start = launch.defaults(find.algorithm(self.algorithm(stage)), self.name)
        before = {self.begins[stage]: self.settings(self.begins[stage])} if stage in self.begins else {}
        return {"config": to_json(start.config), "task": to_json(start.env), "from": before}

    def place(self, stage: str, seed: int) -> Path:
        """Where a run lies."""
        return RUNS / self.name / f"{stage}-{seed}"

    def train(
        self,
        stage: str,
        seed: int,
        changes: Mapping[str, Any] | None = None,
        watch: Callable[[Any, Any], list[float]] | None = None,
        launched: Mapping[str, Any] | None = None,
    ) -> Trained:
        """Train a stage to its end, on one thread. `launched` are further words of `torchward train`. `watch` is given
        the run and its task before it goes, and the list that it returns fills with the seconds that it takes."""
        import torch

        from torchward import launch
        from torchward.metrics import read_metrics
        from torchward.tasks import find

        torch.set_num_threads(1)
        path = self.place(stage, seed)
        begins = self.place(self.begins[stage], seed) if stage in self.begins else None
        shutil.rmtree(path, ignore_errors=True)
        told = {"seed": seed, "data_seed": seed, "tensorboard": False, "progress": False, **(changes or {})}
        algorithm = find.algorithm(self.algorithm(stage))
        start = launch.change_all(launch.defaults(algorithm, self.name), told)
        ready = launch.begin(algorithm, self.name, start, path=path, init=begins, threads=1, **(launched or {}))
        looks = watch(ready.run, ready.task.task) if watch is not None else []
        before = time.process_time()
        run = ready.go()
        seconds = time.process_time() - before - sum(looks)
        if not (path / launch.RESULT).exists():
            raise SystemExit(130)  # a signal came
        rows = [row for row in read_metrics(path) if "eval/return" in row]
        curve = [[row["step"], row["eval/return"]] for row in rows]
        return Trained(path, run.step, round(seconds, 2), curve)


def works(
    benchmark: str,
    run: Stages,
    stages: Sequence[str],
    seeds: int,
    summary: Callable[[dict[str, Any]], str],
    settings: Callable[[str], Mapping[str, Any]] | None = None,
) -> list[Work]:
    """Each of some stages with each seed, in a process of its own, which `benchmark` has for `--one`; measured with
    the run's settings, or with others that a benchmark tells."""

    def process(stage: str, seed: int) -> dict[str, Any]:
        return child(
            [sys.executable, "-m", f"benchmarks.{benchmark}", "--one", "--stage", stage, "--seed", str(seed)], 1
        )

    return [
        Work(key(stage, seed), (settings or run.settings)(stage), partial(process, stage, seed), summary)
        for stage in stages
        for seed in range(seeds)
    ]


def key(stage: str, seed: int) -> str:
    """What a result is kept by."""
    return f"{stage}-seed-{seed}"


def reopened(path: Path, which: str = "last") -> tuple[Any, Any]:
    """A run's policy, and its task in that policy's words."""
    from torchward import launch
    from torchward.nets import saving
    from torchward.run import read_manifest

    policy: Any = saving.load(path, which=which)
    task: Any = launch.reopen_task(path, read_manifest(path)["manifest"]).task
    return policy, task.using(policy)
