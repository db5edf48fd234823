"""Who may import whom: read from the sources with ast, so that lazy, relative and dynamic imports count too."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1] / "torchward"

# The single files at the root of the package, such as run.py and config.py, import each other alone; but for these:
ABOVE = frozenset({"__init__", "__main__", "cli", "launch", "launch_checks", "launch_policies"})
FOUNDATION = frozenset(path.stem for path in ROOT.glob("*.py")) - ABOVE
CORE = frozenset({"functional", "nets", "data"})
BELOW_TASKS = CORE | FOUNDATION | {"envs", "language", "algorithms"}

# What each part of the package may import of the others; itself always.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "functional": frozenset(),
    "nets": frozenset({"functional", "config"}),  # what a saved policy is made of
    "data": frozenset({"functional", "nets", "config"}),  # settings that several algorithms share
    "envs": CORE,
    "language": CORE | {"config"},  # the error that a wrong setting is
    "algorithms": CORE | {"run", "config"},
    "tasks": BELOW_TASKS,
    "launch_checks": BELOW_TASKS | {"tasks"},
    "launch_policies": BELOW_TASKS | {"tasks"},
    "launch": BELOW_TASKS | {"tasks", "launch_checks", "launch_policies"},
    "serve": CORE | {"language", "config"},  # a page for people: the command line opens it
    "cli": BELOW_TASKS | {"tasks", "launch", "launch_checks", "launch_policies", "serve"},
    "__main__": frozenset({"cli"}),
    "__init__": frozenset({"launch", "nets"}),  # the names that `import torchward` offers
    **dict.fromkeys(FOUNDATION, FOUNDATION),
}

# Of what is not torchward, where that is limited. The standard library always.
THIRD_PARTY = {"functional": frozenset({"torch", "jaxtyping"})}

# What costs a tenth of a second or more, or is an extra: imported in the function that uses it.
HEAVY = (
    "envpool",
    "gymnasium.wrappers",
    "imageio",
    "imageio_ffmpeg",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "peft",
    "PIL",
    "rouge_score",
    "sacrebleu",
    "pygame",
    "tensorboard",
    "tokenizers",
    "torch.onnx",
    "torch.utils.tensorboard",
    "transformers",
    "tyro",
    "wandb",
)


class Import(NamedTuple):
    """One imported name, dotted and absolute, such as ``torchward.data.tree.tree_map``."""

    name: str
    line: int
    on_load: bool  # it runs when the module is imported, not when a function is called or types are checked


def imports(source: str, module: str, is_package: bool) -> list[Import]:
    """Every import in the source of ``module``."""
    package = module.split(".") if is_package else module.split(".")[:-1]

    def absolute(name: str, level: int) -> str:
        base = package[: len(package) - level + 1] if level else []
        return ".".join([*base, *([name] if name else [])])

    def visit(node: ast.AST, on_load: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, on_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.module or "", node.level)
            yield from (Import(f"{base}.{alias.name}", node.lineno, on_load) for alias in node.names)
        elif isinstance(node, ast.Call) and (name := _dynamic(node)):
            level = len(name) - len(name.lstrip("."))
            yield Import(absolute(name.lstrip("."), level), node.lineno, on_load)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            on_load = False
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for branch, loads in ((node.body, False), (node.orelse, on_load)):
                for statement in branch:
                    yield from visit(statement, loads)
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child, on_load)

    return list(visit(ast.parse(source), True))


def _dynamic(call: ast.Call) -> str | None:
    """What ``import_module("a.b")``, ``__import__("a.b")`` or ``import_module(f"a.{b}")`` names, as far as written."""
    if ast.unparse(call.func).split(".")[-1] not in {"import_module", "__import__"} or not call.args:
        return None
    argument = call.args[0]
    if isinstance(argument, ast.JoinedStr) and argument.values:
        argument = argument.values[0]
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None


def faults(root: Path) -> list[str]:
    """Each import under the package ``root`` that the tables above do not allow, as one sentence."""
    found = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root.parent)
        parts = relative.with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        own = parts[1]
        if own not in MAY_IMPORT:
            found.append(f"{relative} belongs to no layer: give {own!r} a line in MAY_IMPORT")
            continue
        outside = THIRD_PARTY.get(own)
        for name, line, on_load in imports(path.read_text(encoding="utf-8"), module, is_package):
            where = f"{relative}:{line}"
            top, *rest = name.split(".")
            if top == root.name and name != f"{root.name}.__version__":
                is_part = rest and (rest[0] in MAY_IMPORT or (root / f"{rest[0]}.py").exists())
                other = rest[0] if is_part else "__init__"
                if other not in {own, *MAY_IMPORT[own]}:
                    found.append(f"{where}: {own} may not import {other}, but it imports {name}")
            elif top != root.name and outside is not None and top not in outside | sys.stdlib_module_names:
                found.append(f"{where}: {own} may import {' and '.join(sorted(outside))} alone, but it imports {name}")
            heavy = next((heavy for heavy in HEAVY if f"{name}.".startswith(f"{heavy}.")), None)
            if on_load and heavy:
                found.append(f"{where}: {heavy} is heavy: import it inside the function that uses it")
    return found


def test_every_import_keeps_to_the_layers() -> None:
    assert not (found := faults(ROOT)), "\n".join(found)


def test_the_layers_are_those_of_the_plan() -> None:
    """No cycle between the parts, functional at the bottom, and the two worlds apart."""
    parts = set(MAY_IMPORT) - FOUNDATION - {"__init__"}
    done: set[str] = set()
    while ready := {part for part in parts - done if MAY_IMPORT[part] - FOUNDATION <= done}:
        done |= ready
    assert done == parts, f"a cycle among {sorted(parts - done)}"
    assert "language" not in MAY_IMPORT["envs"]
    assert "envs" not in MAY_IMPORT["language"]
    assert not MAY_IMPORT["algorithms"] & {"envs", "language", "tasks", "launch", "cli"}


PLANTED = {
    "functional/a.py": [
        ("import numpy", "functional may import jaxtyping and torch alone"),
        ("from torchward.nets import mlp", "functional may not import nets"),
        ("from ..nets.mlp import MLP", "functional may not import nets"),
    ],
    "functional/__init__.py": [("from ..nets import mlp", "functional may not import nets")],
    "nets/a.py": [("from torchward import data", "nets may not import data")],
    "data/deep/__init__.py": [("from ...envs import worlds", "data may not import envs")],
    "envs/a.py": [("def f():\n    from torchward.language import corpus", "envs may not import language")],
    "language/a.py": [("class A:\n    def f(self):\n        import torchward.envs", "language may not import envs")],
    "algorithms/a.py": [
        ("from torchward.envs.worlds import Worlds", "algorithms may not import envs"),
        ("if TYPE_CHECKING:\n    from torchward.tasks import control", "algorithms may not import tasks"),
        ("from importlib import import_module\nimport_module('torchward.cli')", "algorithms may not import cli"),
        ("import importlib\nimportlib.import_module(f'torchward.tasks.{x}')", "algorithms may not import tasks"),
        ("import importlib\nimportlib.import_module('..tasks', __package__)", "algorithms may not import tasks"),
        ("import torchward", "algorithms may not import __init__"),
        ("from torchward import load", "algorithms may not import __init__"),
        ("from .. import load", "algorithms may not import __init__"),
        ("import matplotlib.pyplot as plt", "matplotlib is heavy"),
        ("from torch.utils import tensorboard", "torch.utils.tensorboard is heavy"),
        ("class A:\n    import tyro", "tyro is heavy"),
    ],
    "run.py": [("from torchward.algorithms import ppo", "run may not import algorithms")],
    "tasks/a.py": [("try:\n    import torchward.cli\nexcept ImportError:\n    pass", "tasks may not import cli")],
    "stray/a.py": [("", "belongs to no layer")],
}


@pytest.mark.parametrize(("file", "source", "sentence"), [(f, *case) for f, cases in PLANTED.items() for case in cases])
def test_a_planted_fault_is_found(tmp_path: Path, file: str, source: str, sentence: str) -> None:
    path = tmp_path / "torchward" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert [sentence in fault for fault in faults(tmp_path / "torchward")] == [True]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "functional/a.py",
            "import math\nfrom torch.nn import functional\nfrom jaxtyping import Float\nfrom . import b",
        ),
        (
            "nets/a.py",
            "import numpy\nfrom ..functional import returns\nfrom . import mlp\nfrom .. import functional",
        ),
        ("envs/a.py", "import gymnasium\nfrom torchward.data.rollout import Rollout"),
        ("run.py", "from torchward import __version__, config\ndef f():\n    import matplotlib.pyplot"),
        ("algorithms/a.py", "if TYPE_CHECKING:\n    from PIL import Image\nfrom torchward.run import Run"),
        ("cli.py", "import onnxruntime_extensions, torchward.tasks.control\nimport_module(name)\nimport_module()"),
    ],
)
def test_what_is_allowed_is_no_fault(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / "torchward" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert faults(tmp_path / "torchward") == []
