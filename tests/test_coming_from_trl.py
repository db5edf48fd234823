"""What docs/coming-from-trl.md says of torchward's settings is so, and there are the options of its commands."""

import ast
import importlib
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docs import read
from torchward.algorithms import distill, dpo, grpo, kto, reward_model, sft
from torchward.cli.export import Export
from torchward.cli.train import Launch
from torchward.fields import settings
from torchward.run import RunOptions

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "coming-from-trl.md").read_text(encoding="utf-8")


def rows(source: str) -> list[tuple[str, str, str]]:
    """Of the tables that are about a config: its name, a row's third cell, and the fourth."""
    found, config = [], ""
    for line in source.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 5:
            config = ""
        elif name := re.fullmatch(r"`(torchward\.[\w.]+\.Config)`", cells[2]):
            config = name[1]
        elif config and not cells[2].startswith("---"):
            found.append((config, cells[2], cells[3]))
    return found


def faults(config: str, named: str, given: str) -> list[str]:
    """What is wrong with a row: a setting that there is not, a default that it has not."""
    module = importlib.import_module(config.rpartition(".")[0])
    names, defaults = (re.findall(r"`([^`]+)`", cell) for cell in (named, given))
    if len(names) != len(defaults):
        return [f"{named} has {len(defaults)} defaults"]
    wrong = []
    for name, default in zip(names, defaults, strict=True):
        owner, _, field = name.rpartition(".")
        made = getattr(module, owner or "Config")()
        if field not in {each.name for each in fields(made)}:
            wrong.append(f"{config} has no {name}")
        elif getattr(made, field) != eval(default, vars(module)):
            wrong.append(f"{name} is {getattr(made, field)!r} and not {default}")
    return wrong


def test_every_setting_in_a_table_has_the_default_that_it_says() -> None:
    found = rows(PAGE)
    assert len(found) > 40 and {config for config, _, _ in found} >= {
        f"{sft.__name__}.Config",
        f"{grpo.__name__}.Config",
    }
    wrong = [fault for row in found for fault in faults(*row)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", [sft, grpo])
def test_every_setting_of_the_two_is_in_a_table_or_known_not_to_be(module: Any) -> None:
    named = " ".join(name for config, name, _ in rows(PAGE) if config == f"{module.__name__}.Config")
    missing = {field.name for field in fields(module.Config)} - set(re.findall(r"\w+", named))
    assert missing <= {"device", "early_stopping_patience"}, missing


def test_every_type_that_is_made_in_the_page_is_one_with_these_fields() -> None:
    made = re.findall(r"`((?:[A-Z]\w+)\([\w=., ]*\))`", PAGE)
    ours = [call for call in made if hasattr(grpo, call.partition("(")[0])]
    assert {"TokenMean()", "SequenceClip()", "LeaveOneOut()", "LoRA()"} <= set(ours)
    for call in ours:
        assert is_dataclass(eval(call, vars(grpo)))


def test_every_option_of_a_command_is_one() -> None:
    options: set[str] = set()
    trained = [module.Config() for module in (distill, dpo, grpo, kto, reward_model, sft)]
    for config in (*trained, RunOptions(), Launch(), Export()):
        options |= {f"--{setting.name.replace('_', '-')}" for setting in settings(config)}
    code = [*read(PAGE).spans, *(block.text for block in read(PAGE).blocks if block.language == "bash")]
    used = {option for text in code for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", text)}
    assert len(used) >= 8 and used <= options, used - options


def test_both_files_of_the_page_have_the_same_reward() -> None:
    trees = [ast.parse(block.text) for block in read(PAGE).blocks if block.language == "python"]
    rewards = [ast.dump(node) for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(rewards) == 2 and rewards[0] == rewards[1]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (("`betas`", "`0.0`"), "torchward.algorithms.grpo.Config has no betas"),
        (("`beta`", "`0.1`"), "beta is 0.0 and not 0.1"),
        (("`TokenClip.epsilon`", "`0.3`"), "TokenClip.epsilon is 0.2 and not 0.3"),
        (("`beta`, `seed`", "`0.0`"), "`beta`, `seed` has 1 defaults"),
        (("`credit`", "`LeaveOneOut()`"), "credit is GroupRelative(scale_rewards=True) and not LeaveOneOut()"),
    ],
)
def test_a_planted_fault_is_found(row: tuple[str, str], sentence: str) -> None:
    head = "| x | y | `torchward.algorithms.grpo.Config` | by default | z |\n|---|---|---|---|---|"
    table = f"{head}\n| | | {row[0]} | {row[1]} | |"
    assert [fault for each in rows(table) for fault in faults(*each)] == [sentence]
