"""What DQN's parts are for, and what common faults cost: learning curves on CartPole, one fault at a time.

python docs/figures/dqn_faults.py           what is not measured yet (35 runs of about a quarter of a minute)
python docs/figures/dqn_faults.py --fresh   all of it
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from torchward.algorithms import dqn
from torchward.data.exploration import EpsilonGreedy
from torchward.data.protocols import Evaluation, Policy
from torchward.data.rollout import Rollout
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.metrics import read_metrics
from torchward.run import Run, RunOptions

DOCS = Path(__file__).resolve().parents[1]
SEEDS = 5
EVERY, EPISODES = 750, 16
"""Steps between two evaluations, and their episodes."""
RIGHT = dqn.Config(
    total_timesteps=15_000, n_envs=2, train_freq=1, batch_size=64, buffer_size=50_000, learning_starts=500, gamma=0.98,
    learning_rate=1e-3, learning_rate_schedule="linear", target_update_interval=200,
    exploration=EpsilonGreedy(1.0, 0.05, 0.2),
)  # fmt: skip


class Ends:
    """A fault, planted as shaping: what a rollout says of its ends."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def shape(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor | float]]:
        """With none terminal, or with time limits among the terminal ones."""
        if self.fault == "unmasked":
            return replace(rollout, terminated=torch.zeros_like(rollout.terminated)), {}
        return replace(rollout, terminated=rollout.terminated | (rollout.boundary & rollout.loss_mask)), {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing is to be kept."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing was."""


def cartpole() -> Control:
    """With episodes of at most 200 steps."""
    return Control("CartPole-v1", EnvOptions(max_episode_steps=200))


class Road(gym.Env[Any, Any]):
    """Eleven places in a row: the left end pays 3, the right one 10. An episode begins anywhere between them."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(1, 10))
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place += 1 if action == 1 else -1
        paid = {0: 3.0, 10: 10.0}.get(self.place, 0.0)
        return self._see(), paid, paid > 0.0, False, {}

    def _see(self) -> Any:
        return np.array([self.place / 5.0 - 1.0], np.float32)


class Cut(Control):
    """The road with a limit of two steps while it is learnt, and of a hundred when it is judged."""

    def __init__(self) -> None:
        super().__init__(Road, EnvOptions(max_episode_steps=2))

    def evaluate(self, policy: Policy, episodes: int, seed: int, deterministic: bool = True) -> Evaluation:
        """Whole walks."""
        return Control(Road, EnvOptions(max_episode_steps=100)).evaluate(policy, episodes, seed, deterministic)


ROAD = replace(RIGHT, gamma=0.9, total_timesteps=6_000)
CASES: dict[str, tuple[Callable[[], Control], dqn.Config, list[Any]]] = {
    "as it should be": (cartpole, RIGHT, []),
    "no replay: the newest steps alone": (cartpole, replace(RIGHT, buffer_size=4, batch_size=2), []),
    "target copied at every update": (cartpole, replace(RIGHT, target_update_interval=1), []),
    "target copied every 3,000 steps": (cartpole, replace(RIGHT, target_update_interval=3_000), []),
    "an end that is not masked": (cartpole, RIGHT, [Ends("unmasked")]),
    "road, as it should be": (Cut, ROAD, []),
    "road, a time limit taken for an end": (Cut, ROAD, [Ends("limit")]),
}


def learn(case: str, seed: int) -> dict[str, Any]:
    """One run: the mean return of each evaluation, and the mean value of the actions learnt from since the last."""
    world, config, shaping = CASES[case]
    config = replace(config, seed=seed)
    options = RunOptions(
        eval_freq=EVERY, n_eval_episodes=EPISODES, checkpoint_freq=-1, log_freq=EVERY, tensorboard=False, progress=False
    )
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", options, total=config.total_timesteps, manifest={"algorithm": "dqn"})
        dqn.train(config, world(), run, shaping=shaping)
        if run.step < config.total_timesteps:
            raise SystemExit("stopped: call it again, and it goes on")
        rows = read_metrics(run.path)
    evaluations = [row for row in rows if "eval/return" in row]
    return {
        "steps": [row["step"] for row in evaluations],
        "return": [round(row["eval/return"], 1) for row in evaluations],
        "value": [float(f"{row['q']:.4g}") for row in rows if "q" in row],
    }


def measure(data: Path, fresh: bool) -> dict[str, list[dict[str, Any]]]:
    """All runs; each is written down as soon as it is there."""
    stored = json.loads(data.read_text()) if data.exists() and not fresh else {}
    found: dict[str, list[dict[str, Any]]] = {case: stored.get(case, []) for case in CASES}
    for seed in range(SEEDS):
        for case in CASES:
            if len(runs := found[case]) <= seed:
                runs.append(learn(case, seed))
                data.write_text(json.dumps(found) + "\n")
                print(f"{case}, seed {seed}: {runs[-1]['return'][-5:]}", flush=True)
    return found


def draw(found: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """Returns over the steps: the mean of the seeds and each of them, beside those without the fault."""
    import matplotlib.pyplot as plt

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, panels = plt.subplots(2, 3, figsize=(7.2, 4.6))
    faults = [case for case in found if not case.endswith("as it should be")]
    for axes, case in zip(panels.flat[1:], faults, strict=True):
        right = "road, as it should be" if case.startswith("road") else "as it should be"
        curves(axes, found[right], "C0")
        curves(axes, found[case], "C1")
        axes.set_title(case.replace(": ", ":\n").replace(", ", ",\n", 1) if len(case) > 30 else case, fontsize=9)
    curves(panels[0, 0], found["as it should be"], "C0")
    panels[0, 0].set_title("as it should be", fontsize=9)
    for axes in panels.flat[:5]:
        axes.set(ylim=(0, 208))
    panels[1, 2].set(ylim=(0, 10.4))
    for axes in panels[1]:
        axes.set(xlabel="steps, thousands")
    for axes in panels[:, 0]:
        axes.set(ylabel="return")
    figure.savefig(out, metadata={"Software": None})


def curves(axes: Any, runs: list[dict[str, Any]], colour: str) -> None:
    """The mean of some runs, and each of them."""
    steps = [step / 1000 for step in runs[0]["steps"]]
    for run in runs:
        axes.plot(steps, run["return"], color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(steps, mean([run["return"] for run in runs]), color=colour)


def mean(curves: list[list[float]]) -> list[float]:
    """Of several runs, at each evaluation."""
    return [statistics.fmean(values) for values in zip(*curves, strict=True)]


def main(args: list[str] | None = None) -> None:
    """Measure what is missing, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "dqn_faults.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "dqn_faults.json")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    found = measure(options.data, options.fresh)
    print(f"{'mean of ' + str(SEEDS) + ' seeds':36}{'last third':>12}{'best':>8}{'worst seed':>12}{'value':>12}")
    for case, runs in found.items():
        thirds = [statistics.fmean(run["return"][-len(run["return"]) // 3 :]) for run in runs]
        best = statistics.fmean(max(run["return"]) for run in runs)
        value = statistics.fmean(run["value"][-1] for run in runs)
        print(f"{case:36}{statistics.fmean(thirds):12.1f}{best:8.1f}{min(thirds):12.1f}{value:12.4g}")
    draw(found, options.out)


if __name__ == "__main__":
    main()
