"""Configs: frozen dataclasses to and from JSON and the command line, with errors that name the nearest right thing."""

import contextlib
import dataclasses
import difflib
import io
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

Config = TypeVar("Config")


class ConfigError(ValueError):
    """A config that cannot be: an unknown key, a wrong type or a value out of range."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name in `known` that was probably meant by `name`; None when none is near."""
    plain = {_plain(candidate): candidate for candidate in known}
    found = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error's sentence: " Did you mean 'x'?", or nothing."""
    near = nearest(name, known)
    return f" Did you mean {near!r}?" if near is not None else ""


def to_json(config: Any) -> dict[str, Any]:
    """The fields of a config as JSON: tuples as lists, dataclasses within it tagged by {"type": their name}.

    NaN and the infinities, for which JSON has no word, become the strings "nan", "inf" and "-inf".
    """
    return {field.name: _encode(getattr(config, field.name), field.name) for field in dataclasses.fields(config)}


def from_json(cls: type[Config], data: Any) -> Config:
    """The config that `to_json` wrote. Fields that are missing take their defaults.

    Raises ConfigError for an unknown key, naming the nearest known one, and for a value of the wrong type, naming the
    field, what it expects and what it got.
    """
    decoded: Config = _decode_dataclass(cls, data, "")
    return decoded


def verify_training(config: Any) -> None:
    """Raises ConfigError for numbers with which nothing can be trained: a seed below 0, a learning_rate below 0 or not
    finite, an optimiser's epsilon or a max_grad_norm that is not above 0; and for cuda_graphs without a GPU. A
    max_grad_norm of infinity clips nothing."""
    verify_seed(config.seed)
    verify_learning_rate(config.learning_rate)
    for name in ("adam_eps", "rms_prop_eps", "max_grad_norm"):
        if hasattr(config, name) and not getattr(config, name) > 0.0:
            raise ConfigError(f"expected {name} above 0, got {getattr(config, name)}")
    if getattr(config, "cuda_graphs", False) and not config.device.startswith("cuda"):
        raise ConfigError(f"expected device cuda for cuda_graphs, got {config.device}: leave cuda_graphs out")


def verify_learning_rate(rate: float, of: str = "") -> None:
    """Raises ConfigError for a step size below 0 or not finite; ``of`` names whose it is, where a run has several."""
    if not 0.0 <= rate < math.inf:
        raise ConfigError(f"expected learning_rate{of and f' of {of}'} of at least 0, and finite, got {rate}")


