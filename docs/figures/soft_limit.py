"""Soft Q-learning becomes Q-learning as the temperature goes to 0: FrozenLake 4x4, exactly and from equal samples."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

from torchward.algorithms.q_learning import Config, Learner, Transition, VisitCount
from torchward.data.exploration import Boltzmann
from torchward.envs.models import Model
from torchward.envs.task import Control
from torchward.functional.bellman import soft_value_iteration, value_iteration

DOCS = Path(__file__).resolve().parents[1]
GAMMA, WORLDS, STEPS = 0.9, 32, 4_000
TEMPERATURES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 1e-4, 1e-5, 1e-6)
LEARNT = (1.0, 0.1, 0.01, 0.001)


def samples(model: Model, generator: torch.Generator) -> Transition:
    """A step of each world from any place by any action: everybody learns from the same ones."""
    states, actions = model.reward.shape
    state = torch.randint(states - 1, (WORLDS,), generator=generator)
    action = torch.randint(actions, (WORLDS,), generator=generator)
    following = torch.multinomial(model.transition[state, action], 1, generator=generator).squeeze(1)
    ended = following == states - 1
    yes = torch.ones_like(ended)
    return Transition(state, action, model.reward[state, action], ended, following.clamp_max(states - 2), yes)


def measure(seed: int) -> dict[str, Any]:
    """Distances of the soft optimum from the optimum; and of tables that learn from the same samples."""
    model = Control("FrozenLake-v1").model()
    states, actions = model.reward.shape
    best = value_iteration(model.transition, model.reward, GAMMA, tolerance=1e-13)
    exact = []
    for temperature in TEMPERATURES:
        soft = soft_value_iteration(model.transition, model.reward, GAMMA, temperature, tolerance=1e-13)
        bound = GAMMA / (1.0 - GAMMA) * temperature * math.log(actions)
        exact.append((temperature, float((soft.q - best.q).abs().max()), bound))
    rate = VisitCount(0.1, 0.8)
    plain = Learner(states - 1, actions, Config(gamma=GAMMA, learning_rate=rate))
    soft_tables = {
        temperature: Learner(
            states - 1, actions,
            Config(method="soft_q", gamma=GAMMA, learning_rate=rate, exploration=Boltzmann(temperature, temperature)),
        )
        for temperature in LEARNT
    }  # fmt: skip
    generator, zeros = torch.Generator().manual_seed(seed), torch.zeros(WORLDS, dtype=torch.int64)
    curves: dict[str, list[float]] = {f"{temperature:g}": [] for temperature in LEARNT}
    errors: list[float] = []
    for step in range(1, STEPS + 1):
        seen = samples(model, generator)
        for learner in (plain, *soft_tables.values()):
            learner.update(seen, zeros, zeros)
        if step % 40 == 0:
            errors.append(float((plain.q[0] - best.q[:-1]).abs().max()))
            for temperature, learner in soft_tables.items():
                curves[f"{temperature:g}"].append(float((learner.q - plain.q).abs().max()))
    return {"seed": seed, "exact": exact, "curves": curves, "errors": errors}


def draw(result: dict[str, Any], out: Path) -> None:
    """Distances over the temperature, and over the samples."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, (left, right) = plt.subplots(1, 2)
    temperatures, distances, bounds = zip(*result["exact"], strict=True)
    left.plot(temperatures, bounds, ":", color="0.5", label="bound")
    left.plot(temperatures, distances, "o-", label="measured")
    left.set(xscale="log", yscale="log", xlabel="temperature", ylabel="distance of the optima")
    left.legend()
    x = [40 * WORLDS * (i + 1) for i in range(len(result["errors"]))]
    for temperature, curve in result["curves"].items():
        right.plot(x, curve, label=f"temperature {temperature}")
    right.plot(x, result["errors"], color="0.5", linestyle=":", label="Q-learning's own error")
    right.set(xscale="log", yscale="log", xlabel="samples", ylabel="distance of the tables", ylim=(1e-6, 20.0))
    right.legend(fontsize=8, loc="lower right")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "soft_limit.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "soft_limit.json")
    options = parser.parse_args(args)
    result = measure(options.seed)
    print(f"{'temperature':>11} {'distance':>9} {'bound':>9}")
    for temperature, distance, bound in result["exact"]:
        print(f"{temperature:11g} {distance:9.2e} {bound:9.2e}")
    print(f"after {WORLDS * STEPS} samples, Q-learning's own error: {result['errors'][-1]:.3f}")
    for temperature, curve in result["curves"].items():
        print(f"distance of soft Q-learning at temperature {temperature}: {curve[-1]:.2e}")
    options.data.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out)


if __name__ == "__main__":
    main()
