"""Soft value iteration on FrozenLake 4x4: as the temperature rises, the policy earns less, and lives longer."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from torchward.envs.task import Control
from torchward.functional.bellman import occupancy, policy_evaluation_exact, soft_value_iteration, value_iteration

DOCS = Path(__file__).resolve().parents[1]
GAMMA = 0.99
TEMPERATURES = (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 4e-3, 6e-3, 1e-2, 2e-2, 3e-2, 1e-1, 3e-1, 1.0)


def measure() -> list[dict[str, float]]:
    """For each temperature the expected return (discounted, without the entropy), chance of the goal, and entropy."""
    model = Control("FrozenLake-v1").model()
    best = value_iteration(model.transition, model.reward, GAMMA, tolerance=1e-12)
    rows = [{"temperature": 0.0, "optimal": float(model.start @ best.value)}]
    for temperature in TEMPERATURES:
        solution = soft_value_iteration(model.transition, model.reward, GAMMA, temperature, tolerance=1e-12)
        policy, start = solution.policy, model.start
        visits = occupancy(model.transition, policy, start, GAMMA)[:-1]  # the last state is the end
        entropy = torch.special.entr(policy).sum(-1)[:-1]
        rows.append(
            {
                "temperature": temperature,
                "return": float(start @ policy_evaluation_exact(model.transition, model.reward, policy, GAMMA)),
                "soft_return": float(start @ solution.value),
                "goal": float(start @ policy_evaluation_exact(model.transition, model.reward, policy, 1.0)),
                "entropy": float((visits * entropy).sum() / visits.sum()),
                "steps": float(occupancy(model.transition, policy, start, 1.0).sum()),
            }
        )
    return rows


def draw(rows: list[dict[str, float]], out: Path) -> None:
    """Return and length of an episode over the temperature."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, (left, right) = plt.subplots(1, 2)
    optimum, rows = rows[0]["optimal"], rows[1:]
    x = [row["temperature"] for row in rows]
    left.axhline(optimum, color="0.5", linewidth=1.0, linestyle=":")
    left.text(x[-1], optimum + 0.008, "optimum", color="0.35", fontsize=9, ha="right")
    left.plot(x, [row["return"] for row in rows], "o-")
    left.set(xscale="log", xlabel="temperature, units of return", ylabel="expected return, discounted", ylim=(0, 0.6))
    right.plot(x, [row["steps"] for row in rows], "o-", color="C2")
    right.set(xscale="log", xlabel="temperature, units of return", ylabel="length of an episode, steps", ylim=(0, 130))
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "temperature.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "temperature.json")
    options = parser.parse_args(args)
    rows: list[dict[str, Any]] = list(measure())
    print(f"optimal return: {rows[0]['optimal']:.4f}")
    print(f"{'temperature':>11} {'return':>7} {'soft value':>10} {'goal':>7} {'entropy':>8} {'steps':>7}")
    for row in rows[1:]:
        print(
            f"{row['temperature']:11g} {row['return']:7.4f} {row['soft_return']:10.4f} {row['goal']:7.4f} "
            f"{row['entropy']:8.4f} {row['steps']:7.1f}"
        )
    options.data.write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, options.out)


if __name__ == "__main__":
    main()
