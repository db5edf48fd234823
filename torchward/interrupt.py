"""Ctrl-C, SIGTERM and a lost terminal as a wish that the loop reads, no exception in the middle of an update."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

HANGUP: int | None = getattr(signal, "SIGHUP", None)


def ending() -> tuple[int, ...]:
    """The signals, beside SIGINT, that ask to end: SIGTERM, and SIGHUP where there is one that is not ignored, as it is
    under nohup."""
    if HANGUP is None or signal.getsignal(HANGUP) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return signal.SIGTERM, HANGUP


class Interrupt:
    """Between `install` and `restore`, the first SIGINT, SIGTERM or SIGHUP sets `wished`; a second SIGINT or SIGTERM
    raises KeyboardInterrupt.

    Outside the main thread, where Python allows no handlers, all do nothing.
    """

    def __init__(self) -> None:
        self.wished = False
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *ending()):
                self._before[number] = signal.signal(number, self._receive)

    def restore(self) -> None:
        """Give the signals back to their former handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.wished:
            if number == HANGUP:  # both the shell and the kernel send one
                return
            raise KeyboardInterrupt
        self.wished = True
        with contextlib.suppress(OSError):  # the terminal is gone
            # os.write, because the interrupted code may itself be inside print
            os.write(2, b"\ntorchward: stopping after this iteration; once more to abort.\n")
