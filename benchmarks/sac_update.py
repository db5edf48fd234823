"""SAC's update on HalfCheetah's shapes: its floating-point rate over that of the machine's own product of matrices.

    python -m benchmarks.sac_update           5 processes with one thread and 5 with two, in turn

The real learner and the real replay, full of random transitions: observations of 17 numbers, actions of 6, minibatches
of 256, nets 256-256, two critics, a temperature that is learnt, a step of everything for every minibatch. Beside it,
in the same process, `torch.mm` of 1024 x 1024 into memory that it is given, in single precision. Blocks of updates and
of products take turns, so that noise hits both alike: a process's figure is the median over its blocks of updates of
the rate there over the mean of the two rates around it. Replay, optimisers, targets and random numbers are in the time
of an update, and only the products of matrices in its work.

The work is counted by hand. A product of [n, k] and [k, m] is 2 n k m operations; n is the minibatch. The actor's
layers are 18-256-256-12 and a critic's 24-256-256-1: what goes in has a 1 behind it, whose row of weights is the bias.

    actor forward, at the next observations     2 n (18 256 + 256 256 + 256 12)        37.5 MFLOP
    target critics forward                      4 n (24 256 + 256 256 + 256)           73.7
    critics forward                             the same                               73.7
    critics backward, by the weights            the same                               73.7
    critics backward, by the hidden layers      4 n (256 256 + 256)                    67.4
    actor forward, at the observations          2 n (18 256 + 256 256 + 256 12)        37.5
    critics forward, at the actor's actions     4 n (24 256 + 256 256 + 256)           73.7
    critics backward, by what goes in           the same                               73.7
    actor backward, by the weights              2 n (18 256 + 256 256 + 256 12)        37.5
    actor backward, by the hidden layers        2 n (256 256 + 256 12)                 35.1
                                                                                      583.3

Who asks the critics only for the gradient by the actions, as a policy's loss needs it, computes 0.8 % less than that.

The profile is that of other updates, after the ones that are timed, for the profiler takes time of its own: the
processor time of each operation without those within it, summed up by kind. What no operation takes is the rest:
Python, and the profiler.
"""

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import MISSING, Results, Row, Work, child, markdown, measure, parser, say, spread, verdict

if TYPE_CHECKING:
    from torchward.algorithms.sac import Learner
    from torchward.data.replay import Replay

NAME = "sac_update"
ASKED, AIM = 0.60, 0.70
BATCH, OBSERVATION, ACTION, WIDTH, CRITICS = 256, 17, 6, 256, 2
SIDE = 1024
"""Rows and columns of the matrices whose product is the machine's own rate."""
SETTING: dict[str, Any] = {"rows": 100_000, "warm": 50, "blocks": 20, "updates": 40, "products": 12, "profiled": 50}
KINDS = ("products", "elementwise", "optimisers", "replay", "rest")
"""Products of matrices; all other operations; optimisers and targets; drawing minibatches; and what is left."""
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::addbmm")
OPTIMISERS = ("aten::_fused_adam_", "aten::lerp_", "aten::_foreach_lerp_")


def operations() -> int:
    """The floating-point operations of an update's products, as the list above has them."""
    into, hidden = (OBSERVATION + 1) * WIDTH, WIDTH * WIDTH
    behind = hidden + WIDTH * 2 * ACTION
    actor, actor_behind = 2 * BATCH * (into + behind), 2 * BATCH * behind
    into, behind = (OBSERVATION + ACTION + 1) * WIDTH, hidden + WIDTH
    critics, critics_behind = 2 * BATCH * CRITICS * (into + behind), 2 * BATCH * CRITICS * behind
    values = actor + critics + critics + critics + critics_behind
    policy = actor + critics + critics + actor + actor_behind
    return values + policy


