"""Training a language model: tokens a second beside transformers, and the floating-point rate over the machine's own.

    python -m benchmarks.language_speed                   5 rounds: ours, theirs, on 1 thread and on 2, in turn
    python -m benchmarks.language_speed --rounds 1

The model: 4 layers of 128, 4 heads, a vocabulary of 512, float32, without dropout; 16 rows of 128 tokens, all of them
learnt. Both sides begin with the same weights, and an update is zeroing the gradients, the forward pass and the loss,
the backward pass, clipping by the norm, and a step of AdamW. Ours is the learner of `pretrain` as it stands, its
metrics included; theirs GPT2LMHeadModel with labels and torch.optim.AdamW(fused=True), which transformers' own Trainer
takes by default. A process of its own for every measurement; in it blocks of updates and of products of matrices
(`torch.mm` of 1024 x 1024 into memory that it is given) take turns, so that noise hits both alike, and the first
updates do not count. A side's figure in a round is that of its better number of threads. The share of the machine's
rate is a process's median over its blocks of the rate there over the mean of the two rates around it.

The work of an update is that of its products alone, counted by hand: a weight of a product costs each token 2
operations forward and 4 backward; attention 4 x 128 for each token that is seen, in each layer, three times that with
the backward pass, and on the average (128 + 1) / 2 tokens are seen. Who computes what a causal mask forbids, or norms,
activations and the loss, has that in the time and not in the work.

What remains when all of that is left out is measured beside it: the same products, forward and backward, and attention
by PyTorch's one operation, with nothing between them. Who calls PyTorch's operations one by one can hardly be faster.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from torchward.algorithms.pretrain import Learner
    from torchward.data.packing import Rows

NAME = "language_speed"
ASKED, AIM = 1.5, 1.5
"""Tokens a second over theirs."""
SHARE_ASKED, SHARE_AIM = 0.5, 0.65
"""Of the machine's own rate."""
SHAPE = {"hidden_size": 128, "layers": 4, "heads": 4, "vocab_size": 512, "rows": 16, "length": 128}
SETTING: dict[str, Any] = {"warm": 3, "blocks": 10, "updates": 4, "products": 8}
SIDE = 1024
"""Rows and columns of the matrices whose product is the machine's own rate."""


def operations(shape: Mapping[str, int] = SHAPE) -> int:
    """The floating-point operations of an update's products."""
    width, length = shape["hidden_size"], shape["length"]
    weights = shape["layers"] * 12 * width**2 + shape["vocab_size"] * width
    seen = 12 * shape["layers"] * width * (length + 1) // 2
    return shape["rows"] * length * (6 * weights + seen)


def made(shape: Mapping[str, int] = SHAPE, **changes: Any) -> "tuple[Learner, Rows]":
    """The learner of pretraining, and a batch of random tokens. ``changes`` are of its config."""
    from dataclasses import replace

    import torch

    from torchward.algorithms import pretrain
    from torchward.data.packing import Rows
    from torchward.nets.adamw import decayed
    from torchward.nets.heap import keep_freed
    from torchward.nets.language_model import LanguageModel
    from torchward.nets.transformer import Transformer
    from torchward.nets.transformer_config import gpt2

    keep_freed()  # as the loop does
    torch.manual_seed(0)
    context = max(256, shape["length"])
    config = gpt2(shape["vocab_size"], shape["hidden_size"], shape["layers"], shape["heads"], context)
    settings = pretrain.Config(**changes)
    policy = LanguageModel(Transformer(replace(config, value_head=True)), {}).to(settings.device)
    groups = decayed(policy.parameters(), settings.weight_decay)
    learner = pretrain.Learner(policy, settings, torch.ones(shape["vocab_size"], dtype=torch.int64), groups)
    size = (shape["rows"], shape["length"])
    tokens = torch.randint(shape["vocab_size"], (size[0], size[1] + 1))
    places = torch.arange(size[1]).expand(size)
    mask = torch.ones(size, dtype=torch.bool)
    return learner, Rows(tokens[:, :-1], tokens[:, 1:], mask, places, torch.zeros(size, dtype=torch.int64))


