"""A step of GRPO: its time, and its memory above what the imports take, beside TRL's.

    python -m benchmarks.grpo_step                  each side on 1 and on 2 threads, 5 rounds
    python -m benchmarks.grpo_step --rounds 1 --steps 6

The model: 4 layers of 128, 4 heads, a vocabulary of 512, float32, the same weights on both sides. A step: 8 prompts of
16 tokens, 8 completions of each of at most 64 tokens, a cheap reward, the log-probabilities of a reference (beta 0.04),
one step of AdamW on all 64. The time is the median of the steps after the first three, and a side's figure in a round
is that of its better number of threads; memory is the process's peak less what it was when all was imported, the
larger of the two. Ours is the loop of a run, with its metrics; theirs that of their trainer, without logs, drawings and
saving.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.common import (
    MISSING,
    PEERS,
    ROOT,
    Results,
    Row,
    Work,
    child,
    markdown,
    measure,
    parser,
    require_peers,
    spread,
    verdict,
)
from benchmarks.generation import model

NAME = "grpo_step"
ASKED, AIM = 0.65, 0.5
ASKED_MEMORY = 0.5
SHAPE = {"vocab_size": 512, "eos_id": 510, "pad_id": 511, "completions": 64, "group": 8, "new": 64}
BETA = 0.04
PROMPT, WARM = 16, 3


def prompts(count: int) -> list[list[int]]:
    random = Random(1)
    return [[random.randrange(500) for _ in range(PROMPT)] for _ in range(count)]


def told(steps: int) -> dict[str, Any]:
    return {**SHAPE, "beta": BETA, "prompts": prompts(64), "steps": steps, "warm": WARM}


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(threads: int, steps: int) -> dict[str, Any]:
    """Torchward's measurement, in this process. The moments are those of the run's own lines of metrics."""
    import torch

    from torchward.algorithms import grpo
    from torchward.language.documents import Document, Prompt
    from torchward.language.task import Problems
    from torchward.language.text_task import Text
    from torchward.metrics import read_metrics
    from torchward.nets.language_model import LanguageModel
    from torchward.run import Run, RunOptions

    torch.set_num_threads(threads)
    before = peak()

    def reward(prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [float(len(set(completion.split()))) for completion in completions]

    documents = [Document(Prompt(" ".join(map(str, ids))), str(number)) for number, ids in enumerate(prompts(64))]
    problems = Problems("step", documents, documents, reward, max_completion_length=SHAPE["new"])
    task = Text(problems, Numbers())  # type: ignore[arg-type]
    policy = LanguageModel(model(), {})
    config = grpo.Config(
        total_timesteps=steps * SHAPE["completions"] * SHAPE["new"], num_generations=SHAPE["group"],
        generation_batch_size=SHAPE["completions"], beta=BETA, learning_rate=1e-4,
    )  # fmt: skip
    options = RunOptions(eval_freq=-1, checkpoint_freq=-1, tensorboard=False, progress=False)
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=config.total_timesteps, manifest={"algorithm": "grpo"})
        grpo.train(config, task, run, policy)
        moments = [row["time"] for row in read_metrics(run.path)]
    seconds = [b - a for a, b in pairwise(moments)]
    return {
        "seconds": round(statistics.median(seconds[WARM - 1 :]), 4),
        "peak_mb": round(peak() - before, 1),
        "steps": len(moments),
        "threads": torch.get_num_threads(),
    }


class Numbers:
    """Token i is the word i: so that both sides read the same prompts, of the same length."""

    vocab_size, start_id, eos_id, pad_id = SHAPE["vocab_size"], 509, SHAPE["eos_id"], SHAPE["pad_id"]

    def encode(self, text: str) -> list[int]:
        """Its numbers; the first one is left to the start, so that a prompt has as many tokens as on the other side."""
        return [int(word) for word in text.split()][1:]

    def decode(self, ids: Any) -> str:
        """The numbers as words, without end-of-text."""
        return " ".join(str(token) for token in ids if token != self.eos_id)

    def bytes_of(self, token: int) -> bytes:
        """The number."""
        return f"{token} ".encode()


def one_round(number: int, steps: int) -> dict[str, Any]:
    """Both sides, on 1 and on 2 threads."""
    from torchward.language import hub

    found: dict[str, Any] = {"ours": [], "trl": []}
    with tempfile.TemporaryDirectory() as directory:
        hub.save(model(), Path(directory))
        file = Path(directory) / "told.json"
        file.write_text(json.dumps(told(steps)))
        theirs: list[str | Path] = [
            PEERS,
            ROOT / "benchmarks" / "peers" / "trl_grpo.py",
            f"--model={directory}",
            f"--told={file}",
        ]
        for threads in (1, 2):
            mine = [sys.executable, "-m", f"benchmarks.{NAME}", "--ours", f"--threads={threads}", f"--steps={steps}"]
            found["ours"].append(child(mine, threads))
            found["trl"].append(child([*theirs, f"--threads={threads}"], threads))
    seconds = {side: min(one["seconds"] for one in each) for side, each in found.items()}
    memory = {side: max(one["peak_mb"] for one in each) for side, each in found.items()}
    return {**found, "ratio": seconds["ours"] / seconds["trl"], "memory": memory["ours"] / memory["trl"]}


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    there = [one for number in range(100) if (one := results.read(key(number), {**SHAPE, "beta": BETA})) is not None]
    time, memory = MISSING, MISSING
    if there:
        seconds = {side: [min(one["seconds"] for one in each[side]) for each in there] for side in ("ours", "trl")}
        peaks = {side: [max(one["peak_mb"] for one in each[side]) for each in there] for side in ("ours", "trl")}
        ratio = statistics.median(each["ratio"] for each in there)
        share = statistics.median(each["memory"] for each in there)
        time = (
            f"{spread([each['ratio'] for each in there], 2)} x in {len(there)} rounds: {spread(seconds['ours'], 2)} "
            f"against {spread(seconds['trl'], 2)} s; {verdict(ratio <= ASKED, ratio <= AIM)}"
        )
        memory = (
            f"{spread([each['memory'] for each in there], 2)} x: {spread(peaks['ours'], 0)} against "
            f"{spread(peaks['trl'], 0)} MB; {verdict(share <= ASKED_MEMORY, share <= ASKED_MEMORY)}"
        )
    what = "a GRPO step, 64 completions in groups of 8, up to 64 tokens, with a reference, against TRL's"
    command = f"python -m benchmarks.{NAME}"
    return [
        Row(f"{what}: time", f"{ASKED:g} x", f"{AIM:g} x", time, command),
        Row(f"{what}: peak memory above imports", f"{ASKED_MEMORY:g} x", "", memory, command),
    ]


def key(number: int) -> str:
    return f"round-{number:02d}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ours:
        print(json.dumps(ours(given.threads, given.steps)))
        return
    if given.table:
        print(markdown(rows(given.results)))
        return
    require_peers()
    results = Results(NAME, given.results)
    if given.fresh:
        results.clear()
    works = [
        Work(
            key(number), {**SHAPE, "beta": BETA}, partial(one_round, number, given.steps),
            lambda result: f"{result['ratio']:.2f} x the time, {result['memory']:.2f} x the memory",
        )
        for number in range(given.rounds)
    ]  # fmt: skip
    measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