def verify_seed(seed: int) -> None:
    """Raises ConfigError for a seed below 0 or of more than 63 bits, which not every generator takes."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"expected seed of at least 0 and below 2 to the power of 63, got {seed}")


def parse(cls: type[Config], args: Sequence[str], default: Config, prog: str) -> Config:
    """The config that command line arguments ask for, starting from `default`; --help prints the fields and exits.

    Raises ConfigError for an unknown flag, naming the nearest known one, and for a value that a field cannot take.
    """
    import tyro

    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), _rules():
            plain = (tyro.conf.HelptextFromCommentsOff,)  # comments say why; the help is in the docstrings
            config, unknown = tyro.cli(
                cls, args=args, default=default, prog=prog, config=plain, return_unknown_args=True
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        sentence = _sentence(printed.getvalue())
        raise ConfigError(sentence + _apart(sentence, args)) from None
    if unknown:
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
            tyro.cli(cls, args=["--help"], default=default, prog=prog)
        raise ConfigError(_unexpected(unknown[0], args, prog, text.getvalue()))
    return config


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").lstrip("_")


# Python to JSON


def _encode(value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(value):
        return {"type": type(value).__name__, **to_json(value)}
    if isinstance(value, (list, tuple)):
        return [_encode(item, where) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _encode(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(f"A config holds numbers, strings, paths, tuples and dataclasses; {where} is a {type(value)}.")


# JSON to Python


def _decode_dataclass(cls: type[Any], data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise _wrong(where or cls.__name__, f"the fields of {cls.__name__}", data)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    values = {key: value for key, value in data.items() if key != "type" or "type" in fields}
    if "type" not in fields and data.get("type", cls.__name__) != cls.__name__:
        raise _wrong(where or cls.__name__, cls.__name__, data["type"])
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where or cls.__name__} has no field {key!r}.{did_you_mean(key, fields)}")
    for name, field in fields.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in values and not has_default:
            raise ConfigError(f"{where or cls.__name__} needs a value for {name!r}.")
    hints = typing.get_type_hints(cls)
    prefix = f"{where}." if where else ""
    return cls(**{name: _decode(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


def _decode(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _decode_dataclass(hint, value, where)
    if origin in (Union, types.UnionType):
        return _decode_union(hint, arguments, value, where)
    if origin is Literal:
        for choice in arguments:
            if choice == value and type(choice) is type(value):
                return choice
        hint_text = did_you_mean(value, [str(choice) for choice in arguments]) if isinstance(value, str) else ""
        raise ConfigError(f"{where} expects {_describe(hint)}; got {value!r}.{hint_text}")
    if origin in (tuple, list, Sequence):
        return _decode_sequence(hint, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(where, _describe(hint), value)
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _decode_scalar(hint, value, where)


def _decode_union(hint: Any, members: tuple[Any, ...], value: Any, where: str) -> Any:
    types_ = [member for member in members if isinstance(member, type)]
    classes = {member.__name__: member for member in types_ if dataclasses.is_dataclass(member)}
    if isinstance(value, Mapping) and classes:
        tag = value.get("type", next(iter(classes)) if len(classes) == 1 else None)
        if tag not in classes:
            guess = did_you_mean(tag, classes) if isinstance(tag, str) else ""
            raise ConfigError(f"{where} expects a type of {', '.join(classes)}; got {tag!r}.{guess}")
        return _decode_dataclass(classes[tag], value, where)
    # An int stays an int in `float | int`, and "inf" stays a string in `float | str`.
    exact = [member for member in types_ if type(value) is member]
    for member in [*exact, *members]:
        with contextlib.suppress(ConfigError):
            return _decode(member, value, where)
    raise _wrong(where, _describe(hint), value)


def _decode_sequence(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if not isinstance(value, (list, tuple)):
        raise _wrong(where, _describe(hint), value)
    if origin is not tuple:
        return [_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise _wrong(where, f"{len(arguments)} values", value)
    return tuple(
        _decode(argument, item, f"{where}[{index}]")
        for index, (argument, item) in enumerate(zip(arguments, value, strict=True))
    )


def _decode_scalar(hint: Any, value: Any, where: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and (number or value in ("nan", "inf", "-inf")):
        return float(value)
    if hint is int and number and value == value // 1:  # 1e6 is read as a float
        return int(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (None, type(None)) and value is None:
        return None
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise _wrong(where, _describe(hint), value)


def _wrong(where: str, expected: str, got: Any) -> ConfigError:
    return ConfigError(f"{where} expects {expected}; got {got!r}.")


def _describe(hint: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(member) for member in arguments)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if origin is tuple and arguments[-1:] != (Ellipsis,):
        return f"{len(arguments)} values"
    if origin in (tuple, list, Sequence):
        return f"a list, each entry {_describe(arguments[0])}"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a string", Path: "a path"}
    if hint in (None, type(None)):
        return "null"
    return words.get(hint, getattr(hint, "__name__", str(hint)))


# What tyro printed, as one sentence


def _sentence(printed: str) -> str:
    lines = [re.sub(r"[│╭╮╰╯]", " ", line).strip() for line in printed.splitlines()]
    lines = [line for line in lines if line]
    rules = [index for index, line in enumerate(lines) if re.fullmatch(r"[─-]+", line)]
    start = rules[0] + 1 if rules and rules[0] <= 1 else 1
    end = next((index for index in rules if index >= start), len(lines))
    text = re.sub(r"^Error parsing [^-:][^:]*: ", "", " ".join(lines[start:end]))  # what a __post_init__ raised
    value = re.match(r"Error parsing (--[\w.-]+): (.*)", text)
    if value:
        flag, reason = value.groups()
        signature = next((line for line in lines[end:] if line.startswith(f"{flag} ")), f"{flag} a value of its type")
        return f"{flag} expects {signature.removeprefix(flag).strip()}; {reason}."
    missing = re.match(r"Missing value for argument '(.*)'\.", text)
    if missing:
        return f"{missing[1]} needs a value."
    choice = re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", text)
    if choice:
        given, flag, listed = choice.groups()
        choices = re.findall(r"'([^']*)'", listed)
        return f"{flag} expects one of {', '.join(choices)}; got {given!r}.{did_you_mean(given, choices)}"
    return text or "The arguments cannot be read."


def _apart(sentence: str, args: Sequence[str]) -> str:
    """How a list is written whose values somebody has joined by commas; nothing where that is not what is wrong."""
    words = [word for argument in args for word in argument.split("=", 1)]
    for flag, value in pairwise(words):
        if sentence.startswith(f"{flag} expects [") and re.fullmatch(r"[\[(]?[\w.+-]+(,\s*[\w.+-]+)+,?[\])]?", value):
            parts = re.findall(r"[^,\s()\[\]]+", value)
            return f" Write {flag} {' '.join(parts)}."
    return ""


def _rules() -> Any:
    """How tyro reads an int: 1e6 is 1000000, for it is often written so."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

    rules = ConstructorRegistry()

    @rules.primitive_rule
    def of_int(asked: Any) -> Any:
        if asked.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda texts: int(_whole(texts[0])),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    return rules


def _whole(text: str) -> str:
    power = re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d+", text) and float(text)
    return str(int(power)) if power and power.is_integer() else text


def _unexpected(argument: str, args: Sequence[str], prog: str, help_text: str) -> str:
    name = argument.split("=")[0]
    flags = sorted(set(re.findall(r"--[a-zA-Z][\w.-]*", help_text)) | set(re.findall(r"\b\w[\w.-]*:[\w-]+", help_text)))
    if name.startswith("-") or ":" in name:
        return f"{prog} has no option {name!r}.{did_you_mean(name, flags)} See {prog} --help."
    place = list(args).index(argument) if argument in args else 0
    before = args[place - 1] if place else ""
    if before.startswith("--") and name.lower() in ("true", "false", "yes", "no", "1", "0"):
        switch = before.removeprefix("--").removeprefix("no-")
        return f"{before} takes no value: write --{switch} or --no-{switch}, not {before} {argument}."
    return f"{prog} does not know what to do with {argument!r}. See {prog} --help."
