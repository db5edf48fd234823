"""A sweep: a grid times seeds in processes of their own, which goes on where it stopped; and its comparison."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import torchward
from tests.cli.conftest import QUIET, Command
from torchward.cli.compare import choose, collect, read, remarks, summarise
from torchward.cli.statistics import number
from torchward.cli.sweep import divide
from torchward.metrics import RunError, read_metrics

SEARCH = ("sweep", "./search.py", "./world.py", "--jobs", "2", *QUIET)


def test_a_sweep_goes_on_and_compares(command: Command, place: Path) -> None:
    home = place / "sweeps" / "search-world"

    # A run that fails does not stop the others.
    code, out, err = command(*SEARCH, "--scale", "0.5,-1", "--seeds", "1")
    assert code == 1
    (failed,) = (line for line in err.splitlines() if " failed: " in line)
    assert "scale=-1/seed-0 failed: ValueError: nothing is nearer than here" in failed
    first = home / "scale=0.5" / "seed-0"
    assert (first / "result.json").is_file() and "search" in out

    # More seeds and another value; what was stopped is resumed, and finds nothing left to do.
    rows = (first / "metrics.jsonl").read_text()
    (first / "result.json").unlink()
    grid = (*SEARCH, "--scale", "0.5,2", "--seeds", "2")
    code, out, err = command(*grid)
    assert code == 0, err
    assert (first / "metrics.jsonl").read_text() == rows
    returns = {}
    for scale in ("0.5", "2"):
        for seed in (0, 1):
            run = home / f"scale={scale}" / f"seed-{seed}"
            stored = json.loads((run / "config.json").read_text())
            assert stored["threads"] == 1
            assert stored["manifest"]["config"] == {"total_timesteps": 100, "scale": float(scale), "seed": seed}
            assert (run / "result.json").is_file()
            returns[scale, seed] = [row["return"] for row in read_metrics(run) if "return" in row][-1]

    # All is finished: the same command only compares.
    files = {path: path.stat().st_mtime_ns for path in home.glob("*/seed-*/*")}
    code, out, err = command(*grid)
    assert code == 0 and {path: path.stat().st_mtime_ns for path in home.glob("*/seed-*/*")} == files
    assert (home / "compare.png").is_file()
    table = (home / "compare.md").read_text()
    code, out, _ = command("compare", home / "scale=0.5", home / "scale=2", "--returns", "training", "--out", place)
    for scale in ("0.5", "2"):
        assert f"| search scale={scale} | 2 |" in table
        (row,) = (line for line in out.splitlines() if f"search scale={scale} " in line)
        assert number((returns[scale, 0] + returns[scale, 1]) / 2) in row.split()

    code, _, err = command(*grid, "--total-timesteps", "50")
    assert code == 2 and "holds another sweep" in err


def test_equal_values_are_one() -> None:
    _, grid = divide("./search.py", "./world.py", {"scale": ["0.5,2,0.5"]})
    assert grid == {"scale": [["--scale", "0.5"], ["--scale", "2"]]}


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_sweep_that_is_stopped_stops_its_runs(place: Path, number: signal.Signals) -> None:
    command = ["sweep", "./search.py", "./world.py", "--seeds", "1", "--total-timesteps", "1e7", *QUIET]
    path = os.pathsep.join([str(Path(torchward.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    sweep = subprocess.Popen(
        [sys.executable, "-m", "torchward", *command],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # also where the tests themselves ignore it
    )
    run = place / "sweeps" / "search-world" / "seed-0"
    try:
        while not (run / "checkpoint").is_dir() and sweep.poll() is None:
            time.sleep(0.05)
        sweep.send_signal(number)
        _, err = sweep.communicate(timeout=60)
    finally:
        sweep.terminate()  # if it has not ended
    assert sweep.returncode == 130 and "the same command goes on" in err
    assert "torchward resume" in run.with_name("seed-0.log").read_text()  # the run has ended in order
    assert not (run / "result.json").exists()


def record(
    place: Path, name: str, seed: int, returns: list[float], evaluations: dict[int, float] | None = None
) -> Path:
    """A run as `compare` reads it."""
    path = place / name
    path.mkdir(parents=True)
    manifest = {
        "algorithm_name": "ppo",
        "task_name": "World-v0",
        "config": {"seed": seed, "gamma": 0.9 if "low" in name else 0.99, "network": {"type": "Network", "width": 3}},
        "env": {},
        "init": None,
    }
    stored = {"manifest": manifest, "total": 100, "options": {"stop_return": None}, "id": "x", "torchward": "0"}
    (path / "config.json").write_text(json.dumps({**stored, "torch": "0", "python": "0", "threads": 1}))
    rows = [{"step": 10 * (i + 1), "return": value} for i, value in enumerate(returns)]
    rows += [{"step": step, "eval/return": value} for step, value in (evaluations or {}).items()]
    rows.sort(key=lambda row: row["step"])
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if "unfinished" not in name:
        (path / "result.json").write_text("{}")
    return path


def test_runs_that_differ_only_by_seed_are_one_group(tmp_path: Path) -> None:
    for seed, final in enumerate([1.0, 5.0, 3.0, 100.0]):
        record(tmp_path, f"high{seed}", seed, [0.0, final])
    record(tmp_path, "low0", 0, [0.0, 2.0])
    record(tmp_path, "low-unfinished", 0, [0.0, 4.0])
    records = collect([tmp_path])
    best, other = summarise(records, "training")
    assert best.label == "ppo gamma=0.99" and sorted(best.finals) == [1.0, 3.0, 5.0, 100.0]
    assert best.interval.value == 4.0  # the middle two
    assert other.label == "ppo gamma=0.9" and sorted(other.finals) == [2.0, 4.0]
    notes = remarks(records, [best, other])
    assert len(notes) == 2 and "not finished" in notes[0] and "low-unfinished" in notes[0]
    assert "more than one run of seed 0" in notes[1] and "gamma=0.9:" in notes[1]


def test_evaluations_count_where_each_run_has_a_late_one(tmp_path: Path) -> None:
    late = read(record(tmp_path, "late", 0, [1.0] * 10, {50: 2.0, 100: 3.0}))
    early = read(record(tmp_path, "early", 1, [1.0] * 10, {50: 2.0}))
    assert choose([late]) == "evaluation"
    assert choose([late, early]) == "training"


def test_runs_that_are_judged_by_bits_per_byte_are_compared_and_fewer_are_better(command: Command, place: Path) -> None:
    net = ("--hidden-size", "16", "--num-hidden-layers", "1", "--num-attention-heads", "2", "--max-length", "16")
    sums = ("--digits", "1", "--demonstrations", "40", "--problems", "50", "--test", "4", "--total-timesteps", "1024")
    rows = ("--per-device-train-batch-size", "4", "--learning-rate", "1e-6,1e-2", "--seeds", "1", "--jobs", "2")
    code, out, err = command("sweep", "pretrain", "addition", *net, *sums, *rows, *QUIET)
    assert code == 0, err
    lines = [line for line in out.splitlines() if "learning_rate=" in line]
    assert ["0.01" in line for line in lines] == [True, False]
    bits = [float(line.split()[4]) for line in lines]
    assert 0 < bits[0] < bits[1]
    home = place / "sweeps" / "pretrain-addition"
    assert "Bits per byte of the last" in (home / "compare.md").read_text()
    paid = record(place, "paid", 0, [1.0, 2.0])
    code, _, err = command("compare", home / "learning_rate=1e-2", paid)
    assert code == 2 and "is judged by bits per byte and" in err and "by returns: compare them apart" in err


def rewrite(run: Path, manifest: dict[str, Any]) -> None:
    """Change what a run's config.json says of what it runs."""
    stored = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**stored, "manifest": {**stored["manifest"], **manifest}}))


