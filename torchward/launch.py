"""From names to a run: `torchward.train(...)`, and `torchward.resume(...)`.

    run = torchward.train("ppo", "CartPole-v1", total_timesteps=50_000)
    action, state = torchward.load(run.path).predict(observation)

All that can be wrong is said before anything is built: the names, the settings, whether the algorithm takes the spaces.
"""

import contextlib
import inspect
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from torchward import launch_checks, launch_policies, random_state
from torchward.checkpoint import write_json
from torchward.config import ConfigError, did_you_mean, from_json, to_json
from torchward.data.kl import KLToReference, frozen
from torchward.data.protocols import Shaping
from torchward.envs.make import EnvOptions
from torchward.fields import change, choose, settings
from torchward.language.hacking import Bounds
from torchward.metrics import METRICS_FILE
from torchward.nets import spaces
from torchward.run import Run, RunOptions, read_manifest
from torchward.tasks import find
from torchward.tasks.control import Preset
from torchward.tasks.find import Algorithm, Found, LaunchError

RUNS = Path("runs")
RESULT = "result.json"
"""The file that a run has once it has come to its end."""


def train(
    algorithm: str | Path | ModuleType,
    task: Any,
    *,
    name: str | None = None,
    path: str | Path | None = None,
    init: str | Path | None = None,
    policy: Any = None,
    teacher: Any = None,
    kl_coef: float = 0.0,
    kl_target: float | None = None,
    kl_budget: float | None = None,
    reward_model: str | Path | None = None,
    pessimism: float = 0.0,
    options: RunOptions | None = None,
    env: EnvOptions | None = None,
    threads: int = 0,
    **settings: Any,
) -> Run:
    """Train `algorithm` on `task`, and return the run: its `path`, its `best_return`.

    `algorithm` is a name (`torchward list` shows them), the path of a file with `Config` and `train`, or such a module.
    `task` is a Gymnasium id, the path of a file, an environment class, factory or instance, or a task.
    `settings` are fields of the algorithm's Config, of its network, of RunOptions and of EnvOptions, which change the
    tuned settings of that algorithm and task, or the defaults where there are none; `options` and `env` replace these.
    The run lies in `path`, or in runs/`name`, or in a new directory below runs/. It starts from the policy of the run
    `init`, or from a `policy` of your own; with `kl_coef`, each step pays so much for its log-probability's distance
    from that policy's, and with `kl_target` that weight follows the divergence of a row; with `kl_budget` the run says
    so when a text is further away than so many nats. On a task of text, answers earn what the reward model of the run
    `reward_model` says of them, less `pessimism` of its members' standard deviations. `teacher` is the run,
    or the policy, that distillation learns from; the run keeps it. `threads`: see :func:`choose_threads`.

    Raises LaunchError for names and spaces, ConfigError for settings, RunError for a directory that is taken."""
    found = find.algorithm(algorithm)
    start = defaults(found, task)
    start = start._replace(options=options or start.options, env=env or start.env)
    chosen = change_all(start, settings)
    return begin(
        found, task, chosen, name=name, path=path, init=init, policy=policy, kl_coef=kl_coef, kl_target=kl_target,
        kl_budget=kl_budget, reward_model=reward_model, pessimism=pessimism, teacher=teacher,
        threads=threads,
    ).go()  # fmt: skip


def resume(path: str | Path, *, task: Any = None, algorithm: ModuleType | None = None, policy: Any = None) -> Run:
    """Go on with the run in `path` from its newest checkpoint, bit for bit as if it had never stopped.

    `task`, `algorithm` and `policy` are only needed where the run was started with such an object from Python: an
    environment class, say. Raises RunError where there is no run."""
    return take_up(path, task=task, algorithm=algorithm, policy=policy).go()


def defaults(algorithm: Algorithm, task: Any) -> Preset:
    """The settings that an algorithm starts from on a task: tuned ones, or its own defaults."""
    found = (find.preset(algorithm.name, task) if algorithm.source == algorithm.name else None) or Preset(None)
    config = algorithm.Config() if found.config is None else found.config
    return Preset(config, found.options or RunOptions(), found.env or find.options(task))


def change_all(start: Preset, values: Mapping[str, Any]) -> Preset:
    """`start` with `values` by name, each in whichever of its three parts has that name.

    Raises ConfigError for a name that none has, naming the nearest."""
    left, parts, known = dict(values), list[Any](), list[str]()
    part: Any
    for part in start:
        chosen = choose(part, left)
        names = {setting.name for setting in settings(chosen)} | {field.name for field in fields(chosen)}
        parts.append(change(part, {name: left.pop(name) for name in list(left) if name in names}))
        known += sorted(names)
    for name in left:
        raise ConfigError(f"there is no setting {name!r}.{did_you_mean(name, known)}")
    return Preset(*parts)


