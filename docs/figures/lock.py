"""A lock of n places, where one of two actions goes on and the other back to the start: steps until it first opens."""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from torchward.algorithms.q_learning import Config, Learner, Linear, Transition
from torchward.data.exploration import EpsilonGreedy
from torchward.functional.bellman import policy_evaluation_exact

DOCS = Path(__file__).resolve().parents[1]
LENGTHS = (2, 4, 6, 8, 10, 12)
SEEDS, CAP, GAMMA = 5, 5_000, 0.97
KEY = 1234567
"""Whose bits say which action goes on: no favourite action opens it by chance."""


def right(place: int) -> int:
    """The action that goes on from a place."""
    return KEY >> place & 1


def exact(n: int) -> float:
    """The expected number of steps of a policy at random: the value of a reward of 1 a step, without discount."""
    transition = torch.zeros(n + 1, 2, n + 1, dtype=torch.float64)
    for place in range(n):
        transition[place, right(place), place + 1] = 1.0
        transition[place, 1 - right(place), 0] = 1.0
    transition[n, :, n] = 1.0
    steps = torch.ones(n + 1, 2, dtype=torch.float64)
    steps[n] = 0.0
    return float(policy_evaluation_exact(transition, steps, torch.full_like(steps, 0.5), 1.0)[0])


def walk(n: int, way: str, seed: int) -> int:
    """The steps that Q-learning takes until the lock first opens, where only that pays."""
    epsilon = 0.0 if way == "optimism" else 0.1
    initial = 1.0 if way == "optimism" else 0.0
    config = Config(
        n_envs=1, gamma=GAMMA, seed=seed, initial_q=initial, learning_rate=Linear(0.5, 0.5),
        exploration=EpsilonGreedy(epsilon, epsilon),
    )  # fmt: skip
    learner = Learner(n + 1, 2, config)
    noise, _ = learner.draw(CAP, 1)
    place, zero, yes = 0, torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.bool)
    for step in range(CAP):
        state = torch.tensor([place])
        action = learner.choose(state, noise[step, 0])
        place = place + 1 if int(action) == right(place) else 0
        if place == n:
            return step + 1
        nothing = torch.zeros(1, dtype=torch.float64)
        learner.update(Transition(state, action, nothing, ~yes, torch.tensor([place]), yes), zero, zero)
    return CAP


def measure() -> dict[str, Any]:
    """For each length the expected steps at random, and the median over the seeds of each way to explore."""
    ways = ("epsilon-greedy", "optimism")
    result: dict[str, Any] = {"random": [exact(n) for n in LENGTHS], "ways": {}}
    for way in ways:
        result["ways"][way] = [statistics.median(walk(n, way, seed) for seed in range(SEEDS)) for n in LENGTHS]
    return result


def draw(result: dict[str, Any], out: Path) -> None:
    """Steps over the length."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, axes = plt.subplots()
    axes.plot(LENGTHS, result["random"], ":", color="0.5", label="at random, exactly")
    for (way, steps), marker in zip(result["ways"].items(), "os", strict=True):
        axes.plot(LENGTHS, steps, marker + "-", label=way)
    axes.axhline(CAP, color="0.8", linewidth=1.0)
    axes.set(yscale="log", xlabel="places of the lock", ylabel="steps until it first opens")
    axes.legend()
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "lock.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "lock.json")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    result = measure()
    print(f"{'places':<16} {''.join(f'{n:>7}' for n in LENGTHS)}")
    print(f"{'random, exactly':<16} {''.join(f'{steps:7.0f}' for steps in result['random'])}")
    for way, medians in result["ways"].items():
        print(f"{way:<16} {''.join(f'{steps:7.0f}' for steps in medians)}")
    print(f"median of {SEEDS} seeds; {CAP}: it had not opened by then")
    options.data.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out)


if __name__ == "__main__":
    main()
