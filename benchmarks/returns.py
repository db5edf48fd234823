"""DQN, Rainbow, SAC and TD3 with no flag but a budget of steps, beside Stable-Baselines3 at the same budget.

    python -m benchmarks.returns --jobs 2                                     all of it: hours
    python -m benchmarks.returns --case sac-Pendulum-v1 --seeds 2 --side sb3  a part of it

Protocol: our side is `torchward train ALGORITHM ENVIRONMENT --total-timesteps N --seed S` and nothing else. Theirs has
the setting of rl-baselines3-zoo for that environment; Rainbow, which they do not have, stands beside their DQN. The
final policy (not the best one) plays fresh episodes deterministically, 100 of them, on MuJoCo 20; a seed's score is
their mean. Reported are the interquartile mean of the scores, 5 seeds, on MuJoCo 3, and its 95 % stratified bootstrap
interval (Agarwal et al. 2021). One thread a run. The two sides are kept apart, so that either can be measured alone.
"""

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import (
    MISSING,
    PEERS,
    ROOT,
    RUNS,
    Results,
    Row,
    Work,
    child,
    conduct,
    options_of_runs,
    require_peers,
    verdict,
)
from benchmarks.defaults import interval
from benchmarks.judged import JUDGE, preset, train_and_judge

NAME = "returns"
SIDES = ("ours", "sb3")


class Case(NamedTuple):
    """One algorithm on one environment, and what the other side is told."""

    algorithm: str
    environment: str
    steps: int
    peer: Mapping[str, Any]
    """The setting of rl-baselines3-zoo, besides what is Stable-Baselines3's default."""
    peer_algorithm: str = ""
    seeds: int = 5
    episodes: int = 100


ZOO_CARTPOLE = {
    "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1_000,
    "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04, "net_arch": [256, 256],
}  # fmt: skip
ZOO_DQN = {
    "learning_rate": 6.3e-4, "batch_size": 128, "buffer_size": 50_000, "learning_starts": 0,
    "target_update_interval": 250, "train_freq": 4, "gradient_steps": -1, "exploration_fraction": 0.12,
    "exploration_final_eps": 0.1, "net_arch": [256, 256],
}  # fmt: skip
ZOO_LANDER = {
    "learning_rate": 7.3e-4, "learning_rate_schedule": "linear", "tau": 0.01, "learning_starts": 10_000,
    "net_arch": [400, 300],
}  # fmt: skip
ZOO_TD3 = {"learning_rate": 1e-3, "learning_starts": 10_000, "noise_std": 0.1, "net_arch": [400, 300]}
ZOO_TD3_SHORT = {**ZOO_TD3, "gamma": 0.98, "buffer_size": 200_000}

CASES = {
    f"{case.algorithm}-{case.environment}": case
    for case in (
        Case("dqn", "CartPole-v1", 100_000, ZOO_CARTPOLE),
        Case("dqn", "Acrobot-v1", 100_000, ZOO_DQN),
        Case("dqn", "LunarLander-v3", 100_000, ZOO_DQN),
        Case("rainbow", "CartPole-v1", 100_000, ZOO_CARTPOLE, "dqn"),
        Case("rainbow", "Acrobot-v1", 100_000, ZOO_DQN, "dqn"),
        Case("rainbow", "LunarLander-v3", 100_000, ZOO_DQN, "dqn"),
        Case("sac", "Pendulum-v1", 20_000, {"learning_rate": 1e-3}),
        Case("td3", "Pendulum-v1", 20_000, ZOO_TD3_SHORT),
        Case("sac", "HalfCheetah-v5", 50_000, {"learning_starts": 10_000}, seeds=3, episodes=20),
        Case("td3", "HalfCheetah-v5", 50_000, ZOO_TD3, seeds=3, episodes=20),
        Case("sac", "Hopper-v5", 50_000, {"learning_starts": 10_000}, seeds=3, episodes=20),
        Case("td3", "Hopper-v5", 50_000, ZOO_TD3, seeds=3, episodes=20),
        Case("td3", "LunarLanderContinuous-v3", 100_000, ZOO_TD3_SHORT),
        Case("sac", "LunarLanderContinuous-v3", 100_000, ZOO_LANDER),
    )
}


