"""The progress of a run on the terminal: one line that moves, or in a log file one line at each tenth."""

import sys
import time
from typing import Any

from torchward.metrics import EpisodeWindow, show


class Progress:
    """Shows steps, steps per second, return and time left on standard error.

    On a terminal it is one line of tqdm, otherwise a line is printed at each tenth of `total`. `terminal` overrules the
    detection.
    """

    def __init__(self, step: int, total: int, terminal: bool | None = None) -> None:
        self._total = total
        self.figure = "return"
        self._first_step, self._started = step, time.perf_counter()
        self._shown = 0.0
        self._tenth = step * 10 // total
        self._bar: Any = None
        if sys.stderr.isatty() if terminal is None else terminal:
            from tqdm import tqdm

            self._bar = tqdm(
                initial=step,
                total=total,
                unit=" steps",
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}, {rate_fmt}{postfix}, {remaining} left",
            )

    def show(self, step: int, window: EpisodeWindow) -> None:
        """Tell that the run has come to `step`; cheap enough to be called at every step of the run."""
        if self._bar is not None:
            now = time.perf_counter()
            if now - self._shown > 0.1 or step >= self._total:
                self._shown = now
                self._refresh(step, window)
        elif step * 10 // self._total > self._tenth and self._tenth < 10:
            self._tenth = step * 10 // self._total
            self._print(step, window)

    def _refresh(self, step: int, window: EpisodeWindow) -> None:
        if window.mean is not None:
            self._bar.set_postfix_str(f"{self.figure} {window.mean:.4g}", refresh=False)
        self._bar.update(step - self._bar.n)

    def _print(self, step: int, window: EpisodeWindow) -> None:
        rate = (step - self._first_step) / max(time.perf_counter() - self._started, 1e-9)
        earned = "" if window.mean is None else f", {self.figure} {window.mean:.4g}"
        left = max(self._total - step, 0) / rate
        show(f"{step}/{self._total} steps, {rate:.0f} steps/s{earned}, {left:.0f} s left")

    def close(self) -> None:
        """Leave the line as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
