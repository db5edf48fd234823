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

from torchward import checkpoint, launch_checks, random_state
from torchward.checkpoint import write_json
from torchward.config import ConfigError, did_you_mean, from_json, to_json
from torchward.data.kl import KLToReference, frozen
from torchward.data.protocols import Shaping
from torchward.envs.make import EnvOptions
from torchward.fields import change, choose, settings
from torchward.language.hacking import Bounds
from torchward.metrics import METRICS_FILE
from torchward.nets import saving, spaces
from torchward.run import Run, RunOptions, read_manifest
from torchward.tasks import find
from torchward.tasks.control import Preset
from torchward.tasks.find import Algorithm, Found, LaunchError

RUNS = Path("runs")
INITIAL = "initial"
"""The directory within a run of the policy that it started from."""
TEACHER = "teacher"
"""The directory within a run of the policy that it learns from."""
JUDGE = "reward_model"
"""The directory within a run of the reward model that judged its answers."""
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
        try:
            # What draws from the generators that all share, someone's environment say, is the same in each run too.
            _seed_global(getattr(self.config, "seed", 0))
            if self.fresh and self.policy is not None and hasattr(self.policy, "save"):
                checkpoint.publish(run.path / INITIAL, self.policy.save)
            if self.fresh and self.teacher is not None:
                checkpoint.publish(run.path / TEACHER, self.teacher.save)
            if self.fresh and self.judge is not None:
                checkpoint.publish(run.path / JUDGE, self.judge.save)
            self.algorithm.module.train(self.config, self.task.task, run, **given)
        except Exception:
            if self.fresh and _is_untouched(run.path):
                run.discard()
            raise
        finally:
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
    if init is not None and policy is not None:
        raise LaunchError("a run starts from the policy of another run or from one that is given, not both")
    module, config = algorithm.module, start.config
    found = find.task(task, start.env)
    if init is not None:
        policy = policy_of(init)
    launch_checks.check_teacher(algorithm, teacher)
    taught_by, teacher = teacher, policy_of(teacher) if isinstance(teacher, str | Path) else teacher
    launch_checks.check_words(algorithm, found, policy)
    launch_checks.check_kind(algorithm, policy)
    found = in_words_of(found, teacher if policy is None else policy)
    judge = None if reward_model is None else judge_of(reward_model)
    found = judged_by(found, judge, pessimism)
    if init is not None:
        untouched = defaults(algorithm, task).config
        config = launch_checks.fit(policy, init, config, untouched, found)
        config = launch_checks.in_context(algorithm, policy, config, untouched)
    if policy is not None and "policy" not in inspect.signature(module.train).parameters:
        raise LaunchError(f"{algorithm.name} starts from no other policy: its train takes no argument `policy`")
    for setting, value in (("kl_coef", kl_coef), ("kl_budget", kl_budget)):
        if value:
            launch_checks.check_kl(algorithm, config, policy, setting)
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
        "kl": [kl_coef, kl_target],
        "reward_model": None if reward_model is None else str(Path(reward_model).resolve()),
        "pessimism": pessimism,
        "watch": None if watch is None else to_json(watch),
        "init": None if init is None else str(init if _is_remote(init) else Path(init).resolve()),
        "policy": None if policy is None or init is not None else type(policy).__name__,
        **_told_of_teacher(taught_by),
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
    kl = kl_coef, kl_target
    return Ready(algorithm, found, config, run, policy, kl, judge, watch, before, fresh=True, teacher=teacher)


def take_up(path: str | Path, *, task: Any = None, algorithm: ModuleType | None = None, policy: Any = None) -> Ready:
    """Everything of :func:`resume` up to the first step."""
    manifest = read_manifest(path)["manifest"]
    module, found = reopen(path, manifest, task=task, algorithm=algorithm)
    config = from_json(module.Config, manifest["config"])
    policy = _begun_with(Path(path), manifest, policy)
    teacher = policy_of(Path(path) / TEACHER) if manifest.get("teacher") is not None else None
    found = in_words_of(found, teacher if policy is None else policy)
    found, judge = as_judged(found, path, manifest)
    weight, goal = manifest.get("kl", (0.0, None))
    before = torch.get_num_threads()
    watch = None if manifest.get("watch") is None else from_json(Bounds, manifest["watch"])
    kl = weight, goal
    return Ready(
        module, found, config, Run.resume(path), policy, kl, judge, watch, before, fresh=False, teacher=teacher
    )


