"""Steps a second of Stable-Baselines3's DQN or SAC; benchmarks/off_policy_speed.py starts it."""

import argparse
import importlib.metadata
import json
import time

import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env


def main() -> None:
    options = argparse.ArgumentParser()
    for name in ("threads", "warm", "steps", "seed"):
        options.add_argument(f"--{name}", type=int, required=True)
    for name in ("algorithm", "environment", "settings"):
        options.add_argument(f"--{name}", required=True)
    given = options.parse_args()
    torch.set_num_threads(given.threads)

    settings = json.loads(given.settings)
    net_arch = settings.pop("net_arch")
    model = getattr(stable_baselines3, given.algorithm.upper())(
        "MlpPolicy", make_vec_env(given.environment, n_envs=1, seed=given.seed), seed=given.seed, device="cpu",
        policy_kwargs={"net_arch": net_arch}, **settings,
    )  # fmt: skip
    model.learn(given.warm)
    start, before = time.perf_counter(), model.num_timesteps
    model.learn(given.steps, reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    steps = model.num_timesteps - before
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
