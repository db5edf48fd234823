"""Steps a second of Stable-Baselines3's PPO on CartPole; benchmarks/ppo_speed.py starts it.

.venv-peers/bin/python benchmarks/peers/sb3_ppo_speed.py --threads 1 --warm 10 --iterations 100
"""

import argparse
import importlib.metadata
import json
import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env


def main() -> None:
    options = argparse.ArgumentParser()
    for name in ("threads", "warm", "iterations", "seed", "n-envs", "n-steps", "batch-size", "n-epochs"):
        options.add_argument(f"--{name}", type=int, required=True)
    given = options.parse_args()
    torch.set_num_threads(given.threads)

    # Separate networks of two layers of 64 with tanh are its default; they are named to keep it so.
    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", n_envs=given.n_envs, seed=given.seed), n_steps=given.n_steps,
        batch_size=given.batch_size, n_epochs=given.n_epochs, seed=given.seed, device="cpu",
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh},
    )  # fmt: skip
    rollout = given.n_envs * given.n_steps
    model.learn(given.warm * rollout)
    start = time.perf_counter()
    model.learn(given.iterations * rollout, reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    steps = model.num_timesteps - given.warm * rollout
    names = ("stable-baselines3", "torch", "numpy", "gymnasium")
    answer = {
        "steps": steps,
        "seconds": round(seconds, 4),
        "steps_per_second": round(steps / seconds, 1),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
