"""Soft policy iteration on FrozenLake 4x4: what a policy lacks is its divergence from the best, summed over time."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchward.envs.models import Model
from torchward.envs.task import Control
from torchward.functional.bellman import (
    occupancy,
    policy_evaluation_exact,
    q_from_v,
    soft_value_iteration,
    value_iteration,
)
from torchward.functional.divergences import categorical_kl
from torchward.functional.value_losses import boltzmann_probs, soft_maximum

DOCS = Path(__file__).resolve().parents[1]
GAMMA, TEMPERATURE, POLICIES, ROUNDS = 0.9, 0.1, 200, 6


def evaluate(model: Model, policy: Tensor) -> Tensor:
    """The soft value of a policy in every state: its return, and its entropy on the way. The end has neither."""
    entropy = torch.special.entr(policy).sum(-1)
    entropy[-1] = 0.0
    income = model.reward + TEMPERATURE * entropy[:, None]
    return policy_evaluation_exact(model.transition, income, policy, GAMMA)


def kl(policy: Tensor, other: Tensor) -> Tensor:
    """The divergence in each state; none at the end."""
    divergence = categorical_kl(policy.log(), other.log())
    divergence[-1] = 0.0
    return divergence


def measure(seed: int) -> dict[str, Any]:
    """The two identities on random policies, and the rounds of soft policy iteration."""
    model = Control("FrozenLake-v1").model()
    best = soft_value_iteration(model.transition, model.reward, GAMMA, TEMPERATURE, tolerance=1e-14)
    generator = torch.Generator().manual_seed(seed)
    pairs, step_error, gap_error = [], 0.0, 0.0
    for index in range(POLICIES):
        size = 10.0 ** (2.0 * index / POLICIES - 1.5)  # of the distance from the best policy, in logits
        noise = torch.randn(best.q.shape, generator=generator, dtype=torch.float64)
        policy = (best.q / TEMPERATURE + size * noise).softmax(-1)
        value = evaluate(model, policy)
        # In one state: what a policy gets out of values Q is the soft maximum, less its divergence from exp(Q / tau).
        q = q_from_v(model.transition, model.reward, value, GAMMA)
        got = (policy * q).sum(-1) + TEMPERATURE * torch.special.entr(policy).sum(-1)
        said = soft_maximum(q, TEMPERATURE) - TEMPERATURE * categorical_kl(policy.log(), q / TEMPERATURE)
        step_error = max(step_error, float((got - said).abs().max()))
        # Over time: the gap to the best is the divergence from the best, over the states that the policy visits.
        gap = float(model.start @ (best.value - value))
        visits = occupancy(model.transition, policy, model.start, GAMMA)
        summed = TEMPERATURE * float(visits @ kl(policy, best.policy))
        gap_error = max(gap_error, abs(gap - summed))
        pairs.append((summed, gap))
    policy, rounds = torch.full_like(model.reward, 0.25), []
    for _ in range(ROUNDS):
        value = evaluate(model, policy)
        rounds.append(
            {"gap": float((best.value - value).abs().max()), "kl": float(kl(policy, best.policy).max()),
             "return": float(model.start @ policy_evaluation_exact(model.transition, model.reward, policy, GAMMA))}
        )  # fmt: skip
        policy = boltzmann_probs(q_from_v(model.transition, model.reward, value, GAMMA), TEMPERATURE)
    sweeps, swept = [float(best.value.abs().max())], torch.zeros_like(best.value)
    for _ in range(ROUNDS - 1):
        swept = soft_maximum(q_from_v(model.transition, model.reward, swept, GAMMA), TEMPERATURE)
        swept[-1] = 0.0
        sweeps.append(float((swept - best.value).abs().max()))
    greedy = value_iteration(model.transition, model.reward, GAMMA)
    return {
        "step_error": step_error, "gap_error": gap_error, "pairs": pairs, "rounds": rounds, "sweeps": sweeps,
        "optimal_return": float(model.start @ greedy.value),
    }  # fmt: skip


def draw(result: dict[str, Any], out: Path) -> None:
    """The gap over the divergence, and over the rounds."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, (left, right) = plt.subplots(1, 2)
    said, got = zip(*result["pairs"], strict=True)
    ends = [min(said), max(said)]
    left.plot(ends, ends, color="0.5", linewidth=1.0, linestyle=":")
    left.plot(said, got, ".", markersize=4)
    left.set(xscale="log", yscale="log", xlabel="divergence, summed over time", ylabel="soft value that is missing")
    gaps = [max(row["gap"], 1e-16) for row in result["rounds"]]
    right.plot(gaps, "o-", label="soft policy iteration")
    right.plot(result["sweeps"], "s-", label="soft value iteration")
    right.set(yscale="log", xlabel="rounds, sweeps", ylabel="error", ylim=(1e-16, 10.0))
    right.legend()
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "soft_policy_step.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "soft_policy_step.json")
    options = parser.parse_args(args)
    result = measure(options.seed)
    print(f"in one state, largest difference of both sides over {POLICIES} policies: {result['step_error']:.0e}")
    print(f"over time, largest difference of both sides: {result['gap_error']:.0e}")
    print(f"{'round':>5} {'missing':>9} {'largest KL':>10} {'return':>7}   (optimal {result['optimal_return']:.4f})")
    for index, row in enumerate(result["rounds"]):
        print(f"{index:5d} {row['gap']:9.1e} {row['kl']:10.1e} {row['return']:7.4f}")
    print(f"error of soft value iteration after {ROUNDS - 1} sweeps: {result['sweeps'][-1]:.1e}")
    options.data.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out)


if __name__ == "__main__":
    main()
