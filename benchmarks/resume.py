"""A run that is interrupted ends as if it had never been: every algorithm, bit for bit.

    python -m benchmarks.resume                               all of it
    python -m benchmarks.resume --case ppo --event kill       a part of it

An uninterrupted run is the reference. Others like it are interrupted, and gone on with in a new process each time,
until they are done:

- again: not at all; another process has only to come to the same end;
- stop: they leave in good order after a scheduled checkpoint, every second one;
- SIGTERM: they are told to at random moments of their loop, and leave in good order;
- kill: `kill -9` at random moments from the first instruction on, while building, stepping, learning, or writing.

At the end must be equal, bit for bit: the tensors of policy/last and policy/best, everything in the final checkpoint
(parameters, optimiser, all random generators, environments, clocks, the replay's rows and priorities), the files of a
replay on the disk, and metrics.jsonl, all but the times. A replay is so small that it is written over between two
checkpoints; one on the disk, whose rows a checkpoint counts on, only several times in a run. An interruption counts as
equal when the run that it struck ended so. Killed and stopped processes are forked from a fresh interpreter that has
only imported the packages; the reference and those that get SIGTERM are interpreters of their own.
"""

import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.common import MISSING, Failed, Results, Row, Work, markdown, measure, parser

NAME = "resume"
Event = Literal["again", "stop", "SIGTERM", "kill"]
TIMES: dict[Event, int] = {"again": 1, "stop": 3, "SIGTERM": 2, "kill": 20}
"""How many interruptions of a kind there have to be (again: one whole run)."""
PATIENCE = 300.0
"""Seconds after which a process that should have ended is taken to hang."""
CLOCK_FIELDS = ("time", "steps_per_second")
"""What a line of metrics says of the wall clock."""


@dataclass(frozen=True)
class Case:
    """A small run of one algorithm."""

    algorithm: str
    task: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    every: int = 0
    """Steps between two checkpoints; 0: a twentieth of the run."""
    init: "Case | None" = None
    """The run whose policy it starts from; it lies beside the others, and is not interrupted."""
    taught: bool = False
    """Whether that policy is what it learns from, and not what it begins as."""

    def all_settings(self) -> dict[str, Any]:
        """The settings with those of the run: two short evaluations, no pictures, no progress."""
        total = int(self.settings["total_timesteps"])
        every = self.every or total // 20
        watched = {"checkpoint_freq": every, "eval_freq": 7 * every, "n_eval_episodes": 2, "tensorboard": False}
        return {**self.settings, **watched, "progress": False}


def world(name: str) -> str:
    """An environment of worlds.py, as a task."""
    return f"{Path(__file__).with_name('worlds.py')}:{name}"


