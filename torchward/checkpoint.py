"""Checkpoints: a tree of state as safetensors and JSON, and directories that appear whole or not at all.

A tree is any nesting of dicts, lists and tuples around tensors, NumPy arrays and scalars, ints, floats, bools, strings,
bytes and None. Arrays lie in `tensors.safetensors`, all else in `tree.json`. Nothing is ever unpickled: loading a
checkpoint reads data and runs no code that came with it.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = "torchward-tree-1"
JSON_FILE = "tree.json"
TENSOR_FILE = "tensors.safetensors"
NOTE_FILE = "note.json"
_NAME = re.compile(r"(\d+)(?:\.(\d+))?")  # <step>, or <step>.<n> for the n-th further checkpoint of the same step

# What safetensors can name by itself; other types (complex128, say) are stored as their bytes.
_PLAIN = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.uint16, torch.uint32,
    torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64, torch.complex64,
}  # fmt: skip
_NUMPY_PLAIN = {np.dtype(name) for name in ("f8", "f4", "f2", "b1", "c8", *(f"{k}{n}" for k in "iu" for n in "1248"))}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


class CheckpointError(ValueError):
    """A tree that cannot be saved, or a directory that is no complete checkpoint."""


def save_tree(directory: str | Path, tree: Any) -> None:
    """Write `tree` into `directory` and force it onto the disk; an existing tree there is overwritten.

    The round trip is exact, for tensors of every dense type (shared, strided, empty and 0-dim ones too), for ints of
    any size, for NaN, infinities and signed zeros; int and tuple keys of dicts, their order, and the difference between
    lists and tuples survive. Tensors come back on the CPU, contiguous, sharing nothing. Raises CheckpointError, naming
    the place in the tree, for all else (objects, named tuples, sparse tensors): loading these would need code.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    packer = _Packer()
    document = {"format": FORMAT, "tree": packer.pack(tree, ())}
    save_file(packer.tensors, directory / TENSOR_FILE)
    with open(directory / JSON_FILE, "w", encoding="utf-8") as file:
        json.dump(document, file, allow_nan=False)
    sync(directory)


def load_tree(directory: str | Path) -> Any:
    """Read back what `save_tree` wrote. Raises CheckpointError when the directory is missing, foreign or damaged."""
    directory = Path(directory)
    try:
        document = json.loads((directory / JSON_FILE).read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"{JSON_FILE} is not of the format {FORMAT!r}")
        return _Unpacker(load_file(directory / TENSOR_FILE)).unpack(document["tree"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError, SafetensorError) as error:
        reason = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{directory} holds no complete torchward checkpoint: {reason}.") from error


def commit(parent: str | Path, step: int, tree: Any, note: Any = None) -> Path:
    """Save `tree` as the newest checkpoint under `parent`, then remove the older ones; return its directory. A `note`,
    which is plain JSON, lies beside the tree, for :func:`read_note`.

    It is written beside as `<step>.tmp`, forced onto the disk and renamed: a process killed at any moment leaves either
    this checkpoint or the one before as `latest(parent)`. What a killed process left half-written is removed here.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob("*.tmp"):
        shutil.rmtree(leftover)
    older = _complete(parent)
    serial = max((_order(path)[1] + 1 for path in older if _order(path)[0] == step), default=0)
    target = parent / (f"{step}.{serial}" if serial else str(step))
    beside = parent / f"{target.name}.tmp"
    if note is not None:
        beside.mkdir()
        write_json(beside / NOTE_FILE, note)
    save_tree(beside, tree)
    os.replace(beside, target)
    _sync_entry(parent)
    for path in older:  # renamed first: a half-removed checkpoint must not look like a whole one
        doomed = parent / f"{path.name}.old.tmp"
        os.replace(path, doomed)
        shutil.rmtree(doomed)
    return target


def latest(parent: str | Path) -> Path | None:
    """The newest complete checkpoint that `commit` left under `parent`; None when there is none. Changes nothing."""
    return max(_complete(Path(parent)), key=_order, default=None)


def read_note(directory: str | Path) -> Any:
    """The note of a checkpoint; None of one without. Raises CheckpointError where it is damaged."""
    file = Path(directory) / NOTE_FILE
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory} holds no complete torchward checkpoint: {NOTE_FILE}: {error}.") from error


def publish(directory: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write(path)` fill a directory, and put it in the place of `directory` so that readers never miss it.

    A new directory appears by one rename. In an existing one each file is replaced by one rename, so every file is
    always whole, and there is no moment without them; so it is with those in its directories.
    """
    directory = Path(directory)
    beside = directory.with_name(directory.name + ".tmp")
    if beside.exists():
        shutil.rmtree(beside)
    beside.mkdir(parents=True)
    write(beside)
    sync(beside)
    if not directory.exists():
        os.replace(beside, directory)
    else:
        _move_into(directory, beside)
        shutil.rmtree(beside)
    _sync_entry(directory)
    _sync_entry(directory.parent)


def _move_into(directory: Path, source: Path) -> None:
    """Put each file of `source` in its place in `directory`, and remove there what `source` has not."""
    names = sorted(path.name for path in source.iterdir())
    for name in names:
        there = directory / name
        if there.is_dir() and (source / name).is_dir():
            _move_into(there, source / name)
            _sync_entry(there)
            continue
        if there.is_dir():
            shutil.rmtree(there)
        os.replace(source / name, there)
    for path in directory.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path: Path, data: Any) -> None:
    """Replace the file `path` by `data` as indented JSON, in one rename."""
    beside = path.with_name(path.name + ".tmp")
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=2, allow_nan=False)
        file.write("\n")
    _sync_entry(beside)
    os.replace(beside, path)


