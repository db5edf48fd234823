"""What a run writes down for people: JSON lines, TensorBoard events, Weights & Biases, and the curve."""

import contextlib
import importlib.util
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import torch
from torch import Tensor

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
CURVE_FILE = "curve.png"


class RunError(ValueError):
    """A run that cannot be started, resumed or written."""


def say(sentence: str) -> None:
    """Tell the person at the terminal something, on standard error."""
    show(f"torchward: {sentence}")


def show(line: str) -> None:
    """Print a line on standard error; nothing where nobody is there any more: the run goes on, or ends in order."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def read_scalars(metrics: Mapping[str, float | Tensor | None]) -> dict[str, float | None]:
    """Plain numbers from a mix of numbers and one-element tensors; all tensors are read in one transfer."""
    plain: dict[str, float | None] = {}
    tensors: dict[str, Tensor] = {}
    for name, value in metrics.items():
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(f"A metric is one number; {name!r} is a tensor of shape {tuple(value.shape)}.")
            tensors[name] = value.detach().reshape(())
        plain[name] = None if isinstance(value, Tensor) else value  # keeps the order of the names
    if tensors:
        devices = [tensor.device for tensor in tensors.values()]
        device = next((device for device in devices if device.type != "cpu"), devices[0])
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        row = torch.stack([tensor.to(device=device, dtype=dtype) for tensor in tensors.values()])
        plain.update(zip(tensors, row.tolist(), strict=True))
    return plain


def lost_figure(measured: Mapping[str, float | None]) -> str | None:
    """The first loss, or the gradient's norm, that is no number any more; None where all are."""
    told = ((name, value) for name, value in measured.items() if "loss" in name or name == "grad_norm")
    return next((name for name, value in told if value is not None and not math.isfinite(value)), None)


def judged_row(figure: str, returns: Sequence[float], lengths: Sequence[float]) -> dict[str, Any]:
    """What a line of metrics says of episodes that were played to judge a policy, where a return is called `figure`."""
    scores, steps = list(map(float, returns)), list(map(float, lengths))
    mean = math.fsum(scores) / len(scores) if scores else math.nan
    spread = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores)) if scores else math.nan
    return {
        f"eval/{figure}": mean,
        f"eval/{figure}_std": spread,
        "eval/length": math.fsum(steps) / len(steps) if steps else None,
        "eval/returns": scores,
    }


def finite(data: Any) -> Any:
    """`data` with each NaN and infinity, for which JSON has no word, as None."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    if hasattr(data, "item"):  # NumPy's scalars
        data = data.item()
    return None if isinstance(data, float) and not math.isfinite(data) else data


def require_wandb() -> None:
    """Raise RunError when Weights & Biases is not installed."""
    if importlib.util.find_spec("wandb") is None:
        raise RunError("Logging to Weights & Biases needs wandb: pip install 'torchward[wandb]', or leave wandb off.")


@runtime_checkable
class FinishedEpisode(Protocol):
    """An episode's return and its number of steps."""

    @property
    def return_(self) -> float: ...

    @property
    def length(self) -> int: ...


