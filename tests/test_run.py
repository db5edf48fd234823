"""Runs: metrics, clocks, checkpoints and resume, signals and failures, shown on a loop that learns by chance alone."""

import errno
import gc
import io
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchward import checkpoint
from torchward.checkpoint import CheckpointError
from torchward.config import ConfigError
from torchward.lock import LOCK_FILE
from torchward.metrics import figure_of, read_metrics, read_scalars
from torchward.progress import Progress
from torchward.run import Run, RunError, RunOptions, draw_curve, read_manifest

QUIET = RunOptions(tensorboard=False, progress=False)
MANIFEST = {"algorithm": "chance", "task": "none", "config": {"seed": 0, "widths": (1, 2)}}


@dataclass
class Ended:
    return_: float
    length: int


@dataclass
class Judged:
    returns: list[float]
    lengths: list[int]


class Walk:
    """A source and a learner in one: every step depends on all the steps and all the random numbers before."""

    def __init__(self, resumable: bool = True) -> None:
        self.position = torch.zeros(3)
        self.resumable = resumable
        self.cuts = 0
        self.since = 0  # steps of the running episode, which a source that is not resumable cannot save

    def step(self, generator: torch.Generator) -> None:
        noise = torch.randn(3, generator=generator) + torch.rand(1) + float(np.random.rand()) + random.random()  # noqa: NPY002
        self.position = 0.9 * self.position + noise + 0.01 * self.since
        self.since += 1

    def cut(self) -> None:
        if not self.resumable:
            self.cuts += 1
            self.since = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "cuts": self.cuts} | ({"since": self.since} if self.resumable else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position, self.cuts, self.since = state["position"], state["cuts"], state.get("since", 0)

    def save(self, directory: Path) -> None:
        (directory / "position.json").write_text(json.dumps(self.position.tolist()))


@pytest.fixture
def pictures() -> None:
    """Asked for by the tests in which curves are drawn; the others save the time."""


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("torchward.run.draw_curve", lambda path: None)


def seed_all() -> torch.Generator:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    return torch.Generator().manual_seed(2)


def loop(run: Run, resumable: bool = True, meddle: Callable[[int], None] = lambda step: None) -> Walk:
    """A training loop as an algorithm has it, in iterations of seven steps; `meddle` is called in each."""
    generator = seed_all()
    walk = Walk(resumable)
    with run:
        run.track(walk=walk, generator=generator)
        while not run.done:
            for _ in range(7):
                walk.step(generator)
            meddle(run.step)
            ended = [Ended(float(walk.position.sum()), 7)] if run.step % 2 else []
            run.advance(7, ended)
            run.log({"loss": walk.position.sum(), "nan": math.nan, "count": 3})
            if run.due("evaluate"):
                run.evaluation(Judged(walk.position.tolist(), [1, 2, 3]), walk)
            if run.due("checkpoint"):
                walk.cut()
                run.save()
        run.finish(walk)
    return walk


def start(path: Path, options: RunOptions = QUIET, total: int = 500) -> Run:
    return Run(path, options, total=total, manifest=MANIFEST)


def timeless(path: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in ("time", "steps_per_second")}
        for row in read_metrics(path)
    ]


def assert_same(path: Path, walk: Walk, other_path: Path, other: Walk) -> None:
    assert torch.equal(walk.position, other.position)
    assert (walk.cuts, walk.since) == (other.cuts, other.since)
    assert timeless(path) == timeless(other_path)
    for name in ("best", "last"):
        policy, other_policy = path / "policy" / name, other_path / "policy" / name
        assert (policy / "position.json").read_text() == (other_policy / "position.json").read_text()