VALUES: dict[str, Any] = {
    "total_timesteps": 4000, "n_envs": 2, "train_freq": 5, "batch_size": 32, "buffer_size": 120,
    "learning_starts": 300, "gradient_steps": 1, "learning_rate": 1e-3, "target_update_interval": 100,
    "net_arch": (32, 32),
}  # fmt: skip
"""Action values: 185 or 370 updates, checkpoints every 200 steps, and a replay that has gone by before the next one."""
ACTORS: dict[str, Any] = {
    "total_timesteps": 1600, "n_envs": 2, "train_freq": 2, "batch_size": 32, "buffer_size": 50, "learning_starts": 200,
    "learning_rate": 1e-3, "net_arch": (32, 32),
}  # fmt: skip
"""The same for actors with critics, with checkpoints every 80 steps."""
GUESTS = {"pairs": 500, "test": 100, "menus": 500}
MODEL = Case(
    "pretrain", "reversal",
    {"total_timesteps": 20_000, "max_length": 32, "max_position_embeddings": 32, "hidden_size": 32,
     "num_hidden_layers": 2, "num_attention_heads": 2, "learning_rate": 3e-3},
)  # fmt: skip
ANSWERS: dict[str, Any] = {"total_timesteps": 6000, "num_generations": 4, "generation_batch_size": 16}
"""Text by reward: some forty steps of the optimiser, on a model that has seen a little text."""
WRITER = Case(
    "pretrain", "taste",
    {"total_timesteps": 20_000, "max_length": 32, "max_position_embeddings": 32, "hidden_size": 32,
     "num_hidden_layers": 2, "num_attention_heads": 2, **GUESTS},
)  # fmt: skip
PICKS: dict[str, Any] = {
    "total_timesteps": 3_000, "per_device_train_batch_size": 32, "max_length": 32, "eval_pairs": 100, **GUESTS
}  # fmt: skip
"""Picks between menus: some hundred steps of the optimiser."""
READER = Case(
    "masked_lm", "python_passages",
    {"total_timesteps": 20_000, "max_length": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
     "max_position_embeddings": 64},
)  # fmt: skip
CASES = {
    "value_iteration": Case(
        "dynamic_programming", "FrozenLake8x8-v1", {"total_timesteps": 1500, "gamma": 0.9999, "tolerance": 1e-12}
    ),
    "policy_iteration": Case(
        "dynamic_programming", "Taxi-v4",
        {"total_timesteps": 100, "gamma": 0.999, "method": "policy_iteration"}, every=1,
    ),
    **{
        method: Case("q_learning", task, {"total_timesteps": 24_000, "method": method, **more})
        for method, task, more in (
            ("q_learning", "CliffWalking-v1", {}),
            ("sarsa", "CliffWalking-v1", {}),
            ("expected_sarsa", "Taxi-v4", {"exploration": "boltzmann"}),
            ("double_q", "FrozenLake-v1", {"learning_rate": "linear"}),
        )
    },
    "reinforce": Case("reinforce", "CartPole-v1", {"total_timesteps": 16_000}),
    "a2c": Case("a2c", "CartPole-v1", {"total_timesteps": 12_000, "learning_rate_schedule": "linear"}),
    "ppo": Case("ppo", "CartPole-v1", {"total_timesteps": 10_240, "n_steps": 32, "n_epochs": 4}),
    "ppo, continuous": Case(
        "ppo", "Pendulum-v1",
        {"total_timesteps": 6000, "n_envs": 3, "n_steps": 50, "batch_size": 50, "n_epochs": 4,
         "normalize_observation": True, "normalize_reward": True},
    ),
    "ppo, LSTM": Case(
        "ppo", world("CartPolePositions"),
        {"total_timesteps": 4096, "n_envs": 4, "n_steps": 32, "batch_size": 64, "n_epochs": 4, "recurrent": "lstm"},
    ),
    "dqn": Case("dqn", "CartPole-v1", VALUES),
    "dqn, prioritised, 3 steps": Case(
        "dqn", "CartPole-v1", {**VALUES, "replay": "prioritised", "n_steps": 3, "double_q": True}
    ),
    "dqn, on disk": Case("dqn", "CartPole-v1", {**VALUES, "buffer_on_disk": True}),
    "dqn, LSTM": Case(
        "dqn", world("CartPolePositions"),
        {**VALUES, "train_freq": 10, "batch_size": 8, "sequence_length": 8, "burn_in": 4, "recurrent": "lstm",
         "lstm_hidden_size": 16},
    ),
    "dqn, hindsight": Case("dqn", world("Bits"), {**VALUES, "replay": "her"}),
    "dqn, random distillation": Case(
        "dqn", "MountainCar-v0",
        {**VALUES, "exploration_bonus": "random_distillation", "exploration_bonus_warm_up": 500,
         "exploration_bonus_batch_size": 64},
    ),
    "rainbow, C51": Case("rainbow", "CartPole-v1", {**VALUES, "train_freq": 10, "distribution_v_min": 0.0}),
    "rainbow, quantiles": Case(
        "rainbow", "CartPole-v1", {**VALUES, "train_freq": 10, "distribution": "qr", "distribution_n_quantiles": 20}
    ),
    "soft_q": Case("soft_q", "CartPole-v1", {**VALUES, "temperature_end": 0.02}),
    "sac": Case("sac", "Pendulum-v1", ACTORS),
    "sac, discrete": Case("sac", "CartPole-v1", {**ACTORS, "learning_rate_schedule": "linear"}),
    "td3": Case("td3", "Pendulum-v1", ACTORS),
    "pretrain": MODEL,
    "sft": Case("sft", "reversal", {"total_timesteps": 20_000, "max_length": 32}, init=MODEL),
    "sft, LoRA": Case("sft", "reversal", {"total_timesteps": 20_000, "max_length": 32, "lora": "lora"}, init=MODEL),
    "grpo": Case("grpo", "reversal", {**ANSWERS, "num_iterations": 2}, init=MODEL),
    "grpo, with a reference": Case("grpo", "reversal", {**ANSWERS, "beta": 0.05}, init=MODEL),
    "ppo, text": Case(
        "ppo", "reversal", {"total_timesteps": 4096, "n_envs": 16, "n_steps": 4, "batch_size": 32, "n_epochs": 2},
        init=MODEL,
    ),
    "expert_iteration": Case("expert_iteration", "reversal", {**ANSWERS, "max_length": 32}, init=MODEL),
    "reward_model": Case("reward_model", "taste", {**PICKS, "num_members": 2}, init=WRITER),
    "dpo": Case("dpo", "taste", PICKS, init=WRITER),
    "dpo, online": Case(
        "dpo", "taste",
        {**PICKS, "data": "online", "data_generation_batch_size": 16}, init=WRITER,
    ),
    "kto": Case("kto", "taste", PICKS, init=WRITER),
    "distill": Case(
        "distill", "reversal",
        {"total_timesteps": 8_000, "max_length": 32, "max_position_embeddings": 32, "hidden_size": 16,
         "num_hidden_layers": 1, "num_attention_heads": 2},
        init=MODEL, taught=True,
    ),
    "masked_lm": READER,
    "classify": Case("classify", "python_passages", {"total_timesteps": 4_000, "max_length": 64}, init=READER),
}  # fmt: skip


