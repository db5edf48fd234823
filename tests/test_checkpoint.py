"""Checkpoints: what comes back is what was saved, and a killed process leaves a whole one."""

import json
import math
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchward import checkpoint
from torchward.checkpoint import CheckpointError

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.complex128,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32,
    torch.uint64,
]  # fmt: skip


def round_trip(tree: Any, directory: Path) -> Any:
    checkpoint.save_tree(directory, tree)
    return checkpoint.load_tree(directory)


def bits(value: Any) -> Any:
    """A form in which == means equal bit for bit: types, NaN payloads, signs of zero and the order of keys included."""
    if isinstance(value, Tensor):
        return "tensor", value.dtype, value.shape, value.contiguous().reshape(-1).view(torch.uint8).tolist()
    if isinstance(value, (np.ndarray, np.generic)):
        return type(value), value.dtype, value.shape, value.tobytes()
    if isinstance(value, dict):
        return "dict", [(bits(key), bits(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [bits(item) for item in value]
    return type(value), repr(value) if isinstance(value, float) else value


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5) | st.binary(max_size=5)
)
keys = st.text(max_size=5) | st.integers() | st.tuples(st.integers(), st.text(max_size=2))
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(tree=trees)
def test_a_tree_of_scalars_comes_back_as_it_was(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert bits(round_trip(tree, tmp_path_factory.getbasetemp() / "scalars")) == bits(tree)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)], ids=str)
def test_tensors_of_every_dtype_and_shape(dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path) -> None:
    raw = torch.randint(0, 2, (math.prod(shape) * dtype.itemsize,), dtype=torch.uint8)
    tensor = raw.view(dtype).reshape(shape)
    assert bits(round_trip(tensor, tmp_path)) == bits(tensor)


def test_views_of_one_memory_come_back_apart(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tree = {
        "base": base, "same": base, "column": base[:, 1], "turned": base.t(), "wide": base[:1].expand(5, 4),
        "parameter": torch.nn.Parameter(base), "conjugate": torch.tensor([1 + 2j]).conj(), "__metadata__": base,
    }  # fmt: skip
    back = round_trip(tree, tmp_path)
    for name, tensor in tree.items():
        assert torch.equal(back[name], tensor), name
    back["base"].zero_()
    assert torch.equal(back["same"], base)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)).T,
        np.arange(3, dtype=">f4"),
        np.zeros((0, 2), dtype=">i8"),
        np.array(1.5),
        np.array(["two", "words"]),
        np.array([True, False]),
        np.broadcast_to(np.arange(3), (2, 3)),
        np.float64(math.nan),
        np.float32(0.1),
        np.int64(-3),
        np.bool_(True),
        np.datetime64("2020-01-01"),
        np.complex128(1 + 2j),
    ],
    ids=lambda array: f"{type(array).__name__}-{array.dtype}",
)
def test_numpy_arrays_and_scalars(array: Any, tmp_path: Path) -> None:
    assert bits(round_trip(array, tmp_path)) == bits(array)


def test_integers_beyond_the_digits_that_python_parses(tmp_path: Path) -> None:
    for integer in (2**128 - 1, -(2**63), 7**10000, -(7**10000)):
        assert round_trip(integer, tmp_path) == integer


def test_the_states_of_random_generators(tmp_path: Path) -> None:
    tree = [random.getstate(), np.random.default_rng(1).bit_generator.state, torch.Generator().get_state()]
    back = round_trip(tree, tmp_path)
    assert bits(back) == bits(tree)
    random.Random().setstate(back[0])
    np.random.default_rng().bit_generator.state = back[1]


def test_a_loaded_tensor_is_aligned_like_any_other(tmp_path: Path) -> None:
    """A matrix product may round differently on memory that is aligned differently."""
    back = round_trip([torch.zeros(n, dtype=torch.uint8) for n in (1, 3, 5)] + [torch.zeros(4)], tmp_path)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in back)


class Point(NamedTuple):
    x: int


@pytest.mark.parametrize(
    ("thing", "said"), [(object(), "builtins.object"), (Point(1), "Point"), ({1, 2}, "set"), (np.array([{}]), "object")]
)
def test_what_would_need_code_to_load_is_refused(thing: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"(?s)source/worlds/0.*{said}"):
        checkpoint.save_tree(tmp_path, {"source": {"worlds": [thing]}})


