"""Configs: to JSON and back, from the command line, and what is said of mistakes."""

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from torchward.config import ConfigError, did_you_mean, from_json, nearest, parse, to_json


@dataclass(frozen=True)
class Linear:
    start: float = 1.0
    """First value."""
    end: float = 0.0
    """Last value."""


@dataclass(frozen=True)
class Cosine:
    start: float = 1.0
    """First value."""
    periods: int = 1
    """Waves."""


@dataclass(frozen=True)
class Example:
    n_steps: int = 128
    """Steps between two updates."""
    gamma: float = 0.99
    """Discount."""
    target_kl: float | None = None
    """Largest divergence."""
    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    span: tuple[float, str] = (0.5, "a")
    """A pair."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Nonlinearity."""
    normalize: bool = True
    """Whether observations are normalised."""
    schedule: Linear | Cosine = Linear()
    """How the rate falls."""
    rate: float | Linear = 3e-4
    """Learning rate."""
    mixed: int | float | str | None = None
    """Anything plain."""
    inner: Linear = Linear()
    """A config within."""
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    """By name."""
    path: Path = Path("here")
    """A place."""

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma has to lie in [0, 1]; got {self.gamma}.")


@dataclass(frozen=True)
class Flags:
    n_steps: int = 128
    """Steps between two updates."""
    gamma: float = 0.99
    """Discount."""  # a comment is no help
    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Nonlinearity."""
    normalize: bool = True
    """Whether observations are normalised."""
    target_kl: float | None = None
    """Largest divergence."""
    text: str | None = None
    """What is read."""
    place: Path = Path("here")
    """Where it lies."""
    chunk: int | None = None
    """Steps of a chunk."""
    words: tuple[str, ...] = ()
    """What stops it."""

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ConfigError(
                f"gamma, the weight of the next step's value beside this step's reward, has to lie in [0, 1]; got "
                f"{self.gamma}."
            )


@dataclass(frozen=True)
class WithVariant:
    loss: Linear | Cosine = Linear()
    """The variant."""


@pytest.mark.parametrize(
    "config",
    [
        Example(),
        Example(n_steps=5, target_kl=0.1, net_arch=(), span=(2.0, "b"), activation="relu", normalize=False),
        Example(schedule=Cosine(periods=3), rate=Linear(2.0, 1.0), inner=Linear(5.0), weights={"a": 0.1}),
        Example(mixed=3),
        Example(mixed=3.0),
        Example(mixed="nan", target_kl=math.inf),
        Example(gamma=0.1 + 0.2, rate=5e-324, path=Path("a/b")),
    ],
)
def test_json_and_back_is_the_identity(config: Example) -> None:
    text = json.dumps(to_json(config), allow_nan=False)
    back = from_json(Example, json.loads(text))
    assert back == config
    assert [type(value) for value in vars(back).values()] == [type(value) for value in vars(config).values()]


def test_nan_survives_json() -> None:
    assert math.isnan(from_json(Linear, to_json(Linear(start=math.nan))).start)


def test_variants_carry_their_type() -> None:
    assert to_json(WithVariant(Cosine())) == {"loss": {"type": "Cosine", "start": 1.0, "periods": 1}}


def test_missing_fields_take_their_defaults() -> None:
    assert from_json(Example, {"n_steps": 7, "inner": {"end": 2}}) == Example(n_steps=7, inner=Linear(end=2.0))
    assert from_json(Example, {"n_steps": 1e3}) == Example(n_steps=1000)


@dataclass(frozen=True)
class Needy:
    seed: int


@pytest.mark.parametrize(
    ("cls", "data", "sentence"),
    [
        (Example, {"gama": 0.9}, "Example has no field 'gama'. Did you mean 'gamma'?"),
        (Example, {"n-steps": 1}, "Example has no field 'n-steps'. Did you mean 'n_steps'?"),
        (Example, {"zzz": 1}, "Example has no field 'zzz'."),
        (Example, {"inner": {"ende": 1}}, "inner has no field 'ende'. Did you mean 'end'?"),
        (Example, {"gamma": "0.9"}, "gamma expects a number; got '0.9'."),
        (Example, {"gamma": True}, "gamma expects a number; got True."),
        (Example, {"gamma": 1.5}, "gamma has to lie in [0, 1]; got 1.5."),
        (Example, {"n_steps": 1.5}, "n_steps expects a whole number; got 1.5."),
        (Example, {"n_steps": math.inf}, "n_steps expects a whole number; got inf."),
        (Example, {"normalize": 1}, "normalize expects true or false; got 1."),
        (Example, {"net_arch": 64}, "net_arch expects a list, each entry a whole number; got 64."),
        (Example, {"net_arch": [64, "x"]}, "net_arch[1] expects a whole number; got 'x'."),
        (Example, {"span": [1.0]}, "span expects 2 values; got [1.0]."),
        (
            Example,
            {"activation": "rellu"},
            "activation expects one of 'tanh', 'relu'; got 'rellu'. Did you mean 'relu'?",
        ),
        (Example, {"target_kl": "x"}, "target_kl expects a number or null; got 'x'."),
        (
            Example,
            {"schedule": {"type": "Cosinus"}},
            "schedule expects a type of Linear, Cosine; got 'Cosinus'. Did you mean 'Cosine'?",
        ),
        (Example, {"schedule": {"type": "Cosine", "end": 1}}, "schedule has no field 'end'."),
        (Example, {"schedule": 3}, "schedule expects Linear or Cosine; got 3."),
        (Example, {"rate": "fast"}, "rate expects a number or Linear; got 'fast'."),
        (Example, {"inner": {"type": "Cosine"}}, "inner expects Linear; got 'Cosine'."),
        (Example, {"weights": {"a": "x"}}, "weights.a expects a number; got 'x'."),
        (Example, [], "Example expects the fields of Example; got []."),
        (Needy, {}, "Needy needs a value for 'seed'."),
    ],
)
def test_a_mistake_in_json_gives_one_clear_sentence(cls: type[Any], data: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(cls, data)
    assert str(caught.value) == sentence


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="start is a"):
        to_json(Linear(start=object()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "config"),
    [
        ([], Flags(gamma=0.5)),
        (["--n-steps", "5"], Flags(gamma=0.5, n_steps=5)),
        (["--n_steps", "5"], Flags(gamma=0.5, n_steps=5)),
        (["--n_steps=1e6"], Flags(gamma=0.5, n_steps=1_000_000)),
        (["--n-steps", "2.5e1"], Flags(gamma=0.5, n_steps=25)),
        (["--net-arch", "1e2", "64", "--chunk", "1E+3"], Flags(gamma=0.5, net_arch=(100, 64), chunk=1000)),
        (["--text", "1e5", "--place=1e3"], Flags(gamma=0.5, text="1e5", place=Path("1e3"))),
        (["--text=x=1e5", "--words", "1e2", "2e0"], Flags(gamma=0.5, text="x=1e5", words=("1e2", "2e0"))),
        (["--gamma", "1e-3"], Flags(gamma=1e-3)),
        (["--target-kl", "1e0"], Flags(gamma=0.5, target_kl=1.0)),
        (["--net-arch", "8", "4"], Flags(gamma=0.5, net_arch=(8, 4))),
        (["--no-normalize", "--activation", "relu"], Flags(gamma=0.5, normalize=False, activation="relu")),
        (["--target-kl", "0.1"], Flags(gamma=0.5, target_kl=0.1)),
        (["--target-kl", "None"], Flags(gamma=0.5)),
    ],
)
def test_the_command_line_changes_the_default(args: Sequence[str], config: Flags) -> None:
    assert parse(Flags, args, Flags(gamma=0.5), "train") == config


def test_a_variant_is_chosen_by_its_name() -> None:
    chosen = parse(WithVariant, ["loss:cosine", "--loss.periods", "3"], WithVariant(), "train")
    assert chosen == WithVariant(Cosine(periods=3))


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--gama", "1"], "train has no option '--gama'. Did you mean '--gamma'? See train --help."),
        (["--n_step=4"], "train has no option '--n_step'. Did you mean '--n-steps'? See train --help."),
        (["--qqq", "1"], "train has no option '--qqq'. See train --help."),
        (["--gamma", "high"], "--gamma expects FLOAT; could not convert string to float: 'high'."),
        (["--gamma"], "--gamma needs a value."),
        (["--n-steps", "1.5"], "--n-steps expects INT; invalid literal for int() with base 10: '1.5'."),
        (["--activation", "rellu"], "--activation expects one of tanh, relu; got 'rellu'. Did you mean 'relu'?"),
        (
            ["--normalize", "True"],
            "--normalize takes no value: write --normalize or --no-normalize, not --normalize True.",
        ),
        (["stray"], "train does not know what to do with 'stray'. See train --help."),
        (
            ["--gamma", "2"],
            "gamma, the weight of the next step's value beside this step's reward, has to lie in [0, 1]; got 2.0.",
        ),
    ],
)
def test_a_mistake_on_the_command_line_gives_one_clear_sentence(
    args: Sequence[str], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Flags, args, Flags(), "train")
    assert str(caught.value) == sentence
    assert capfd.readouterr() == ("", "")


def test_a_mistaken_variant_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"has no option 'loss:cosin'\. Did you mean 'loss:cosine'"):
        parse(WithVariant, ["loss:cosin"], WithVariant(), "train")


def test_help_shows_the_docstrings_and_exits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(Flags, ["--help"], Flags(n_steps=77), "train")
    assert caught.value.code in (0, None)
    text = " ".join(capsys.readouterr().out.split())
    assert "Steps between two updates. (default: 77)" in text
    assert "a comment is no help" not in text


def test_the_nearest_name() -> None:
    known = ["learning_rate", "gamma", "gae_lambda"]
    assert nearest("--learning-rte", known) == "learning_rate"
    assert nearest("Gamma", known) == "gamma"
    assert nearest("xyz", known) is None
    assert did_you_mean("lambda", known) == " Did you mean 'gae_lambda'?"
    assert did_you_mean("xyz", known) == ""


def test_tyro_is_only_imported_to_parse() -> None:
    code = "import sys, torchward.config; sys.exit('tyro' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