def test_a_run_leaves_all_that_it_promises(tmp_path: Path, pictures: None, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    loop(start(path, RunOptions()))
    assert {entry.name for entry in path.iterdir() if "tfevents" not in entry.name} == {
        "config.json", "metrics.jsonl", "curve.png", "checkpoint", "policy", LOCK_FILE,
    }  # fmt: skip
    assert any("tfevents" in entry.name for entry in path.iterdir())
    assert [entry.name for entry in (path / "checkpoint").iterdir()] == ["504"]
    stored = read_manifest(path)
    assert stored["manifest"]["config"] == {"seed": 0, "widths": [1, 2]}
    assert stored["total"] == 500
    assert stored["torch"] == torch.__version__
    assert stored["threads"] == torch.get_num_threads()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 11, "a line for each tenth, and the summary"
    assert said[0].startswith("56/500 steps, ")
    assert str(path) in said[-1]


def test_metrics_are_strict_json_with_the_window_of_episodes(tmp_path: Path) -> None:
    run = start(tmp_path / "run", RunOptions(stats_window=2, tensorboard=False, progress=False))
    with run:
        run.advance(10)
        run.log({})
        run.advance(10, [Ended(1.0, 4), Ended(2.0, 5), Ended(4.0, 8)])
        run.log({"loss": torch.tensor([0.5]), "count": torch.tensor(3), "bad": torch.tensor(math.inf), "own": math.nan})
        run.evaluation(Judged([1.0, 3.0], [4, 6]))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert not any("NaN" in line or "Infinity" in line for line in lines)
    first, second, third = map(json.loads, lines)
    assert list(first)[:7] == ["step", "time", "steps_per_second", "return", "return_min", "return_max", "length"]
    assert first["return"] is None
    assert (second["step"], second["return"], second["length"], second["episodes"]) == (20, 3.0, 6.5, 3)
    assert (second["return_min"], second["return_max"]) == (2.0, 4.0)
    assert (second["loss"], second["count"], second["bad"], second["own"]) == (0.5, 3.0, None, None)
    assert third == {
        "step": 20, "eval/return": 2.0, "eval/return_std": 1.0, "eval/length": 5.0, "eval/returns": [1.0, 3.0],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["loss", "critic_loss", "grad_norm", "return"])
def test_learning_that_has_diverged_is_told_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = start(tmp_path / "run", RunOptions(tensorboard=False))
    with run:
        for loss in (1.0, math.nan, math.inf, 1.0):
            run.advance(10)
            run.log({name: torch.tensor(loss)})
    said = f"{name} is no number any more at step 20: learning has diverged"
    assert capsys.readouterr().err.count(said) == (name != "return")


def test_all_tensors_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    original = Tensor.tolist

    def counted(tensor: Tensor) -> Any:
        nonlocal reads
        reads += 1
        return original(tensor)

    monkeypatch.setattr(Tensor, "tolist", counted)
    monkeypatch.setattr(Tensor, "item", None)
    metrics: dict[str, float | Tensor | None] = {
        "a": torch.tensor(1.5),
        "b": 2.0,
        "c": torch.tensor([7]),
        "d": torch.tensor(True),
    }
    assert read_scalars(metrics) == {"a": 1.5, "b": 2.0, "c": 7.0, "d": 1.0}
    assert list(read_scalars(metrics)) == ["a", "b", "c", "d"]
    assert reads == 2
    with pytest.raises(ValueError, match=r"'grad' is a tensor of shape \(2,\)"):
        read_scalars({"grad": torch.zeros(2)})


def test_clocks_count_steps(tmp_path: Path) -> None:
    options = RunOptions(eval_freq=10, checkpoint_freq=-1, log_freq=20, tensorboard=False, progress=False)
    run = start(tmp_path / "run", options, total=105)
    seen: dict[str, list[int]] = {"evaluate": [], "checkpoint": [], "own": [], "tenth": []}
    with run:
        while not run.done:
            run.advance(7)
            run.log({})
            for name, steps in seen.items():
                every = {"own": 50, "tenth": 0}.get(name)
                if run.due(name, every):
                    steps.append(run.step)
                    assert not run.due(name, every), "once in a period"
    assert seen["evaluate"] == [14, 21, 35, 42, 56, 63, 70, 84, 91, 105]
    assert seen["checkpoint"] == []
    assert seen["own"] == [56, 105]
    assert seen["tenth"] == [14, 21, 35, 42, 56, 63, 77, 84, 98, 105], "the last one is the end of the run"
    assert [row["step"] for row in read_metrics(run.path)] == [21, 42, 63, 84, 105]
    with pytest.raises(ValueError, match="evaluate, checkpoint, log"):
        run.due("evalute")


def test_the_best_policy_is_kept(tmp_path: Path) -> None:
    run, walk = start(tmp_path / "run"), Walk()
    better = []
    with run:
        for value in (1.0, math.nan, 3.0, 2.0, 3.0, -5.0):
            walk.position = torch.full((3,), value)
            better.append(run.evaluation(Judged([value], [1]), walk))
        run.finish(walk)
    assert better == [True, False, True, False, True, False], "a later one that is as good is better"
    assert json.loads((run.path / "policy/best/position.json").read_text())[0] == 3.0
    assert json.loads((run.path / "policy/last/position.json").read_text())[0] == -5.0


@pytest.mark.parametrize(("judged", "best"), [(60.0, 1.0), (40.0, 0.0), (None, 1.0)])
def test_a_run_stops_at_its_return_and_what_is_best_was_judged(
    judged: float | None, best: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By one more evaluation; where there are none, it is the last."""
    options = RunOptions(stop_return=10.0, stats_window=3, eval_freq=0 if judged else -1, tensorboard=False)
    run, walk = start(tmp_path / "run", options), Walk()
    with run:
        run.track(walk=walk)
        run.advance(1, [Ended(100.0, 1)] * 2)
        assert not run.done, "the window is not full"
        run.advance(1, [Ended(-200.0, 1)])
        assert not run.stopping and not run.due("evaluate")
        if judged:
            run.evaluation(Judged([50.0], [1]), walk)
        walk.position = torch.ones(3)
        run.advance(1, [Ended(10.0, 1)] * 3)
        assert run.done and run.stopping
        assert run.due("evaluate") == (judged is not None) and not run.due("evaluate")
        if judged:
            run.evaluation(Judged([judged], [1]), walk)
        run.finish(walk)
    assert json.loads((run.path / "policy/best/position.json").read_text()) == [best] * 3
    assert json.loads((run.path / "policy/last/position.json").read_text()) == [1.0] * 3
    assert run.best_return == (judged and max(judged, 50.0))
    assert "the return reached 10" in capsys.readouterr().err
    assert Run.resume(run.path).done


def test_a_run_may_be_judged_by_a_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The best is then the lowest, in evaluations and where it stops; lines, progress and curve call it by its name."""
    options = RunOptions(stop_return=0.5, stats_window=2, tensorboard=False)
    run, walk = start(tmp_path / "run", options), Walk()
    run.judge_by("bits_per_byte", lower_is_better=True)
    better = []
    with run:
        run.track(walk=walk)
        for value in (3.0, 4.0, 2.0, math.nan, 2.5, 2.0):
            walk.position = torch.full((3,), value)
            better.append(run.evaluation(Judged([value], [7]), walk, {"eval/seen_min": 1.0}))
        run.advance(1, [Ended(0.9, 1), Ended(0.7, 1)])
        run.log({"x_min": 9.0})
        assert not run.done
        run.advance(99, [Ended(0.4, 1), Ended(0.3, 1)])
        assert run.reached and run.done
        run.finish(None)
    assert better == [True, False, True, False, False, True]
    assert run.best_return == 2.0
    rows = read_metrics(run.path)
    assert rows[0]["eval/bits_per_byte"] == 3.0 and rows[0]["eval/seen_min"] == 1.0 and rows[0]["eval/length"] == 7.0
    assert rows[-1]["bits_per_byte"] == pytest.approx(0.8) and rows[-1]["bits_per_byte_max"] == 0.9
    assert "return" not in rows[-1]
    assert figure_of(rows) == figure_of(rows[:1]) == figure_of(rows[-1:]) == "bits_per_byte"
    said = capsys.readouterr().err
    assert "bits per byte 0.35" in said and "(stopped: the bits per byte reached 0.5)" in said and "return" not in said


def test_the_figure_of_a_run_is_no_metric_of_its_own() -> None:
    assert figure_of([]) == figure_of([{"step": 1, "x_min": 1.0, "eval/y_std": 2.0}]) == "return"


class Killed(BaseException):
    """Stands for a death: nothing may be done about it."""


def kill_at(step: int) -> Callable[[int], None]:
    def meddle(now: int) -> None:
        if now >= step:
            raise Killed

    return meddle


def interrupt_at(step: int) -> Callable[[int], None]:
    def meddle(now: int) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return meddle


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("meddle", [kill_at, interrupt_at])
def test_a_resumed_run_equals_the_uninterrupted_one(meddle: Any, resumable: bool, tmp_path: Path) -> None:
    whole = loop(start(tmp_path / "whole"), resumable)
    path = tmp_path / "parts"
    for number, step in enumerate((3 * 7, 22 * 7, 23 * 7, 50 * 7, 71 * 7)):
        run = start(path) if number == 0 else Run.resume(path)
        try:
            loop(run, resumable, meddle(step))
        except Killed:
            continue
        assert run.step == step + 7, "a signal lets the iteration end"
        assert run.stopping
    run = Run.resume(path)
    assert run.manifest["algorithm"] == "chance"
    assert_same(path, loop(run, resumable), tmp_path / "whole", whole)
    assert not whole.resumable or whole.cuts == 0


def test_only_what_can_be_saved_is_saved_at_a_signal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for resumable, saved in ((True, 161), (False, 154)):
        path = tmp_path / str(resumable)
        loop(start(path), resumable, interrupt_at(154))
        assert [entry.name for entry in (path / "checkpoint").iterdir()] == [str(saved)]
        said = capfd.readouterr().err
        assert "stopping after this iteration" in said
        assert f"`torchward resume {path}` goes on from" in said
        assert f"step {saved}." in said
        assert ("cannot be saved" in said) is not resumable
        assert (path / "policy/last/position.json").exists()


def test_a_second_signal_aborts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def twice(step: int) -> None:
        if step == 70:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        loop(start(tmp_path / "run"), meddle=twice)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert "aborted; `torchward resume" in capfd.readouterr().err
    assert Run.resume(tmp_path / "run").step == 56


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="has no SIGHUP")
def test_a_lost_terminal_stops_a_run_in_order_unless_it_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    def hang_up(step: int) -> None:
        if step == 154:
            monkeypatch.setattr("sys.stderr", Gone())
            for _ in range(2):  # the shell tells, and the kernel
                os.kill(os.getpid(), signal.SIGHUP)

    ends = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        for handler in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(signal.SIGHUP, handler)
            run = start(tmp_path / str(handler), RunOptions(tensorboard=False))
            loop(run, meddle=hang_up)
            ends.append(run.step)
            assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ends == [504, 161]


HOLDS = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> "subprocess.Popen[str]":
    """Another process that asks for the lock of a run, and where it gets it holds it while its input is open."""
    command = [sys.executable, "-c", HOLDS, str(path / LOCK_FILE)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_no_two_processes_train_in_a_directory(tmp_path: Path) -> None:
    def ask(step: int) -> None:
        if step == 70:
            with hold(path) as other:
                assert other.wait() == 1, "the run holds it"
            raise Killed

    path = tmp_path / "run"
    with pytest.raises(Killed):
        loop(start(path), meddle=ask)
    kept = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with hold(path) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n", "one that has ended does not"
        with pytest.raises(RunError, match=f"expected no other process to train in {path}, got one that does; wait"):
            Run.resume(path)
        assert read_manifest(path)["total"] == 500
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == kept
    run = Run.resume(path)
    assert Run.resume(path).step == run.step, "within one process another may take over"
    loop(run)
    with hold(path) as other:
        assert other.communicate()[0] == "held\n", "and it ends with the run"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_a_file_system_without_locks_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    run = start(tmp_path / "run", total=70)
    loop(run)
    assert run.step == 70


def test_a_run_in_a_thread_takes_no_signals(tmp_path: Path) -> None:
    thread = threading.Thread(target=lambda: loop(start(tmp_path / "run")))
    thread.start()
    thread.join()
    assert (tmp_path / "run" / "policy" / "last").exists()


def test_a_failure_leaves_a_checkpoint_and_its_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(step: int) -> None:
        if step == 126:
            raise RuntimeError("Maze-v0 returned NaN")

    path = tmp_path / "run"
    with pytest.raises(RuntimeError, match="Maze-v0"):
        loop(start(path), meddle=fail)
    assert "Maze-v0 returned NaN" in (path / "failed" / "error.txt").read_text()
    assert checkpoint.load_tree(path / "failed" / "walk")["since"] == 19 * 7
    said = capsys.readouterr().err
    assert "failed at step 126 (RuntimeError: Maze-v0 returned NaN)" in said
    assert f"Where, says {path / 'failed' / 'error.txt'}" in said
    assert "checkpoint of step 105" in said
    whole = loop(start(tmp_path / "whole"))
    assert_same(path, loop(Run.resume(path)), tmp_path / "whole", whole)


@pytest.mark.parametrize("there", [False, True])
def test_a_mistake_in_what_was_given_leaves_no_run(
    tmp_path: Path, there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(step: int) -> None:
        if step == at:
            raise ConfigError("expected a column 'answer'")

    path, at = tmp_path / "run", 0
    if there:
        path.mkdir()
    with pytest.raises(ConfigError, match="'answer'"):
        loop(start(path), meddle=fail)
    assert capsys.readouterr().err == "", "who asked says it"
    assert [*path.iterdir()] == [] if there else not path.exists()
    at = 126
    with pytest.raises(ConfigError):
        loop(start(path), meddle=fail)
    at = Run.resume(path).step
    with pytest.raises(ConfigError):
        loop(Run.resume(path), meddle=fail)
    assert (path / "failed").is_dir() and (path / "checkpoint").is_dir(), "what has learnt is kept"
    with pytest.raises(RunError, match="is kept"):
        Run.resume(path).discard()


def test_what_fails_to_be_saved_does_not_hide_the_failure(tmp_path: Path) -> None:
    class Fragile(Walk):
        broken = False

        def state_dict(self) -> dict[str, Any]:
            if self.broken:
                raise OSError("gone")
            return super().state_dict()

    thing = Fragile()
    run = start(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), run:
        run.track(thing=thing, walk=Walk())
        thing.broken = True
        raise ZeroDivisionError
    assert {entry.name for entry in (run.path / "failed").iterdir()} == {"error.txt", "walk"}


def test_there_is_a_checkpoint_from_the_start(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        loop(start(tmp_path / "run"), meddle=kill_at(0))
    assert [entry.name for entry in (tmp_path / "run" / "checkpoint").iterdir()] == ["0"]


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    start(tmp_path / "run")
    whole = loop(start(tmp_path / "whole"))
    assert_same(tmp_path / "run", loop(Run.resume(tmp_path / "run")), tmp_path / "whole", whole)


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run"
    walk = loop(start(path))
    metrics = (path / "metrics.jsonl").read_bytes()
    assert torch.equal(loop(Run.resume(path)).position, walk.position)
    assert (path / "metrics.jsonl").read_bytes() == metrics
    assert [entry.name for entry in (path / "checkpoint").iterdir()] == ["504"]


def test_a_resumed_run_may_be_prolonged(tmp_path: Path) -> None:
    path = tmp_path / "run"
    loop(start(path, total=70))
    loop(Run(path, QUIET, total=140, manifest=MANIFEST, resume=True))
    assert read_metrics(path)[-1]["step"] == 140
    assert read_manifest(path)["total"] == 140


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(("before", "after"), [(7, 28), (28, 7), (0, 0)])
def test_a_prolonged_run_is_watched_as_one_that_was_so_long_from_the_start(
    before: int, after: int, older: bool, tmp_path: Path
) -> None:
    def options(freq: int) -> RunOptions:
        return replace(QUIET, eval_freq=freq, checkpoint_freq=freq, log_freq=freq)

    def ended(run: Run) -> tuple[list[tuple[int, bool]], list[tuple[int, str]]]:
        saved = []

        def look(step: int) -> None:
            if step > 70:
                newest = checkpoint.latest(run.path / "checkpoint")
                assert newest is not None
                saved.append((step, newest.name))

        loop(run, meddle=look)
        return [(row["step"], "loss" in row) for row in read_metrics(run.path) if row["step"] > 70], saved

    path = tmp_path / "run"
    loop(start(path, options(before), total=70))
    if older:  # a checkpoint as it was when clocks counted periods
        tree = checkpoint.load_tree(path / "checkpoint" / "70")
        tree["run"]["clocks"] = {clock: step // (before or 7) for clock, step in tree["run"].pop("due").items()}
        checkpoint.save_tree(path / "checkpoint" / "70", tree)
    prolonged = ended(Run(path, options(after), total=140, manifest=MANIFEST, resume=True))
    rows, saved = ended(start(tmp_path / "whole", options(after), total=140))
    assert rows == prolonged[0] and len({step for step, _ in rows}) > 2
    assert [name for _, name in saved][-1] == [name for _, name in prolonged[1]][-1] != "70"


def test_a_run_whose_config_was_edited_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    files = {"task": "/home/a/task.py", "init": "/runs/first"}
    manifest = {**MANIFEST, **files, "env": {}, "kl": [0.0, None]}
    loop(Run(path, QUIET, total=140, manifest=manifest))
    whole = (path / "config.json").read_text()
    metrics = (path / "metrics.jsonl").read_bytes()

    def edited(change: Callable[[Any], object]) -> str:
        document = json.loads(whole)
        change(document)
        text = json.dumps(document)
        (path / "config.json").write_text(text)
        return text

    for change, told in (
        (lambda d: d["manifest"]["config"].update(seed=1), "got config.seed is 1, and was 0: put that back"),
        (lambda d: d["manifest"]["config"].update(widths=[1]), r"config.widths is \[1\], and was \[1, 2\]"),
        (lambda d: d["manifest"]["config"].pop("seed"), "config.seed is None, and was 0"),
        (lambda d: d["manifest"].update(env={"action_mask": True}), "env.action_mask is True, and was None"),
        (lambda d: d["manifest"].update(task="/home/a/other.py"), "task is '/home/a/other.py', and was"),
        (lambda d: d["manifest"].update(init=None), "init is None, and was .*`torchward train ... --init .*run`"),
        (lambda d: d["manifest"]["config"].update(total_timesteps=9), "config.total_timesteps is 9, and was None"),
        (lambda d: (d["manifest"]["config"].update(seed=1), d.update(total=700)), "config.seed is 1, and was 0: put"),
    ):
        text = edited(change)
        with pytest.raises(RunError, match=rf"expected .*config\.json as it was when checkpoint 140.*{told}"):
            Run.resume(path)
        assert (path / "config.json").read_text() == text and (path / "metrics.jsonl").read_bytes() == metrics
    # What is only watched may be changed, and files may be moved.
    for change in (
        lambda d: d["options"].update(eval_freq=3),
        lambda d: d["manifest"].update(task="/home/b/task.py", init="/elsewhere/first"),
    ):
        edited(change)
        assert Run.resume(path).done
    edited(lambda d: d.update(total=700))
    assert not Run.resume(path).done
    assert "goes on to step 700 rather than 140" in capsys.readouterr().err
    # A checkpoint of before there were notes is taken as it is.
    (path / "checkpoint" / "140" / checkpoint.NOTE_FILE).unlink()
    edited(lambda d: d["manifest"]["config"].update(seed=1))
    assert Run.resume(path).done


def test_training_time_adds_up(tmp_path: Path) -> None:
    path = tmp_path / "run"
    loop(start(path, total=70), meddle=lambda step: time.sleep(0.002))
    before = read_metrics(path)[-2]["time"]
    loop(Run(path, QUIET, total=140, manifest=MANIFEST, resume=True))
    assert 0 < before < [row for row in read_metrics(path) if "time" in row][-1]["time"]


def test_errors_of_starting_and_resuming(tmp_path: Path) -> None:
    path = tmp_path / "run"
    loop(start(path, total=70))
    with pytest.raises(RunError, match=r"already exists: go on with it by `torchward resume .*--name"):
        start(path)
    with pytest.raises(RunError, match=r"nowhere is no run: .*config\.json cannot be read"):
        Run.resume(tmp_path / "nowhere")
    with pytest.raises(RunError, match="at least one step"):
        start(tmp_path / "none", total=0)
    run = Run.resume(path)
    with pytest.raises(CheckpointError, match="keeps walk, generator, but no 'policy'"):
        run.track(policy=Walk())
    with pytest.raises(TypeError, match="'policy' is a int"):
        run.track(policy=3)
    (path / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match=r"metrics\.jsonl has 0 of the \d+ bytes"):
        Run.resume(path)
    for file in (path / "checkpoint" / "70").iterdir():
        file.write_bytes(b"")
    policy = path / "policy" / "last"
    with pytest.raises(CheckpointError, match=f"holds no complete torchward checkpoint.* --init {policy}"):
        Run.resume(path)
    (path / "checkpoint" / "70" / checkpoint.NOTE_FILE).unlink()
    with pytest.raises(CheckpointError, match=f"complete torchward checkpoint.* Begin a new run .* --init {policy}"):
        Run.resume(path)
    shutil.rmtree(path / "policy")
    with pytest.raises(CheckpointError, match=r"complete torchward checkpoint.* begin it anew"):
        Run.resume(path)
    (path / "config.json").write_text("{}")
    with pytest.raises(RunError, match="is no run of torchward"):
        Run.resume(path)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"stats_window": 0}, "stats_window has to be at least 1; got 0"), ({"log_freq": -1}, "log_freq has to be")],
)
def test_options_out_of_range(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        RunOptions(**fields)


def test_resume_brings_back_threads_and_tells_of_other_versions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    start(path)
    stored = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(stored | {"torch": "1.0", "threads": 2}))
    threads = torch.get_num_threads()
    try:
        Run.resume(path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().err
    assert f"torch 1.0 (now {torch.__version__})" in said
    assert "bit-equal results are not promised" in said
    assert json.loads((path / "config.json").read_text())["torch"] == "1.0", "what the run began with stays"


def test_resume_on_the_same_versions_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tmp_path / "run")
    Run.resume(tmp_path / "run")
    assert capsys.readouterr().err == ""


def test_modules_optimisers_and_generators_can_be_tracked(tmp_path: Path) -> None:
    def build() -> dict[str, Any]:
        network = torch.nn.Linear(2, 2)
        optimiser = torch.optim.Adam(network.parameters())
        network(torch.ones(2)).sum().backward()
        optimiser.step()
        return {
            "network": network, "optimiser": optimiser, "torch": torch.Generator(), "numpy": np.random.default_rng(),
        }  # fmt: skip

    things = build()
    with start(tmp_path / "run") as run:
        run.track(**things)
        run.advance(1)
        run.save()
        draws = torch.rand(3, generator=things["torch"]), things["numpy"].random(3), torch.rand(3)
    others = build()
    with Run.resume(run.path) as again:
        again.track(**others)
        assert torch.equal(torch.rand(3, generator=others["torch"]), draws[0])
        assert np.array_equal(others["numpy"].random(3), draws[1])
        assert torch.equal(torch.rand(3), draws[2])
    assert torch.equal(others["network"].weight, things["network"].weight)
    state, other = things["optimiser"].state_dict(), others["optimiser"].state_dict()
    assert state["param_groups"] == other["param_groups"]
    assert torch.equal(state["state"][0]["exp_avg_sq"], other["state"][0]["exp_avg_sq"])


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "run"
    options = RunOptions(progress=False)
    with pytest.raises(RuntimeError):

        def fail(step: int) -> None:
            if step == 210:
                raise RuntimeError

        loop(start(path, options), meddle=fail)
    loop(Run.resume(path))
    events = EventAccumulator(str(path), purge_orphaned_data=True).Reload()
    rows = [row for row in read_metrics(path) if "loss" in row]
    shown = events.Scalars("loss")
    assert [event.step for event in shown] == [row["step"] for row in rows]
    assert [event.value for event in shown] == pytest.approx([row["loss"] for row in rows], rel=1e-6)
    assert "eval/return" in events.Tags()["scalars"]
    assert "nan" not in events.Tags()["scalars"]


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_a_missing_extra_is_named_once(
    tmp_path: Path, pictures: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "matplotlib.figure", "torch.utils.tensorboard")
    path = tmp_path / "run"
    loop(start(path, RunOptions(progress=False)))
    said = capsys.readouterr().err
    assert said.count("torchward[tensorboard]") == 1
    assert said.count("torchward[plots]") == 1
    assert not (path / "curve.png").exists()


def test_a_missing_wandb_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"torchward\[wandb\]"):
        start(tmp_path / "run", RunOptions(wandb=True))
    assert not (tmp_path / "run").exists()


