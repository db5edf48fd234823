"""How fast value and policy iteration approach the optimum of FrozenLake 8x8, and the bound that theory gives."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchward.envs.make import EnvOptions
from torchward.envs.models import Model
from torchward.envs.task import Control
from torchward.functional.bellman import greedy_policy, policy_evaluation_exact, policy_iteration, q_from_v
from torchward.functional.value_losses import greedy_value

DOCS = Path(__file__).resolve().parents[1]
GAMMAS = (0.9, 0.99)
CLOSE = 1e-10
"""The distance at which a method counts as arrived."""


def value_sweeps(model: Model, gamma: float, optimum: Tensor) -> list[float]:
    """The distance of V_k from the optimum in the sup norm, for k = 0, 1, ...: a sweep is one application of T."""
    value = torch.zeros_like(optimum)
    errors = [distance(value, optimum)]
    while errors[-1] > 1e-14:
        value = greedy_value(q_from_v(model.transition, model.reward, value, gamma))
        errors.append(distance(value, optimum))
    return errors


def policy_steps(model: Model, gamma: float, optimum: Tensor) -> list[float]:
    """The same for the values of the policies that policy iteration goes through, from the uniform one on."""
    policy = torch.full_like(model.reward, 1.0 / model.reward.shape[1])
    errors: list[float] = []
    while not errors or errors[-1] > 1e-14:
        value = policy_evaluation_exact(model.transition, model.reward, policy, gamma)
        errors.append(distance(value, optimum))
        policy = greedy_policy(q_from_v(model.transition, model.reward, value, gamma))
    return errors


def distance(value: Tensor, optimum: Tensor) -> float:
    """The sup norm of the difference."""
    return float((value - optimum).abs().max())


def measure() -> dict[str, Any]:
    """Errors by sweep and iteration for each gamma, and when they fall below CLOSE."""
    model = Control("FrozenLake-v1", EnvOptions(env_kwargs={"map_name": "8x8"})).model()
    rows = {}
    for gamma in GAMMAS:
        optimum = policy_iteration(model.transition, model.reward, gamma, tolerance=1e-14).value
        sweeps, steps = value_sweeps(model, gamma, optimum), policy_steps(model, gamma, optimum)
        norm = float(optimum.abs().max())
        rows[str(gamma)] = {
            "norm": norm,
            "sweeps": sweeps,
            "iterations": steps,
            "late_rate": (sweeps[-1] / sweeps[-101]) ** 0.01,
            "bound_holds": all(e <= norm * gamma**k + 1e-15 for k, e in enumerate(sweeps)),
            "sweeps_to_close": next(k for k, e in enumerate(sweeps) if e <= CLOSE),
            "iterations_to_close": next(k for k, e in enumerate(steps) if e <= CLOSE),
            "bound_to_close": next(k for k in range(100_000) if norm * gamma**k <= CLOSE),
        }
    return rows


def draw(rows: dict[str, Any], out: Path) -> None:
    """Errors on a logarithmic axis, where a geometric fall is a straight line."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, (left, right) = plt.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    for (gamma, row), colour in zip(rows.items(), ("C0", "C1"), strict=True):
        sweeps, steps = row["sweeps"], row["iterations"]
        bound = [row["norm"] * float(gamma) ** k for k in range(2300)]
        left.plot(sweeps, color=colour, label=rf"$\gamma$ = {gamma}")
        left.plot(bound, ":", color=colour, label=r"its bound $\gamma^k\,\|V^*\|$")
        right.plot([max(error, 1e-16) for error in steps], "o-", color=colour, label=rf"$\gamma$ = {gamma}")
    left.set(xlabel="sweeps k", ylabel=r"error $\max_s |V_k(s) - V^*(s)|$", title="value iteration")
    left.set(yscale="log", ylim=(2e-17, 3.0), xlim=(0, 2300))
    right.set(xlabel="iterations k", title="policy iteration", xticks=range(5), xlim=(-0.2, 4.0))
    left.legend(loc="upper right")
    right.legend(loc="upper right")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "residuals.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "residuals.json")
    options = parser.parse_args(args)
    rows = measure()
    heads = ("max V*", 8), ("sweeps", 7), ("by the bound", 13), ("rate", 7), ("iterations", 11)
    print(f"{'gamma':>6}" + "".join(f" {head:>{width}}" for head, width in heads))
    for gamma, row in rows.items():
        print(
            f"{gamma:>6} {row['norm']:8.4f} {row['sweeps_to_close']:7} {row['bound_to_close']:13} "
            f"{row['late_rate']:7.4f} {row['iterations_to_close']:11}"
        )
    print("(rate: by what a late sweep multiplies the error)")
    print(f"to an error below {CLOSE:g}; the bound held at every sweep: {all(r['bound_holds'] for r in rows.values())}")
    draw(rows, options.out)
    for row in rows.values():
        row["sweeps"] = row["sweeps"][::100]  # enough to compare by
    options.data.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
