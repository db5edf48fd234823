"""PPO with an LSTM on CartPole with the velocities hidden, beside the same PPO without a memory.

    python -m benchmarks.lstm --jobs 2        5 seeds of each

The final policy plays 20 fresh episodes deterministically; a seed's score is their mean return, of 500 at most. The
control is the same setting with no recurrent layer: what it reaches, can be reached without remembering.
"""

import statistics
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.common import MISSING, RUNS, Results, Row, Work, child, conduct, options_of_runs, spread, verdict
from benchmarks.judged import preset, train_and_judge

if TYPE_CHECKING:
    from torchward.algorithms.ppo import Config

NAME = "lstm"
Kind = Literal["lstm", "none"]
KINDS: tuple[Kind, ...] = ("lstm", "none")
EPISODES, SEEDS = 20, 5
ASKED, AIM = 450.0, 490.0


def config() -> "Config":
    """Rows of 64 steps, four of them a minibatch; positions are small numbers, so they are normalised."""
    from torchward.algorithms.ppo import Config
    from torchward.nets.actor_critic import Network

    return Config(
        total_timesteps=200_000,
        n_envs=16,
        n_steps=64,
        batch_size=256,
        n_epochs=8,
        gamma=0.98,
        gae_lambda=0.9,
        learning_rate=2e-3,
        learning_rate_schedule="linear",
        network=Network(recurrent="lstm", lstm_hidden_size=32, normalize_observation=True),
    )


def changes(kind: Kind) -> dict[str, Any]:
    """The setting, field by field, with the recurrent layer of this kind."""
    setting = config()
    setting = replace(setting, network=replace(setting.network, recurrent=kind))
    return {field.name: getattr(setting, field.name) for field in fields(setting) if field.name != "seed"}


def settings(kind: Kind) -> dict[str, Any]:
    from benchmarks.worlds import CartPolePositions

    return {"recurrent": kind, "episodes": EPISODES, "config": preset(CartPolePositions, changes(kind))}


def one(kind: Kind, seed: int, fresh: bool) -> dict[str, Any]:
    """One run, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{NAME}", "--one", "--kinds", kind, "--seed", str(seed)]
    return child(command + (["--fresh"] if fresh else []), 1)


def rows(directory: Path | None = None) -> list[Row]:
    """The row of the table, from the raw data."""
    results = Results(NAME, *([directory] if directory else []))
    scores = {
        kind: [r["mean"] for r in (results.read(key(kind, seed), setting) for seed in range(SEEDS)) if r is not None]
        for kind, setting in ((kind, settings(kind)) for kind in KINDS)
    }
    measured = MISSING
    if scores["lstm"]:
        middle, count = statistics.median(scores["lstm"]), len(scores["lstm"])
        control = f"; without memory {spread(scores['none'])}" if scores["none"] else ""
        measured = (
            f"{spread(scores['lstm'])} over {count} seeds, {sum(s >= ASKED for s in scores['lstm'])} of them at least "
            f"{ASKED:g}{control}; {verdict(count >= SEEDS and middle >= ASKED, middle >= AIM)}"
        )
    what = "PPO-LSTM on CartPole with the velocities hidden: median of 5 seeds, 20 deterministic episodes each"
    return [Row(what, f"{ASKED:g}", f"{AIM:g}", measured, f"python -m benchmarks.{NAME}")]


def key(kind: Kind, seed: int) -> str:
    return f"{'lstm' if kind == 'lstm' else 'mlp'}-seed-{seed}"


def main() -> None:
    options = options_of_runs(NAME, __doc__ or "", SEEDS)
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = options.parse_args()

    def works() -> list[Work]:
        return [
            Work(
                key(kind, seed), settings(kind), partial(one, kind, seed, given.fresh),
                lambda result: f"{result['mean']:.1f} ± {result['std']:.1f}",
            )
            for seed in range(given.seeds)
            for kind in given.kinds
        ]  # fmt: skip

    def run() -> dict[str, Any]:
        from benchmarks.worlds import CartPolePositions

        path = RUNS / NAME / key(given.kinds[0], given.seed)
        chosen = {**changes(given.kinds[0]), "seed": given.seed}
        return train_and_judge(CartPolePositions, path, chosen, EPISODES, given.fresh)

    conduct(given, NAME, rows, works, run)


if __name__ == "__main__":
    main()