def bare() -> Callable[[], None]:
    """What computes the products of an update and its attention, forward and backward, and nothing else."""
    import torch
    from torch.nn import functional as F

    width, tokens = SHAPE["hidden_size"], SHAPE["rows"] * SHAPE["length"]
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)] * SHAPE["layers"]
    weights = [torch.randn(outputs, inputs) for inputs, outputs in [*shapes, (width, SHAPE["vocab_size"])]]
    inputs = [torch.randn(tokens, weight.shape[1]) for weight in weights]
    changes = [torch.randn(tokens, weight.shape[0]) for weight in weights]
    heads = SHAPE["rows"], SHAPE["heads"], SHAPE["length"], width // SHAPE["heads"]
    looks = [[torch.randn(heads, requires_grad=True) for _ in range(3)] for _ in range(SHAPE["layers"])]
    change = torch.randn(heads)

    def compute() -> None:
        for x, weight in zip(inputs, weights, strict=True):
            torch.mm(x, weight.T)
        mixtures = [F.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in looks]
        for mixture, look in zip(mixtures, looks, strict=True):
            torch.autograd.grad(mixture, look, change)
        for x, weight, upstream in zip(inputs, weights, changes, strict=True):
            torch.mm(upstream, weight)
            torch.mm(upstream.T, x)

    return compute


