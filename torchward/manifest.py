"""The `config.json` of a run: what it runs, with which options, and on which versions."""

import json
import platform
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from torchward import __version__, checkpoint, lock
from torchward.metrics import CONFIG_FILE, RunError, say

_KEYS = ("manifest", "total", "options", "id", "torchward", "torch", "python", "threads")
STEPS = "config.total_timesteps"
"""What the manifest's config calls the total."""


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


def asked(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What decides on what a run learns, of its `config.json`: the note of its checkpoints."""
    return {"manifest": stored["manifest"], "total": stored["total"]}


def require_unchanged(path: Path, stored: Mapping[str, Any], noted: Mapping[str, Any], checkpoint_name: str) -> None:
    """Raise RunError, naming what differs, where `config.json` asks for something else than a checkpoint was made with.
    A file that lies elsewhere now, under the same name, is no difference; and another number of steps is only told."""
    here, there = (dict(_flat(document)) for document in (asked(stored), noted))
    total = here["total"]
    if total != there["total"] and here.get(STEPS, total) == total:
        say(
            f"{path} goes on to step {total} rather than {there['total']}: rates that fall with the run fall otherwise."
        )
        for name in ("total", STEPS):
            here.pop(name, None)
            there.pop(name, None)
    changed = [
        f"{name} is {here.get(name)!r}, and was {there.get(name)!r}"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name) and not _moved(here.get(name), there.get(name))
    ]
    if changed:
        raise RunError(
            f"expected {path / CONFIG_FILE} as it was when checkpoint {checkpoint_name} was written, got "
            f"{'; '.join(changed)}: put that back, or begin a new run with what is to be different: `torchward train "
            f"... --init {path}`."
        )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested objects, by their names with dots; those of the manifest are named without it."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, item in value.items():
        yield from _flat(item, "" if not name and key == "manifest" else f"{name}.{key}".lstrip("."))


def _moved(one: Any, other: Any) -> bool:
    """Whether two values are the paths of files of one name."""
    paths = [Path(value) for value in (one, other) if isinstance(value, str)]
    return len(paths) == 2 and all(path.is_absolute() for path in paths) and paths[0].name == paths[1].name


def start(path: Path, manifest: Mapping[str, Any], total: int, options: Mapping[str, Any]) -> int | None:
    """Make the directory of a new run; return its lock. Raises RunError when something already lies there."""
    if path.exists() and (not path.is_dir() or any(entry.name != lock.LOCK_FILE for entry in path.iterdir())):
        raise RunError(
            f"{path} already exists: go on with it by `torchward resume {path}`, or give this run another --name."
        )
    path.mkdir(parents=True, exist_ok=True)
    taken = lock.take(path)
    _write(path, manifest, total, options, uuid.uuid4().hex, _versions())
    return taken


def take_up(path: Path, manifest: Mapping[str, Any], total: int, options: Mapping[str, Any]) -> int | None:
    """Set the number of threads that the run in `path` was started with, and note what is asked of it now; return the
    lock of its directory.

    Says so when versions have changed, for then results need not be bit-equal to the uninterrupted run's.
    """
    stored, now = read_manifest(path), _versions()
    taken = lock.take(path)
    changed = [
        f"{name} {stored[name]} (now {now[name]})"
        for name in ("torchward", "torch", "python")
        if stored[name] != now[name]
    ]
    if changed:
        say(f"this run was started with {', '.join(changed)}: it goes on, but bit-equal results are not promised.")
    torch.set_num_threads(int(stored["threads"]))
    _write(path, manifest, total, options, stored["id"], {name: stored[name] for name in now})
    return taken


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