@pytest.mark.parametrize(
    ("one", "other", "labels"),
    [
        ({"kl": [0.05, None]}, {"kl": [0.2, None]}, ["kl_coef=0.05", "kl_coef=0.2"]),
        ({}, {"kl": [0.2, 6.0]}, ["kl_coef=0 kl_target=None", "kl_coef=0.2 kl_target=6"]),
        ({}, {"pessimism": 1.0}, ["pessimism=0", "pessimism=1"]),
        ({"reward_model": "/a"}, {"reward_model": "/b"}, ["reward_model=/a", "reward_model=/b"]),
        ({"teacher": "/a"}, {"teacher": "/b"}, ["teacher=/a", "teacher=/b"]),
        ({"policy": None}, {"policy": "Mine"}, ["policy=None", "policy=Mine"]),
        ({"env": {"gamma": 4}}, {"env": {"gamma": 1}}, ["env_gamma=4", "env_gamma=1"]),
        ({"env": {"seed": 4}}, {"env": {"seed": 1}}, ["env_seed=4", "env_seed=1"]),
        (
            {"env": {"box": {"type": "Box", "width": 4}}},
            {"env": {"box": {"type": "Box", "width": 1}}},
            ["env_width=4", "env_width=1"],
        ),
    ],
)
def test_whatever_decides_what_is_learnt_keeps_runs_apart(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], labels: list[str]
) -> None:
    for seed in range(2):
        rewrite(record(tmp_path, f"one{seed}", seed, [2.0]), one)
        rewrite(record(tmp_path, f"other{seed}", seed, [1.0]), other)
    summaries = summarise(collect([tmp_path]), "training")
    assert [(summary.label, summary.finals) for summary in summaries] == [
        (f"ppo {labels[0]}", [2.0, 2.0]),
        (f"ppo {labels[1]}", [1.0, 1.0]),
    ]


