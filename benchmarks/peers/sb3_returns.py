"""One run of Stable-Baselines3, and whole deterministic episodes with its last policy; benchmarks/returns.py starts it.

    .venv-peers/bin/python benchmarks/peers/sb3_returns.py --algorithm td3 --environment Pendulum-v1 --steps 20000 \
        --seed 0 --episodes 10 --judge 10000 --settings '{"net_arch": [400, 300], "noise_std": 0.1}'
"""

import argparse
import importlib.metadata
import json
import time

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule


def main() -> None:
    options = argparse.ArgumentParser()
    for name in ("steps", "seed", "episodes", "judge"):
        options.add_argument(f"--{name}", type=int, required=True)
    for name in ("algorithm", "environment", "settings"):
        options.add_argument(f"--{name}", required=True)
    given = options.parse_args()
    torch.set_num_threads(1)

    settings = json.loads(given.settings)
    world = make_vec_env(given.environment, n_envs=1, seed=given.seed)
    policy = {"net_arch": settings.pop("net_arch")} if "net_arch" in settings else {}
    if settings.pop("learning_rate_schedule", "constant") == "linear":
        settings["learning_rate"] = LinearSchedule(settings["learning_rate"], 0.0, 1.0)
    if "noise_std" in settings:
        width = world.action_space.shape[0]
        settings["action_noise"] = NormalActionNoise(np.zeros(width), np.full(width, settings.pop("noise_std")))
    model = getattr(stable_baselines3, given.algorithm.upper())(
        "MlpPolicy", world, seed=given.seed, device="cpu", policy_kwargs=policy, **settings
    )
    start = time.perf_counter()
    model.learn(given.steps)
    seconds = time.perf_counter() - start

    judge = make_vec_env(given.environment, n_envs=1, seed=given.judge + given.seed)
    returns: list[float] = []
    observation, total = judge.reset(), 0.0
    while len(returns) < given.episodes:
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, done, _ = judge.step(action)
        total += float(reward[0])
        if done[0]:
            returns.append(total)
            total = 0.0
    names = ("stable-baselines3", "torch", "numpy", "gymnasium", "mujoco")
    answer = {
        "mean": float(np.mean(returns)),
        "std": float(np.std(returns)),
        "returns": returns,
        "steps": model.num_timesteps,
        "training_seconds": round(seconds, 3),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
