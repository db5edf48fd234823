"""The replay of a million frames of 84 x 84: its bytes, and how long 32 stacks of 4 take to be drawn from it.

    python -m benchmarks.replay               3 times uniform and 3 times prioritised, with one thread

Each time in a process of its own: the replay is filled with frames of 8 environments, whose episodes end every 1000
steps, until the first ones are written over; how much the process has grown is read beside what the replay says of
itself. Then batches of 32 transitions are drawn, with what was seen and what came next: 64 stacks, and the actions,
rewards, discounts and weights. They lie all over the memory, so that caches do not help. The first tenth of the times
does not count.
"""

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import MISSING, Results, Row, Work, child, markdown, measure, parser, spread, verdict

NAME = "replay"
KINDS = ("uniform", "prioritised")
SETTING: dict[str, Any] = {"frames": 1_000_000, "n_envs": 8, "frame_stack": 4, "batch_size": 32, "times": 2000}
GIGABYTES, MILLISECONDS = 7.5, 1.0
COMMAND = f"python -m benchmarks.{NAME}"


def settings(frames: int = SETTING["frames"]) -> dict[str, Any]:
    return {**SETTING, "frames": frames}


def ours(kind: str, setting: dict[str, Any]) -> dict[str, Any]:
    """One measurement, in this process."""
    import torch

    from torchward.data.replay import Prioritised, Replay
    from torchward.nets.spaces import Box, Discrete

    torch.set_num_threads(1)
    stack, n = setting["frame_stack"], setting["n_envs"]
    before = resident()
    replay = Replay(
        Box((stack, 84, 84), 0.0, 255.0, "uint8"), Discrete(6), n, setting["frames"], seed=0, frame_stack=stack,
        prioritised=Prioritised() if kind == "prioritised" else None,
    )  # fmt: skip
    start = time.perf_counter()
    for rollout in rollouts(n, stack, setting["frames"] // n + 1000):
        replay.add(rollout)
    filling = time.perf_counter() - start
    grown = resident() - before
    times = []
    for _ in range(setting["times"]):
        start = time.perf_counter()
        batch = replay.sample(setting["batch_size"], 0.99)
        times.append(time.perf_counter() - start)
        replay.update_priorities(batch.index, torch.rand(setting["batch_size"]))
    counted = sorted(1e3 * each for each in times[len(times) // 10 :])
    return {
        "steps": len(replay),
        "gigabytes": round(replay.nbytes / 1e9, 4),
        "resident_gigabytes": round(grown / 1e9, 4),
        "milliseconds": round(statistics.median(counted), 4),
        "milliseconds_99": round(counted[len(counted) * 99 // 100], 4),
        "filling_seconds": round(filling, 1),
    }


def rollouts(n: int, stack: int, steps: int) -> Any:
    """Rollouts of 100 steps of ``n`` environments, until there were ``steps`` of each."""
    import torch

    from torchward.data.rollout import Finals, Rollout

    frames = torch.randint(256, (n, 100, 84, 84), dtype=torch.uint8)
    for begin in range(0, steps, 100):
        first = begin % 1000 == 0  # of an episode: the stack is that frame again and again
        if first:
            seen = frames[:, :1].expand(-1, stack - 1, -1, -1)
        shown = torch.cat([seen, frames], 1)
        seen = frames[:, -(stack - 1) :]
        stacks = shown.unfold(1, stack, 1).permute(0, 1, 4, 2, 3)
        ends = torch.zeros(n, 100, dtype=torch.bool)
        ends[:, -1] = (begin + 100) % 1000 == 0
        last = stacks[:, -1]
        finals = Finals(torch.arange(n), torch.full((n,), 99), last) if ends.any() else None
        facts: dict[str, Any] = {"terminated": ends, "boundary": ends, "loss_mask": torch.ones_like(ends)}
        zeros = torch.zeros(n, 100)
        yield Rollout(stacks, torch.zeros(n, 100, dtype=torch.int64), zeros, zeros, **facts, last=last, finals=finals)


def resident() -> int:
    """The bytes of this process that lie in memory."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def once(kind: str, setting: dict[str, Any]) -> dict[str, Any]:
    words = [f"--frames={setting['frames']}", f"--ours={kind}"]
    return child([sys.executable, "-m", f"benchmarks.{NAME}", *words], threads=1)


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    found = {kind: [results.read(key(kind, number), settings()) for number in range(100)] for kind in KINDS}
    there = {kind: [one for one in each if one is not None] for kind, each in found.items()}
    size, speed = MISSING, MISSING
    if all(there.values()):
        bytes_ = {kind: max(max(one["gigabytes"], one["resident_gigabytes"]) for one in there[kind]) for kind in KINDS}
        times = {kind: [one["milliseconds"] for one in there[kind]] for kind in KINDS}
        told = ", ".join(f"{gigabytes:.2f} GB {kind}" for kind, gigabytes in bytes_.items())
        size = f"{told}; {verdict(max(bytes_.values()) <= GIGABYTES, False)}"
        told = ", ".join(f"{spread(each, 2)} ms {kind}" for kind, each in times.items())
        slowest = max(statistics.median(each) for each in times.values())
        speed = f"{told}; {verdict(slowest <= MILLISECONDS, False)}"
    return [
        Row("a replay of 1,000,000 frames of 84 x 84", f"{GIGABYTES:g} GB", "", size, COMMAND),
        Row("drawing 32 transitions with stacks of 4 from it", f"{MILLISECONDS:g} ms", "", speed, COMMAND),
    ]


def key(kind: str, number: int) -> str:
    return f"{kind}-{number:02d}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--times", type=int, default=3, help="processes for each kind")
    options.add_argument("--frames", type=int, default=SETTING["frames"], help="with fewer, no row of the table")
    options.add_argument("--ours", choices=KINDS, help=argparse.SUPPRESS)
    given = options.parse_args()
    setting = settings(given.frames)
    if given.ours:
        print(json.dumps(ours(given.ours, setting)))
        return
    if given.table:
        print(markdown(rows(given.results)))
        return
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
    works = [
        Work(
            key(kind, number), setting, partial(once, kind, setting),
            lambda result: f"{result['gigabytes']:.2f} GB, {result['milliseconds']:.2f} ms",
        )
        for number in range(given.times)
        for kind in KINDS
    ]  # fmt: skip
    measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
