"""A lock on a run's directory, so that no two processes write into it."""

import errno
import os
import sys
from pathlib import Path

from torchward.metrics import RunError

LOCK_FILE = ".lock"


def take(directory: Path) -> int | None:
    """Lock ``directory`` until :func:`release`, or until this process ends in whatever way; None where the system or
    the file system has no such locks.

    The lock is the process's own: workers that it forks do not hold it, and another run in it takes it too.
    Raises RunError where another process holds it."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return None
        raise RunError(
            f"expected no other process to train in {directory}, got one that does; wait until it has ended, or stop it"
        ) from error
    return descriptor


def release(lock: int | None) -> None:
    """Give back what :func:`take` has taken."""
    if lock is not None:
        os.close(lock)
