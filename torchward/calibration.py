"""The picture of a calibration: how often what was said with some confidence came true."""

import os
from collections.abc import Sequence
from pathlib import Path

CALIBRATION = "calibration"
"""The name of the files within a run."""


def draw(path: Path, said: Sequence[float], came: Sequence[float], size: Sequence[int], error: float) -> Path:
    """Draw `calibration.png` in `path`: shares that came true over what was said, of parts of which there were some.
    Returns the picture's path. Raises ImportError when matplotlib is missing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = [(x, y, n) for x, y, n in zip(said, came, size, strict=True) if n]
    axes.plot([0, 1], [0, 1], color="tab:gray", linewidth=1, linestyle="--", label="as it should be")
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], color="tab:blue", linewidth=1)
    most = max((n for _, _, n in points), default=1)
    axes.scatter(
        [x for x, _, _ in points], [y for _, y, _ in points], [10 + 90 * n / most for _, _, n in points],
        color="tab:blue", label="held-out pairs (area: how many)",
    )  # fmt: skip
    axes.set(
        xlabel="probability that it gave to the answer of one side", ylabel="share that people picked", xlim=(0, 1),
        ylim=(0, 1), title=f"{path.resolve().name}: calibration error {error:.3f}",
    )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    made, beside = path / f"{CALIBRATION}.png", path / f"{CALIBRATION}.png.tmp"
    figure.savefig(beside, format="png")
    os.replace(beside, made)
    return made
