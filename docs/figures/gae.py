"""Bias and noise of the policy gradient with generalised advantage estimates, over lambda and three critics.

The process has ten states and never ends; each critic is the exact value plus an error of its own. The bias is exact:
the sum of (gamma lambda)^l delta_{t+l} is a discounted return too, whose reward is the TD error. The noise is sampled.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchward.functional.advantages import gae
from torchward.functional.bellman import occupancy, policy_evaluation_exact, q_from_v

DOCS = Path(__file__).resolve().parents[1]
STATES, ACTIONS, GAMMA, TIME, ROWS, BATCH = 10, 3, 0.97, 256, 4000, 2048
LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 1.0)
CRITICS = {"exact": 0.0, "good": 0.5, "poor": 2.0}
"""The deviation of each critic's errors, in units of that of the exact value over the states."""


def make_world(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Transitions, rewards and a policy; each state leads to few others, so that values differ."""
    kwargs: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    transition = torch.rand(STATES, ACTIONS, STATES, **kwargs) ** 6
    stay = torch.eye(STATES, dtype=torch.float64)[:, None]
    transition = 0.5 * transition / transition.sum(-1, keepdim=True) + 0.5 * stay
    reward = torch.randn(STATES, ACTIONS, **kwargs)
    policy = torch.randn(STATES, ACTIONS, **kwargs).softmax(-1)
    return transition, reward, policy


def sample(transition: Tensor, policy: Tensor, start: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """States ``[B, T + 1]`` and actions ``[B, T]``."""
    state = torch.multinomial(start.expand(ROWS, -1), 1, generator=generator).squeeze(1)
    states, actions = [state], []
    for _ in range(TIME):
        action = torch.multinomial(policy[state], 1, generator=generator).squeeze(1)
        state = torch.multinomial(transition[state, action], 1, generator=generator).squeeze(1)
        states.append(state)
        actions.append(action)
    return torch.stack(states, 1), torch.stack(actions, 1)


def gradient(weight: Tensor, policy: Tensor, credit: Tensor) -> Tensor:
    """The policy gradient in a table of logits for this credit: what all actions of a state share drops out."""
    return weight * (credit - (policy * credit).sum(-1, keepdim=True))


def measure(seed: int) -> dict[str, Any]:
    """Bias, noise and error of a gradient from BATCH steps for each critic and lambda, relative to the gradient."""
    generator = torch.Generator().manual_seed(seed)
    transition, reward, policy = make_world(generator)
    value = policy_evaluation_exact(transition, reward, policy, GAMMA)
    start = torch.full((STATES,), 1.0 / STATES, dtype=torch.float64)
    visits = occupancy(transition, policy, start, GAMMA) * (1.0 - GAMMA)
    weight = visits[:, None] * policy
    truth = gradient(weight, policy, q_from_v(transition, reward, value, GAMMA))
    states, actions = sample(transition, policy, visits, generator)
    paid, never = reward[states[:, :-1], actions], torch.zeros(ROWS, TIME, dtype=torch.bool)
    first = states[:, 0], actions[:, 0]
    score = (torch.eye(ACTIONS, dtype=torch.float64)[first[1]] - policy[first[0]]).square().sum(-1)
    result: dict[str, Any] = {"seed": seed, "batch": BATCH, "critics": {}}
    for name, size in CRITICS.items():
        critic = value + size * value.std() * torch.randn(STATES, generator=generator, dtype=torch.float64)
        delta = q_from_v(transition, reward, critic, GAMMA) - critic[:, None]  # the expected TD error of (s, a)
        rows = []
        for lambda_ in LAMBDAS:
            tail = policy_evaluation_exact(transition, delta, policy, GAMMA * lambda_)
            expected = gradient(weight, policy, q_from_v(transition, delta, tail, GAMMA * lambda_))
            seen = critic[states]
            estimate = gae(paid, seen[:, :-1], seen[:, 1:], never, never, GAMMA, lambda_)[:, 0]
            variance = float((estimate.square() * score).mean() - expected.square().sum())
            bias, noise = (
                float((expected - truth).norm() / truth.norm()),
                (variance / BATCH) ** 0.5 / float(truth.norm()),
            )
            rows.append({"lambda": lambda_, "bias": bias, "noise": noise, "error": (bias**2 + noise**2) ** 0.5})
        result["critics"][name] = rows
    return result


def draw(result: dict[str, Any], out: Path) -> None:
    """One panel for each critic."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, panels = plt.subplots(1, len(CRITICS), sharey=True, figsize=(8.4, 3.6))
    for axes, (name, rows) in zip(panels, result["critics"].items(), strict=True):
        axes.plot(LAMBDAS, [row["error"] for row in rows], color="0.75", linewidth=5.0, label="error")
        for key, look in (("bias", "C1s-"), ("noise", "C0^-")):
            axes.plot(LAMBDAS, [row[key] for row in rows], look, markersize=4, linewidth=1.5, label=key)
        best = min(rows, key=lambda row: float(row["error"]))
        axes.plot(best["lambda"], best["error"], "ko", markersize=7)
        axes.set(title=f"{name} critic", xlabel=r"$\lambda$")
    panels[0].set(ylabel=f"relative to the gradient, {BATCH} steps", ylim=(0, None))
    panels[0].legend(loc="upper left")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "gae.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "gae.json")
    options = parser.parse_args(args)
    result = measure(options.seed)
    print(f"{'critic':<7} {'':<10}" + "".join(f"{lambda_:>6g}" for lambda_ in LAMBDAS))
    for name, rows in result["critics"].items():
        for key in ("bias", "noise", "error"):
            print(f"{name:<7} {key:<10}" + "".join(f"{row[key]:6.2f}" for row in rows))
    options.data.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out)


if __name__ == "__main__":
    main()