def made(rows: int) -> "tuple[Learner, Replay]":
    """The learner with HalfCheetah's spaces, and a replay of random transitions whose episodes end every 1000 steps."""
    import torch

    from torchward.algorithms import sac
    from torchward.data.replay import Replay
    from torchward.data.rollout import Finals, Rollout
    from torchward.nets.heap import keep_freed
    from torchward.nets.soft_actor import SoftActor
    from torchward.nets.spaces import Box

    torch.manual_seed(0)
    keep_freed()  # as the loop does
    config = sac.Config(batch_size=BATCH)
    spaces = Box((OBSERVATION,)), Box((ACTION,), -1.0, 1.0)
    replay = Replay(*spaces, 1, rows, seed=0)
    ends = torch.zeros(1, 1000, dtype=torch.bool)
    ends[:, -1] = True
    for _ in range(max(1, rows // 1000)):
        seen, last = torch.randn(1, 1000, OBSERVATION), torch.randn(1, OBSERVATION)
        done, paid = torch.rand(1, 1000, ACTION) * 2.0 - 1.0, torch.randn(1, 1000)
        facts: dict[str, Any] = {
            "terminated": torch.zeros_like(ends), "boundary": ends, "loss_mask": torch.ones_like(ends), "last": last,
            "finals": Finals(torch.tensor([0]), torch.tensor([999]), torch.randn(1, OBSERVATION)),
        }  # fmt: skip
        replay.add(Rollout(seen, done, torch.zeros_like(paid), paid, **facts))
    return sac.Learner(SoftActor(*spaces, config.network), config), replay


def ours(threads: int, setting: dict[str, Any]) -> dict[str, Any]:
    """One measurement, in this process."""
    import torch

    torch.set_num_threads(threads)
    learner, replay = made(setting["rows"])
    one, other, into = (torch.randn(SIDE, SIDE) for _ in range(3))

    def update() -> None:
        learner.update(replay)

    def product() -> None:
        torch.mm(one, other, out=into)

    for _ in range(setting["warm"]):
        update()
    seconds_of(product, setting["products"])
    machine = [2 * SIDE**3 / seconds_of(product, setting["products"])]
    updates = []
    for _ in range(setting["blocks"]):
        updates.append(operations() / seconds_of(update, setting["updates"]))
        machine.append(2 * SIDE**3 / seconds_of(product, setting["products"]))
    around = [(before + after) / 2 for before, after in pairwise(machine)]
    ratios = [mine / theirs for mine, theirs in zip(updates, around, strict=True)]
    return {
        "share": round(statistics.median(ratios), 4),
        "gflops": round(statistics.median(updates) / 1e9, 2),
        "machine_gflops": round(statistics.median(machine) / 1e9, 2),
        "updates_per_second": round(statistics.median(updates) / operations(), 1),
        "shares": [round(ratio, 4) for ratio in ratios],
        "threads": torch.get_num_threads(),
        "profile": profile(learner, replay, setting["profiled"]),
    }


def seconds_of(work: Callable[[], None], times: int) -> float:
    """What it takes once, on the average of so many times."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def profile(learner: "Learner", replay: "Replay", times: int) -> dict[str, Any]:
    """Microseconds of an update that each kind takes, and the operations that take the most, with how often they are
    called."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    from torchward.nets.adam import Adam

    sample, step = replay.sample, Adam.step
    replay.sample = named("replay", sample)  # type: ignore[method-assign]
    Adam.step = named("optimisers", step)  # type: ignore[method-assign]
    try:
        with profiler(activities=[ProfilerActivity.CPU], acc_events=True) as found:
            wall = seconds_of(lambda: learner.update(replay), times)
    finally:
        replay.sample, Adam.step = sample, step  # type: ignore[method-assign]
    kinds, names, calls = dict.fromkeys(KINDS, 0.0), defaultdict[str, float](float), defaultdict[str, int](int)
    for event in found.events() or ():
        spent = event.self_cpu_time_total / times
        kinds[kind_of(event)] += spent
        names[event.name] += spent
        calls[event.name] += 1
    kinds["rest"] = max(0.0, 1e6 * wall - sum(kinds[kind] for kind in KINDS[:-1]))
    most = sorted(names, key=lambda name: -names[name])[:20]
    return {
        "microseconds": {kind: round(spent, 1) for kind, spent in kinds.items()},
        "operations": {name: [round(names[name], 1), round(calls[name] / times, 2)] for name in most},
    }


def named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose time the profiler finds under a name."""
    from torch.profiler import record_function

    @wraps(function)
    def called(*arguments: Any, **more: Any) -> Any:
        with record_function(name):
            return function(*arguments, **more)

    return called


def kind_of(event: Any) -> str:
    """What an operation is a part of; by its own name, where it is a part of nothing that has one."""
    outer = event
    while outer is not None:
        if outer.name in KINDS:
            return str(outer.name)
        outer = outer.cpu_parent
    if event.name in PRODUCTS:
        return "products"
    if event.name in OPTIMISERS:
        return "optimisers"
    return "elementwise" if event.name.startswith("aten::") else "rest"


def settings(**changes: Any) -> dict[str, Any]:
    return {**SETTING, **changes, "batch": BATCH, "nets": [WIDTH, WIDTH], "operations": operations()}


def once(threads: int, setting: dict[str, Any]) -> dict[str, Any]:
    told = json.dumps({name: setting[name] for name in SETTING})
    words = ["--ours", f"--threads={threads}", f"--setting={told}"]
    return child([sys.executable, "-m", f"benchmarks.{NAME}", *words], threads)


def shares(results: list[dict[str, Any]]) -> str:
    """Of the time of an update, what each kind takes, by the medians over processes."""
    took = {kind: statistics.median(one["profile"]["microseconds"][kind] for one in results) for kind in KINDS}
    whole = sum(took.values())
    return ", ".join(f"{kind} {100 * spent / whole:.0f} %" for kind, spent in took.items())


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    for threads in (1, 2):
        stored = [results.read(key(threads, number), settings()) for number in range(100)]
        there = [one for one in stored if one is not None]
        measured = MISSING
        if there:
            share = statistics.median(one["share"] for one in there)
            mine, theirs = (statistics.median(one[name] for one in there) for name in ("gflops", "machine_gflops"))
            measured = (
                f"{spread([one['share'] for one in there], 2)} in {len(there)} processes: {mine:.0f} against "
                f"{theirs:.0f} GFLOP/s, {spread([one['updates_per_second'] for one in there], 0)} updates/s; profile: "
                f"{shares(there)}; {verdict(share >= ASKED, share >= AIM)}"
            )
        what = (
            f"SAC's update, batch 256, nets 256-256: its floating-point rate ({operations() / 1e6:.0f} MFLOP) over "
            f"that of a product of 1024 x 1024, {threads} thread{'s' * (threads > 1)}"
        )
        found.append(Row(what, f"{ASKED:.2f}", f"{AIM:.2f}", measured, f"python -m benchmarks.{NAME}"))
    return found


def told(result: dict[str, Any]) -> str:
    """The profile of one process, as a table."""
    lines = [f"    {kind:<22}{spent:9.1f} us" for kind, spent in result["profile"]["microseconds"].items()]
    lines += [
        f"      {name:<30}{spent:9.1f} us {calls:7.2f} calls"
        for name, (spent, calls) in result["profile"]["operations"].items()
    ]
    return "\n".join(lines)


def key(threads: int, number: int) -> str:
    return f"threads-{threads}-{number:02d}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--times", type=int, default=5, help="processes with each number of threads")
    options.add_argument("--threads", type=int, default=0, help="1 or 2 only")
    options.add_argument("--setting", type=json.loads, default=SETTING, help=argparse.SUPPRESS)
    options.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ours:
        print(json.dumps(ours(given.threads, given.setting)))
        return
    results, setting = Results(NAME, given.results), settings(**given.setting)
    if not given.table:
        if given.fresh:
            results.clear()
        works = [
            Work(
                key(threads, number), setting, partial(once, threads, setting),
                lambda result: f"{result['share']:.2f}, {result['updates_per_second']:.0f} updates/s",
            )
            for number in range(given.times)
            for threads in ([given.threads] if given.threads else [1, 2])
        ]  # fmt: skip
        measure(results, works)
        for threads in (1, 2):
            if (found := results.read(key(threads, 0), setting)) is not None:
                say(f"{threads} thread{'s' * (threads > 1)}, an update by kinds, and its longest operations:")
                say(told(found))
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