def test_files_of_one_name_are_told_apart_and_one_file_is_one_task(tmp_path: Path) -> None:
    for seed, (version, mine) in enumerate([("v1", "/a"), ("v1", "/a"), ("v2", "/a"), ("v2", "/b")]):
        sources = {"task": f"/{version}/World-v0.py", "algorithm": f"{mine}/ppo.py"}
        rewrite(record(tmp_path, str(seed), seed, [4.0 - seed]), sources)
    rewrite(record(tmp_path, "python", 0, [0.0]), {"task": None, "algorithm": None})
    summaries = summarise(collect([tmp_path]), "training")
    assert [(summary.task, summary.label, summary.finals) for summary in summaries] == [
        ("/v1/World-v0.py", "/a/ppo.py", [4.0, 3.0]),
        ("/v2/World-v0.py", "/a/ppo.py", [2.0]),
        ("/v2/World-v0.py", "/b/ppo.py", [1.0]),
        ("World-v0", "ppo", [0.0]),
    ]


def test_models_of_transformers_are_no_runs(tmp_path: Path) -> None:
    """Neither within a run, where `export` and runs on such a model leave them, nor beside it."""
    run = record(tmp_path / "runs", "one", 0, [1.0])
    for place in (run / "transformers", run / "initial" / "model", tmp_path / "runs" / "gpt2"):
        place.mkdir(parents=True)
        (place / "config.json").write_text('{"model_type": "gpt2"}')
    assert [each.path for each in collect([tmp_path / "runs"])] == [run]
    (record(tmp_path / "runs", "torn", 0, [1.0]) / "config.json").write_text('{"manifest": {')
    with pytest.raises(RunError, match="torn is no run"):
        collect([tmp_path / "runs"])


def test_a_run_is_empty_that_has_neither_an_episode_nor_an_evaluation(command: Command, tmp_path: Path) -> None:
    """Evaluations are enough, early ones too where there is nothing else; and empty runs hold up no others."""
    record(tmp_path, "runs/judged0", 0, [], {50: 2.0, 100: 3.0})
    record(tmp_path, "runs/judged1", 1, [], {50: 4.0, 70: 5.0})
    with open(tmp_path / "runs" / "judged1" / "metrics.jsonl", "a") as file:
        file.write('{"step": 100, "residual": 0.0}\n')
    record(tmp_path, "runs/low-empty", 0, [])
    code, out, err = command("compare", "runs")
    assert code == 0, err
    assert out.splitlines()[2].split()[:4] == ["World-v0", "ppo", "2", "4.000"]
    assert "| World-v0 | ppo | 2 | 4.000 |" in (note := (tmp_path / "runs" / "compare.md").read_text())
    assert "left out, for no episode has ended: runs/low-empty" in note and "low-empty" in err
    code, _, err = command("compare", "runs/low-empty")
    assert code == 2 and "an episode has ended, got none in runs/low-empty" in err
