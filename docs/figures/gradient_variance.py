"""The noise of the policy gradient under each choice of credit, measured on CartPole with a policy that stands still.

The same episodes are credited in seven ways; each batch gives one gradient for each way. The discount is 1, so that all
but the last estimate one and the same gradient: that of the expected return.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchward.algorithms.reinforce import Config, Learner, baseline, credit
from torchward.data.random import seeded
from torchward.data.rollout import Rollout
from torchward.envs.task import Control
from torchward.functional.advantages import gae
from torchward.functional.policy_losses import reinforce
from torchward.functional.reduction import masked_mean, masked_sum
from torchward.functional.value_losses import squared_error
from torchward.nets.actor_critic import ActorCritic

DOCS = Path(__file__).resolve().parents[1]
CONFIG = Config(n_envs=16, gamma=1.0)
UPDATES, CRITIC_BATCHES, CRITIC_STEPS = 12, 40, 600
NAMES = {
    "total, none": "total return,\nno baseline",
    "total, mean": "total return,\nmean",
    "total, learned": "total return,\nlearned",
    "to go, none": "return-to-go,\nno baseline",
    "to go, mean": "return-to-go,\nmean",
    "to go, learned": "return-to-go,\nlearned",
    "gae 0.95": "GAE,\n" + r"$\lambda$ = 0.95",
}


def weights(rollout: Rollout) -> dict[str, Tensor]:
    """The weight of each step ``[B, T]`` in the gradient, by each way of giving credit."""
    assert rollout.value is not None and rollout.next_value is not None
    to_go = credit(rollout, Config(n_envs=CONFIG.n_envs, gamma=1.0, baseline="none")).target
    total = to_go[:, :1].expand_as(to_go)  # of the whole episode, at every step of it
    others = (total.sum(0, keepdim=True) - total) / (len(total) - 1)  # whether or not they still last
    facts = rollout.terminated, rollout.boundary
    return {
        "total, none": total,
        "total, mean": total - others,
        "total, learned": total - rollout.value[:, :1],
        "to go, none": to_go - baseline(rollout, to_go, "none"),
        "to go, mean": to_go - baseline(rollout, to_go, "mean"),
        "to go, learned": to_go - baseline(rollout, to_go, "learned"),
        "gae 0.95": gae(rollout.reward, rollout.value, rollout.next_value, *facts, 1.0, 0.95),
    }


def gradients(policy: ActorCritic, rollout: Rollout) -> dict[str, Tensor]:
    """The gradient of the expected return as one batch estimates it, in each way: one vector each."""
    actor = list(policy.parameters())
    log_prob = policy.evaluate_actions(rollout.observation, rollout.action, (), rollout.boundary).log_prob
    found = {}
    for name, weight in weights(rollout).items():
        gain = -masked_sum(reinforce(log_prob, weight), rollout.loss_mask) / len(weight)  # a mean over episodes
        parts = torch.autograd.grad(gain, actor, retain_graph=True, allow_unused=True)
        found[name] = torch.cat([part.flatten() for part in parts if part is not None]).double()
    return found


def observations(rollout: Rollout) -> Tensor:
    """What was seen, which on CartPole is one tensor ``[B, T, 4]``."""
    assert isinstance(rollout.observation, Tensor)
    return rollout.observation


def fit_critic(policy: ActorCritic, rollouts: list[Rollout], generator: torch.Generator) -> float:
    """Teach the critic alone what the policy's returns are; the part of their variance that it explains."""
    returns = [weights(rollout)["to go, none"][rollout.loss_mask] for rollout in rollouts]
    target = torch.cat(returns)
    seen = torch.cat([observations(rollout)[rollout.loss_mask] for rollout in rollouts])
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)  # moves no weight of the actor: their gradient is 0
    for _ in range(CRITIC_STEPS):
        rows = torch.randint(len(target), (512,), generator=generator)
        value = policy.value(seen[rows], ())
        assert value is not None
        optimizer.zero_grad()
        masked_mean(squared_error(value, target[rows]), torch.ones_like(rows, dtype=torch.bool)).backward()
        optimizer.step()
    with torch.no_grad():
        value = policy.value(seen, ())
        assert value is not None
        return float(1.0 - (target - value).var() / target.var())


