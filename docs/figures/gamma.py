"""What gamma decides: how the policy that is optimal for it does without a discount, on FrozenLake 8x8."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from torchward.envs.make import EnvOptions
from torchward.envs.models import Model
from torchward.envs.task import Control
from torchward.functional.bellman import occupancy, policy_evaluation_exact, q_from_v, value_iteration
from torchward.functional.value_losses import greedy_value

DOCS = Path(__file__).resolve().parents[1]
LIMIT = 200
"""Steps after which Gymnasium cuts an episode of the 8x8 map."""
HORIZONS = (2, 3, 4, 5, 7, 10, 14, 20, 28, 36, 50, 70, 100, 125, 150, 200, 300, 500, 700, 1000, 3000, 10_000)
"""Effective horizons 1 / (1 - gamma) that are tried."""


def evaluate(model: Model, gamma: float) -> dict[str, Any]:
    """The greedy policy for gamma: sweeps that it took, its chance of the goal (with and without limit), its length."""
    solution = value_iteration(model.transition, model.reward, gamma, tolerance=1e-12)
    policy = solution.policy
    chain = torch.einsum("sa,sat->st", policy, model.transition)
    income = (policy * model.reward).sum(-1)
    within = torch.zeros_like(income)
    for _ in range(LIMIT):  # the exact expected sum of the rewards of the first LIMIT steps
        within = income + chain @ within
    return {
        "gamma": gamma,
        "sweeps": solution.iterations,
        "return": float(model.start @ policy_evaluation_exact(model.transition, model.reward, policy, 1.0)),
        "return_within_limit": float(model.start @ within),
        "steps": float(occupancy(model.transition, policy, model.start, 1.0).sum()),
    }


def best_within_limit(model: Model) -> float:
    """The chance of the policy that is optimal with so many steps left, and counts them: LIMIT sweeps with gamma 1."""
    value = torch.zeros_like(model.start)
    for _ in range(LIMIT):
        value = greedy_value(q_from_v(model.transition, model.reward, value, 1.0))
    return float(model.start @ value)


def measure(model: Model) -> list[dict[str, Any]]:
    """One row for each horizon."""
    return [{"horizon": horizon, **evaluate(model, 1.0 - 1.0 / horizon)} for horizon in HORIZONS]


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Return over the effective horizon, and the sweeps that it costs."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, (left, right) = plt.subplots(1, 2, width_ratios=(3, 2))
    x = [row["horizon"] for row in rows]
    left.plot(x, [row["return"] for row in rows], "o-")
    left.plot(x, [row["return_within_limit"] for row in rows], "s-")
    left.text(9_500, 0.975, "without a time limit", color="C0", ha="right", va="top")
    left.text(9_500, 0.86, f"within {LIMIT} steps,\nas Gymnasium plays it", color="C1", ha="right", va="top")
    left.axvline(LIMIT, color="0.5", linewidth=1.0, linestyle=":")
    left.text(LIMIT * 0.92, 0.51, f"{LIMIT} steps", color="0.35", fontsize=9, ha="right")
    left.set(xlabel=r"effective horizon $1/(1-\gamma)$, steps", ylabel="chance of reaching the goal")
    left.set(xscale="log", ylim=(0.5, 1.02))
    right.plot(x, [row["sweeps"] for row in rows], "o-", color="C2")
    right.set(xscale="log", yscale="log", xlabel=r"effective horizon $1/(1-\gamma)$, steps")
    right.set(ylabel="sweeps of value iteration")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "gamma.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "gamma.json")
    options = parser.parse_args(args)
    model = Control("FrozenLake-v1", EnvOptions(env_kwargs={"map_name": "8x8"})).model()
    rows: list[dict[str, Any]] = measure(model)
    print(f"{'horizon':>8} {'gamma':>8} {'goal':>7} {'within ' + str(LIMIT):>11} {'steps':>7} {'sweeps':>7}")
    for row in rows:
        print(
            f"{row['horizon']:8} {row['gamma']:8.4f} {row['return']:7.4f} {row['return_within_limit']:11.4f} "
            f"{row['steps']:7.1f} {row['sweeps']:7}"
        )
    best = best_within_limit(model)
    print(f"a policy that counts its steps reaches the goal within {LIMIT} with probability {best:.4f}")
    options.data.write_text(json.dumps({"best_within_limit": best, "rows": rows}, indent=1) + "\n")
    draw(rows, options.out)


if __name__ == "__main__":
    main()
