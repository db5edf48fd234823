"""The temperature that keeps an entropy: SAC's rule for it, on FrozenLake 4x4 where all else is solved exactly."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchward.envs.models import Model
from torchward.envs.task import Control
from torchward.functional.bellman import occupancy, policy_evaluation_exact, soft_value_iteration
from torchward.nets.adam import Adam

DOCS = Path(__file__).resolve().parents[1]
GAMMA, STEPS, RATE = 0.9, 120, 0.1
STARTS = (1.0, 0.001)
TEMPERATURES = tuple(10.0 ** (x / 8.0) for x in range(-32, 9))
TARGET = 0.5 * math.log(4)
"""Half of the largest entropy that four actions can have."""


def solve(model: Model, temperature: float) -> tuple[float, float]:
    """The mean entropy of the soft optimal policy over the states that it visits, and its return."""
    best = soft_value_iteration(model.transition, model.reward, GAMMA, temperature, tolerance=1e-10)
    visits = occupancy(model.transition, best.policy, model.start, GAMMA)[:-1]  # the last state is the end
    entropy = torch.special.entr(best.policy).sum(-1)[:-1]
    earned = model.start @ policy_evaluation_exact(model.transition, model.reward, best.policy, GAMMA)
    return float((visits * entropy).sum() / visits.sum()), float(earned)


def search(model: Model, start: float) -> list[tuple[float, float]]:
    """The temperature and the entropy at each step down the gradient H - target by the logarithm of the temperature."""
    log_temperature: Tensor = torch.tensor(math.log(start))
    optimizer, path = Adam([log_temperature], RATE), []
    for _ in range(STEPS):
        temperature = math.exp(float(log_temperature))
        entropy, _ = solve(model, temperature)
        path.append((temperature, entropy))
        log_temperature.grad = torch.tensor(entropy - TARGET)
        optimizer.step()
    return path


def measure() -> dict[str, Any]:
    """Entropy and return over the temperature, and the search for the one that has the entropy."""
    model = Control("FrozenLake-v1").model()
    curve = [(temperature, *solve(model, temperature)) for temperature in TEMPERATURES]
    return {"curve": curve, "paths": [search(model, start) for start in STARTS]}


def draw(result: dict[str, Any], out: Path) -> None:
    """The entropy over the temperature, and the temperature over the steps of its search."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, (left, right) = plt.subplots(1, 2)
    temperatures, entropies, _ = zip(*result["curve"], strict=True)
    left.axhline(TARGET, color="0.5", linewidth=1.0, linestyle=":")
    left.text(temperatures[0], TARGET + 0.02, "target", color="0.35", fontsize=9)
    left.plot(temperatures, entropies)
    left.set(xscale="log", xlabel="temperature", ylabel="entropy of the policy, nats", ylim=(0.0, 1.45))
    for path in result["paths"]:
        right.plot([temperature for temperature, _ in path])
    right.set(yscale="log", xlabel="steps", ylabel="temperature")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "soft_temperature.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "soft_temperature.json")
    options = parser.parse_args(args)
    result = measure()
    print(f"{'temperature':>11} {'entropy':>8} {'return':>7}")
    for temperature, entropy, earned in result["curve"][::4]:
        print(f"{temperature:11.4g} {entropy:8.4f} {earned:7.4f}")
    print(f"target entropy {TARGET:.4f}")
    for start, path in zip(STARTS, result["paths"], strict=True):
        print(f"from a temperature of {start:g}, after {STEPS} steps: {path[-1][0]:.4f}, entropy {path[-1][1]:.4f}")
    options.data.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out)


if __name__ == "__main__":
    main()
