"""A language model on a GPU: training and writing, beside what the chip itself can do.

    python -m benchmarks.gpu_language                        all cases; without a GPU it says so
    python -m benchmarks.gpu_language --case gpt-decode

*gpt* is a GPT of about 124 million parameters (12 layers of 768, a vocabulary of 50,304), *small* the model of the
other benchmarks (4 layers of 128, a vocabulary of 512). Training is the learner of `pretrain` with bfloat16 products,
as it stands and with `torch_compile`: its model FLOP utilisation is the work of an update's products and attention
(`benchmarks.language_speed` says what counts) over the rate of one product of two large bfloat16 matrices, taken in the
same process, block by block in turn. Writing is `generate` by a model in bfloat16, as it stands and with `cuda_graphs`:
what a step must read, the weights and the cache as far as it is filled, over the rate at which the chip copies a large
tensor (read and written). Both have the best of some repetitions in the numerator's time, and warm up before. Speed
alone: nothing is learnt here.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks import language_speed
from benchmarks.common import MISSING, Results, Row, Work, child, markdown, measure, parser
from torchward.language.generate import generate
from torchward.nets.kv_cache import Cache

NAME = "gpu_language"
SMALL = {"hidden_size": 128, "layers": 4, "heads": 4, "vocab_size": 512, "rows": 16, "length": 128}
GPT = {"hidden_size": 768, "layers": 12, "heads": 12, "vocab_size": 50_304, "rows": 16, "length": 1024}
SHAPES = {
    "small": {**SMALL, "slots": 64, "prompt": 16, "new": 64},
    "gpt": {**GPT, "slots": 64, "prompt": 64, "new": 192},
}
WAYS = ("train", "decode")
CASES = {f"{name}-{way}": (name, way) for name in SHAPES for way in WAYS}
SETTING = {"warm": 5, "blocks": 10, "updates": 5, "side": 8192, "copied": 2**28, "repetitions": 5}
"""How often, the side of the matrices of the product, and how many numbers of two bytes are copied."""


def synchronise(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], count: int, device: str) -> float:
    """How long it takes, on the average."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(count):
        work()
    synchronise(device)
    return (time.perf_counter() - start) / count


def train(shape: dict[str, int], device: str, compiled: bool, setting: dict[str, int]) -> dict[str, float]:
    """Tokens a second of training, and its share of the rate of a product."""
    learner, rows = language_speed.made(shape, device=device, bf16=True, torch_compile=compiled)
    rows = rows.to(device)
    one, other = (torch.randn(setting["side"], setting["side"], device=device, dtype=torch.bfloat16) for _ in range(2))
    product, update = partial(torch.mm, one, other), partial(learner.update, [rows])
    for work in (update, product):
        seconds(work, setting["warm"], device)
    products, updates = [seconds(product, setting["updates"], device)], []
    for _ in range(setting["blocks"]):
        updates.append(seconds(update, setting["updates"], device))
        products.append(seconds(product, setting["updates"], device))
    around = [2 * setting["side"] ** 3 * 2 / (before + after) for before, after in pairwise(products)]
    work_of = language_speed.operations(shape)
    return {
        "tokens_per_second": round(shape["rows"] * shape["length"] / statistics.median(updates), 1),
        "share": round(statistics.median(work_of / s / rate for s, rate in zip(updates, around, strict=True)), 4),
        "machine": round(statistics.median(around) / 1e12, 2),
    }


def decode(shape: dict[str, int], device: str, graphs: bool, setting: dict[str, int]) -> dict[str, float]:
    """Tokens a second of writing, and its share of the rate of a copy."""
    learner, _ = language_speed.made({**shape, "length": shape["prompt"] + shape["new"]}, device=device)
    policy: Any = learner.policy
    policy = policy.to(torch.bfloat16).eval()
    policy.cuda_graphs = graphs
    prompts = torch.randint(shape["vocab_size"], (shape["slots"], shape["prompt"])).tolist()
    generator = torch.Generator(device).manual_seed(0)
    noise = policy.noise((shape["new"], shape["slots"]), generator)
    write = partial(
        generate, policy, prompts, eos_id=-1, max_new_tokens=shape["new"], noise=noise, slots=shape["slots"]
    )
    here = torch.empty(setting["copied"], device=device, dtype=torch.bfloat16)
    copy = partial(torch.empty_like(here).copy_, here)
    for work in (write, copy):
        seconds(work, 1, device)
    times = [seconds(write, 1, device) for _ in range(setting["repetitions"])]
    rate = 2 * here.nbytes / min(seconds(copy, setting["updates"], device) for _ in range(setting["repetitions"]))
    share = shape["new"] * needed(policy, shape) / min(times) / rate
    told = shape["slots"] * shape["new"] / min(times)
    return {"tokens_per_second": round(told, 1), "share": round(share, 4), "machine": round(rate / 1e9, 1)}


def needed(policy: Any, shape: dict[str, int]) -> float:
    """The bytes that a step must read, on the average: all weights, each once, and what the cache holds by then. Of an
    embedding that is no head it reads a row each, and of positions: those do not count."""
    places = policy.body.stack.place.weight
    weights = sum(x.nbytes for x in policy.parameters()) - places.nbytes
    cache: Cache = policy.body.cache(1, 1)
    of_a_token = sum(leaf.nbytes for leaf in (*cache.keys, *cache.values))
    return float(weights + shape["slots"] * of_a_token * (shape["prompt"] + (shape["new"] + 1) / 2))


def one(case: str) -> dict[str, Any]:
    """A case, in this process: as it stands, and with the option."""
    name, way = CASES[case]
    done = {"train": train, "decode": decode}[way]
    found = {f"{on}": done(SHAPES[name], "cuda", on, SETTING) for on in (False, True)}
    return {**found, "device": torch.cuda.get_device_name()}


def settings(case: str) -> dict[str, Any]:
    return {**SETTING, **SHAPES[CASES[case][0]], "case": case}


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    for case, (name, way) in CASES.items():
        result, measured = results.read(case, settings(case)), MISSING
        if result is not None:
            plain, with_it = result["False"], result["True"]
            option, unit = ("torch_compile", "TFLOP/s") if way == "train" else ("cuda_graphs", "GB/s")
            measured = (
                f"{plain['tokens_per_second']:,.0f} tokens/s, {plain['share']:.2f} of {plain['machine']:,.0f} {unit}; "
                f"with {option} {with_it['tokens_per_second']:,.0f}, {with_it['share']:.2f}; {result['device']}"
            )
        what = {
            "train": "training on a GPU, bfloat16: model FLOP utilisation over the rate of a product",
            "decode": "writing on a GPU, bfloat16, 64 at once: what a step must read, over the rate of a copy",
        }[way]
        model = "4 layers x 128" if name == "small" else "a GPT of 124 M parameters"
        found.append(Row(f"{what}; {model}", "", "", measured, f"python -m benchmarks.{NAME} --case {case}"))
    return found


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    options.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        print(json.dumps(one(given.case[0])))
        return
    if not given.table:
        if not torch.cuda.is_available():
            sys.exit("expected a GPU, which torch.cuda finds, got none: nothing was measured")
        results = Results(NAME, given.results)
        if given.fresh:
            results.clear()
        works = [
            Work(
                case, settings(case),
                partial(child, [sys.executable, "-m", f"benchmarks.{NAME}", "--one", "--case", case], 4),
                lambda result: f"{result['False']['share']:.2f}, {result['True']['share']:.2f}",
            )
            for case in given.case
        ]  # fmt: skip
        measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
