"""What benchmarks of a training step beside TRL's share: words, the clock, both sides, rows; only the standard library.

A figure of time is the median of the steps after the first three, and a side's figure in a round is that of its better
number of threads; memory is the process's peak less what it was when all was imported, the larger of the two.
"""

import resource
import statistics
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import MISSING, PEERS, Row, child, spread, verdict

WORDS = {"vocab_size": 512, "eos_id": 510, "pad_id": 511}
START, PLAIN = 509, 500
"""The token that a text begins with, and how many tokens are nothing but words."""
WARM = 3
"""Steps that do not count."""


class Numbers:
    """Token i is the word i: so that both sides read the same. The start, which each text has, is no word of it."""

    vocab_size, start_id, eos_id, pad_id = WORDS["vocab_size"], START, WORDS["eos_id"], WORDS["pad_id"]

    def encode(self, text: str) -> list[int]:
        """Its numbers."""
        return [int(word) for word in text.split()]

    def decode(self, ids: Any) -> str:
        """The numbers as words, without end-of-text."""
        return " ".join(str(token) for token in ids if token != self.eos_id)

    def bytes_of(self, token: int) -> bytes:
        """The number."""
        return f"{token} ".encode()

    def description(self) -> dict[str, Any]:
        """Nothing: it is the one of a model without a vocabulary."""
        return {}


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(moments: Sequence[float], steps: int, before: float, threads: int) -> dict[str, Any]:
    """What a process says of its steps, of which the last ones end at ``moments``. ``before`` is its :func:`peak` when
    all was imported."""
    seconds = [b - a for a, b in pairwise(moments)]
    return {
        "seconds": round(statistics.median(seconds[-max(steps - WARM, 1) :]), 4),
        "peak_mb": round(peak() - before, 1),
        "steps": steps,
        "threads": threads,
    }


def of_a_run(path: Path, before: float, threads: int) -> dict[str, Any]:
    """:func:`measured`, by the moments of a run's own lines of metrics: each step ends with one."""
    from torchward.metrics import read_metrics

    moments = [row["time"] for row in read_metrics(path)]
    return measured(moments, len(moments), before, threads)


def both_sides(mine: Sequence[str], peer: str, theirs: Sequence[str]) -> dict[str, Any]:
    """A module of ours and one of the peers' on 1 and on 2 threads, and what ours takes of theirs."""
    found: dict[str, Any] = {"ours": [], "trl": []}
    for threads in (1, 2):
        told = f"--threads={threads}"
        found["ours"].append(child([sys.executable, "-m", *mine, "--ours", told], threads))
        found["trl"].append(child([PEERS, "-m", f"benchmarks.peers.{peer}", *theirs, told], threads))
    seconds, memory = best(found)
    return {**found, "ratio": seconds["ours"] / seconds["trl"], "memory": memory["ours"] / memory["trl"]}


def best(found: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Each side's seconds and memory in a round."""
    sides = ("ours", "trl")
    seconds = {side: min(one["seconds"] for one in found[side]) for side in sides}
    return seconds, {side: max(one["peak_mb"] for one in found[side]) for side in sides}


def two_rows(
    what: str, there: Sequence[Mapping[str, Any]], time: tuple[float, float], memory: tuple[float, float], command: str
) -> list[Row]:
    """A row of time and one of memory, from the rounds that are there; ``time`` and ``memory`` are what is asked, and
    the aim, which is no other one where both are equal."""
    named = (("time", "ratio", 0, time, 2, "s"), ("peak memory above imports", "memory", 1, memory, 0, "MB"))
    rows = []
    for name, key, place, (asked, aim), digits, unit in named:
        told = MISSING
        if there:
            share = statistics.median(each[key] for each in there)
            ours, theirs = ([best(each)[place][side] for each in there] for side in ("ours", "trl"))
            rounds = f" in {len(there)} rounds" if name == "time" else ""
            told = (
                f"{spread([each[key] for each in there], 2)} x{rounds}: {spread(ours, digits)} against "
                f"{spread(theirs, digits)} {unit}; {verdict(share <= asked, share <= aim)}"
            )
        rows.append(Row(f"{what}: {name}", f"{asked:g} x", "" if aim == asked else f"{aim:g} x", told, command))
    return rows
