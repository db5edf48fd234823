"""Layers that PyTorch's compiler makes functions of."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.nets import compiling
from tests.nets.compiling import LENGTHS


@pytest.fixture(scope="module")
def found() -> Any:
    """What the script prints, in a process whose functions are as users have them."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-m", compiling.__name__], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_compiled_layers_compute_the_same(name: str, found: Any) -> None:
    """All layers are one graph, for all lengths or for each, and nothing in them is left to Python."""
    for same_shapes, graphs in ((False, 1), (True, len(LENGTHS))):
        case = found[f"{name} {same_shapes}"]
        assert case["worst"] < 1e-5 and case["graphs"] == graphs


def test_what_is_written_is_not_compiled(found: Any) -> None:
    """Prompts and steps have another length each time; and a copy, such as a reference, is as it was before."""
    assert found["written"] == 0 and found["read"] == 1


def test_an_update_by_compiled_layers_is_the_same(found: Any) -> None:
    assert found["plain"] == 0
    assert found["update"]["graphs"] == 1 and found["update"]["worst"] < 1e-5
