"""A proxy of a reward, optimised further and further from the start: the proxy rises, what was meant rises and falls.

python docs/examples/overoptimisation.py --out overoptimisation.png

To turn three letters round is what is meant. What is paid is the share of the letters that are right, by a judge who
likes long answers a little: half a percent for each letter.
"""

import argparse
import itertools
import tempfile
from collections.abc import Sequence
from operator import eq
from pathlib import Path
from typing import Any, NamedTuple

import torchward
from torchward.language.documents import Completion, Document
from torchward.language.reward_sum import Sum, Weighted
from torchward.language.rewards_by_answer import Exact
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.language.tokenizer import Characters
from torchward.run import RunOptions

VERBOSITY = 0.005
"""What the judge pays for a letter, whatever it is."""
QUIET = RunOptions(tensorboard=False, progress=False, eval_freq=-1, checkpoint_freq=-1)


class Point(NamedTuple):
    """Where a policy stood for a rollout."""

    divergence: float
    """KL(policy || start), in nats an answer."""
    proxy: float
    meant: float


def judge(prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
    """The proxy: the share of the letters that are right, each in its place; and a little for every letter."""
    return [
        sum(map(eq, said, right)) / len(right) + VERBOSITY * len(said)
        for said, right in zip(completions, columns["completion"], strict=True)
    ]


RUNS = ((0, 0.0), (1, 0.0), (0, 0.05))
"""A seed, and what a nat costs."""


def main(
    place: Path, pretrain: int = 26_000, tokens: int = 60_000, runs: Sequence[tuple[int, float]] = RUNS
) -> list[list[Point]]:
    """Runs, and a point for each of their rollouts."""
    words = ["".join(word) for word in itertools.product("abcdef", repeat=3)]
    documents = [Document(Completion(f"{word}=", word[::-1]), word) for word in words]
    # What has the weight 0 is not paid for: it is a metric.
    reward = Sum((Weighted("proxy", judge), Weighted("meant", Exact(), 0.0)))
    task = Text(Problems("letters", documents, (), reward, tokenizer=Characters(), max_completion_length=16))
    base = torchward.train(
        "pretrain", task, path=place / "base", options=QUIET, total_timesteps=pretrain, max_length=32, hidden_size=32,
        max_position_embeddings=256, num_hidden_layers=2, num_attention_heads=2, learning_rate=3e-3,
    )  # fmt: skip
    curves = []
    for seed, kl_coef in runs:
        run = torchward.train(
            "grpo", task, path=place / f"seed {seed} at {kl_coef}", init=base.path, options=QUIET,
            total_timesteps=tokens, generation_batch_size=128, num_generations=8, learning_rate=1e-3,
            seed=seed, kl_coef=kl_coef, kl_budget=1_000.0,
        )  # fmt: skip
        rows = [row for row in run.rows() if "reward/proxy" in row]
        curves.append([Point(row["kl_row"], row["reward/proxy"], row["reward/meant"]) for row in rows])
    return curves


def means(curves: list[list[Point]], edges: Sequence[float]) -> list[tuple[float, Point, int]]:
    """The mean of all points between two edges of the divergence: the lower edge, the mean, and of how many."""
    found = []
    for low, high in itertools.pairwise(edges):
        some = [point for curve in curves for point in curve if low <= point.divergence < high]
        if some:
            mean = Point(*(sum(column) / len(some) for column in zip(*some, strict=True)))
            found.append((low, mean, len(some)))
    return found


EDGES = (-1.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


def draw(curves: list[list[Point]], out: Path) -> None:
    """Both against the root of the divergence, as Gao et al. draw them."""
    import matplotlib.pyplot as plt

    plt.style.use(Path(__file__).parents[1] / "figures" / "book.mplstyle")
    figure, axes = plt.subplots(figsize=(6.0, 3.4))
    for name, colour in (("proxy", "C1"), ("meant", "C0")):
        for curve in curves:
            x = [max(point.divergence, 0.0) ** 0.5 for point in curve]
            axes.plot(x, [getattr(point, name) for point in curve], ".", color=colour, alpha=0.35, markersize=3)
        binned = means(curves, EDGES)
        x = [max(mean.divergence, 0.0) ** 0.5 for _, mean, _ in binned]
        label = (
            "what is paid: letters in place, and a little for each"
            if name == "proxy"
            else "what is meant: the right word"
        )
        axes.plot(x, [getattr(mean, name) for _, mean, _ in binned], color=colour, label=label)
    axes.set_xlabel("square root of the divergence from the start, in nats an answer")
    axes.set_ylabel("mean of a rollout's answers")
    axes.legend(loc="lower left")
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        *free, held = main(Path(directory))
    if chosen.out:
        draw(free, chosen.out)
    print(f"{'nats from':>10}{'on':>8}{'rollouts':>10}{'proxy':>8}{'meant':>8}")
    for low, mean, count in means(free, EDGES):
        print(f"{max(low, 0.0):10.2f}{mean.divergence:8.2f}{count:10}{mean.proxy:8.2f}{mean.meant:8.2f}")
    last = Point(*(sum(column) / 10 for column in zip(*held[-10:], strict=True)))
    print(f"with kl_coef {RUNS[-1][1]}, in the end{last.divergence:7.2f} nats{last.proxy:7.2f}{last.meant:8.2f}")