def settings(case: Case, side: str) -> dict[str, Any]:
    common = {"environment": case.environment, "steps": case.steps, "episodes": case.episodes}
    if side == "sb3":
        return {**common, "algorithm": case.peer_algorithm or case.algorithm, "settings": dict(case.peer)}
    config = preset(case.environment, {"total_timesteps": case.steps}, case.algorithm)
    return {**common, "algorithm": case.algorithm, "config": config}


def theirs(case: Case, seed: int) -> dict[str, Any]:
    told = settings(case, "sb3")
    words = [f"--{name}={told[name]}" for name in ("algorithm", "environment", "steps", "episodes")]
    words += [f"--settings={json.dumps(dict(case.peer))}", f"--seed={seed}", f"--judge={JUDGE}"]
    return child([PEERS, ROOT / "benchmarks" / "peers" / "sb3_returns.py", *words], 1)


def ours(name: str, seed: int, fresh: bool) -> dict[str, Any]:
    """One run, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{NAME}", "--one", "--case", name, "--seed", str(seed)]
    return child(command + (["--fresh"] if fresh else []), 1)


def key(name: str, side: str, seed: int) -> str:
    """Where a result is kept. Their DQN is run once for ours and for Rainbow."""
    case = CASES[name]
    peer = f"{case.peer_algorithm or case.algorithm}-{case.environment}"
    return f"sb3-{peer}-seed-{seed}" if side == "sb3" else f"{name}-seed-{seed}"


def rows(directory: Path | None = None) -> list[Row]:
    """The rows of the table, from the raw data."""
    results, found = Results(NAME, *([directory] if directory else [])), []
    for name, case in CASES.items():
        told: dict[str, tuple[float, float, float]] = {}
        texts: list[str] = []
        full = True
        for side in SIDES:
            there = [results.read(key(name, side, seed), settings(case, side)) for seed in range(case.seeds)]
            scores = [one["mean"] for one in there if one is not None]
            full &= len(scores) == case.seeds
            if scores:
                each = ", ".join(f"{score:.0f}" for score in sorted(scores))
                if len(scores) == case.seeds:
                    told[side] = middle, low, high = interval(scores)
                    texts.append(f"{side} {middle:.1f} [{low:.1f}, {high:.1f}] ({each})")
                else:
                    texts.append(f"{side} {len(scores)} of {case.seeds} seeds ({each})")
            else:
                texts.append(f"{side} not yet")
        measured = "; ".join(texts) if any("(" in text for text in texts) else MISSING
        if full:
            (_, low, high), (_, peer_low, peer_high) = told["ours"], told["sb3"]
            measured += f"; {verdict(high >= peer_low, low >= peer_high)}"
        what = f"{case.algorithm} with no flags on {case.environment} at {case.steps // 1000} k steps: IQM [95 %]"
        command = f"python -m benchmarks.{NAME} --case {name}"
        found.append(Row(what, "interval not below Stable-Baselines3's", "above it", measured, command))
    return found


def main() -> None:
    options = options_of_runs(NAME, __doc__ or "", 5)
    options.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    options.add_argument("--side", nargs="+", choices=SIDES, default=list(SIDES))
    given = options.parse_args()
    if "sb3" in given.side and not (given.one or given.table):
        require_peers()

    def works() -> list[Work]:
        made: dict[str, Work] = {}
        for name in given.case:
            case = CASES[name]
            for seed in range(min(given.seeds, case.seeds)):
                for side in given.side:
                    run = partial(theirs, case, seed) if side == "sb3" else partial(ours, name, seed, given.fresh)
                    work = Work(
                        key(name, side, seed), settings(case, side), run,
                        lambda result: f"{result['mean']:.1f} ± {result['std']:.1f}",
                    )  # fmt: skip
                    made.setdefault(work.key, work)
        return list(made.values())

    def run() -> dict[str, Any]:
        case = CASES[given.case[0]]
        changes = {"seed": given.seed, "total_timesteps": case.steps}
        path = RUNS / NAME / key(given.case[0], "ours", given.seed)
        return train_and_judge(case.environment, path, changes, case.episodes, given.fresh, case.algorithm)

    conduct(given, NAME, rows, works, run)


if __name__ == "__main__":
    main()
