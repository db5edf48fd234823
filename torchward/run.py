"""A run: its directory, metrics, clocks, checkpoints and resume. The loop calls it; it never calls the loop.

    with run:
        run.track(policy=policy, learner=learner, source=source, generator=generator)
        while not run.done:
            ...
            run.advance(rollout.steps, source.episodes())
            run.log(metrics)
            if run.due("evaluate"):
                run.evaluation(task.evaluate(policy, run.options.n_eval_episodes, seed), policy)
            if run.due("checkpoint"):
                source.cut()
                run.save()
        run.finish(policy)

Everything that happens periodically is counted in steps, and nothing that is learnt depends on the clock on the wall or
on an interruption: a resumed run computes bit for bit what the uninterrupted one would have.
"""

import contextlib
import gc
import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from torchward import checkpoint, lock, random_state
from torchward import manifest as manifests
from torchward.calibration import CALIBRATION, draw
from torchward.checkpoint import CheckpointError
from torchward.config import ConfigError, from_json, to_json
from torchward.interrupt import Interrupt
from torchward.manifest import read_manifest
from torchward.metrics import (
    EpisodeWindow,
    FinishedEpisode,
    MetricsWriter,
    RunError,
    draw_curve,
    judged_row,
    lost_figure,
    read_metrics,
    read_scalars,
    require_wandb,
    say,
)
from torchward.progress import Progress

__all__ = ["Run", "RunError", "RunOptions", "draw_curve", "read_manifest"]

_CURVE_EVERY = 60.0  # seconds between two drawings at checkpoints: the picture is not part of the run's state


