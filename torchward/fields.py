"""A config as a flat list of settings: what the command line and `torchward.train(...)` call them, without dots.

The fields of a dataclass within a config are named like the config's own (`net_arch`, not `network.net_arch`). Where
a field may be one of several dataclasses, it is set by the name of one (`exploration="boltzmann"`), and the fields of
that one bear its name before theirs (`exploration_start`), unless they bear it already (`lora_alpha` of `lora`).
"""

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar, Union

from torchward.config import ConfigError, did_you_mean, from_json, to_json

C = TypeVar("C")


@dataclass(frozen=True)
class Setting:
    """One value that can be set in a config."""

    name: str
    """Its name, unique within the config."""
    path: tuple[str, ...]
    """The fields that lead to it."""
    hint: Any
    """Its type; for a choice among dataclasses, a Literal of their names in snake case."""
    value: Any
    """What it is now."""
    owner: type[Any]
    """The dataclass whose field it is."""


def settings(config: Any) -> list[Setting]:
    """Everything that can be set in `config`, a dataclass; the settings of a nested dataclass after all others."""
    return list(_settings(config, (), ""))


def _settings(config: Any, path: tuple[str, ...], prefix: str) -> Iterator[Setting]:
    owner, hints = type(config), typing.get_type_hints(type(config))
    nested: list[tuple[Any, tuple[str, ...], str]] = []
    for field in dataclasses.fields(config):
        value, hint, here = getattr(config, field.name), hints[field.name], (*path, field.name)
        name, choices = prefix + field.name.removeprefix(prefix), _dataclasses(hint)
        if len(choices) > 1:
            names = tuple(_snake(choice) for choice in choices)
            yield Setting(name, here, Literal[names], _snake(type(value)), owner)
            nested.append((value, here, f"{name}_"))
        elif dataclasses.is_dataclass(value):
            nested.append((value, here, prefix))
        else:
            yield Setting(name, here, hint, value, owner)
    for value, here, inner in nested:
        yield from _settings(value, here, inner)


def choose(config: C, values: Mapping[str, Any]) -> C:
    """`config` with the dataclasses that are chosen, or given whole, in `values`; its other values are left alone,
    and so are those of a dataclass that is chosen already."""
    fields = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    known = {setting.name: setting for setting in settings(config)}
    data = to_json(config)
    for name, value in values.items():
        if name in fields and (dataclasses.is_dataclass(value) or name not in known):
            data[name] = _plain(value)
        elif name in known and len(choices := _choices(config, known[name])) > 1:
            _put_choice(data, known[name].path, _choose(name, value, choices))
    made = from_json(type(config), data)
    # What was chosen may have a choice of its own.
    within = {name: value for name, value in values.items() if name not in known and name not in fields}
    return choose(made, within) if 0 < len(within) < len(values) else made


def change(config: C, values: Mapping[str, Any]) -> C:
    """`config` with the settings (or whole dataclasses) in `values`. Raises ConfigError for an unknown name, naming the
    nearest known one, and for a value that a setting cannot take."""
    config = choose(config, values)
    known = {setting.name: setting for setting in settings(config)}
    data = to_json(config)
    for name, value in values.items():
        if name not in known and not hasattr(config, name):
            raise ConfigError(f"there is no setting {name!r}.{did_you_mean(name, known)}")
        if name in known and len(_choices(config, known[name])) < 2:
            _put(data, known[name].path, _plain(value))
    return from_json(type(config), data)


def for_number(config: Any, setting: Setting) -> tuple[str, str] | None:
    """Where one of several dataclasses is chosen: the name of the first one that is a single number, and of the setting
    that it has for that number; None where there is none."""
    for choice in _choices(config, setting):
        found = [field.name for field in dataclasses.fields(choice)]
        if len(found) == 1 and typing.get_type_hints(choice)[found[0]] is float:
            prefix = f"{setting.name}_"
            return _snake(choice), prefix + found[0].removeprefix(prefix)
    return None


def docstrings(cls: type[Any]) -> dict[str, str]:
    """The strings that stand below the fields of a dataclass, on one line each; none where there is no source."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, below in pairwise(body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def _dataclasses(hint: Any) -> list[type[Any]]:
    """The dataclasses among the members of a union."""
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return []
    return [m for m in typing.get_args(hint) if isinstance(m, type) and dataclasses.is_dataclass(m)]


def _choices(config: Any, setting: Setting) -> list[type[Any]]:
    for name in setting.path[:-1]:
        config = getattr(config, name)
    return _dataclasses(typing.get_type_hints(type(config))[setting.path[-1]])


def _choose(name: str, value: Any, choices: list[type[Any]]) -> str:
    """The class that is meant by `value`: "visit_count", "visit-count" and "VisitCount" are one."""
    named = {_snake(choice): choice.__name__ for choice in choices}
    plain = value.replace("-", "_") if isinstance(value, str) else ""
    if plain in named.values():
        return plain
    if plain not in named:
        raise ConfigError(f"{name} expects one of {', '.join(named)}; got {value!r}.{did_you_mean(str(value), named)}")
    return named[plain]


def _snake(cls: type[Any]) -> str:
    """`NoBonus` as no_bonus, and `LoRA` as lora: capitals that stand together belong to one word."""
    name = cls.__name__

    def begins(i: int) -> bool:
        before, after = name[i - 1], name[i + 1 : i + 2]
        return name[i].isupper() and i > 0 and (after.islower() or (before.islower() and not after.isupper()))

    return "".join("_" * begins(i) + c.lower() for i, c in enumerate(name))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {"type": type(value).__name__, **to_json(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _put(data: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        data = data[name]
    data[path[-1]] = value


def _put_choice(data: dict[str, Any], path: tuple[str, ...], name: str) -> None:
    for part in path[:-1]:
        data = data[part]
    present = data.get(path[-1])
    if not isinstance(present, dict) or present.get("type") != name:
        data[path[-1]] = {"type": name}
