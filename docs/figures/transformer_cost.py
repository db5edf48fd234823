"""What a token costs a GPT-2: operations of its forward pass by part, and bytes that are read to write one more."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, gpt2

DOCS = Path(__file__).resolve().parents[1]
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GROUPS = (12, 4, 1)
CONTEXT = 1024
PARTS = ("attention's products", "scores and mixture", "feed-forward", "head")


def made(config: TransformerConfig) -> Transformer:
    """A model of shapes without numbers: it is counted, not computed."""
    with torch.device("meta"):
        return Transformer(config).to(torch.bfloat16)


def operations(length: int) -> list[float]:
    """Millions of operations of a token in a text of so many, by part, as PyTorch counts them in the forward pass."""
    model = made(gpt2(length=length))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.logits(model(torch.zeros(1, length, dtype=torch.int64, device="meta")))
    counts = {name: {str(kind): n for kind, n in by.items()} for name, by in counter.get_flop_counts().items()}

    def of(end: str, kind: str) -> int:
        return sum(by.get(kind, 0) for name, by in counts.items() if name.endswith(end))

    scores = of(".attention", "aten.bmm")
    found = (of(".attention", "aten.addmm"), scores, of(".feed_forward", "aten.addmm"), counts["Global"]["aten.mm"])
    assert sum(found) == counter.get_total_flops()
    return [n / length / 1e6 for n in found]


def megabytes(groups: int) -> tuple[float, float]:
    """Of all weights that a step reads, and of one row's cache that is full to the context."""
    model = made(replace(gpt2(), num_key_value_heads=groups))
    places = model.stack.place
    assert places is not None
    weights = sum(parameter.nbytes for parameter in model.parameters()) - places.weight.nbytes
    return weights / 1e6, sum(leaf.nbytes for pair in model.cache(1, CONTEXT).slots for leaf in pair) / 1e6


def measure() -> dict[str, Any]:
    """Both halves of the figure."""
    forward = [{"length": length, "parts": operations(length)} for length in LENGTHS]
    decode = []
    for groups in GROUPS:
        weights, cache = megabytes(groups)
        decode.append({"groups": groups, "weights": weights, "cache": cache})
    return {"forward": forward, "decode": decode}


def heads(groups: int) -> str:
    """What a number of them is called."""
    return f"{groups} heads of keys" if groups > 1 else "1 head of keys"


def draw(result: dict[str, Any], out: Path) -> None:
    """Operations over the length of the text, bytes over the size of the batch."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, (left, right) = plt.subplots(1, 2)
    parts = list(zip(*(row["parts"] for row in result["forward"]), strict=True))
    left.stackplot(LENGTHS, *parts, labels=PARTS, alpha=0.85)
    left.set(xscale="log", xlabel="tokens of the text", ylabel="forward pass, MFLOP a token", ylim=(0, 620))
    left.set_xticks(LENGTHS, [str(length) for length in LENGTHS], rotation=45)
    left.minorticks_off()
    left.legend(loc="upper left")
    for row in result["decode"]:
        total = [row["weights"] / batch + row["cache"] for batch in BATCHES]
        right.plot(BATCHES, total, "o-", label=heads(row["groups"]))
    least = result["decode"][-1]["weights"]
    right.plot(BATCHES, [least / batch for batch in BATCHES], "--", color="0.5", label="its weights alone")
    right.set(xscale="log", yscale="log", xlabel="rows that are written at a time", ylabel="read to write a token, MB")
    right.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
    right.minorticks_off()
    right.legend(loc="lower left")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Count, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "transformer_cost.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "transformer_cost.json")
    options = parser.parse_args(args)
    result = measure()
    print(f"{'forward, MFLOP a token':24}" + "".join(f"{row['length']:>8}" for row in result["forward"]))
    for i, part in enumerate(PARTS):
        print(f"{part:24}" + "".join(f"{row['parts'][i]:8.1f}" for row in result["forward"]))
    print(f"{'all':24}" + "".join(f"{sum(row['parts']):8.1f}" for row in result["forward"]))
    print()
    shown = (1, 8, 64, 256)
    print(
        f"{'read for a token, MB':24}" + "".join(f"{f'{batch} rows' if batch > 1 else '1 row':>10}" for batch in shown)
    )
    for row in result["decode"]:
        print(
            f"{heads(row['groups']):24}" + "".join(f"{row['weights'] / batch + row['cache']:10.1f}" for batch in shown)
        )
    options.data.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out)


if __name__ == "__main__":
    main()