def ours(threads: int, setting: dict[str, Any]) -> dict[str, Any]:
    """Torchward's measurement, in this process."""
    import torch

    torch.set_num_threads(threads)
    learner, rows = made()
    one, other, into = (torch.randn(SIDE, SIDE) for _ in range(3))
    work = {
        "products": lambda: torch.mm(one, other, out=into),
        "updates": lambda: learner.update([rows]),
        "bare": bare(),
    }

    def seconds(name: str, count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            work[name]()
        return (time.perf_counter() - start) / count

    for name in work:
        seconds(name, setting["warm"])
    products, updates, least = [seconds("products", setting["products"])], [], []
    for _ in range(setting["blocks"]):
        updates.append(seconds("updates", setting["updates"]))
        products.append(seconds("products", setting["products"]))
        least.append(seconds("bare", setting["updates"]))
    return {
        **summary(updates, products, torch.get_num_threads()),
        "bare_share": summary(least, products, threads)["share"],
    }


def summary(updates: list[float], products: list[float], threads: int) -> dict[str, Any]:
    """What the seconds of an update in each block say, and of a product of matrices before, between and behind them."""
    machine = [2 * SIDE**3 / seconds for seconds in products]
    around = [(before + after) / 2 for before, after in pairwise(machine)]
    rates = [operations() / seconds for seconds in updates]
    return {
        "tokens_per_second": round(SHAPE["rows"] * SHAPE["length"] / statistics.median(updates), 1),
        "share": round(statistics.median(rate / own for rate, own in zip(rates, around, strict=True)), 4),
        "gflops": round(statistics.median(rates) / 1e9, 2),
        "machine_gflops": round(statistics.median(machine) / 1e9, 2),
        "seconds": [round(seconds, 5) for seconds in updates],
        "threads": threads,
    }


def one_round(number: int, setting: dict[str, Any]) -> dict[str, Any]:
    """Both sides, on 1 and on 2 threads; every other round theirs is first."""
    from torchward.language import hub

    found: dict[str, Any] = {"ours": [], "transformers": []}
    told = json.dumps({name: setting[name] for name in SETTING})
    with tempfile.TemporaryDirectory() as directory:
        learner, _ = made()
        hub.save(learner.policy.body, Path(directory))  # type: ignore[arg-type]  # it is a transformer of ours
        program = ROOT / "benchmarks" / "peers" / "transformers_training.py"
        shape = [f"--rows={SHAPE['rows']}", f"--length={SHAPE['length']}", f"--side={SIDE}", f"--setting={told}"]
        for threads in (1, 2):
            sides: list[tuple[str, list[str | Path]]] = [
                ("ours", [sys.executable, "-m", f"benchmarks.{NAME}", "--ours", f"--setting={told}"]),
                ("transformers", [PEERS, program, f"--model={directory}", *shape]),
            ]
            for side, command in sides if number % 2 == 0 else sides[::-1]:
                answer = child([*command, f"--threads={threads}"], threads)
                if side == "transformers":
                    answer |= summary(answer.pop("updates"), answer.pop("products"), answer["threads"])
                found[side].append(answer)
    best = {side: max(one["tokens_per_second"] for one in each) for side, each in found.items()}
    return {**found, "ratio": best["ours"] / best["transformers"]}


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    there = [one for number in range(100) if (one := results.read(key(number), settings())) is not None]
    measured, command = MISSING, f"python -m benchmarks.{NAME}"
    if there:
        best = {
            side: [max(one["tokens_per_second"] for one in each[side]) for each in there]
            for side in ("ours", "transformers")
        }
        ratio = statistics.median(each["ratio"] for each in there)
        measured = (
            f"{spread([each['ratio'] for each in there], 2)} x in {len(there)} rounds: {spread(best['ours'], 0)} "
            f"against {spread(best['transformers'], 0)} tokens/s; {verdict(ratio >= ASKED, ratio >= AIM)}"
        )
    what = "training, 4 layers x 128, vocabulary 512, 16 x 128 tokens: tokens/s against transformers and AdamW"
    found.append(Row(what, f"{ASKED} x", "", measured, command))
    for place, threads in enumerate((1, 2)):
        measured = MISSING
        if there:
            mine, theirs = ([each[side][place] for each in there] for side in ("ours", "transformers"))
            share = statistics.median(one["share"] for one in mine)
            measured = (
                f"{spread([one['share'] for one in mine], 2)} in {len(there)} processes: "
                f"{statistics.median(one['gflops'] for one in mine):.0f} of "
                f"{statistics.median(one['machine_gflops'] for one in mine):.0f} GFLOP/s; transformers' "
                f"{statistics.median(one['share'] for one in theirs):.2f}; "
                f"{verdict(share >= SHARE_ASKED, share >= SHARE_AIM)}"
            )
        what = (
            f"the same: its floating-point rate ({operations() / 1e9:.1f} GFLOP an update) over that of a product of "
            f"1024 x 1024, {threads} thread{'s' * (threads > 1)}"
        )
        found.append(Row(what, f"{SHARE_ASKED}", f"{SHARE_AIM}", measured, command))
    measured = MISSING
    if there:
        shares = [one["bare_share"] for each in there for one in each["ours"]]
        limits = [
            max(a["tokens_per_second"] * a["bare_share"] / a["share"] for a in each["ours"])
            / max(b["tokens_per_second"] for b in each["transformers"])
            for each in there
        ]
        measured = (
            f"{spread(shares, 2)} of the machine's rate, on 1 thread and on 2: {spread(limits, 2)} x transformers is "
            f"the limit of what calls PyTorch's operations one by one"
        )
    what = "the same: the products and the attention of an update alone, nothing between them"
    found.append(Row(what, "", "", measured, command))
    return found


def settings(**changes: Any) -> dict[str, Any]:
    return {**SETTING, **changes, **SHAPE, "operations": operations()}


def key(number: int) -> str:
    return f"training-round-{number:02d}"


def main() -> None:
    options = parser(NAME, __doc__ or "")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options.add_argument("--setting", type=json.loads, default=SETTING, help=argparse.SUPPRESS)
    options.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ours:
        print(json.dumps(ours(given.threads, given.setting)))
        return
    if given.table:
        print(markdown(rows(given.results)))
        return
    require_peers()
    results, setting = Results(NAME, given.results), settings(**given.setting)
    if given.fresh:
        results.clear()
    works = [
        Work(
            key(number), setting, partial(one_round, number, setting),
            lambda result: f"{result['ratio']:.2f} x, {max(one['share'] for one in result['ours']):.2f} of the machine",
        )
        for number in range(given.rounds)
    ]  # fmt: skip
    measure(results, works)
    print(markdown(rows(given.results)))


if __name__ == "__main__":
    main()
