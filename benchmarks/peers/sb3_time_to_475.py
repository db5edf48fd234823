"""Stable-Baselines3's PPO on CartPole with the tuned setting of rl-baselines3-zoo, until the mean return of the last 20
training episodes reaches a goal; benchmarks/time_to_475.py starts it and takes the time.

    .venv-peers/bin/python benchmarks/peers/sb3_time_to_475.py --threads 1 --seed 0 --goal 475 --window 20
"""

import argparse
import importlib.metadata
import json
import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule


class Goal(BaseCallback):  # type: ignore[misc]  # the peer is not installed where mypy runs
    """Looks at the mean return after each rollout; the update on it is still made, as it is on our side."""

    def __init__(self, goal: float, window: int) -> None:
        super().__init__()
        self.goal, self.window, self.reached, self.moment = goal, window, False, 0.0
        self.mean: float | None = None

    def _on_rollout_end(self) -> None:
        returns = [float(episode["r"]) for episode in self.model.ep_info_buffer]
        self.mean = sum(returns) / len(returns) if returns else None
        self.reached = len(returns) == self.window and self.mean is not None and self.mean >= self.goal

    def _on_step(self) -> bool:
        if self.reached and not self.moment:
            self.moment = time.time()
        return not self.reached


def main() -> None:
    options = argparse.ArgumentParser()
    for name in ("threads", "seed", "window", "total"):
        options.add_argument(f"--{name}", type=int, required=True)
    options.add_argument("--goal", type=float, required=True)
    given = options.parse_args()
    torch.set_num_threads(given.threads)

    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", n_envs=8, seed=given.seed), n_steps=32, batch_size=256, gae_lambda=0.8,
        gamma=0.98, n_epochs=20, ent_coef=0.0, learning_rate=LinearSchedule(1e-3, 0.0, 1.0),
        clip_range=LinearSchedule(0.2, 0.0, 1.0), stats_window_size=given.window, seed=given.seed, device="cpu",
    )  # fmt: skip
    goal = Goal(given.goal, given.window)
    model.learn(given.total, callback=goal)
    names = ("stable-baselines3", "torch", "numpy", "gymnasium")
    answer = {
        "reached": goal.reached,
        "moment": goal.moment or time.time(),
        "mean_return": goal.mean,
        "steps": model.num_timesteps,
        "versions": {name: importlib.metadata.version(name) for name in names},
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
