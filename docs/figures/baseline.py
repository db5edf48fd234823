"""The variance of a policy gradient in one state, exactly, as a function of the baseline: a parabola."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DOCS = Path(__file__).resolve().parents[1]
POLICY = torch.tensor([0.8, 0.15, 0.05], dtype=torch.float64)
Q = torch.tensor([10.0, 7.0, 4.0], dtype=torch.float64)


def moments(baseline: float) -> tuple[Tensor, float]:
    """Mean and total variance of (Q(a) - b) grad log pi(a), by enumeration of the three actions."""
    score = torch.eye(3, dtype=torch.float64) - POLICY  # of a softmax: row a is the gradient of log pi(a) in the logits
    terms = (Q - baseline)[:, None] * score
    mean = (POLICY[:, None] * terms).sum(0)
    return mean, float((POLICY[:, None] * (terms - mean).square()).sum())


def optimal() -> float:
    """E[|grad log pi|^2 Q] / E[|grad log pi|^2]."""
    square = (torch.eye(3, dtype=torch.float64) - POLICY).square().sum(1)
    return float((POLICY * square * Q).sum() / (POLICY * square).sum())


def measure() -> dict[str, Any]:
    """Variance without a baseline, with the value, with the best one; and the largest change of the mean."""
    value, best = float((POLICY * Q).sum()), optimal()
    mean = moments(0.0)[0]
    points = {
        name: {"baseline": b, "variance": moments(b)[1]}
        for name, b in [("none", 0.0), ("value", value), ("best", best)]
    }
    drift = max(float((moments(b)[0] - mean).abs().max()) for b in (value, best, -50.0, 50.0))
    return {"points": points, "drift": drift, "mean": mean.tolist()}


def draw(result: dict[str, Any], out: Path) -> None:
    """The parabola, and the three baselines on it."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    x = torch.linspace(-1.0, 16.0, 200).tolist()
    axes.plot(x, [moments(b)[1] for b in x], color="0.35")
    labels = {"none": ("b = 0", "C1", "o"), "value": ("b = V(s)", "C0", "s"), "best": ("b*, the best", "C2", "^")}
    for name, (label, colour, marker) in labels.items():
        point = result["points"][name]
        at = point["baseline"], point["variance"]
        axes.plot(*at, marker, color=colour, markersize=8, label=f"{label}: variance {at[1]:.2f}")
    axes.set(xlabel="baseline b, units of return", ylabel="variance, units of return squared", ylim=(-1, 35))
    axes.legend(loc="upper center")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "baseline.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "baseline.json")
    options = parser.parse_args(args)
    result = measure()
    for name, point in result["points"].items():
        print(f"{name:<6} b = {point['baseline']:7.4f}: variance {point['variance']:8.4f}")
    print(f"the mean gradient changes by at most {result['drift']:.0e}, with baselines from -50 to 50")
    options.data.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out)


if __name__ == "__main__":
    main()