class FakeWandb:
    """Takes what W&B takes, and fails in the method that is called `broken`."""

    def __init__(self, broken: str = "") -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.settings: dict[str, Any] = {}
        self.broken, self.finished = broken, False

    def _may_break(self, method: str) -> None:
        random.random()  # whoever watches may draw, and nothing that is learnt depends on it
        if method == self.broken:
            raise LookupError("api_key not\nconfigured")

    def init(self, **settings: Any) -> "FakeWandb":
        self._may_break("init")
        self.settings = settings
        return self

    def log(self, row: dict[str, float], step: int) -> None:
        self._may_break("log")
        self.rows.append((step, row))

    def finish(self) -> None:
        self._may_break("finish")
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr("torchward.run.require_wandb", lambda: None)
    return fake


WATCHED = RunOptions(wandb=True, tensorboard=False, progress=False)


def test_wandb_gets_every_line(tmp_path: Path, wandb: FakeWandb) -> None:
    path, begun = tmp_path / "run", list[str]()
    walk = loop(start(path, WATCHED), meddle=lambda step: begun.append(wandb.settings["name"]))
    assert begun[0] == "run", "before the first step"
    assert [step for step, _ in wandb.rows] == [row["step"] for row in read_metrics(path)]
    assert wandb.settings["config"]["manifest"]["algorithm"] == "chance"
    assert wandb.finished
    assert_same(path, walk, tmp_path / "alone", loop(start(tmp_path / "alone")))


