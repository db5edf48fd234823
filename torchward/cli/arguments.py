"""Options of the command line: configs as flat groups of flags, read by tyro."""

import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any

from torchward.config import ConfigError, from_json, parse
from torchward.fields import Setting, choose, docstrings, for_number, settings


@dataclass(frozen=True)
class Group:
    """Options that stand together in the help, for the settings of one config."""

    title: str
    config: Any
    """It has the values that the options start from."""


def read(groups: Sequence[Group], arguments: Sequence[str], prog: str) -> list[dict[str, Any]]:
    """The settings that the arguments change, by name, for each group. Prints the help and exits where it is asked for.

    Raises ConfigError for an unknown option, naming the nearest known one, and for a value that it cannot take."""
    if not arguments:
        return [{} for _ in groups]
    for group in groups:
        _refuse_numbers(group.config, arguments)
    chosen = [choose(group.config, _choices(group.config, arguments)) for group in groups]
    found = [settings(config) for config in chosen]
    explain = not {"-h", "--help"}.isdisjoint(arguments)
    parts = [_options(group, own, explain) for group, own in zip(groups, found, strict=True)]
    import tyro

    flat = tyro.conf.OmitArgPrefixes
    everything: Any = make_dataclass(
        "Options",
        [(_identifier(group.title), Annotated[part, flat]) for group, part in zip(groups, parts, strict=True)],
    )
    everything.__doc__ = None
    parsed = parse(everything, arguments, everything(*(part() for part in parts)), prog)
    changed = []
    for group, own in zip(groups, found, strict=True):
        start = {setting.name: setting.value for setting in settings(group.config)}
        part = getattr(parsed, _identifier(group.title))
        values = {setting.name: getattr(part, setting.name) for setting in own}
        changed.append({name: value for name, value in values.items() if name not in start or start[name] != value})
    return changed


def read_one(config: Any, arguments: Sequence[str], prog: str) -> Any:
    """A config of plain fields, changed by the arguments; see :func:`read`."""
    (changed,) = read([Group(prog.split()[1], config)], arguments, prog)
    return from_json(type(config), {f.name: changed.get(f.name, getattr(config, f.name)) for f in fields(config)})


def _options(group: Group, found: Sequence[Setting], explain: bool) -> Any:
    """A dataclass of the settings as tyro reads them."""
    import tyro

    docs = {owner: docstrings(owner) if explain else {} for owner in {setting.owner for setting in found}}
    specs = []
    for setting in found:
        hint: Any = setting.hint
        extras: list[Any] = [tyro.conf.arg(help=docs[setting.owner].get(setting.path[-1], ""))]
        if typing.get_origin(hint) in (dict, Mapping):
            extras.append(_json_option())
        specs.append((setting.name, Annotated[(hint, *extras)], field(default_factory=_constant(setting.value))))
    made = make_dataclass(f"{group.title.capitalize()}", specs, frozen=True)
    made.__doc__ = (type(group.config).__doc__ or "").strip().partition("\n")[0]
    return made


def _json_option() -> Any:
    from tyro.constructors import PrimitiveConstructorSpec

    def from_text(texts: list[str]) -> Any:
        value = json.loads(texts[0])
        if not isinstance(value, dict):
            raise ValueError('it has to be an object, such as {"size": 3}')
        return value

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=from_text,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    )


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _given(arguments: Sequence[str]) -> dict[str, str]:
    """What stands behind each option, by the name of its setting."""
    pairs = [(flag, value) for flag, value in zip(arguments, [*arguments[1:], ""], strict=True) if "=" not in flag]
    pairs += [(flag, value) for flag, equals, value in (argument.partition("=") for argument in arguments) if equals]
    return {flag[2:].replace("-", "_"): value for flag, value in pairs if flag.startswith("--")}


def _refuse_numbers(config: Any, arguments: Sequence[str]) -> None:
    """Raise ConfigError for `--ent-coef 0.2`, where the number belongs to one of several choices, saying to which."""
    given = _given(arguments)
    for setting in settings(config):
        value = given.get(setting.name, "")
        if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value) and (found := for_number(config, setting)):
            choice, name = (word.replace("_", "-") for word in found)
            flag = f"--{setting.name.replace('_', '-')}"
            raise ConfigError(
                f"{flag} expects one of {', '.join(typing.get_args(setting.hint))}; got {value}. Write {flag} {choice} "
                f"--{name} {value}."
            )


def _choices(config: Any, arguments: Sequence[str]) -> dict[str, str]:
    """What `--exploration boltzmann` and its like choose: a dataclass decides which further options there are."""
    given = {name: value.replace("-", "_") for name, value in _given(arguments).items()}
    known = {s.name: typing.get_args(s.hint) for s in settings(config) if typing.get_origin(s.hint) is typing.Literal}
    return {name: given[name] for name, names in known.items() if given.get(name) in names}  # tyro refuses all else


def _identifier(title: str) -> str:
    return title.replace(" ", "_")


def is_switch(hint: Any) -> bool:
    """Whether a setting is a switch, which takes no value on the command line."""
    return hint is bool