def test_nothing_is_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    round_trip({"a": torch.ones(2), "b": np.array(["x"]), "c": (1, 2.0)}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tensors.safetensors", "tree.json"]


def damage_tensors(path: Path) -> None:
    (path / "tensors.safetensors").write_bytes((path / "tensors.safetensors").read_bytes()[:-3])


def damage_tree(path: Path) -> None:
    (path / "tree.json").write_text((path / "tree.json").read_text()[:-3])


def lose_tensors(path: Path) -> None:
    (path / "tensors.safetensors").unlink()


def foreign(path: Path) -> None:
    (path / "tree.json").write_text(json.dumps({"weights": 1}))


def unknown_tag(path: Path) -> None:
    (path / "tree.json").write_text(json.dumps({"format": checkpoint.FORMAT, "tree": {"pickle": "x"}}))


def lost_name(path: Path) -> None:
    (path / "tree.json").write_text(json.dumps({"format": checkpoint.FORMAT, "tree": {"tensor": "elsewhere"}}))


@pytest.mark.parametrize("damage", [damage_tensors, damage_tree, lose_tensors, foreign, unknown_tag, lost_name])
def test_a_damaged_checkpoint_gives_one_clear_error(damage: Any, tmp_path: Path) -> None:
    checkpoint.save_tree(tmp_path, {"a": torch.ones(20)})
    damage(tmp_path)
    with pytest.raises(CheckpointError, match="holds no complete torchward checkpoint"):
        checkpoint.load_tree(tmp_path)


def test_a_missing_directory_gives_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere holds no complete torchward checkpoint"):
        checkpoint.load_tree(tmp_path / "nowhere")


def test_commit_keeps_the_newest_alone(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "none") is None
    for step in (0, 9, 10, 10, 10, 200):
        made = checkpoint.commit(tmp_path, step, {"step": step})
        assert checkpoint.latest(tmp_path) == made
        assert list(tmp_path.iterdir()) == [made]
        assert checkpoint.load_tree(made) == {"step": step}
    assert made.name == "200"


def test_a_half_written_checkpoint_is_ignored_and_then_removed(tmp_path: Path) -> None:
    first = checkpoint.commit(tmp_path, 1, "first")
    checkpoint.save_tree(tmp_path / "2.tmp", "half")
    assert checkpoint.latest(tmp_path) == first
    assert (tmp_path / "2.tmp").exists(), "reading changes nothing"
    checkpoint.commit(tmp_path, 3, "third")
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def die(call: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Stop `act` at its n-th call that reaches the disk, if there are so many."""
    calls = 0

    def dying(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= call:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for module, name in ((os, "fsync"), (os, "replace"), (shutil, "rmtree"), (checkpoint, "save_file")):
            patch.setattr(module, name, dying(getattr(module, name)))
        try:
            act()
        except KeyboardInterrupt:
            pass
        else:
            assert call > calls


@pytest.mark.parametrize("call", range(1, 12))
def test_a_death_at_any_system_call_leaves_a_checkpoint(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop the second commit at its n-th call that reaches the disk; the first or the second has to be whole."""
    checkpoint.commit(tmp_path, 1, {"step": 1, "x": torch.full((10,), 1.0)})
    die(call, monkeypatch, lambda: checkpoint.commit(tmp_path, 2, {"step": 2, "x": torch.full((10,), 2.0)}))
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    tree = checkpoint.load_tree(newest)
    assert tree["x"].tolist() == [float(tree["step"])] * 10


KILLS = 10
SAVES_UNTIL_KILLED = """
import os, random, signal, sys, time, torch
from pathlib import Path
from torchward import checkpoint

def save_for_ever(folder, ready):
    step = 0
    while True:
        step += 1
        weights = torch.full((5000,), float(step))
        checkpoint.commit(folder / "checkpoint", step // 3, {"step": step, "x": weights})
        checkpoint.publish(folder / "policy", lambda path: checkpoint.save_tree(path, weights))
        if step == 1:
            os.write(ready, b"!")

chance = random.Random(0)
for kill in range(int(sys.argv[2])):  # forked, because importing torch takes longer than all the rest
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        save_for_ever(Path(sys.argv[1]) / str(kill), writing)
    os.read(reading, 1)
    time.sleep(chance.random() * 0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_random_moments_leaves_a_whole_checkpoint_and_policy(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SAVES_UNTIL_KILLED, str(tmp_path), str(KILLS)], check=True, timeout=60)
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        newest = checkpoint.latest(folder / "checkpoint")
        assert newest is not None
        tree = checkpoint.load_tree(newest)
        assert torch.equal(tree["x"], torch.full((5000,), float(tree["step"])))
        policy = checkpoint.load_tree(folder / "policy")
        assert (policy == policy[0]).all()
        assert policy[0].item() in (tree["step"] - 1, tree["step"])
        checkpoint.commit(folder / "checkpoint", 10**6, "later")
        assert [path.name for path in (folder / "checkpoint").iterdir()] == ["1000000"]


def test_publish_replaces_a_directory(tmp_path: Path) -> None:
    def write(names: list[str]) -> Any:
        return lambda path: [(path / name).write_text(name) for name in names]

    checkpoint.publish(tmp_path / "policy", write(["a", "b"]))
    (tmp_path / "policy.tmp").mkdir()
    checkpoint.publish(tmp_path / "policy", write(["b", "c"]))
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert sorted(path.name for path in (tmp_path / "policy").iterdir()) == ["b", "c"]


@pytest.mark.parametrize("call", range(1, 15))
def test_a_death_at_any_system_call_leaves_all_files_of_a_policy(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those in its directories, as a model that transformers computes has them."""
    files = ("policy.json", "model/config.json", "model/weights")

    def publish(text: str, *more: str) -> None:
        def write(path: Path) -> None:
            for name in (*files, *more):
                (path / name).parent.mkdir(exist_ok=True)
                (path / name).write_text(text)

        checkpoint.publish(tmp_path / "best", write)

    publish("first", "model/shard", "adapter/weights")
    die(call, monkeypatch, lambda: publish("second"))
    assert {(tmp_path / "best" / name).read_text() for name in files} <= {"first", "second"}
    publish("third")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        f"best/{name}" for name in files
    }
    assert {(tmp_path / "best" / name).read_text() for name in files} == {"third"}
