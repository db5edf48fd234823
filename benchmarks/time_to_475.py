"""PPO and DQN on CartPole with no flags: seconds from the start of the process to a mean return of 475 in 20 episodes.

    python -m benchmarks.time_to_475              10 seeds of each; of PPO ours and Stable-Baselines3's in turn
    python -m benchmarks.time_to_475 --case dqn   a part of it

The figure is the wall time from the start of the process to the moment at which the goal was reached: imports,
training, and for us also what a run does besides (checkpoints, evaluations, one of the policy that reached it too).
Beside it stands the wall time of the whole process, as its parent sees it; ours goes on to write TensorBoard's
events, the policy and the curve. Both sides compute with one thread, and look at the mean of the last 20 training
episodes after each rollout. Stable-Baselines3 has the tuned setting of rl-baselines3-zoo and ends at its 100,000
steps; a seed that has not arrived by then enters the median with the time that it has spent.

DQN stands beside no other, but beside a number of seconds. The returns are those of its training episodes, with all
that is done in them to explore. A seed whose run ends before it has arrived counts as one that has used up 200,000
steps, at the pace of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import (
    MISSING,
    PEERS,
    ROOT,
    Failed,
    Results,
    Row,
    Work,
    child,
    environment,
    markdown,
    measure,
    parser,
    require_peers,
    spread,
    verdict,
)
from benchmarks.judged import preset

NAME = "time_to_475"
GOAL, WINDOW, ZOO_STEPS, SEEDS = 475.0, 20, 100_000, 10
ASKED, AIM = 0.4, 0.25
CASES = ("ppo", "dqn")
CAP, SECONDS_ASKED, SECONDS_AIM = 200_000, 20.0, 10.0
"""Of DQN: the steps that a seed is charged with that does not get there, and the seconds that are asked for."""


def settings(goal: float = GOAL, more: tuple[str, ...] = ()) -> dict[str, Any]:
    ours = {"options": list(more), "config": preset("CartPole-v1")}
    return {"goal": goal, "window": WINDOW, "zoo_steps": ZOO_STEPS, "threads": 1, **ours}


def settings_of_dqn(goal: float = GOAL, more: tuple[str, ...] = ()) -> dict[str, Any]:
    ours = {"options": list(more), "config": preset("CartPole-v1", algorithm="dqn")}
    return {"algorithm": "dqn", "goal": goal, "window": WINDOW, "cap": CAP, "threads": 1, **ours}


def ours(algorithm: str, seed: int, goal: float, more: tuple[str, ...]) -> dict[str, Any]:
    """The command line of torchward with nothing but a seed, a goal and a place."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "run"
        command = [sys.executable, "-m", "torchward", "train", algorithm, "CartPole-v1", f"--stop-return={goal:g}"]
        command += [f"--stats-window={WINDOW}", f"--seed={seed}", f"--path={path}", *more]
        began, start = time.time(), time.perf_counter()
        ended = subprocess.run(
            command, cwd=ROOT, env=environment(1), capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        wall = time.perf_counter() - start
        if ended.returncode:
            raise Failed(f"`{' '.join(command)}` ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
        metrics = path / "metrics.jsonl"
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        moment = metrics.stat().st_mtime
    last = [row for row in rows if row.get("return") is not None][-1]
    return {
        "reached": last["return"] >= goal,
        "mean_return": last["return"],
        "steps": last["step"],
        "training_seconds": last["time"],
        "reached_seconds": round(moment - began, 4),
        "wall_seconds": round(wall, 4),
    }


def theirs(seed: int, goal: float) -> dict[str, Any]:
    script = ROOT / "benchmarks" / "peers" / "sb3_time_to_475.py"
    words = ["--threads=1", f"--seed={seed}", f"--goal={goal}", f"--window={WINDOW}", f"--total={ZOO_STEPS}"]
    found = child([PEERS, script, *words], 1)
    return {**found, "reached_seconds": round(found["moment"] - found["began"], 4)}


def both(seed: int, goal: float, more: tuple[str, ...]) -> dict[str, Any]:
    mine, peer = ours("ppo", seed, goal, more), theirs(seed, goal)
    return {"ours": mine, "sb3": peer, "ratio": mine["reached_seconds"] / peer["reached_seconds"]}


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    return [row_of_ppo(results), row_of_dqn(results)]


def row_of_ppo(results: Results) -> Row:
    setting = settings()
    there = [one for one in (results.read(key(seed), setting) for seed in range(100)) if one is not None]
    measured = MISSING
    if there:
        times = {side: [one[side]["reached_seconds"] for one in there] for side in ("ours", "sb3")}
        whole = {side: [one[side]["wall_seconds"] for one in there] for side in ("ours", "sb3")}
        arrived = {side: sum(one[side]["reached"] for one in there) for side in ("ours", "sb3")}
        ratio = statistics.median(times["ours"]) / statistics.median(times["sb3"])
        fit = arrived["ours"] == len(there) >= SEEDS
        measured = (
            f"{ratio:.2f} x: {spread(times['ours'])} s against {spread(times['sb3'])} s; seeds that get there: "
            f"{arrived['ours']}/{len(there)} against {arrived['sb3']}/{len(there)}; pairwise "
            f"{spread([one['ratio'] for one in there], 2)} x; whole processes {spread(whole['ours'])} s against "
            f"{spread(whole['sb3'])} s; "
            f"{verdict(fit and ratio <= ASKED, fit and ratio <= AIM)}"
        )
    what = (
        "PPO CartPole: wall time from process start to a mean return of 475 over 20 episodes, median of "
        f"{len(there) or SEEDS} seeds, against Stable-Baselines3 with the setting of rl-baselines3-zoo"
    )
    return Row(what, f"{ASKED} x, all seeds", f"{AIM} x", measured, f"python -m benchmarks.{NAME}")


def row_of_dqn(results: Results) -> Row:
    setting = settings_of_dqn()
    stored = [results.read(key(seed, "dqn"), setting) for seed in range(100)]
    there, measured = [one for one in stored if one is not None], MISSING
    if there:
        times, middle = [charged(one) for one in there], statistics.median(charged(one) for one in there)
        measured = (
            f"{spread(times)} s; seeds that get there: {sum(one['reached'] for one in there)}/{len(there)}; after "
            f"{spread([one['steps'] for one in there], 0)} steps; whole processes "
            f"{spread([one['wall_seconds'] for one in there])} s; "
            f"{verdict(len(there) >= SEEDS and middle <= SECONDS_ASKED, middle <= SECONDS_AIM)}"
        )
    what = (
        "DQN CartPole: wall time from process start to a mean return of 475 over 20 episodes, median of "
        f"{len(there) or SEEDS} seeds; who does not get there counts with {CAP // 1000} k steps"
    )
    return Row(what, f"{SECONDS_ASKED:g} s", f"{SECONDS_AIM:g} s", measured, f"python -m benchmarks.{NAME} --case dqn")


def charged(result: dict[str, Any]) -> float:
    """The seconds that a seed of DQN counts with."""
    seconds = float(result["reached_seconds"])
    return seconds if result["reached"] else seconds * max(1.0, CAP / result["steps"])


def key(seed: int, case: str = "ppo") -> str:
    return f"seed-{seed:02d}" if case == "ppo" else f"{case}-seed-{seed:02d}"


def told(result: dict[str, Any]) -> str:
    """A line of progress about a seed of PPO, on both sides."""
    return (
        f"{result['ours']['wall_seconds']:.1f} s against {result['sb3']['wall_seconds']:.1f} s"
        + ("" if result["ours"]["reached"] else ", WE DO NOT GET THERE")
        + ("" if result["sb3"]["reached"] else ", they do not get there")
    )


def told_of_dqn(result: dict[str, Any]) -> str:
    there = "" if result["reached"] else f", IT DOES NOT GET THERE: {result['mean_return']:.0f}"
    return f"{result['wall_seconds']:.1f} s, {result['steps']} steps{there}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    options.add_argument("--seeds", type=int, default=SEEDS)
    options.add_argument("--goal", type=float, default=GOAL, help="another mean return, to try things out")
    options.add_argument("more", nargs=argparse.REMAINDER, help="options of torchward after --, to try things out")
    given = options.parse_args()
    if given.table:
        print(markdown(rows(given.results)))
        return
    if "ppo" in given.case:
        require_peers()
    more = tuple(word for word in given.more if word != "--")
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
    works: list[Work] = []
    for seed in range(given.seeds):
        if "ppo" in given.case:
            run = partial(both, seed, given.goal, more)
            works.append(Work(key(seed), settings(given.goal, more), run, told))
        if "dqn" in given.case:
            run = partial(ours, "dqn", seed, given.goal, more)
            works.append(Work(key(seed, "dqn"), settings_of_dqn(given.goal, more), run, told_of_dqn))
    measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
