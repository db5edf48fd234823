"""The deadly triad on Baird's counterexample, by exact expected updates: what diverges, and what stops it."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DOCS = Path(__file__).resolve().parents[1]
GAMMA, RATE, SWEEPS = 0.9, 0.05, 1000
STATES = 7
CASES = {
    "all three": {},
    "no off-policy states": {"on_policy": True},
    "no bootstrapping": {"bootstrap": False},
    "no shared weights": {"table": True},
}
PERIODS = (1, 10, 30, 100, 300)
"""Sweeps between two copies of the weights into the target."""


def features(table: bool) -> Tensor:
    """What a value is made of: Baird's (six states have 2 w_i + w_8, the seventh w_7 + 2 w_8), or one weight each."""
    if table:
        return torch.eye(STATES, dtype=torch.float64)
    x = torch.zeros(STATES, 8, dtype=torch.float64)
    for i in range(6):
        x[i, i], x[i, 7] = 2.0, 1.0
    x[6, 6], x[6, 7] = 1.0, 2.0
    return x


def learn(on_policy: bool = False, bootstrap: bool = True, table: bool = False, period: int = 1) -> list[float]:
    """The largest error, after each sweep, of the values that are learnt. Every reward is 0, and so is every true
    value. The policy to be judged always goes to the seventh state; the one that acts is in each of the seven equally
    often."""
    x = features(table)
    visits = torch.full((STATES,), 1.0 / STATES, dtype=torch.float64)
    if on_policy:
        visits = torch.tensor([0.0] * 6 + [1.0], dtype=torch.float64)
    weights = torch.ones(x.shape[1], dtype=torch.float64)
    weights[6] = 10.0
    if table:
        weights = features(False) @ torch.tensor([1.0] * 6 + [10.0, 1.0], dtype=torch.float64)  # the same values
    target, errors = weights.clone(), []
    for sweep in range(SWEEPS):
        if sweep % period == 0:
            target = weights.clone()
        errors.append(float((x @ weights)[visits > 0].abs().max()))
        goal = GAMMA * (x @ target)[6] if bootstrap else 0.0
        weights = weights + RATE * STATES * x.T @ (visits * (goal - x @ weights))
    return errors


def measure() -> list[dict[str, Any]]:
    """One row for each case."""
    cases = [{"case": name, "period": 1, "error": learn(**settings)} for name, settings in CASES.items()]
    return cases + [{"case": "target", "period": period, "error": learn(period=period)} for period in PERIODS]


def rounded(error: float) -> float:
    """To six digits; what is left by the rounding of float64 is none."""
    return float(f"{error:.6g}") if error > 1e-9 else 0.0


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """The error over the sweeps: without one of the three, and with a target that stands still."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, (left, right) = plt.subplots(1, 2, sharey=True)
    for row in rows:
        if row["case"] != "target":
            left.plot(row["error"], label=row["case"])
        else:
            right.plot(row["error"], label=f"every {row['period']}" if row["period"] > 1 else "every sweep")
    left.set(yscale="log", ylim=(1e-3, 1e6), xlabel="sweeps", ylabel="largest error of a value", title="leave one out")
    right.set(xlabel="sweeps", title="all three, and the target is copied")
    left.legend()
    right.legend()
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Compute, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "triad.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "triad.json")
    options = parser.parse_args(args)
    rows = measure()
    shown = (0, 50, 100, 200, 500, SWEEPS - 1)
    print(f"{'largest error after so many sweeps':36}" + "".join(f"{sweep:>9}" for sweep in shown))
    for row in rows:
        name = row["case"] if row["case"] != "target" else f"all three, copied every {row['period']}"
        print(f"{name:36}" + "".join(f"{rounded(row['error'][sweep]):9.3g}" for sweep in shown))
    kept = [{**row, "error": [rounded(error) for error in row["error"]][::10]} for row in rows]
    options.data.write_text(json.dumps(kept) + "\n")
    draw(rows, options.out)


if __name__ == "__main__":
    main()
