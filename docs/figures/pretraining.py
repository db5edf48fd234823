"""How large a model for how much text: three sizes, each trained from anew on three amounts of Python's own English;
and how large the weights should be at first.

python docs/figures/pretraining.py   (about ten minutes of one slow core)
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from torchward.algorithms import pretrain
from torchward.language.text_task import Text
from torchward.nets.transformer_config import gpt2
from torchward.run import Run, RunOptions
from torchward.tasks.python_topics import Options, make

DOCS = Path(__file__).resolve().parents[1]
SIZES = ((2, 32), (4, 64), (4, 128))
"""Layers and width."""
TOKENS = (32_768, 131_072, 393_216)
SEEDS = 3
BEGIN = (0.02, 0.06, 0.18)
"""Standard deviations of the weights at first; the sweep has the middle one."""
LENGTH = 128


def run_once(task: Text, layers: int, width: int, tokens: int, seed: int, begin: float = BEGIN[1]) -> dict[str, Any]:
    """Bits per byte at the end, of what was held out; and what a token has cost to learn."""
    config = pretrain.Config(
        total_timesteps=tokens, max_length=LENGTH, per_device_train_batch_size=4, learning_rate=3e-3, seed=seed,
        model=replace(gpt2(512, width, layers, width // 32, LENGTH), initializer_range=begin),
    )  # fmt: skip
    options = RunOptions(eval_freq=tokens, checkpoint_freq=-1, tensorboard=False, progress=False)
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=tokens, manifest={"figure": "pretraining"})
        policy = pretrain.train(config, task, run)
        (held_out,) = [row["eval/bits_per_byte"] for row in run.rows() if "eval/bits_per_byte" in row]
    products = sum(p.numel() for name, p in policy.named_parameters() if p.dim() > 1 and "place" not in name)
    return {
        "seed": seed,
        "held_out": held_out,
        "products": products,
        "epochs": tokens / int(task.corpus().train.learnt),
    }


def operations(products: int, layers: int, width: int, tokens: int) -> float:
    """Of a whole training: six for each weight of a product and token, and attention's own."""
    return tokens * (6.0 * products + 12.0 * layers * width * LENGTH)


def measure() -> dict[str, Any]:
    """Each size with each amount; and the middle of both with each beginning."""
    task = Text(make(Options()))
    found, (layers, width), tokens = [], SIZES[1], TOKENS[1]
    begun = []
    for begin in BEGIN:
        runs = [run_once(task, layers, width, tokens, seed, begin) for seed in range(SEEDS)]
        begun.append({"begin": begin, "runs": runs})
        print(f"{begin}: {[round(run['held_out'], 3) for run in runs]}", flush=True)
    for layers, width in SIZES:
        for tokens in TOKENS:
            runs = [run_once(task, layers, width, tokens, seed) for seed in range(SEEDS)]
            cell = {"layers": layers, "width": width, "tokens": tokens, "runs": runs}
            found.append({**cell, "operations": operations(runs[0]["products"], layers, width, tokens)})
            print(f"{layers} x {width}, {tokens:,}: {[round(run['held_out'], 3) for run in runs]}", flush=True)
    return {"sizes": found, "begun": begun}


def bits(cell: dict[str, Any]) -> list[float]:
    """Bits per byte, seed by seed."""
    return [float(run["held_out"]) for run in cell["runs"]]


def mean(cell: dict[str, Any]) -> float:
    """Bits per byte over the seeds."""
    return statistics.fmean(bits(cell))


def show(measured: dict[str, Any]) -> None:
    """The tables."""
    found = measured["sizes"]
    print(f"{'bits per byte, held out':26}" + "".join(f"{tokens:>16,}" for tokens in TOKENS) + "  tokens")
    epochs = [cell["runs"][0]["epochs"] for cell in found[: len(TOKENS)]]
    print(f"{'':26}" + "".join(f"{each:16.1f}" for each in epochs) + "  times the text")
    for i, (layers, width) in enumerate(SIZES):
        cells = found[i * len(TOKENS) : (i + 1) * len(TOKENS)]
        name = f"{layers} layers of {width}, {cells[0]['runs'][0]['products'] / 1000:,.0f} k"
        line = "".join(f"{mean(cell):9.2f} ± {spread(cell):.2f}" + "  " for cell in cells)
        print(f"{name:26}{line}".rstrip())
    print("\n10^12 operations")
    for i, (layers, width) in enumerate(SIZES):
        cells = found[i * len(TOKENS) : (i + 1) * len(TOKENS)]
        print(f"{f'{layers} layers of {width}':26}" + "".join(f"{cell['operations'] / 1e12:16.2f}" for cell in cells))
    (layers, width), tokens = SIZES[1], TOKENS[1]
    print(f"\n{layers} layers of {width}, {tokens:,} tokens, bits per byte held out")
    for cell in measured["begun"]:
        print(f"weights of deviation {cell['begin']:.2f} at first: {mean(cell):.2f} ± {spread(cell):.2f}")


def spread(cell: dict[str, Any]) -> float:
    """The deviation between seeds."""
    return statistics.stdev(bits(cell))


def draw(found: list[dict[str, Any]], out: Path) -> None:
    """Bits per byte over tokens, and over what they cost."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, (left, right) = plt.subplots(1, 2, sharey=True)
    for i, (layers, width) in enumerate(SIZES):
        cells = found[i * len(TOKENS) : (i + 1) * len(TOKENS)]
        for axis, x in ((left, TOKENS), (right, [cell["operations"] for cell in cells])):
            axis.plot(x, [mean(cell) for cell in cells], "-", color=f"C{i}", label=f"{layers} layers of {width}")
            for place, cell in zip(x, cells, strict=True):
                axis.plot([place] * SEEDS, bits(cell), "o", color=f"C{i}", markersize=4, alpha=0.7)
    left.set(xscale="log", xlabel="tokens learnt from", ylabel="bits per byte, held out")
    left.set_xticks(TOKENS, [f"{tokens // 1024} k" for tokens in TOKENS])
    left.minorticks_off()
    left.legend()
    right.set(xscale="log", xlabel="operations of the whole training")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "pretraining.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "pretraining.json")
    parser.add_argument("--drawn", action="store_true", help="draw and print what the data hold, and measure nothing")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    found = json.loads(options.data.read_text()) if options.drawn else measure()
    show(found)
    if not options.drawn:
        options.data.write_text(json.dumps(found, indent=1) + "\n")
    draw(found["sizes"], options.out)


if __name__ == "__main__":
    main()