def measure(seed: int, batches: int) -> dict[str, Any]:
    """Train a while, stop, fit the critic, and estimate the gradient from ``batches`` batches of 16 episodes."""
    task = Control("CartPole-v1")
    with seeded(seed, "policy"):
        policy = ActorCritic(task.observation_space, task.action_space)
    learner, source = Learner(policy, CONFIG), task.source(CONFIG.n_envs, seed)
    for _ in range(UPDATES):
        learner.update(credit(source.collect(policy, None), CONFIG))
    explained = fit_critic(policy, [source.collect(policy, None) for _ in range(CRITIC_BATCHES)], source.generator)
    source.episodes()
    samples: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    lengths: list[int] = []
    for _ in range(batches):
        rollout = source.collect(policy, None)
        lengths += [episode.length for episode in source.episodes()]
        for name, gradient in gradients(policy, rollout).items():
            samples[name].append(gradient)
    stacked = {name: torch.stack(rows) for name, rows in samples.items()}
    best = stacked["to go, learned"]
    signal = float(best.mean(0).square().sum() - best.var(0).sum() / batches)  # |gradient|^2, without a bias
    result: dict[str, Any] = {"seed": seed, "batches": batches, "explained": explained, "signal": signal}
    result |= {"length": sum(lengths) / len(lengths), "longest": max(lengths), "ways": {}}
    for name, rows in stacked.items():
        spread = (rows - rows.mean(0)).square().sum(1) * batches / (batches - 1)
        difference = rows - best
        noise = float(difference.var(0).sum())
        result["ways"][name] = {
            "variance": float(spread.mean()),
            "error": float(spread.std() / batches**0.5),
            "noise_to_signal": float(spread.mean()) / signal,
            "cosine": float(nn.functional.cosine_similarity(rows, best.mean(0), dim=1).mean()),
            "shift": batches * float(difference.mean(0).square().sum()) / noise if noise else 0.0,
        }
    return result


def draw(result: dict[str, Any], out: Path) -> None:
    """Bars of the variance, with two standard errors."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, axes = plt.subplots(figsize=(8.0, 3.8))
    ways = result["ways"]
    heights = [ways[name]["noise_to_signal"] for name in NAMES]
    errors = [2.0 * ways[name]["error"] / result["signal"] for name in NAMES]
    colours = ["C1"] * 3 + ["C0"] * 3 + ["C2"]
    axes.bar(
        range(len(NAMES)), heights, yerr=errors, color=colours, width=0.65, error_kw={"elinewidth": 1.2, "capsize": 3}
    )
    for x, (height, error) in enumerate(zip(heights, errors, strict=True)):
        axes.text(x, height + error + 0.08, f"{height:.2f}", ha="center", fontsize=9)
    axes.set(ylabel="variance of a batch's gradient\n" + r"in units of $\|\nabla J\|^2$", ylim=(0, 1.3 * max(heights)))
    axes.set_xticks(range(len(NAMES)), list(NAMES.values()), fontsize=8.5)
    axes.grid(axis="x", visible=False)
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "gradient_variance.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "gradient_variance.json")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    result = measure(options.seed, options.batches)
    print(
        f"seed {result['seed']}, {result['batches']} batches of {CONFIG.n_envs} episodes; mean length "
        f"{result['length']:.1f}, longest {result['longest']}; the critic explains {result['explained']:.0%} of the "
        f"variance of the return-to-go; |gradient|^2 = {result['signal']:.4g}"
    )
    print(f"{'credit':<16} {'variance':>10} {'+-':>8} {'in |g|^2':>9} {'cosine':>7} {'shift':>6}")
    for name, row in result["ways"].items():
        print(
            f"{name:<16} {row['variance']:10.1f} {row['error']:8.1f} {row['noise_to_signal']:9.3g} "
            f"{row['cosine']:7.3f} {row['shift']:6.2f}"
        )
    print("cosine: of a batch's gradient with the mean gradient; shift: distance of the mean gradient from that of")
    print("'to go, learned', squared, in squared standard errors: about 1 if both estimate the same, more if not")
    options.data.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out)


if __name__ == "__main__":
    main()
