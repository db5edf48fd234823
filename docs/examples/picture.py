"""A policy with an encoder of one's own: the courier's grid becomes a picture, and goes through two convolutions."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import torchward
from torchward.envs.make import EnvOptions
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.run import Run
from torchward.tasks import find

COURIER = Path(__file__).with_name("courier.py")


class Picture(nn.Module):
    """Observations ``[N]`` to features ``[N, 64]``: a plane for the courier, the parcel, the door, and the load."""

    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.size = size
        self.features = 64  # ActorCritic asks for it
        self.layers = nn.Sequential(
            *(nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(16 * size * size, self.features), nn.ReLU()),
        )

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        cell = (observation["places"] * (self.size - 1)).round().long().reshape(-1, 3, 2)
        row, plane = torch.arange(len(cell))[:, None], torch.arange(3)
        picture = torch.zeros(len(cell), 4, self.size, self.size)
        picture[row, plane, cell[..., 0], cell[..., 1]] = 1.0
        picture[:, 3] = observation["loaded"][:, None, None].float()
        features: Tensor = self.layers(picture)
        return features


def main(path: Path | None = None, **settings: Any) -> Run:
    """Train, load, and choose one action."""
    env = EnvOptions(action_mask=True, max_episode_steps=100)
    task = find.task(COURIER, env).task
    policy = ActorCritic(task.observation_space, task.action_space, Network(net_arch=(64,)), encoder=Picture())
    run = torchward.train("ppo", COURIER, policy=policy, env=env, path=path, **settings)
    trained = torchward.load(run.path, encoder=Picture())
    observation, info = task.env().reset(seed=0)
    action, _ = trained.predict({**observation, "action_mask": info["action_mask"]})
    print(f"the best evaluation: {run.best_return:.2f}; a first move: {action}")
    return run


if __name__ == "__main__":
    main(total_timesteps=60_000, n_envs=16, gamma=0.95, learning_rate=1e-3, ent_coef=0.01)
