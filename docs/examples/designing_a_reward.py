"""One corridor, six rewards: who finds the end of it, and who rides in circles.

python docs/examples/designing_a_reward.py
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from torch import Tensor

from torchward.algorithms import ppo
from torchward.data.counts import Counts
from torchward.data.curiosity import Curiosity
from torchward.data.curriculum import Curriculum
from torchward.data.potential import Potential
from torchward.data.protocols import Shaping
from torchward.envs.task import Control
from torchward.run import Run, RunOptions

PLACES, STEPS = 32, 24_576
QUIET = RunOptions(tensorboard=False, progress=False, eval_freq=-1, checkpoint_freq=-1)


class Corridor(gym.Env[Any, Any]):
    """So many places. One is seen by how far it is from the last, which pays 1 and ends; ``towards`` is paid for every
    step in its direction. There is time for three times the way."""

    def __init__(self, places: int = PLACES, towards: float = 0.0) -> None:
        self.places, self.towards = places, towards
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left, self.time = self.places - 1, 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        before = self.left
        self.left = min(self.places - 1, self.left + (-1 if action == 1 else 1))
        self.time += 1
        paid = float(self.left == 0) + self.towards * (self.left < before)
        return self._see(), paid, self.left == 0, self.time >= 3 * self.places, {}

    def _see(self) -> Any:
        return np.array([self.left / PLACES], np.float32)


def nearness(observation: Any) -> Tensor:
    """A potential: minus the way that is left."""
    way: Tensor = observation[:, 0]
    return -2.0 * way


class Learnt(NamedTuple):
    """What became of it."""

    arrives: float
    """The share of episodes that end at the end, by chance as in training."""
    first: int | None
    """The step by which an episode had earned anything, to a rollout; of a curriculum, at its first level."""
    earns: float
    """What an episode earned in the end, by the reward that it was paid."""


def learn(path: Path, task: Any, shaping: list[Shaping], bonus: Any = None) -> Learnt:
    """PPO on a task; it is judged in the corridor, whatever it was paid for."""
    config = ppo.Config(
        total_timesteps=STEPS, n_envs=8, n_steps=96, batch_size=192, n_epochs=4, learning_rate=1e-3, ent_coef=0.005,
        gamma=0.99, **({} if bonus is None else {"exploration_bonus": bonus}),
    )  # fmt: skip
    run = Run(path, QUIET, total=STEPS, manifest={})
    policy = ppo.train(config, task, run, shaping=shaping)
    rows = [row for row in run.rows() if row.get("return") is not None]
    first = next((row["step"] for row in rows if row["return_max"] > 0.0), None)
    returns = Control(Corridor).evaluate(policy, 20, seed=0, deterministic=False).returns
    return Learnt(sum(returns) / len(returns), first, rows[-1]["return"])


def main(place: Path) -> dict[str, Learnt]:
    """Each reward for itself."""
    levels = Curriculum([Control(partial(Corridor, n)) for n in (4, 8, 16, PLACES)], reached=0.9, window=20)
    sparse = Control(Corridor)
    return {
        "the end alone": learn(place / "sparse", sparse, []),
        "every step towards it": learn(place / "towards", Control(partial(Corridor, towards=0.05)), []),
        "a potential": learn(place / "potential", sparse, [Potential(nearness, gamma=0.99)]),
        "counts": learn(place / "counts", sparse, [], Counts(coef=0.1, bins=PLACES)),
        "curiosity": learn(place / "curiosity", sparse, [], Curiosity(coef=0.1)),
        "a curriculum": learn(place / "curriculum", levels, []),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        found = main(Path(directory))
    print(f"{'paid is':24}{'arrives':>9}{'first paid':>12}{'earns':>9}")
    for name, learnt in found.items():
        first = "never" if learnt.first is None else str(learnt.first)
        print(f"{name:24}{learnt.arrives:9.2f}{first:>12}{learnt.earns:9.2f}")