def _begun_with(path: Path, manifest: Mapping[str, Any], given: Any) -> Any:
    """The policy that a run started from, as it was then: references and divergences are told by it. ``given`` is one
    of its architecture, which is needed where a policy of the user's own cannot be read from what the run keeps.

    Raises LaunchError where it is needed and missing, or of another architecture."""
    kept, init, named = path / INITIAL, manifest.get("init"), manifest.get("policy")
    if given is not None:
        return _as_it_was(given, kept)
    if init is None and named is None:
        return None
    try:
        return policy_of(kept if kept.exists() or init is None else init)
    except saving.PolicyError as error:
        if init is not None:
            raise
        raise LaunchError(
            f"{path} was started with a policy of its own ({named}): go on from Python, "
            f"torchward.resume({str(path)!r}, policy=...), with one of the same architecture"
        ) from error


def _as_it_was(given: Any, kept: Path) -> Any:
    """A policy with the weights that a run began with, where it keeps them."""
    try:
        if not hasattr(given, "load_state_dict") or not kept.exists():
            return given
        try:
            given.load_state_dict(policy_of(kept).state_dict())
        except saving.PolicyError:  # it has an encoder of the user's own, or is a class of theirs
            saving.put_weights(given, kept)
    except (RuntimeError, saving.PolicyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LaunchError(
            f"expected a policy of the architecture that the run began with, got a {type(given).__name__}: {reason}"
        ) from error
    return given


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


def in_words_of(found: Found, policy: Any) -> Found:
    """The task in the words of the policy that is to do it, where it is one of text: the task alone would build its own
    tokenizer."""
    if policy is None or not hasattr(found.task, "using"):
        return found
    return found._replace(task=found.task.using(policy))


def judge_of(place: str | Path) -> Any:
    """The reward model of a run or of a directory. Raises PolicyError where there is none that can be read, and
    LaunchError for a policy of another kind."""
    from torchward.nets.reward_model import RewardModel

    model: Any = saving.load(place)
    if not isinstance(model, RewardModel):
        raise LaunchError(
            f"expected the run of a reward model at {place}, got a {type(model).__name__}: `torchward train "
            "reward_model` makes one"
        )
    return model


def as_judged(found: Found, path: str | Path, manifest: Mapping[str, Any]) -> tuple[Found, Any]:
    """The task of the run in ``path``, its answers judged as they were there; and the reward model, if it has one."""
    judge = None
    if manifest.get("reward_model") is not None:
        kept = Path(path) / JUDGE
        judge = judge_of(kept if kept.exists() else manifest["reward_model"])
    return judged_by(found, judge, manifest.get("pessimism", 0.0)), judge


def judged_by(found: Found, judge: Any, pessimism: float) -> Found:
    """The task, whose answers earn what a reward model says of them, if there is one. Raises LaunchError for a task
    without answers."""
    if judge is None:
        if pessimism:
            raise LaunchError("pessimism needs a reward model whose members may disagree: give reward_model, its run")
        return found
    if not hasattr(found.task, "judged_by"):
        raise LaunchError(f"a reward model judges answers in text, and {found.name} has none")
    return found._replace(task=found.task.judged_by(judge, pessimism))


def policy_of(place: str | Path) -> Any:
    """What a run can start from: the policy of a run or of a policy directory, or a pretrained model in a local
    directory of transformers, or one that is to be downloaded, ``hub:owner/name``. Raises PolicyError, ConfigError or
    LaunchError where there is none."""
    from torchward.language import pretrained, pretrained_encoder

    try:
        if pretrained_encoder.is_encoder(place):
            return pretrained_encoder.load(place)
        if pretrained.lies_in(place) or _is_remote(place):
            return pretrained.load(place).policy
        return saving.load(place)
    except ImportError as error:
        raise LaunchError(str(error)) from error


def _is_remote(place: str | Path) -> bool:
    """Whether it is to be downloaded: ``hub:owner/name``."""
    return str(place).startswith("hub:")


def _told_of_teacher(teacher: Any) -> dict[str, str]:
    """What a run's manifest says of its teacher: where it was found, or what it is."""
    if teacher is None:
        return {}
    return {"teacher": str(Path(teacher).resolve()) if isinstance(teacher, str | Path) else type(teacher).__name__}


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