@pytest.mark.parametrize("broken", ["log", "finish"])
def test_a_run_does_not_end_with_wandb(
    broken: str, tmp_path: Path, wandb: FakeWandb, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.broken = broken
    walk = loop(start(tmp_path / "run", WATCHED))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "failed (LookupError: api_key not configured)" in said
    assert_same(tmp_path / "run", walk, tmp_path / "alone", loop(start(tmp_path / "alone")))


def test_a_wandb_that_refuses_is_told_before_the_first_step(tmp_path: Path, wandb: FakeWandb) -> None:
    wandb.broken, steps = "init", list[int]()
    run = start(tmp_path / "run", WATCHED)
    with pytest.raises(RunError, match=r"to take the run, got LookupError: api_key not configured; log in by `wandb"):
        loop(run, meddle=steps.append)
    assert not steps and not (run.path / "checkpoint").exists()


def test_the_curve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "run"
    path.mkdir()
    rows = [
        {"step": 1, "return": None},
        {"step": 2, "return": 1.0, "return_min": None, "return_max": 2.0, "episodes": 1},
        {"step": 3, "return": 2.0, "return_min": 1.0, "return_max": 3.0, "episodes": 2},
        {"step": 3, "eval/return": 4.0},
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "ret')
    drawn = draw_curve(path)
    assert drawn == path / "curve.png"
    assert drawn.read_bytes()[:4] == b"\x89PNG"
    (path / "metrics.jsonl").write_text("")
    assert draw_curve(path) is None


def test_the_line_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from torchward.metrics import EpisodeWindow

    window = EpisodeWindow(3)
    bar = Progress(0, 100, terminal=True)
    bar.show(50, window)
    window.add(Ended(12.25, 3))
    bar.show(100, window)
    bar.close()
    said = capsys.readouterr().err
    assert "100/100" in said
    assert "return 12.25" in said
    assert "left" in said


def test_importing_run_imports_nothing_heavy() -> None:
    code = """
import sys, torchward.run
heavy = {"matplotlib", "tensorboard", "tyro", "wandb", "PIL"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


LIVES_UNTIL_KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from tests.test_run import loop, start
from torchward.run import Run

folder, resumable, chance, deaths = Path(sys.argv[1]), sys.argv[2] == "True", random.Random(0), 0
path = folder / "killed"
reading, writing = os.pipe()
while True:
    child = os.fork()  # because importing torch takes longer than all the rest
    if child == 0:
        run = Run.resume(path) if (path / "config.json").exists() else start(path)
        os.write(writing, b"!")
        loop(run, resumable, meddle=lambda step: time.sleep(0.002))
        os._exit(0)
    os.read(reading, 1)
    if deaths < 6:
        time.sleep(chance.random() * 0.1)
        os.kill(child, signal.SIGKILL if deaths % 3 else signal.SIGTERM)
    deaths += 1
    os.waitpid(child, 0)
    if deaths > 6:
        break
loop(start(folder / "whole"), resumable)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("resumable", [True, False])
def test_a_run_killed_at_random_moments_equals_the_uninterrupted_one(resumable: bool, tmp_path: Path) -> None:
    """In processes of their own, where beartype, which draws from Python's generator as it checks, has no part."""
    command = [sys.executable, "-W", "ignore", "-c", LIVES_UNTIL_KILLED, str(tmp_path), str(resumable)]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).resolve().parents[1])
    ends = []
    for name in ("killed", "whole"):
        newest = checkpoint.latest(tmp_path / name / "checkpoint")
        assert newest is not None
        tree = checkpoint.load_tree(newest)
        assert tree["run"].pop("seconds") > 0
        assert tree["run"]["step"] == 504
        tree["run"].pop("offset")  # the times in the metrics have different lengths
        ends.append(tree)
    assert str(ends[0]) == str(ends[1])
    assert torch.equal(ends[0]["tracked"]["walk"]["position"], ends[1]["tracked"]["walk"]["position"])
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "whole")


def test_what_is_there_before_a_run_is_not_searched_for_garbage(tmp_path: Path) -> None:
    """And afterwards it is again; but what someone else has set aside stays so."""
    assert gc.get_freeze_count() == 0
    run = start(tmp_path / "one")
    with run:
        assert gc.get_freeze_count() > 1000
    assert gc.get_freeze_count() == 0
    gc.freeze()
    try:
        with pytest.raises(KeyError), start(tmp_path / "other"):
            raise KeyError("stopped")
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