class EpisodeWindow:
    """Returns and lengths of the last `size` training episodes."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean: float | None = None  # of the returns; None before the first episode
        self._returns: deque[float] = deque(maxlen=size)
        self._lengths: deque[int] = deque(maxlen=size)

    def add(self, episode: FinishedEpisode) -> None:
        """Take in one more episode."""
        self.count += 1
        self._returns.append(float(episode.return_))
        self._lengths.append(int(episode.length))
        self.mean = math.fsum(self._returns) / len(self._returns)

    @property
    def full(self) -> bool:
        """True when as many episodes have ended as the window holds."""
        return len(self._returns) == self._returns.maxlen

    def row(self, figure: str) -> dict[str, Any]:
        """What a line of metrics says of the window, where a return is called `figure`."""
        return {
            figure: self.mean,
            f"{figure}_min": min(self._returns, default=None),
            f"{figure}_max": max(self._returns, default=None),
            "length": sum(self._lengths) / len(self._lengths) if self._lengths else None,
            "episodes": self.count,
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean": self.mean,
            "returns": list(self._returns),
            "lengths": list(self._lengths),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.mean = state["count"], state["mean"]
        self._returns.extend(state["returns"])
        self._lengths.extend(state["lengths"])


class MetricsWriter:
    """Appends rows to `metrics.jsonl` at once, and passes them to TensorBoard and W&B when `publish` is called.

    TensorBoard is only imported there, at the run's checkpoints, so that a short run does not pay for it while it
    learns; W&B by `open_wandb`, because it may refuse. A resumed run starts from the `offset` in its checkpoint, and
    forgets what lies behind it.
    """

    def __init__(self, path: Path, offset: int, step: int, tensorboard: bool, wandb: bool) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.offset = offset
        with open(path / METRICS_FILE, "ab") as file:
            size = file.seek(0, os.SEEK_END)
            if size < offset:
                raise RunError(
                    f"{path / METRICS_FILE} has {size} of the {offset} bytes that the checkpoint expects: it was cut "
                    "or replaced. Bring it back, or start a new run."
                )
            file.truncate(offset)
        self._rows: list[tuple[int, float, dict[str, float]]] = []
        self._first_step = step
        self._tensorboard_wanted, self._wandb_wanted = tensorboard, wandb
        self._tensorboard: Any = None
        self._wandb: Any = None

    def open_wandb(self) -> None:
        """Begin at W&B. Raises RunError where it refuses, as it does where nobody is logged in."""
        import wandb

        settings = json.loads((self._path / CONFIG_FILE).read_text(encoding="utf-8"))
        try:
            self._wandb = wandb.init(
                project="torchward", id=settings["id"], name=self._path.name, config=settings, resume="allow"
            )
        except Exception as error:
            raise RunError(
                f"expected Weights & Biases to take the run, got {_told(error)}; log in by `wandb login`, set "
                "WANDB_MODE=offline, or leave wandb off"
            ) from error

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Append one JSON line, `step` first."""
        row = finite(row)
        line = (json.dumps({"step": step, **row}, allow_nan=False) + "\n").encode()
        if self._file is None:
            self._file = open(self._path / METRICS_FILE, "ab")  # noqa: SIM115 (open as long as the run)
        self._file.write(line)
        self._file.flush()
        self.offset += len(line)
        if self._tensorboard_wanted or self._wandb_wanted:
            scalars = {name: value for name, value in row.items() if isinstance(value, (int, float))}
            self._rows.append((step, time.time(), scalars))

    def sync(self) -> int:
        """Force the file onto the disk and return its size."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        return self.offset

    def publish(self) -> None:
        """Pass the rows since the last call on to TensorBoard and W&B."""
        if not self._rows:
            return
        if self._tensorboard_wanted and self._open_tensorboard():
            for step, moment, scalars in self._rows:
                for name, value in scalars.items():
                    self._tensorboard.add_scalar(name, value, step, walltime=moment)
            self._tensorboard.flush()
        if self._wandb is not None:
            try:
                for step, _, scalars in self._rows:
                    self._wandb.log(scalars, step=step)
            except Exception as error:
                self._leave_wandb(error)
        self._rows.clear()

    def close(self) -> None:
        """Close what is open; a second call does nothing."""
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            try:
                self._wandb.finish()
            except Exception as error:
                self._leave_wandb(error)
        self._file = self._tensorboard = self._wandb = None

    def _open_tensorboard(self) -> bool:
        if self._tensorboard is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                say("no TensorBoard events are written: pip install 'torchward[tensorboard]' brings them.")
                self._tensorboard_wanted = False
                return False
            # Events of a killed process that lie behind the checkpoint are hidden.
            self._tensorboard = SummaryWriter(str(self._path), purge_step=self._first_step + 1)
        return True

    def _leave_wandb(self, error: Exception) -> None:
        """Say that W&B fails, and go on without it: what is learnt does not depend on who watches."""
        self._wandb, self._wandb_wanted = None, False
        say(
            f"nothing more goes to Weights & Biases, which failed ({_told(error)}); {self._path / METRICS_FILE} has it "
            "all."
        )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`; a last line that a killed process left unfinished is passed over."""
    rows = []
    with open(Path(path) / METRICS_FILE, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                rows.append(json.loads(line))
    return rows


def draw_curve(path: str | Path) -> Path | None:
    """Draw `curve.png` of the run in `path`: its figure, such as the return, over steps, in training (mean, min to max)
    and in evaluation.

    Returns the picture's path, or None when there is nothing to draw. Raises ImportError when matplotlib is missing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    rows = read_metrics(path)
    name = figure_of(rows)
    training = [row for row in rows if row.get(name) is not None]
    evaluated = [row for row in rows if row.get(f"eval/{name}") is not None]
    if not training and not evaluated:
        return None
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if training:
        steps = [row["step"] for row in training]
        least, most = (
            [math.nan if row[f"{name}_{end}"] is None else row[f"{name}_{end}"] for row in training]
            for end in ("min", "max")
        )
        axes.fill_between(steps, least, most, color="tab:blue", alpha=0.15, linewidth=0)
        axes.plot(steps, [row[name] for row in training], color="tab:blue", label="training (mean, min to max)")
    if evaluated:
        steps = [row["step"] for row in evaluated]
        axes.plot(steps, [row[f"eval/{name}"] for row in evaluated], "o-", color="tab:orange", label="evaluation")
    axes.set(xlabel="steps", ylabel=name.replace("_", " "), title=path.resolve().name)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    beside = path / f"{CURVE_FILE}.tmp"
    figure.savefig(beside, format="png")
    os.replace(beside, path / CURVE_FILE)
    return path / CURVE_FILE


def figure_of(rows: list[dict[str, Any]]) -> str:
    """What the rows of a run call the figure that it is judged by: return, or another. It is the one that an episode
    window or an evaluation tells, whatever the names of an algorithm's own metrics are."""
    for row in rows:
        for key in row:
            name = key.removesuffix("_min")
            if key != name and {name, f"{name}_max", "episodes"} <= row.keys():
                return name
            judged = key.removeprefix("eval/").removesuffix("_std")
            if key == f"eval/{judged}_std" and "eval/returns" in row:
                return judged
    return "return"