@dataclass
class Ready:
    """A run with all that its training needs; `go` trains."""

    algorithm: Algorithm
    task: Found
    config: Any
    run: Run
    policy: Any
    kl: tuple[float, float | None]
    """Weight and target of the divergence from the policy that the run starts from; weight 0: none is paid for."""
    judge: Any
    """The reward model whose word answers earn, if there is one."""
    watch: Bounds | None
    """From when on a run on text warns of its reward; None: it is not watched."""
    threads: int
    """The number that torch had before, and has again afterwards."""
    fresh: bool
    teacher: Any = None

    def go(self) -> Run:
        """Train until the end, or until a signal; return the run."""
        run, given = self.run, {} if self.policy is None else {"policy": self.policy}
        if self.teacher is not None:
            given["teacher"] = self.teacher
        if shaping := self._shaping():
            given["shaping"] = shaping
        generators = random_state.capture_global()
        if not run.done:
            (run.path / RESULT).unlink(missing_ok=True)  # of the end before it was prolonged
        try:
            # What draws from the generators that all share, someone's environment say, is the same in each run too.
            _seed_global(getattr(self.config, "seed", 0))
            if self.fresh:
                launch_policies.keep(run.path, self.policy, self.teacher, self.judge)
            if self.judge is not None:
                self.judge.to(getattr(self.config, "device", "cpu"))
            self.algorithm.module.train(self.config, self.task.task, run, **given)
        except Exception:
            if self.fresh and _is_untouched(run.path):
                run.discard()
            raise
        finally:
            run.close()
            random_state.restore_global(generators)
            torch.set_num_threads(self.threads)
        if not self.interrupted:
            result = {"step": run.step, "best_return": run.best_return, "lower_is_better": run.lower_is_better}
            write_json(run.path / RESULT, result)
        return run

    def _shaping(self) -> list[Shaping]:
        """What is paid for the distance from the policy that the run starts from, and who watches the reward."""
        shaping: list[Shaping] = []
        if self.kl[0] or (self.watch is not None and self.watch.kl_budget is not None):
            shaping.append(KLToReference(frozen(self.policy), *self.kl))  # of weight 0, it only measures
        if self.watch is not None:
            from torchward.language.watch import Watch

            shaping.append(Watch(self.run.say, self.watch))
        return shaping

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the run before its time."""
        return self.run.stopping and not self.run.reached and self.run.step < self.run.total


def begin(
    algorithm: Algorithm,
    task: Any,
    start: Preset,
    name: str | None = None,
    path: str | Path | None = None,
    init: str | Path | None = None,
    policy: Any = None,
    kl_coef: float = 0.0,
    kl_target: float | None = None,
    reward_model: str | Path | None = None,
    pessimism: float = 0.0,
    threads: int = 0,
    teacher: Any = None,
    kl_budget: float | None = None,
) -> Ready:
    """Everything of :func:`train` up to the first step."""
    if name is not None and path is not None:
        raise LaunchError("a run has a name or a path, not both")
    if threads < 0:
        raise LaunchError(f"expected threads of at least 1, or 0 for what suits the networks, got {threads}")
    if init is not None and policy is not None:
        raise LaunchError("a run starts from the policy of another run or from one that is given, not both")
    module, config = algorithm.module, start.config
    found = find.task(task, start.env)
    if init is not None:
        policy = launch_policies.policy_of(init)
    launch_checks.check_teacher(algorithm, teacher)
    named, teacher = teacher, launch_policies.policy_of(teacher) if isinstance(teacher, str | Path) else teacher
    launch_checks.check_words(algorithm, found, policy)
    launch_checks.check_kind(algorithm, policy)
    found = launch_policies.in_words_of(found, teacher if policy is None else policy)
    judge = None if reward_model is None else launch_policies.judge_of(reward_model)
    found = launch_policies.judged_by(found, judge, pessimism)
    if init is not None:
        untouched = defaults(algorithm, task).config
        config = launch_checks.fit(policy, init, config, untouched, found)
        config = launch_checks.in_context(algorithm, policy, config, untouched)
    if policy is not None and "policy" not in inspect.signature(module.train).parameters:
        raise LaunchError(f"{algorithm.name} starts from no other policy: its train takes no argument `policy`")
    for setting, value in (("kl_coef", kl_coef), ("kl_budget", kl_budget)):
        if value:
            launch_checks.check_kl(algorithm, config, policy, setting)
    launch_checks.check_kl_target(kl_coef, kl_target)
    watch = launch_checks.watched(algorithm, found, kl_budget)
    launch_checks.check_device(getattr(config, "device", "cpu"))
    launch_checks.check_settings(algorithm, config, found, policy)
    options = start.options if start.options is not None else RunOptions()
    manifest = {
        "algorithm": algorithm.source,
        "algorithm_name": algorithm.name,
        "task": found.source,
        "task_name": found.name,
        "config": to_json(config),
        "env": to_json(find.lasting(start.env if start.env is not None else find.options(task))),
        "spaces": launch_checks.spaces_of(found),
        "kl": [kl_coef, kl_target],
        "reward_model": None if reward_model is None else str(Path(reward_model).resolve()),
        "pessimism": pessimism,
        "watch": None if watch is None else to_json(watch),
        "init": None if init is None else launch_policies.told_of(init),
        "policy": None if policy is None or init is not None else type(policy).__name__,
        **launch_policies.told_of_teacher(named),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(threads or choose_threads(config, found.task))
    try:
        place = _place(f"{algorithm.name}-{found.name}-{getattr(config, 'seed', 0)}", name, path)
        try:
            run = Run(place, options, total=config.total_timesteps, manifest=manifest)
        except BaseException:
            with contextlib.suppress(OSError):
                place.rmdir()  # if it is empty
            raise
    except BaseException:
        torch.set_num_threads(before)
        raise
    run.made_directory |= name is None and path is None  # _place has made it
    if sentence := launch_checks.told_of_bf16(config):
        run.say(sentence)
    kl = kl_coef, kl_target
    return Ready(algorithm, found, config, run, policy, kl, judge, watch, before, fresh=True, teacher=teacher)


def take_up(path: str | Path, *, task: Any = None, algorithm: ModuleType | None = None, policy: Any = None) -> Ready:
    """Everything of :func:`resume` up to the first step."""
    manifest = read_manifest(path)["manifest"]
    module, found = reopen(path, manifest, task=task, algorithm=algorithm)
    launch_checks.check_same(path, manifest, found)
    config = from_json(module.Config, manifest["config"])
    policy = launch_policies.begun_with(Path(path), manifest, policy)
    teacher = launch_policies.taught_by(Path(path), manifest)
    found = launch_policies.in_words_of(found, teacher if policy is None else policy)
    found, judge = launch_policies.as_judged(found, path, manifest)
    weight, goal = manifest.get("kl", (0.0, None))
    before = torch.get_num_threads()
    watch = None if manifest.get("watch") is None else from_json(Bounds, manifest["watch"])
    kl = weight, goal
    return Ready(
        module, found, config, Run.resume(path), policy, kl, judge, watch, before, fresh=False, teacher=teacher
    )


def reopen(
    path: str | Path, manifest: Mapping[str, Any], *, task: Any = None, algorithm: ModuleType | None = None
) -> tuple[Algorithm, Found]:
    """The algorithm and the task of a run."""
    if algorithm is None and manifest["algorithm"] is None:
        raise LaunchError(
            f"{path} was started from Python with the module {manifest['algorithm_name']}; "
            f"go on from there: torchward.resume({str(path)!r}, algorithm=...)"
        )
    module = find.algorithm(manifest["algorithm"] if algorithm is None else algorithm)
    return module, reopen_task(path, manifest, task)


def reopen_task(path: str | Path, manifest: Mapping[str, Any], task: Any = None) -> Found:
    """The task of a run."""
    if task is None and manifest["task"] is None:
        raise LaunchError(
            f"{path} was started from Python with the environment {manifest['task_name']}, which only its program has; "
            f"go on from there: torchward.resume({str(path)!r}, task=...)"
        )
    named = manifest["task"] if task is None else task
    return find.task(named, None if find.is_task(named) else from_json(type(find.options(named)), manifest["env"]))


def choose_threads(config: Any, task: Any) -> int:
    """How many threads torch computes with: one for networks of less than 256 units on observations without images,
    where a second one costs more than it brings (measured); torch's own choice for all others."""
    if hasattr(task, "demonstrations"):
        return torch.get_num_threads()  # a transformer
    network = getattr(config, "network", None)
    widths = [*getattr(network, "net_arch", ()), getattr(network, "lstm_hidden_size", 0)]
    images = any(isinstance(leaf, spaces.Box) and leaf.is_image for leaf in spaces.leaves(task.observation_space))
    return torch.get_num_threads() if images or max(widths) >= 256 else 1


def _seed_global(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (other people's environments use it)
    torch.manual_seed(seed)


def _is_untouched(path: Path) -> bool:
    """Whether a run has failed before it began: there is nothing in it."""
    metrics = path / METRICS_FILE
    written = metrics.exists() and metrics.stat().st_size > 0
    return not written and not (path / "checkpoint").exists() and not (path / "failed").exists()


def _place(default: str, name: str | None, path: str | Path | None) -> Path:
    """The run's directory; a new one where neither name nor path is given."""
    if path is not None:
        return Path(path)
    if name is not None:
        if not (sane := _sanitized(name)) or sane != name:
            raise LaunchError(f"a name is made of letters, digits, dots, dashes and underscores; got {name!r}")
        return RUNS / name
    RUNS.mkdir(parents=True, exist_ok=True)
    stem, count = _sanitized(default), 1
    while True:
        place = RUNS / (stem if count == 1 else f"{stem}-{count}")
        try:
            place.mkdir()
        except FileExistsError:
            count += 1
        else:
            return place


def _sanitized(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")