@dataclass(frozen=True)
class RunOptions:
    """How a run is watched and kept; nothing here changes what is learnt, except where it stops."""

    eval_freq: int = 0
    """Steps between two evaluations; 0: a tenth of the run; negative: never."""
    n_eval_episodes: int = 10
    """Episodes in each evaluation."""
    checkpoint_freq: int = 0
    """Steps between two checkpoints; 0: a tenth of the run; negative: only at the start and the end."""
    stop_return: float | None = None
    """Stop, after one more evaluation, when the mean return of the last stats_window training episodes reaches this."""
    stats_window: int = 20
    """Training episodes over which the return is averaged."""
    log_freq: int = 0
    """Steps between two lines of metrics; 0: one for every iteration."""
    tensorboard: bool = True
    """Write TensorBoard events."""
    wandb: bool = False
    """Log to Weights & Biases."""
    progress: bool = True
    """Show the progress of the run."""

    def __post_init__(self) -> None:
        for name, least in (("n_eval_episodes", 1), ("stats_window", 1), ("log_freq", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} has to be at least {least}; got {getattr(self, name)}.")


@runtime_checkable
class Judgement(Protocol):
    """The returns and lengths of episodes played to judge a policy."""

    @property
    def returns(self) -> list[float]: ...

    @property
    def lengths(self) -> list[int]: ...


@runtime_checkable
class Saveable(Protocol):
    """A policy that writes itself into a directory."""

    def save(self, directory: Path, /) -> object: ...


class Run:
    """One run in a directory of its own.

    `manifest` says what is run (`algorithm`, `task`, `config`) and is kept in `config.json`; `total` is the number of
    steps. With `resume`, the newest checkpoint is taken up, metrics are cut back to it, and `track` restores what it
    is given. Until it ends no other process may train in the directory. Raises RunError when one does, when the
    directory already holds a run, or, with `resume`, when it holds none.
    """

    def __init__(
        self,
        path: str | Path,
        options: RunOptions | None = None,
        *,
        total: int,
        manifest: Mapping[str, Any],
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self.options = options if options is not None else RunOptions()
        self.total = total
        self.manifest = dict(manifest)
        self.step = 0
        self.best_return: float | None = None
        self.figure = "return"
        """What the run is judged by, as progress, metrics and the curve call it."""
        self.lower_is_better = False
        self._diverged = False
        self._window = EpisodeWindow(self.options.stats_window)
        self._clocks: dict[str, int] = {}  # the step at which each was last due
        self._seconds = 0.0
        self._started = time.perf_counter()
        self._tracked: dict[str, Any] = {}
        self._interrupt = Interrupt()
        self._restored: dict[str, Any] | None = None
        self._saved: tuple[int, int] | None = None  # step and size of the metrics at the last checkpoint
        self._drawn = time.perf_counter()
        self._closed = False
        self._resumed = resume
        self.made_directory = not self.path.exists()
        """Whether its directory was made for it; a person may have made an empty one."""

        if total < 1:
            raise RunError(f"A run has at least one step; got a total of {total}.")
        if self.options.wandb:
            require_wandb()
        begin = manifests.take_up if resume else manifests.start
        self._lock = begin(self.path, self.manifest, total, to_json(self.options))
        try:
            offset = self._take_up() if resume else 0
            self._writer = MetricsWriter(self.path, offset, self.step, self.options.tensorboard, self.options.wandb)
        except BaseException:
            lock.release(self._lock)
            raise
        self._first_step = self.step
        self._progress = Progress(self.step, total) if self.options.progress else None

    @classmethod
    def resume(cls, path: str | Path) -> "Run":
        """Take up the run in `path` with the options and total that it was started with; `manifest` says what it is.

        Raises RunError where its `config.json` asks for something else than its newest checkpoint was made with."""
        stored, newest = manifests.read_manifest(path), checkpoint.latest(Path(path) / "checkpoint")
        noted = None if newest is None else _read(Path(path), checkpoint.read_note, newest)
        if newest is not None and noted is not None:  # older versions wrote none
            manifests.require_unchanged(Path(path), stored, noted, newest.name)
        options = from_json(RunOptions, stored["options"])
        return cls(path, options, total=stored["total"], manifest=stored["manifest"], resume=True)

    # What the loop asks

    @property
    def stopping(self) -> bool:
        """True when the run ends before its total: the return was reached, or a signal came."""
        return self._interrupt.wished or self.reached

    @property
    def done(self) -> bool:
        """True when the loop has to end."""
        return self.step >= self.total or self.stopping

    @property
    def reached(self) -> bool:
        """True when `stop_return` is reached by the mean of a full window of training episodes."""
        goal = self.options.stop_return
        mean = self._window.mean if self._window.full else None
        return goal is not None and mean is not None and self._is_as_good(mean, goal)

    @property
    def checkpoint_period(self) -> int:
        """The steps between two scheduled checkpoints; all steps, if there are none between the first and the last."""
        period = self.options.checkpoint_freq
        return -(-self.total // 10) if period == 0 else period if period > 0 else self.total

    def due(self, clock: str, every: int | None = None) -> bool:
        """True when a multiple of the clock's period was passed since it was last due.

        The clocks are "evaluate", "checkpoint" and "log", with the periods of the options; any other name is a clock of
        the algorithm's own, of `every` steps. "log" with `every` has that period where the options name none, and is
        always due at the last step, or where the return was reached. Asking "log" does not move it, if the options name
        its period: `log` does. "evaluate", unless it never is, is due once more where the return was reached, so that
        the policy that reached it is judged before it is called the best.
        """
        periods = {
            "evaluate": self.options.eval_freq,
            "checkpoint": self.options.checkpoint_freq,
            "log": self.options.log_freq,
        }
        if clock == "log" and (self.step >= self.total or self.reached):
            return True
        if clock == "log" and self.options.log_freq:
            every = None
        if every is None and clock not in periods:
            raise ValueError(f"The clocks are {', '.join(periods)}; {clock!r} is none of them: give `every`.")
        period = periods[clock] if every is None else every
        if clock == "log" and every is None:
            return period == 0 or self._has_passed(clock, period)
        if period < 0 or not (self._has_passed(clock, period) or self._is_last_word(clock)):
            return False
        self._clocks[clock] = self.step
        return True

    def _has_passed(self, clock: str, period: int) -> bool:
        """Whether a multiple of `period`, or of a tenth of the run where that is 0, was passed since the clock was last
        due: counted from steps, for periods and the total may be others where a run is taken up."""
        last = self._clocks.get(clock, 0)
        if period == 0:
            return self.step * 10 // self.total > last * 10 // self.total
        return self.step // period > last // period

    def _is_last_word(self, clock: str) -> bool:
        return clock == "evaluate" and self.reached and self._clocks.get(clock) != self.step

    # What the loop tells

    def track(self, **objects: Any) -> None:
        """Keep the state of these in every checkpoint; when the run is resumed, restore it now.

        Each has `state_dict` and `load_state_dict`, or is a `torch.Generator` or `numpy.random.Generator`. The global
        generators of torch, NumPy and Python are kept as well, so call this last before the loop, when all is built.
        """
        for name, thing in objects.items():
            if not random_state.can_hold(thing):
                raise TypeError(
                    f"run.track takes objects with state_dict and load_state_dict, or generators; {name!r} is a "
                    f"{type(thing).__name__}."
                )
        self._tracked.update(objects)
        if self._restored is None:
            if self.step == 0:
                self.save()  # so that there is a checkpoint at any moment
            return
        states = self._restored["tracked"]
        for name, thing in objects.items():
            if name not in states:
                raise CheckpointError(f"The checkpoint of {self.path} keeps {', '.join(states)}, but no {name!r}.")
            random_state.restore(thing, states.pop(name))  # popped, to hold a large state only once
        random_state.restore_global(self._restored["random"])

    def advance(self, steps: int, episodes: Iterable[FinishedEpisode] = ()) -> None:
        """Count `steps` more steps, and the training episodes that ended in them."""
        self.step += int(steps)
        for episode in episodes:
            self._window.add(episode)
        if self._progress is not None:
            self._progress.show(self.step, self._window)

    def log(self, metrics: Mapping[str, float | Tensor | None]) -> None:
        """Write one line of metrics, if the log is due; tensors are only read then, all at once."""
        if not self.due("log"):
            return
        if self.options.log_freq:
            self._clocks["log"] = self.step
        seconds = time.perf_counter() - self._started
        row: dict[str, Any] = {
            "time": round(self._seconds + seconds, 3),
            "steps_per_second": round((self.step - self._first_step) / max(seconds, 1e-9), 1),
            **self._window.row(self.figure),
        }
        measured = read_scalars(metrics)
        self._writer.write(self.step, row | measured)
        if not self._diverged and (lost := lost_figure(measured)) is not None:
            self._diverged = True
            self.say(
                f"{lost} is no number any more at step {self.step}: learning has diverged, and goes on for nothing; "
                "look at the rewards, and take a smaller learning_rate"
            )

    def judge_by(self, figure: str, lower_is_better: bool) -> None:
        """Call what an episode or an evaluation has for a return `figure`, such as a loss; before the first of them."""
        self.figure, self.lower_is_better = figure, lower_is_better
        if self._progress is not None:
            self._progress.figure = figure.replace("_", " ")

    def _is_as_good(self, one: float, other: float) -> bool:
        return one <= other if self.lower_is_better else one >= other

    def evaluation(self, result: Judgement, policy: object = None, metrics: Mapping[str, float] | None = None) -> bool:
        """Log an evaluation, with further `metrics` of it; when it is the best so far, save `policy` as policy/best and
        return True."""
        row = judged_row(self.figure, result.returns, result.lengths)
        mean = row[f"eval/{self.figure}"]
        self._writer.write(self.step, row | dict(metrics or {}))
        best = not math.isnan(mean) and (self.best_return is None or self._is_as_good(mean, self.best_return))
        if best:
            self.best_return = mean
            if isinstance(policy, Saveable):
                self.save_policy(policy, "best")
        return best

    def rows(self) -> list[dict[str, Any]]:
        """All lines of metrics so far."""
        return read_metrics(self.path)

    def say(self, sentence: str) -> None:
        """Tell the person at the terminal something, where progress is shown; of an empty sentence nothing."""
        if sentence and self.options.progress:
            say(sentence)

    def calibration(self, said: Sequence[float], came: Sequence[float], size: Sequence[int], error: float) -> None:
        """Keep how often what was said with some probability came true, as calibration.json and as a picture."""
        table = {"said": list(said), "came": list(came), "size": list(size), "error": error}
        checkpoint.write_json(self.path / f"{CALIBRATION}.json", table)
        with contextlib.suppress(ImportError):  # without matplotlib; finish says so of the curve
            draw(self.path, said, came, size, error)

    # What is kept

    def save(self) -> Path:
        """Commit a checkpoint of everything that is tracked, and remove the one before.

        It moves no generator, so that a run with an extra checkpoint computes what one without would.
        """
        generators = random_state.capture_global()
        offset = self._writer.sync()
        tree = {
            "run": {
                "step": self.step,
                "best_return": self.best_return,
                "window": self._window.state_dict(),
                "due": self._clocks,
                "seconds": self._seconds + time.perf_counter() - self._started,
                "offset": offset,
            },
            "random": generators,
            "tracked": {name: random_state.capture(thing) for name, thing in self._tracked.items()},
        }
        note = manifests.asked({"manifest": self.manifest, "total": self.total})
        saved = checkpoint.commit(self.path / "checkpoint", self.step, tree, note)
        self._saved = (self.step, offset)
        self._writer.publish()
        if time.perf_counter() - self._drawn > _CURVE_EVERY:
            self._draw()
        random_state.restore_global(generators)
        return saved

    def save_policy(self, policy: Saveable, name: str) -> Path:
        """Save `policy` as policy/`name` ("best", "last"); a reader finds the old one or the new one, never neither."""
        directory = self.path / "policy" / name
        checkpoint.publish(directory, policy.save)
        return directory

    def finish(self, policy: object = None) -> None:
        """Save the last policy, a checkpoint where it may be taken, and the curve; tell how the run ended.

        A run that a signal ended between two checkpoints is only saved as it stands if all its sources can be brought
        back exactly (`resumable`); otherwise the last scheduled checkpoint stands, as in a run that was killed.
        """
        interrupted = self._interrupt.wished and self.step < self.total and not self.reached
        exact = all(getattr(thing, "resumable", True) for thing in self._tracked.values())
        if (exact or not interrupted) and self._saved != (self.step, self._writer.offset):
            self.save()
        if isinstance(policy, Saveable):
            self.save_policy(policy, "last")
            if self.best_return is None:
                self.save_policy(policy, "best")
        self._writer.publish()
        self._draw(explain=True)
        self.close()
        if interrupted:
            kept = "" if exact else "the last scheduled checkpoint (its source cannot be saved as it stands), "
            say(
                f"stopped at step {self.step} of {self.total}; `torchward resume {self.path}` goes on from "
                f"{kept}step {self._saved_step()}."
            )
        elif self.options.progress:
            figure = self.figure.replace("_", " ")
            earned = "" if self._window.mean is None else f", {figure} {self._window.mean:.4g}"
            goal = f" (stopped: the {figure} reached {self.options.stop_return:g})" if self.reached else ""
            say(f"{self.step} steps in {self._seconds:.1f} s{earned}{goal}; the run lies in {self.path}")

    # Entering and leaving

    def __enter__(self) -> "Run":
        if self.options.wandb:
            generators = random_state.capture_global()
            self._writer.open_wandb()
            random_state.restore_global(generators)
        self._started = time.perf_counter()
        self._interrupt.install()
        self._froze = gc.get_freeze_count() == 0
        if self._froze:  # what is there already, all of torch among it, is not searched for garbage again and again
            gc.freeze()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Exception) and not self._is_in_vain(error):
                self._keep_failure(error)
            elif isinstance(error, KeyboardInterrupt):
                say(f"aborted; `torchward resume {self.path}` goes on from step {self._saved_step()}.")
            self.close()
            if isinstance(error, Exception) and self._is_in_vain(error):
                self.discard()
        finally:
            self._interrupt.restore()
            if self._froze:
                gc.unfreeze()

    def close(self) -> None:
        """Close its files and let go of its directory; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._seconds += time.perf_counter() - self._started
            self._writer.close()
            if self._progress is not None:
                self._progress.close()
            lock.release(self._lock)

    def discard(self) -> None:
        """Remove a run that has failed before its first step, so that its name is free again: all that it wrote, and
        its directory where it made that. Raises RunError for one that has learnt something, or was taken up."""
        if self._resumed or self.step:
            raise RunError(f"{self.path} is kept: its run has come to step {self.step}.")
        self.close()
        for entry in self.path.iterdir() if self.path.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        if self.made_directory:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def _is_in_vain(self, error: Exception) -> bool:
        """Whether a new run ends before its first step by one of torchward's own sentences on what it was given: there
        is nothing to go on with, and its state explains nothing."""
        ours = type(error).__module__.partition(".")[0] == "torchward"
        told = ours and not isinstance(error, RuntimeError | RunError)  # those are of what came, not of what was given
        return told and not self._resumed and self.step == 0

    def _keep_failure(self, error: Exception) -> None:
        """Save the state at a failure under failed/ for inspection, as far as it can be saved, and tell where."""
        failed = self.path / "failed"
        shutil.rmtree(failed, ignore_errors=True)
        for name, thing in self._tracked.items():
            try:
                checkpoint.save_tree(failed / name, random_state.capture(thing))
            except Exception:  # this may be what failed; the others are still worth having
                shutil.rmtree(failed / name, ignore_errors=True)
        with contextlib.suppress(OSError):  # a full disk must not hide the error that ended the run
            failed.mkdir(parents=True, exist_ok=True)
            report = f"step {self.step}\n{''.join(traceback.format_exception(error))}"
            (failed / "error.txt").write_text(report, encoding="utf-8")
            self._writer.publish()
        say(
            f"the run failed at step {self.step} ({type(error).__name__}: {error}). Where, says "
            f"{failed / 'error.txt'}; its state then lies beside it; "
            f"`torchward resume {self.path}` goes on from the checkpoint of step {self._saved_step()}."
        )

    def _saved_step(self) -> int:
        return self._saved[0] if self._saved else 0

    # Starting and taking up

    def _take_up(self) -> int:
        """Read the newest checkpoint; return the size that the metrics had in it."""
        newest = checkpoint.latest(self.path / "checkpoint")
        if newest is None:  # killed before its first checkpoint: the seed brings the same start back
            return 0
        restored: dict[str, Any] = _read(self.path, checkpoint.load_tree, newest)
        self._restored, state = restored, restored["run"]
        self.step, self.best_return = state["step"], state["best_return"]
        self._window.load_state_dict(state["window"])
        older = dict.fromkeys(state.get("clocks", ()), self.step)  # it held numbers of periods: all of them had passed
        self._clocks = dict(state.get("due", older))
        self._seconds = state["seconds"]
        self._saved = (self.step, state["offset"])
        return int(state["offset"])

    def _draw(self, explain: bool = False) -> None:
        try:
            draw_curve(self.path)
        except ImportError:
            if explain:
                say("no curve.png is drawn: pip install 'torchward[plots]' brings it.")
        self._drawn = time.perf_counter()


def _read(run: Path, read: Callable[[Path], Any], newest: Path) -> Any:
    """What ``read`` finds in a checkpoint; the error of a damaged one says what else there is of the run."""
    try:
        return read(newest)
    except CheckpointError as error:
        kept = next((name for name in ("last", "best") if (run / "policy" / name).is_dir()), None)
        rest = (
            "Nothing else of the run can be learnt on from: begin it anew."
            if kept is None
            else f"Begin a new run from its policy: `torchward train ... --init {run / 'policy' / kept}`."
        )
        raise CheckpointError(f"{error} {rest}") from error