def sync(directory: Path) -> None:
    """Force a directory, its files and its sub-directories onto the disk."""
    for path in directory.iterdir():
        if path.is_dir():
            sync(path)
        else:
            _sync_entry(path)
    _sync_entry(directory)


def _sync_entry(path: Path) -> None:
    if os.name != "posix" and path.is_dir():  # only POSIX can open a directory
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _order(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def _complete(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if _NAME.fullmatch(path.name) and (path / JSON_FILE).is_file()]


class _Packer:
    """Turns a tree into plain JSON, in which every object has one tag, and collects its tensors by name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._storages: set[int] = set()

    def pack(self, node: Any, path: tuple[str, ...]) -> Any:
        kind = type(node)
        if node is None or kind is bool or kind is str:
            return node
        if kind is int:  # hexadecimal has no limit on its digits, as decimal has in Python
            return node if abs(node) < 2**63 else {"int": hex(node)}
        if kind is float:
            return node if math.isfinite(node) else {"float": repr(node)}
        if kind is bytes:
            return {"bytes": self._bytes(node, path), "length": len(node)}
        if kind is list:
            return [self.pack(item, (*path, str(index))) for index, item in enumerate(node)]
        if kind is tuple:
            return {"tuple": [self.pack(item, (*path, str(index))) for index, item in enumerate(node)]}
        if isinstance(node, dict):
            if all(type(key) is str for key in node):
                return {"dict": {key: self.pack(value, (*path, key)) for key, value in node.items()}}
            return {"items": [[self.pack(k, (*path, "key")), self.pack(v, (*path, str(k)))] for k, v in node.items()]}
        if isinstance(node, Tensor):
            return self._tensor(node, path)
        if isinstance(node, (np.ndarray, np.generic)):
            return self._array(node, path)
        raise CheckpointError(
            f"A checkpoint holds tensors, arrays, numbers, strings, None, dicts, lists and tuples; "
            f"{'/'.join(path) or 'its root'} is a {kind.__module__}.{kind.__qualname__}: give it as one of these."
        )

    def _tensor(self, tensor: Tensor, path: tuple[str, ...]) -> Any:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(f"A checkpoint holds dense tensors with data; {'/'.join(path)} is {tensor.layout}.")
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        if plain.dtype in _PLAIN:
            return {"tensor": self._store(plain, path)}
        raw = plain.reshape(-1).view(torch.uint8)
        return {"raw": self._store(raw, path), "dtype": str(plain.dtype), "shape": list(plain.shape)}

    def _array(self, array: NDArray[Any] | np.generic, path: tuple[str, ...]) -> Any:
        tag = "scalar" if isinstance(array, np.generic) else "array"
        copied = np.array(array, order="C")
        if copied.dtype in _NUMPY_PLAIN and copied.dtype.isnative:
            return {tag: self._store(torch.from_numpy(copied), path)}
        if copied.dtype.kind in "OV":
            raise CheckpointError(
                f"A checkpoint holds arrays of numbers or strings; {'/'.join(path)} has the NumPy type {copied.dtype}."
            )
        return {
            f"raw_{tag}": self._bytes(copied.tobytes(), path),
            "dtype": copied.dtype.str,
            "shape": list(copied.shape),
        }

    def _bytes(self, data: bytes, path: tuple[str, ...]) -> str:
        return self._store(torch.frombuffer(bytearray(data) or bytearray(1), dtype=torch.uint8), path)

    def _store(self, tensor: Tensor, path: tuple[str, ...]) -> str:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer in self._storages or tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()  # safetensors takes no shared memory
            pointer = tensor.untyped_storage().data_ptr()
        if tensor.nbytes:
            self._storages.add(pointer)
        name = f"{len(self.tensors)}/{'/'.join(path)}"
        self.tensors[name] = tensor
        return name


class _Unpacker:
    """The inverse of _Packer, tag by tag."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def unpack(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.unpack(item) for item in node]
        if not isinstance(node, dict):
            return node
        tag, value = next(iter(node.items()))
        match tag:
            case "int":
                return int(value, 16)
            case "float":
                return float(value)
            case "tuple":
                return tuple(self.unpack(item) for item in value)
            case "dict":
                return {key: self.unpack(item) for key, item in value.items()}
            case "items":
                return {self.unpack(key): self.unpack(item) for key, item in value}
            case "bytes":
                return self._take(value).numpy().tobytes()[: node["length"]]
            case "tensor":
                return self._take(value)
            case "raw":
                return self._take(value).view(_DTYPES[node["dtype"]]).reshape(node["shape"])
            case "array":
                return self._take(value).numpy()
            case "scalar":
                return self._take(value).numpy()[()]
            case "raw_array" | "raw_scalar":
                shape, dtype = tuple(node["shape"]), np.dtype(node["dtype"])
                count = math.prod(shape)
                data = self._take(value).numpy().tobytes()[: count * dtype.itemsize]
                array = np.frombuffer(data, dtype=dtype, count=count).reshape(shape).copy()
                return array if tag == "raw_array" else array[()]
        raise ValueError(f"{JSON_FILE} has the unknown tag {tag!r}")

    def _take(self, name: str) -> Tensor:
        # A copy, because safetensors maps the file, and a matrix product may round differently on unaligned memory:
        # a resumed run has to compute on memory laid out as it was before.
        return self._tensors.pop(name).clone()
