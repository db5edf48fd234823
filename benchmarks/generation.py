"""Generation: tokens a second of 64 completions at once, beside transformers' `generate` with the same weights.

    python -m benchmarks.generation                      all cases, each side on 1 and on 2 threads, 5 rounds
    python -m benchmarks.generation --case ragged --rounds 3

The model: 4 layers of 128, 4 heads, a vocabulary of 512, float32. 64 prompts of 16 tokens. *equal*: each completion has
64 tokens. *ragged*: completion i has a length drawn from 1 to 64, the same on both sides, where it ends; only the
tokens up to there count. *waiting*: 512 such prompts, 64 at a time; ours lets others enter where some have ended,
theirs takes them in eight batches, as `generate` does. Both sides sample at temperature 1 with a key-value cache, and
keep log-probabilities: ours always does, theirs is asked for logits (`output_logits`) or not, whichever is faster: not.
In a round four processes, each side on 1 and on 2 threads, warm up with one generation each and then generate in turn,
fifteen times, with 512 prompts three times: what other guests of a host do hits all of them alike. A process's figure
is its fastest one, a side's that of its better number of threads.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from functools import partial
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
    in_turn,
    markdown,
    measure,
    parser,
    require_peers,
    spread,
    verdict,
)

NAME = "generation"
CASES = {"equal": (2.0, 4.0), "ragged": (3.0, 4.0), "waiting": (3.0, 4.0)}
"""What is asked, and the aim."""
TURNS = {"equal": 15, "ragged": 15, "waiting": 3}
PROMPTS = {"equal": 64, "ragged": 64, "waiting": 512}
SHAPE = {"hidden_size": 128, "layers": 4, "heads": 4, "vocab_size": 512, "batch": 64, "prompt": 16, "new": 64}


def lengths(case: str) -> list[int]:
    """How many tokens each completion has."""
    random = Random(0)
    return [SHAPE["new"] if case == "equal" else random.randint(1, SHAPE["new"]) for _ in range(PROMPTS[case])]


def prompts(case: str) -> list[list[int]]:
    random = Random(1)
    return [[random.randrange(SHAPE["vocab_size"]) for _ in range(SHAPE["prompt"])] for _ in range(PROMPTS[case])]


def model() -> Any:
    """The model of both sides."""
    import torch

    from torchward.nets.transformer import Transformer
    from torchward.nets.transformer_config import gpt2

    torch.manual_seed(0)
    config = gpt2(SHAPE["vocab_size"], SHAPE["hidden_size"], SHAPE["layers"], SHAPE["heads"], 256)
    from dataclasses import replace

    return Transformer(replace(config, value_head=True))


def ours(case: str, threads: int) -> None:
    """Torchward's side, in this process: a generation for each line that is read."""
    import torch

    from torchward.language.generate import generate
    from torchward.nets.heap import keep_freed
    from torchward.nets.language_model import LanguageModel

    keep_freed()  # as every loop does that writes to learn
    torch.set_num_threads(threads)
    policy = LanguageModel(model(), {})
    wanted = lengths(case)
    noise = policy.noise((SHAPE["new"], len(wanted)), torch.Generator().manual_seed(0))

    def once() -> float:
        start = time.perf_counter()
        done = generate(policy, prompts(case), eos_id=-1, max_new_tokens=wanted, noise=noise, slots=SHAPE["batch"])
        seconds = time.perf_counter() - start
        assert done.lengths.tolist() == wanted
        return seconds

    once()
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        print(once(), flush=True)


def one_round(case: str, number: int) -> dict[str, Any]:
    """Both sides, on 1 and on 2 threads."""
    from torchward.language import hub

    sides, threads = ("ours", "transformers") * 2, (1, 1, 2, 2)
    with tempfile.TemporaryDirectory() as directory:
        hub.save(model(), Path(directory))
        told = Path(directory) / "told.json"
        told.write_text(json.dumps({"prompts": prompts(case), "lengths": lengths(case), "batch": SHAPE["batch"]}))
        theirs: list[str | Path] = [
            PEERS,
            ROOT / "benchmarks" / "peers" / "transformers_generation.py",
            f"--model={directory}",
            f"--told={told}",
        ]
        mine: list[str | Path] = [sys.executable, "-m", f"benchmarks.{NAME}", "--ours", "--case", case]
        commands = [
            [*(mine if side == "ours" else theirs), f"--threads={count}"]
            for side, count in zip(sides, threads, strict=True)
        ]
        each = in_turn(commands, threads, TURNS[case])
    found: dict[str, Any] = {"ours": [], "transformers": []}
    for side, one in zip(sides, each, strict=True):
        found[side].append({**one, "tokens_per_second": round(sum(lengths(case)) / min(one["seconds"]), 1)})
    best = {side: max(one["tokens_per_second"] for one in each) for side, each in found.items()}
    return {**found, "ratio": best["ours"] / best["transformers"]}


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    for case, (asked, aim) in CASES.items():
        there = [one for number in range(100) if (one := results.read(key(case, number), settings(case))) is not None]
        measured = MISSING
        if there:
            best = {
                side: [max(one["tokens_per_second"] for one in each[side]) for each in there]
                for side in ("ours", "transformers")
            }
            ratio = statistics.median(each["ratio"] for each in there)
            measured = (
                f"{spread([each['ratio'] for each in there], 2)} x in {len(there)} rounds: {spread(best['ours'], 0)} "
                f"against {spread(best['transformers'], 0)} tokens/s; {verdict(ratio >= asked, ratio >= aim)}"
            )
        lengths = "ragged lengths, 512 prompts" if case == "waiting" else f"{case} lengths"
        what = f"generation, 4 layers x 128, 64 at once, 64 new tokens, {lengths}: against transformers' generate"
        found.append(Row(what, f"{asked:g} x", f"{aim:g} x", measured, f"python -m benchmarks.{NAME}"))
    return found


def settings(case: str) -> dict[str, Any]:
    return {**SHAPE, "case": case, "prompts": PROMPTS[case], "turns": TURNS[case]}


def key(case: str, number: int) -> str:
    return f"{case}-round-{number:02d}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ours:
        ours(given.case[0], given.threads)
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
            key(case, number), settings(case), partial(one_round, case, number),
            lambda result: f"{result['ratio']:.2f} x",
        )
        for number in range(given.rounds)
        for case in given.case
    ]  # fmt: skip
    measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
