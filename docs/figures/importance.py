"""What importance weights cost: the effective sample size over the number of steps whose ratios are multiplied."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

from torchward.functional.divergences import gaussian_kl

DOCS = Path(__file__).resolve().parents[1]
DIVERGENCES = (0.001, 0.01, 0.05)
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SAMPLES, REPEATS = 20_000, 5


def shift(divergence: float) -> float:
    """How far, in standard deviations, two normals of equal width lie apart that have this KL divergence."""
    distance = math.sqrt(2.0 * divergence)
    zero = torch.zeros(1, dtype=torch.float64)
    assert abs(float(gaussian_kl(zero + distance, zero, zero, zero)) - divergence) < 1e-12
    return distance


def sampled(divergence: float, steps: int, generator: torch.Generator) -> float:
    """(sum w)^2 / sum w^2 over the number of samples, where w is the product of the ratios of so many steps.

    The logarithm of a step's ratio is d x - d^2 / 2 for a standard normal x; that of the product is their sum."""
    distance = shift(divergence)
    x = torch.randn(REPEATS, SAMPLES, generator=generator, dtype=torch.float64) * steps**0.5
    log_weight = distance * x - steps * distance**2 / 2
    weight = (log_weight - log_weight.amax(1, keepdim=True)).exp()
    return float((weight.sum(1).square() / weight.square().sum(1)).mean() / SAMPLES)


def measure() -> list[dict[str, Any]]:
    """The exact share exp(-2 T KL), and the sampled one."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for divergence in DIVERGENCES:
        exact = [float(torch.tensor(-2.0 * steps * divergence, dtype=torch.float64).exp()) for steps in STEPS]
        rows.append({"kl": divergence, "exact": exact, "sampled": [sampled(divergence, s, generator) for s in STEPS]})
    return rows


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Lines for what is exact, marks for what was sampled."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    steps = torch.logspace(0, 3, 100, dtype=torch.float64)
    for row, colour, marker in zip(rows, ("C0", "C1", "C2"), "os^", strict=True):
        axes.plot(steps, (-2.0 * row["kl"] * steps).exp(), color=colour)
        axes.plot(STEPS, row["sampled"], marker, color=colour, label=f"KL of a step: {row['kl']:g} nats")
    axes.set(
        xscale="log", xlabel="steps T whose ratios are multiplied", ylabel="effective samples, share", ylim=(0, 1.05)
    )
    axes.legend(loc="upper right")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "importance.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "importance.json")
    options = parser.parse_args(args)
    rows = measure()
    print(f"{'steps':<24}" + "".join(f"{steps:>9}" for steps in STEPS))
    for row in rows:
        for kind in ("exact", "sampled"):
            print(f"KL {row['kl']:<7g} {kind:<13}" + "".join(f"{share:9.2g}" for share in row[kind]))
    options.data.write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, options.out)


if __name__ == "__main__":
    main()
