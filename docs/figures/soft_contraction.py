"""The soft Bellman operator on FrozenLake 4x4: by what it shrinks distances, and how its iteration converges."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchward.envs.models import Model
from torchward.envs.task import Control
from torchward.functional.bellman import q_from_v
from torchward.functional.value_losses import greedy_value, soft_maximum

DOCS = Path(__file__).resolve().parents[1]
GAMMA, PAIRS, SWEEPS = 0.9, 10_000, 260
TEMPERATURES = (0.0, 0.01, 0.1, 1.0)


def apply(model: Model, value: Tensor, temperature: float) -> Tensor:
    """One sweep over values [states]; with a temperature of 0, that of value iteration. The end is worth 0."""
    q = q_from_v(model.transition, model.reward, value, GAMMA)
    swept = greedy_value(q) if temperature == 0.0 else soft_maximum(q, temperature)
    swept[-1] = 0.0
    return swept


def measure(seed: int) -> list[dict[str, Any]]:
    """For each temperature: the largest and the mean ratio of distances after and before a sweep, over random pairs of
    value functions, and over pairs that differ by the same in every state; and the errors of the iteration."""
    model = Control("FrozenLake-v1").model()
    rows = []
    for temperature in TEMPERATURES:
        generator = torch.Generator().manual_seed(seed)
        ratios, level = [], []
        for _ in range(PAIRS):
            one, other = torch.randn(2, len(model.start), generator=generator, dtype=torch.float64)
            one[-1] = other[-1] = 0.0
            swept = apply(model, one, temperature) - apply(model, other, temperature)
            ratios.append(float(swept.abs().max() / (one - other).abs().max()))
            shifted = apply(model, one + 1.0, temperature) - apply(model, one, temperature)
            level.append(float(shifted.abs().max()))
        value = torch.zeros_like(model.start)
        values = [value]
        for _ in range(4 * SWEEPS):
            value = apply(model, value, temperature)
            values.append(value)
        errors = [float((each - value).abs().max()) for each in values[: SWEEPS + 1]]
        bound = [GAMMA**k * errors[0] for k in range(SWEEPS + 1)]
        rows.append(
            {
                "temperature": temperature,
                "largest": max(ratios),
                "mean": sum(ratios) / len(ratios),
                "shifted": max(level),
                "value": float(model.start @ value),
                "sweeps": next(k for k, error in enumerate(errors) if error <= 1e-10),
                "within": all(error <= b + 1e-12 for error, b in zip(errors, bound, strict=True)),
                "errors": errors,
            }
        )
    return rows


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Errors over sweeps, relative to the first one, below the bound."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, axes = plt.subplots()
    for row in rows:
        first = row["errors"][0]
        label = "maximum" if row["temperature"] == 0.0 else f"temperature {row['temperature']:g}"
        axes.plot([max(error / first, 1e-16) for error in row["errors"]], label=label)
    axes.plot([GAMMA**k for k in range(SWEEPS + 1)], color="0.5", linestyle=":", label="bound")
    axes.set(yscale="log", xlabel="sweeps", ylabel="error, relative to that of zero", ylim=(1e-14, 2.0))
    axes.legend()
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "soft_contraction.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "soft_contraction.json")
    options = parser.parse_args(args)
    rows = measure(options.seed)
    print(
        f"{'temperature':>11} {'largest ratio':>13} {'mean':>6} {'shifted':>8} {'value':>7} {'sweeps':>6}  below bound"
    )
    for row in rows:
        print(
            f"{row['temperature']:11g} {row['largest']:13.4f} {row['mean']:6.4f} {row['shifted']:8.4f} "
            f"{row['value']:7.4f} {row['sweeps']:6d}  {row['within']}"
        )
    options.data.write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, options.out)


if __name__ == "__main__":
    main()
