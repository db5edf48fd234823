"""From what a person names to an algorithm and a task: ours, a file of theirs, any Gymnasium id, an object."""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torchward.config import did_you_mean
from torchward.tasks import text, texts
from torchward.tasks.control import PRESETS, Preset

ALGORITHMS = Path(__file__).resolve().parents[1] / "algorithms"
TASKS = Path(__file__).resolve().parent
TEXTS = (".txt", ".md", ".jsonl", ".db")
"""What the name of a file of text ends in."""


class LaunchError(ValueError):
    """What was asked for cannot be started: an unknown name, a file that lacks something, spaces that do not fit."""


class Algorithm(NamedTuple):
    """A module with `Config` and `train(config, task, run)`, and how it was named."""

    module: Any
    name: str
    """What runs and tables call it."""
    source: str | None
    """By which it is found again: its name, or the path of its file; None for a module that was handed over."""

    @property
    def Config(self) -> Any:
        """The dataclass of its settings."""
        return self.module.Config

    @property
    def learns_from(self) -> Any:
        """The type of the task that its `train` takes, by its annotation; None where there is none."""
        task = inspect.signature(self.module.train).parameters.get("task")
        return None if task is None or task.annotation is task.empty else task.annotation


class Found(NamedTuple):
    """A task, and how it was named."""

    task: Any
    name: str
    source: str | None