@dataclass
class Outcome:
    """What became of runs that were interrupted."""

    equal: int = 0
    """Interruptions whose run ended as the reference did."""
    struck: int = 0
    """Interruptions."""
    runs: int = 0
    differences: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    """The newest checkpoint that each interruption found; -1: none yet."""


# The processes


def live(case: Case, path: str, begun: Any, over: Any, leave_after: int) -> None:
    """The life of one process: start the run in `path`, or go on with it, until it is done or something ends it.

    `begun` and `over` are set when the loop begins and ends. With `leave_after`, it leaves after so many scheduled
    checkpoints."""
    with open(f"{path}.log", "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    import numpy as np

    import torchward.run
    from torchward import launch
    from torchward.run import Run

    random.seed(0)  # these two belong to other people's environments: nothing of a run seeds them, but it keeps them
    np.random.seed(0)  # noqa: NPY002
    torchward.run.draw_curve = lambda path: None  # a picture is no part of a run's state
    enter, save, finish, saved = Run.__enter__, Run.save, Run.finish, 0

    def entered(run: Run) -> Run:
        begun.set()
        return enter(run)

    def leaving(run: Run) -> Path:
        nonlocal saved
        written, saved = save(run), saved + (run.step > 0)
        if leave_after and saved == leave_after and not run.done:
            raise SystemExit
        return written

    def finishing(run: Run, *policy: Any) -> None:
        over.set()
        finish(run, *policy)

    Run.__enter__ = entered  # type: ignore[method-assign]
    Run.finish = finishing  # type: ignore[assignment, method-assign]
    Run.save = leaving  # type: ignore[assignment, method-assign]
    run = Path(path)
    if (run / "config.json").exists():
        launch.resume(run)
    else:  # or it was killed before it was anything
        shutil.rmtree(run, ignore_errors=True)
        beside: dict[str, Any] = {} if case.init is None else {"teacher" if case.taught else "init": _init(run)}
        launch.train(case.algorithm, case.task, path=run, threads=1, **beside, **case.all_settings())


def _init(path: Path) -> Path:
    """Where the run lies that the run in `path` starts from."""
    return path.with_name("init")


class Lives:
    """Starts processes, forked from a server that has imported what they need, or as fresh interpreters."""

    def __init__(self) -> None:
        self.fresh = multiprocessing.get_context("spawn")
        self.forked = multiprocessing.get_context("forkserver")
        self.forked.set_forkserver_preload(
            [f"torchward.algorithms.{case.algorithm}" for case in CASES.values()]
            + ["torchward.launch", "torchward.envs.task", "torchward.envs.models", "torchward.nets.saving"]
            + ["torch._dynamo", "gymnasium.envs.classic_control", "benchmarks.worlds"]
        )
        server: Any = self.forked  # it imports them when the first process is asked for
        first = server.Process(target=nothing)
        first.start()
        first.join()

    @contextmanager
    def start(self, case: Case, path: Path, fresh: bool, leave_after: int = 0) -> Iterator[tuple[Any, Any, Any]]:
        """A process, and the events that its loop has begun and is over."""
        context: Any = self.fresh if fresh else self.forked
        begun, over = context.Event(), context.Event()
        process = context.Process(target=live, args=(case, str(path), begun, over, leave_after))
        process.start()
        try:
            yield process, begun, over
            process.join(PATIENCE)
            if process.is_alive():
                raise Failed(f"a process of {case.algorithm} has not ended after {PATIENCE:.0f} s: {_told(path)}")
        finally:
            process.kill()
            process.join()
            process.close()


def nothing() -> None:
    """What the first process does."""


def wait(event: Any, process: Any) -> None:
    """Wait for what a process says, as long as it lives."""
    while not event.wait(0.01) and process.is_alive():
        pass


def whole(lives: Lives, case: Case, path: Path, fresh: bool) -> tuple[float, float]:
    """An uninterrupted run: its seconds from the start of its process to its end, and those of its loop."""
    if case.init is not None and not done(_init(path)):
        whole(lives, case.init, _init(path), fresh)
    start, moments = time.perf_counter(), []
    with lives.start(case, path, fresh) as (process, *events):
        for event in events:
            wait(event, process)
            moments.append(time.perf_counter())
        process.join(PATIENCE)
    end = time.perf_counter()
    if not done(path):
        raise Failed(f"the uninterrupted run of {case.algorithm} did not come to its end: {_told(path)}")
    return end - start, moments[1] - moments[0]


def interrupted(
    lives: Lives, case: Case, path: Path, event: Event, most: int, span: float, generator: random.Random
) -> list[int]:
    """A run that is interrupted up to `most` times, and gone on with until it is done; the steps that its newest
    checkpoint had after each interruption. `span` is the seconds within which a moment is drawn."""
    steps: list[int] = []
    for _ in range(10 * most + 10):
        strike = len(steps) < most
        leave_after = 2 if event == "stop" and strike else 0
        with lives.start(case, path, event == "SIGTERM", leave_after) as (process, begun, _):
            if event in ("kill", "SIGTERM") and strike:
                if event == "SIGTERM":
                    wait(begun, process)
                process.join(generator.uniform(0.0, span))
                if process.is_alive():
                    process.kill() if event == "kill" else process.terminate()
            process.join(PATIENCE)
            code = process.exitcode
        if done(path):
            return steps
        if not strike or (event != "kill" and code != 0):
            raise Failed(f"a process of {case.algorithm} ended with {code} before its run was done: {_told(path)}")
        steps.append(newest(path))
    raise Failed(f"{case.algorithm} was interrupted {len(steps)} times and has not come to its end")


def examine(lives: Lives, case: Case, event: Event, times: int, place: Path, spans: tuple[float, float]) -> Outcome:
    """Interrupt runs until there were `times` interruptions, and hold each run's end against `place`/reference.

    `spans` are the seconds of a forked life, and of a fresh interpreter's loop."""
    if event == "again":
        found = differences(place / "reference", place / "again")
        return Outcome(int(not found), 1, 1, found)
    outcome, generator = Outcome(), random.Random(f"{case} {event}")
    span = spans[event == "SIGTERM"]
    while outcome.struck < times:
        path = place / f"{event}-{outcome.runs}"
        steps = interrupted(lives, case, path, event, times - outcome.struck, span, generator)
        outcome.runs += 1
        if outcome.runs > 20 * times:
            raise Failed(f"{event} struck {case.algorithm} only {outcome.struck} times in {outcome.runs} runs")
        found = differences(place / "reference", path)
        outcome.struck += len(steps)
        outcome.equal += 0 if found else len(steps)
        outcome.steps += steps
        outcome.differences += found
        shutil.rmtree(path)
    return outcome


def done(path: Path) -> bool:
    """Whether the run has come to its end."""
    return (path / "result.json").exists()


def newest(path: Path) -> int:
    """The step of the newest checkpoint; -1 where there is none."""
    from torchward import checkpoint

    found = checkpoint.latest(path / "checkpoint")
    return -1 if found is None else int(found.name.partition(".")[0])


def _told(path: Path) -> str:
    log = Path(f"{path}.log")
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "it said nothing"


# What must be equal


def differences(reference: Path, other: Path) -> list[str]:
    """The names of everything that two finished runs do not have in common, bit for bit; times are left out."""
    ours, theirs = contents(reference), contents(other)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def contents(path: Path) -> dict[str, Any]:
    """All that a run has come to, by name, as values that are equal where their bits are."""
    from torchward import checkpoint
    from torchward.metrics import read_metrics

    newest_one = checkpoint.latest(path / "checkpoint")
    assert newest_one is not None
    tree = checkpoint.load_tree(newest_one)
    for clock in ("seconds", "offset"):  # a line of metrics is as long as its times are
        del tree["run"][clock]
    found = dict(flat(tree, "checkpoint"))
    for number, row in enumerate(read_metrics(path)):
        found[f"metrics {number}"] = repr({name: value for name, value in row.items() if name not in CLOCK_FIELDS})
    for file in sorted([*(path / "policy").rglob("*"), *(path / "replay").glob("*")]):
        if file.is_file():
            found[str(file.relative_to(path))] = file.read_bytes()
    found["result"] = (path / "result.json").read_bytes()
    return found


def flat(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves of a tree, by their way through it."""
    if isinstance(node, dict):
        yield f"{name} keys", repr(list(node))
        for key, branch in node.items():
            yield from flat(branch, f"{name}/{key}")
    elif isinstance(node, (list, tuple)):
        yield f"{name} length", (type(node).__name__, len(node))
        for index, branch in enumerate(node):
            yield from flat(branch, f"{name}/{index}")
    elif hasattr(node, "numpy"):  # a tensor
        yield name, (str(node.dtype), tuple(node.shape), node.contiguous().flatten().numpy().tobytes())
    elif hasattr(node, "tobytes"):  # an array
        yield name, (str(node.dtype), tuple(node.shape), node.tobytes())
    else:
        yield name, repr(node)


# The benchmark


def settings(name: str, event: Event, times: int) -> dict[str, Any]:
    case = CASES[name]
    task = case.task.rpartition("/")[2]
    return {"algorithm": case.algorithm, "task": task, "settings": case.all_settings(), "event": event, "times": times}


class References:
    """The uninterrupted runs of each case, made when they are first needed: one in a fresh interpreter, one forked."""

    def __init__(self, lives: Lives, place: Path) -> None:
        self.lives, self.place = lives, place
        self.spans: dict[str, tuple[float, float]] = {}

    def get(self, name: str) -> tuple[Path, tuple[float, float]]:
        """Where it lies, and the seconds of a forked life and of a fresh interpreter's loop."""
        directory = self.place / name.replace(", ", "-")
        if name not in self.spans:
            directory.mkdir(parents=True)
            _, loop = whole(self.lives, CASES[name], directory / "reference", True)
            life, _ = whole(self.lives, CASES[name], directory / "again", False)
            self.spans[name] = life, loop
        return directory, self.spans[name]


def one(references: References, name: str, event: Event, times: int) -> dict[str, Any]:
    directory, spans = references.get(name)
    outcome = examine(references.lives, CASES[name], event, times, directory, spans)
    return {**vars(outcome), "life_seconds": round(spans[0], 3)}


def grid(directory: Path | None = None) -> str:
    """The table of all algorithms and events, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    lines = [f"| algorithm | {' | '.join(TIMES)} |", "|---" * (len(TIMES) + 1) + "|"]
    for name in CASES:
        cells = []
        for event, times in TIMES.items():
            found = results.read(key(name, event), settings(name, event, times))
            cells.append("" if found is None else f"equal {found['equal']}/{found['struck']}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows(directory: Path | None = None) -> list[Row]:
    """The row of the table, from the raw data."""
    results, parts, all_equal, missing = Results(NAME, *([directory] if directory else [])), [], True, 0
    for event, times in TIMES.items():
        found = [results.read(key(name, event), settings(name, event, times)) for name in CASES]
        there = [one for one in found if one is not None]
        missing += len(found) - len(there)
        equal, struck = sum(one["equal"] for one in there), sum(one["struck"] for one in there)
        all_equal &= equal == struck
        parts.append(f"{event} {equal}/{struck}")
    measured = f"{', '.join(parts)} equal, {len(CASES)} cases"
    if missing:
        measured = MISSING if missing == len(CASES) * len(TIMES) else f"{measured}; {missing} {MISSING}"
    measured += "" if missing else "; all equal" if all_equal else "; **not all equal**"
    what = "resume after a scheduled stop, SIGTERM, `kill -9` (20 random moments): equal bit for bit, every algorithm"
    return [Row(what, "equal", "", measured, f"python -m benchmarks.{NAME}")]


def key(name: str, event: str) -> str:
    return f"{name}-{event}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    options.add_argument("--event", nargs="+", choices=list(TIMES), default=list(TIMES))
    options.add_argument("--times", type=int, default=0, help="interruptions of each kind, to try things out")
    given = options.parse_args()
    if given.table:
        print(f"{grid(given.results)}\n\n{markdown(rows(given.results))}")
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
    with tempfile.TemporaryDirectory() as place:
        references = References(Lives(), Path(place))
        works = []
        for name in given.case:
            for event in given.event:
                times = (event != "again" and given.times) or TIMES[event]
                works.append(
                    Work(
                        key(name, event), settings(name, event, times), partial(one, references, name, event, times),
                        lambda result: f"equal {result['equal']}/{result['struck']} in {result['runs']} runs"
                        + (f", DIFFERENT: {', '.join(result['differences'][:5])}" if result["differences"] else ""),
                    )
                )  # fmt: skip
        measure(results, works)
    print(f"{grid(given.results)}\n\n{markdown(rows(given.results))}")
    found = [results.read(work.key, work.settings) for work in works]
    sys.exit(any(one is None or one["equal"] < one["struck"] for one in found))


if __name__ == "__main__":
    main()
