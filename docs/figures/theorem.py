"""The policy gradient theorem on a process of six states, where both of its sides can be computed; and its estimates.

The exact gradient is that of a linear solve, by automatic differentiation. Sampled gradients are held against it.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchward.functional.bellman import occupancy, policy_evaluation_exact, q_from_v
from torchward.functional.returns import discounted_returns

DOCS = Path(__file__).resolve().parents[1]
STATES, ACTIONS, GAMMA, TIME = 6, 3, 0.9, 100
EPISODES = 64_000
COUNTS = (16, 64, 250, 1_000, 4_000, 16_000)


class World(NamedTuple):
    """A process whose last state is the end, and a policy for it, as logits."""

    transition: Tensor
    reward: Tensor
    start: Tensor
    logits: Tensor


def make_world(seed: int) -> World:
    """Random transitions and rewards; every step ends the episode with probability 0.1, and begins in the state 0."""
    generator = torch.Generator().manual_seed(seed)
    transition = torch.rand(STATES, ACTIONS, STATES, generator=generator, dtype=torch.float64) ** 4
    transition[..., -1] = transition[..., :-1].sum(-1) / 9
    transition[-1] = torch.nn.functional.one_hot(torch.tensor(STATES - 1), STATES)
    reward = torch.randn(STATES, ACTIONS, generator=generator, dtype=torch.float64) + 1.0
    reward[-1] = 0.0
    logits = 0.5 * torch.randn(STATES, ACTIONS, generator=generator, dtype=torch.float64)
    start = torch.nn.functional.one_hot(torch.tensor(0), STATES).double()
    return World(transition / transition.sum(-1, keepdim=True), reward, start, logits)


def exact(world: World) -> Tensor:
    """The gradient of the discounted return in the logits: differentiate the linear solve."""
    logits = world.logits.clone().requires_grad_()
    value = policy_evaluation_exact(world.transition, world.reward, logits.softmax(-1), GAMMA)
    (gradient,) = torch.autograd.grad(world.start @ value, logits)
    return gradient


def by_theorem(world: World, discounted: bool = True) -> Tensor:
    """sum_s d(s) sum_a pi(a|s) grad log pi(a|s) Q(s, a), with the discounted occupancy d, or the undiscounted one."""
    policy = world.logits.softmax(-1)
    value = policy_evaluation_exact(world.transition, world.reward, policy, GAMMA)
    q = q_from_v(world.transition, world.reward, value, GAMMA)
    visits = occupancy(world.transition, policy, world.start, GAMMA if discounted else 1.0)
    return visits[:, None] * policy * (q - value[:, None])  # of a table of logits: pi (Q - V)


def sample(world: World, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, actions, rewards ``[E, T]``, and where the episode has not ended yet."""
    policy = world.logits.softmax(-1)
    state = torch.zeros(EPISODES, dtype=torch.int64)
    columns = []
    for _ in range(TIME):
        action = torch.multinomial(policy[state], 1, generator=generator).squeeze(1)
        columns.append((state, action, world.reward[state, action], state != STATES - 1))
        state = torch.multinomial(world.transition[state, action], 1, generator=generator).squeeze(1)
    states, actions, rewards, alive = (torch.stack(column, 1) for column in zip(*columns, strict=True))
    return states, actions, rewards, alive


def episode_gradients(world: World, states: Tensor, actions: Tensor, weight: Tensor) -> Tensor:
    """Each episode's sum of weight * grad log pi, ``[E, states, actions]``."""
    policy, rows = world.logits.softmax(-1), torch.arange(len(states))
    total = torch.zeros(len(states), STATES, ACTIONS, dtype=torch.float64)
    for t in range(TIME):
        score = -policy[states[:, t]]
        score[rows, actions[:, t]] += 1.0
        total[rows, states[:, t]] += weight[:, t, None] * score
    return total


def measure(seed: int) -> dict[str, Any]:
    """Both sides of the theorem, and the error of sampled gradients by the number of episodes."""
    world = make_world(seed)
    truth = exact(world)
    practice = by_theorem(world, discounted=False)
    states, actions, reward, alive = sample(world, torch.Generator().manual_seed(seed + 1))
    value = policy_evaluation_exact(world.transition, world.reward, world.logits.softmax(-1), GAMMA)
    ends = torch.zeros_like(alive)
    ends[:, -1] = True
    to_go = discounted_returns(reward, torch.zeros_like(reward), ends, ends, GAMMA)
    discount = GAMMA ** torch.arange(TIME, dtype=torch.float64) * alive
    ways = {
        "total return": discount.gt(0) * to_go[:, :1],
        "return-to-go": discount * to_go,
        "return-to-go less V": discount * (to_go - value[states]),
        "the same without the discount": alive * (to_go - value[states]),
    }
    result: dict[str, Any] = {
        "seed": seed,
        "theorem_error": float((by_theorem(world) - truth).abs().max()),
        "norm": float(truth.norm()),
        "practice_cosine": float((practice * truth).sum() / practice.norm() / truth.norm()),
        "practice_error": float((practice - truth).norm() / truth.norm()),
        "ways": {},
    }
    for name, weight in ways.items():
        each = episode_gradients(world, states, actions, weight)
        errors = []
        for count in COUNTS:
            parts = each.reshape(EPISODES // count, count, -1).mean(1)
            errors.append(float((parts - truth.flatten()).square().sum(1).mean().sqrt() / truth.norm()))
        deviation = float(each.flatten(1).var(0).sum().sqrt() / truth.norm())
        result["ways"][name] = {"errors": errors, "one_episode": deviation}
    return result


def draw(result: dict[str, Any], out: Path) -> None:
    """Error over the number of episodes."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, axes = plt.subplots()
    for (name, row), marker in zip(result["ways"].items(), "os^D", strict=True):
        axes.plot(COUNTS, row["errors"], marker + "-", label=name)
    axes.axhline(result["practice_error"], color="C3", linewidth=1.0, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="episodes in the mean", ylabel="relative error of the gradient")
    axes.legend()
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "theorem.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "theorem.json")
    options = parser.parse_args(args)
    result = measure(options.seed)
    print(f"largest difference between the two sides of the theorem: {result['theorem_error']:.1e}")
    print(f"{'episodes':<30} {''.join(f'{count:>8}' for count in COUNTS)}  deviation of one")
    for name, row in result["ways"].items():
        print(f"{name:<30} {''.join(f'{error:8.3f}' for error in row['errors'])}  {row['one_episode']:16.2f}")
    print(
        f"without the discount of the visits: relative error {result['practice_error']:.3f}, "
        f"cosine with the gradient {result['practice_cosine']:.3f}"
    )
    options.data.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out)


if __name__ == "__main__":
    main()