@cache
def algorithms() -> Mapping[str, str]:
    """The first line of the docstring of each algorithm, by name; nothing is imported."""
    found = {}
    for path in sorted(ALGORITHMS.glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = (text.splitlines() or [""])[0]
    return found


@cache
def problems() -> Mapping[str, str]:
    """The first line of the docstring of each task of text, by name: the files here that have Options and make."""
    found = {}
    for path in sorted(TASKS.glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        if {"Options", "make"} <= names:
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def options(task_source: Any) -> Any:
    """The options that a task starts from: those of a task of text, or of environments."""
    from torchward.envs.make import EnvOptions

    if is_text(task_source):
        return texts.Options()
    if isinstance(task_source, str) and task_source in problems():
        return importlib.import_module(f"torchward.tasks.{task_source}").Options()
    return EnvOptions()


def is_text(named: Any) -> bool:
    """Whether a file or folder of text is meant: ./book.txt, ./answers.jsonl, ./feedback.db, ./folder/."""
    if not isinstance(named, str | Path) or (isinstance(named, str) and is_file(named)):
        return False
    path = Path(named)
    return path.suffix in TEXTS or (path.is_dir() and len(str(named)) > 0)


def algorithm(named: str | Path | ModuleType) -> Algorithm:
    """The algorithm that is called so: one of torchward's, or that in a Python file.

    Raises LaunchError for an unknown name, naming the nearest one, and for a file without `Config` or `train`."""
    if isinstance(named, ModuleType):
        return _checked(Algorithm(named, named.__name__.rpartition(".")[2], None))
    if is_file(named):
        path = Path(named).expanduser().resolve()
        return _checked(Algorithm(_load(path, "an algorithm"), path.stem, str(path)))
    name = str(named)
    known = algorithms()
    if name not in known:
        guess = did_you_mean(name, known) or f" There are {', '.join(known)}."
        raise LaunchError(f"there is no algorithm {name!r}.{guess} One of your own is named by its file: ./mine.py")
    return Algorithm(importlib.import_module(f"torchward.algorithms.{name}"), name, name)


def _checked(found: Algorithm) -> Algorithm:
    where, config = found.source or found.name, getattr(found.module, "Config", None)
    if not isinstance(config, type) or not is_dataclass(config) or not callable(getattr(found.module, "train", None)):
        raise LaunchError(
            f"{where} is no algorithm: it needs a dataclass Config and a function train(config, task, run)"
        )
    if "total_timesteps" not in (known := {field.name: field for field in fields(config)}):
        raise LaunchError(f"Config of {where} needs a field total_timesteps: the number of steps of a run")
    for name, field in known.items():
        if field.default is MISSING and field.default_factory is MISSING:
            raise LaunchError(f"Config of {where} needs a default for {name}")
    return found


def task(named: Any, env: Any = None) -> Found:
    """The task that is meant: an id, the path of a file, an environment class, factory or instance, or a task.

    `env` are the EnvOptions. Raises LaunchError where there is none, naming the nearest id."""
    from torchward.envs.make import EnvOptions

    if is_text(named) or (isinstance(named, str) and named in problems()):
        return _text(str(named), env)
    from torchward.envs.faults import WorldError
    from torchward.envs.task import Control

    source, name = None, None
    named = identity(named)
    environment = named
    if isinstance(named, (str, Path)):
        source = str(named)
        if is_file(named):
            environment, name, source = _from_file(str(named))
    if is_task(environment):
        if env is not None and env != EnvOptions():
            raise LaunchError(f"{environment.name} is a task of its own and takes no options of environments")
        return Found(environment, name or str(environment.name), source)
    if name is not None and callable(environment):
        environment = _named(environment, name)
    try:
        control = Control(environment, env)
    except WorldError as error:
        if source is not None and name is None and _is_other_file(source):
            raise LaunchError(
                f"expected a file of text whose name ends in {', '.join(TEXTS[:-1])} or {TEXTS[-1]}, got {source!r}: "
                "rows of a table or of an array go into a .jsonl, one JSON object a line"
            ) from error
        raise LaunchError(str(error)) from error
    return Found(control, control.name, source)


def _is_other_file(named: str) -> bool:
    """Whether a file is meant that is not read, and no environment: ./picks.csv."""
    import gymnasium as gym

    ends_like_one = re.fullmatch(r"\.(?!v\d)[A-Za-z]\w*", Path(named).suffix) is not None
    return named not in gym.registry and (ends_like_one or Path(named).is_file())


def _text(named: str, given: Any) -> Found:
    """A task of text: one of torchward's, or a file or folder."""
    from torchward.language.text_task import Text

    chosen = options(named) if given is None else given
    if is_text(named):
        path = Path(named).expanduser().resolve()
        return Found(Text(texts.read(chosen, path)), path.stem, str(path))
    return Found(Text(importlib.import_module(f"torchward.tasks.{named}").make(chosen)), named, named)


def lasting(given: Any) -> Any:
    """Options that mean the same wherever a run is resumed from: with whole paths."""
    return given.lasting() if isinstance(given, texts.Options) else given


def part_of_file(named: str, default: str, what: str) -> Any:
    """What is called ``name`` in a user's Python file ./file.py:name; in ./file.py, what is called ``default``. Raises
    LaunchError where there is no such file, or nothing in it that is called so."""
    file, _, wanted = named.partition(".py:") if ".py:" in named else (named.removesuffix(".py"), "", "")
    path, wanted = Path(f"{file}.py").expanduser().resolve(), wanted or default
    module = _load(path, what)
    if not hasattr(module, wanted):
        raise LaunchError(f"{path} has nothing called {wanted!r}.{did_you_mean(wanted, vars(module))}")
    return getattr(module, wanted)


def is_task(thing: Any) -> bool:
    """Whether `thing` has the verbs of :class:`torchward.data.protocols.Task`."""
    verbs = callable(getattr(thing, "source", None)) and callable(getattr(thing, "evaluate", None))
    return verbs and hasattr(thing, "observation_space") and not isinstance(thing, type)


def is_file(named: Any) -> bool:
    """Whether a Python file is meant: ./mine.py, or ./mine.py:Name for something in it."""
    if isinstance(named, Path):
        return not is_text(named)
    return isinstance(named, str) and (named.endswith(".py") or ".py:" in named)


def preset(name: str, task_source: Any) -> Preset | None:
    """The tuned settings of an algorithm on a task, where there are some."""
    if not isinstance(task_source, str):
        return None
    task_source = identity(task_source)
    family = task_source.rpartition(":")[2].partition("/")[0] + "/*"
    found = PRESETS.get((name, task_source)) or PRESETS.get((name, family)) or text.PRESETS.get((name, task_source))
    return None if found is None else found()


def identity(named: Any) -> Any:
    """The versioned id that Gymnasium makes of one without a version, its newest: CartPole-v1 of CartPole, so that both
    have the same settings and say the same in a run's files. Anything else is left as it is."""
    if not isinstance(named, str) or re.fullmatch(r"[\w:/.-]*\w", named) is None or re.search(r"-v\d+$", named):
        return named
    if is_file(named) or is_text(named) or named in problems():
        return named
    import gymnasium as gym
    from gymnasium.envs.registration import find_highest_version, get_env_id

    module, colon, plain = named.rpartition(":")
    if module:
        try:
            importlib.import_module(module)  # which registers its ids
        except Exception:  # whoever makes the environment says what is wrong with it
            return named
    namespace, _, name = plain.rpartition("/")
    version = None if plain in gym.registry else find_highest_version(namespace or None, name)
    return named if version is None else f"{module}{colon}{get_env_id(namespace or None, name, version)}"


def _from_file(named: str) -> tuple[Any, str, str]:
    """What a user's task file holds: `task`, `make`, `Env`, or the one environment class that is written in it."""
    import gymnasium as gym

    file, _, wanted = named.partition(".py:") if ".py:" in named else (named.removesuffix(".py"), "", "")
    path = Path(f"{file}.py").expanduser().resolve()
    module = _load(path, "a task")
    own = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, gym.Env) and value.__module__ == module.__name__
    }
    if wanted:
        if not hasattr(module, wanted):
            raise LaunchError(f"{path} has nothing called {wanted!r}.{did_you_mean(wanted, vars(module))}")
        return getattr(module, wanted), wanted, f"{path}:{wanted}"
    for key in ("task", "make", "Env"):
        if hasattr(module, key):
            return getattr(module, key), path.stem, str(path)
    if len(own) == 1:
        return next(iter(own.values())), path.stem, str(path)
    what = f"holds several environments: name one, {path}:{next(iter(own))}" if own else "holds no environment"
    raise LaunchError(f"{path} {what}; a task file has a class Env, a function make() that returns one, or a task")


def _named(make: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A class or factory under the name by which messages shall call it."""

    def made(**kwargs: Any) -> Any:
        return make(**kwargs)

    made.__name__ = name
    return made


def _load(path: Path, what: str) -> ModuleType:
    """Run a user's Python file as a module. Only a file that the user names, or named for the run that is resumed."""
    if not path.is_file():
        guess = did_you_mean(path.name, [other.name for other in path.parent.glob("*.py")])
        raise LaunchError(f"there is no file {path} to take {what} from.{guess}")
    name = f"torchward_user_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # its neighbours, as for a script
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            raise LaunchError(
                f"expected Python in {path}, to take {what} from, got {error.msg} at line {error.lineno}"
            ) from error
        raise
    _by_value(module)
    return module


def _by_value(module: ModuleType) -> None:
    """Let what the file defines travel to the processes of asynchronous environments, which cannot import it."""
    import cloudpickle  # type: ignore[import-untyped]

    cloudpickle.register_pickle_by_value(module)
