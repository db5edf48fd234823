"""The `config.json` of a run: what it runs, with which options, and on which versions."""

import json
import platform
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from torchward import __version__, checkpoint
from torchward.metrics import CONFIG_FILE, RunError, say

_KEYS = ("manifest", "total", "options", "id", "torchward", "torch", "python", "threads")


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The `config.json` of the run in `path`: "manifest", "total", "options", and the versions that it ran with.

    Raises RunError when there is no run in `path`.
    """
    file = Path(path) / CONFIG_FILE
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is no run: {file} cannot be read ({error}).") from error
    missing = [key for key in _KEYS if not isinstance(stored, dict) or key not in stored]
    if missing:
        raise RunError(f"{path} is no run of torchward: {file} lacks {', '.join(missing)}.")
    return dict(stored)


def start(path: Path, manifest: Mapping[str, Any], total: int, options: Mapping[str, Any]) -> None:
    """Make the directory of a new run. Raises RunError when something already lies there."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{path} already exists: go on with it by `torchward resume {path}`, or give this run another --name."
        )
    path.mkdir(parents=True, exist_ok=True)
    _write(path, manifest, total, options, uuid.uuid4().hex, _versions())


def take_up(path: Path, manifest: Mapping[str, Any], total: int, options: Mapping[str, Any]) -> None:
    """Set the number of threads that the run in `path` was started with, and note what is asked of it now.

    Says so when versions have changed, for then results need not be bit-equal to the uninterrupted run's.
    """
    stored, now = read_manifest(path), _versions()
    changed = [
        f"{name} {stored[name]} (now {now[name]})"
        for name in ("torchward", "torch", "python")
        if stored[name] != now[name]
    ]
    if changed:
        say(f"this run was started with {', '.join(changed)}: it goes on, but bit-equal results are not promised.")
    torch.set_num_threads(int(stored["threads"]))
    _write(path, manifest, total, options, stored["id"], {name: stored[name] for name in now})


def _write(
    path: Path,
    manifest: Mapping[str, Any],
    total: int,
    options: Mapping[str, Any],
    identity: str,
    versions: Mapping[str, Any],
) -> None:
    document = {"manifest": dict(manifest), "total": total, "options": dict(options), "id": identity, **versions}
    checkpoint.write_json(path / CONFIG_FILE, document)


def _versions() -> dict[str, Any]:
    return {
        "torchward": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
