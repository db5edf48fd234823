"""A config as a flat list of settings."""

from dataclasses import dataclass, field, fields
from typing import Any

import pytest

from torchward.algorithms import a2c, distill, dqn, dynamic_programming, ppo, q_learning, rainbow, reinforce, sft
from torchward.cli.arguments import Group, read
from torchward.config import ConfigError
from torchward.envs.make import EnvOptions
from torchward.fields import change, docstrings, settings
from torchward.nets.lora import LoRA
from torchward.run import RunOptions


@dataclass(frozen=True)
class Net:
    """A part that is always there."""

    width: int = 8
    """Units of a layer."""


@dataclass(frozen=True)
class Slow:
    """One of two."""

    pace: float = 1.0
    """How slow."""


@dataclass(frozen=True)
class VeryFast:
    """The other."""

    pace: float = 9.0
    """How fast, in a docstring of
    two lines."""


@dataclass(frozen=True)
class Config:
    """All that there is."""

    speed: Slow | VeryFast = Slow()
    """Which of the two."""
    net: Net = field(default_factory=Net)
    """The network."""
    seed: int = 0
    """The seed."""


def flat(config: Any) -> dict[str, Any]:
    return {setting.name: setting.value for setting in settings(config)}


def test_a_config_is_flat() -> None:
    assert flat(Config()) == {"speed": "slow", "seed": 0, "speed_pace": 1.0, "width": 8}
    assert flat(Config(speed=VeryFast(), net=Net(3))) == {
        "speed": "very_fast",
        "seed": 0,
        "speed_pace": 9.0,
        "width": 3,
    }


def test_what_is_changed_is_what_is_meant() -> None:
    assert change(Config(), {"width": 2, "seed": 5}) == Config(net=Net(2), seed=5)
    assert change(Config(), {"speed": "very-fast"}) == Config(speed=VeryFast())
    assert change(Config(), {"speed_pace": 3.0, "speed": "VeryFast"}) == Config(speed=VeryFast(3.0))
    assert change(Config(), {"speed": VeryFast(2.0), "net": Net(1)}) == Config(speed=VeryFast(2.0), net=Net(1))
    assert change(Config(), {"net": Net(1), "speed": "very_fast", "speed_pace": 4}) == Config(VeryFast(4.0), Net(1))
    assert change(Config(), {}) == Config()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"widht": 3}, "there is no setting 'widht'. Did you mean 'width'?"),
        ({"speed": "very_fats"}, "Did you mean 'very_fast'?"),
        ({"speed": 3}, "speed expects one of slow, very_fast; got 3"),
        ({"width": "wide"}, "net.width expects a whole number; got 'wide'"),
    ],
)
def test_what_cannot_be_changed_is_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        change(Config(), values)
    assert sentence in str(caught.value)


def test_docstrings_stand_below_their_fields() -> None:
    assert docstrings(VeryFast) == {"pace": "How fast, in a docstring of two lines."}
    assert docstrings(Config)["speed"] == "Which of the two."


@pytest.mark.parametrize("module", [a2c, dqn, dynamic_programming, ppo, q_learning, rainbow, reinforce])
def test_every_setting_of_a_run_has_one_name_and_a_docstring(module: Any) -> None:
    found = [setting for part in (module.Config(), RunOptions(), EnvOptions()) for setting in settings(part)]
    names = [setting.name for setting in found]
    taken = {"name", "path", "init", "threads", "policy", "options", "env", "algorithm", "task", "jobs", "seeds"}
    assert len(set(names)) == len(names) and not taken & set(names)
    for setting in found:
        assert docstrings(setting.owner).get(setting.path[-1]), setting.name
    assert {f.name for f in fields(module.Config)} >= {"total_timesteps", "seed"}


def test_the_settings_of_a_choice_bear_its_name_once() -> None:
    """On the command line adapters are set as in TRL, whatever the fields that lead there."""
    flat_lora = flat(sft.Config(lora=LoRA(r=4)))
    assert {name: value for name, value in flat_lora.items() if name.startswith("lora")} == {
        "lora": "lora",
        "lora_r": 4,
        "lora_alpha": 16.0,
        "lora_dropout": 0.0,
        "lora_target_modules": LoRA().target_modules,
    }
    assert flat(sft.Config())["lora"] == "no_lora"
    changed = change(sft.Config(), {"lora": "lora", "lora_alpha": 32.0, "lora_target_modules": ("up", "down")})
    assert changed == sft.Config(lora=LoRA(8, 32.0, 0.0, ("up", "down")))
    assert change(sft.Config(), {"lora": LoRA(r=2)}).lora == LoRA(r=2)


def test_a_choice_within_a_choice_is_set_with_it() -> None:
    """In one go and in any order, and what is chosen there may be set too."""
    told = {"reward_follow": "where_better", "reward": "rewarded", "reward_coef": 2.0}
    expected = distill.Config(reward=distill.Rewarded(2.0, follow=distill.WhereBetter()))
    assert change(distill.Config(), told) == expected
    assert change(expected, {"reward_coef": 2.0, "reward_follow": "as_good"}).reward == distill.Rewarded(2.0)
    with pytest.raises(ConfigError, match="where_better"):
        change(distill.Config(), {"reward": "rewarded", "reward_follow": "where_bettr"})


def test_what_is_chosen_already_keeps_its_values() -> None:
    tuned = Config(speed=VeryFast(2.0))
    for name in ("very_fast", "very-fast", "VeryFast"):
        assert change(tuned, {"speed": name}) == tuned
        assert change(tuned, {"speed": name, "speed_pace": 5.0}) == Config(speed=VeryFast(5.0))
    assert change(tuned, {"speed": "slow"}) == Config(speed=Slow())
    assert read([Group("config", tuned)], ["--speed", "very_fast"], "torchward train config") == [{}]
    better = distill.Config(reward=distill.Rewarded(2.0, follow=distill.WhereBetter()))
    assert change(better, {"reward_follow": "where_better", "reward": "rewarded"}) == better
    whole = distill.Rewarded(3.0, follow=distill.WhereBetter())
    assert change(distill.Config(reward=distill.Rewarded()), {"reward": whole, "reward_follow": "as_good"}) == (
        distill.Config(reward=distill.Rewarded(3.0))
    )


def test_adapters_are_chosen_on_the_command_line() -> None:
    words = ["--lora", "lora", "--lora-r", "2", "--lora-target-modules", "up", "out"]
    (changed,) = read([Group("sft", sft.Config())], words, "torchward train sft")
    assert change(sft.Config(), changed).lora == LoRA(2, target_modules=("up", "out"))
