"""Ctrl-C and SIGTERM as a wish that the loop reads, instead of an exception in the middle of an update."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """Between `install` and `restore`, the first SIGINT or SIGTERM sets `wished`; the second raises KeyboardInterrupt.

    Outside the main thread, where Python allows no handlers, both do nothing.
    """

    def __init__(self) -> None:
        self.wished = False
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take over the two signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)

    def restore(self) -> None:
        """Give the two signals back to their former handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.wished:
            raise KeyboardInterrupt
        self.wished = True
        # os.write, because the interrupted code may itself be inside print
        os.write(2, b"\ntorchward: stopping after this iteration; once more to abort.\n")
