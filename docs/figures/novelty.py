"""PPO on MountainCar with each of the bonuses and with none: where it has been, when it arrives, what is still new."""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchward.algorithms import ppo
from torchward.data.counts import Counts, cells
from torchward.data.curiosity import Curiosity
from torchward.data.intrinsic import ExplorationBonus, NoBonus, bonuses
from torchward.data.random_distillation import Distillation, RandomDistillation
from torchward.data.rollout import Rollout
from torchward.envs.task import Control
from torchward.nets.spaces import Box
from torchward.run import Run, RunOptions
from torchward.tasks.find import preset

DOCS = Path(__file__).resolve().parents[1]
TASK, STEPS, GRID = "MountainCar-v0", 61_440, 40
SHOTS = (4_096, 20_480, 61_440)
BONUSES: dict[str, ExplorationBonus] = {
    "none": NoBonus(),
    "counts": Counts(coef=10.0),
    "curiosity": Curiosity(coef=10.0),
    "random distillation": RandomDistillation(coef=10.0),
}


class Camera:
    """A shaping that changes nothing: it looks at where the car has been, and at what is new now and then."""

    def __init__(self, space: Box, novelty: Any) -> None:
        self.space, self.novelty, self.seen, self.arrived = space, novelty, 0, None
        self.visited: set[tuple[int, ...]] = set()
        self.counts = torch.zeros(GRID, GRID)
        self.shots: list[dict[str, Any]] = []

    def shape(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor | float]]:
        assert isinstance(rollout.observation, Tensor)
        flat = rollout.observation.flatten(0, 1)
        (numbers,) = cells(self.space, flat, Counts(bins=GRID))
        self.visited |= {tuple(row) for row in numbers.tolist()}
        place = torch.from_numpy(numbers).long()
        self.counts.index_put_((place[:, 1], place[:, 0]), torch.ones(len(place)), accumulate=True)
        if self.arrived is None and bool(rollout.terminated.any()):
            self.arrived = self.seen + int(rollout.terminated.any(0).nonzero()[0]) * len(rollout.reward)
        self.seen += rollout.reward.numel()
        if isinstance(self.novelty, Distillation) and self.seen in SHOTS:
            measured = self.novelty.measure(((), (), grid(self.space))).view(GRID, GRID)
            self.shots.append({"step": self.seen, "novelty": measured.tolist(), "visits": self.counts.tolist()})
        return rollout, {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def grid(space: Box) -> Tensor:
    """The middles of all cells, ``[GRID * GRID, 2]``: rows of one velocity."""
    low, high = space.bounds()
    middle = (torch.arange(GRID) + 0.5) / GRID
    speed, place = torch.meshgrid(middle, middle, indexing="ij")
    return low + torch.stack([place, speed], -1).view(-1, 2) * (high - low)


def learn(chosen: ExplorationBonus, seed: int) -> Camera:
    """The first steps of the preset's run, in which the step size has hardly begun to fall, with a bonus of its own."""
    task, found = Control(TASK), preset("ppo", TASK)
    assert found is not None and isinstance(task.observation_space, Box)
    config = replace(found.config, exploration_bonus=NoBonus(), seed=seed, learning_rate_schedule="constant")
    shapings = bonuses(chosen, task, config.gamma, seed, "cpu")
    camera = Camera(task.observation_space, getattr(shapings[0], "novelty", None) if shapings else None)
    options = RunOptions(eval_freq=-1, checkpoint_freq=-1, tensorboard=False, progress=False)
    with tempfile.TemporaryDirectory() as directory:
        run = Run(Path(directory) / "run", options, total=STEPS, manifest={"figure": "novelty"})
        ppo.train(config, task, run, shaping=[*shapings, camera])
    return camera


def draw(shots: list[dict[str, Any]], out: Path) -> None:
    """What is new over the places and velocities, and where the car has been."""
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.colors import LogNorm

    plt.style.use(DOCS / "figures" / "book.mplstyle")
    figure, axes = plt.subplots(1, len(shots), sharey=True, figsize=(9.0, 3.0))
    every = np.array([shot["novelty"] for shot in shots])
    norm = LogNorm(every.min(), every.max())
    extent = (-1.2, 0.6, -0.07, 0.07)
    for axis, shot in zip(axes, shots, strict=True):
        picture = axis.imshow(shot["novelty"], origin="lower", extent=extent, aspect="auto", norm=norm, cmap="viridis")
        been = (np.array(shot["visits"]) > 0).astype(float)
        x, y = (np.linspace(extent[i], extent[i + 1], GRID) for i in (0, 2))
        axis.contour(x, y, been, levels=[0.5], colors="white", linewidths=0.8)
        axis.grid(False)
        axis.set(title=f"after {shot['step']:,} steps", xlabel="place")
    axes[0].set(ylabel="velocity")
    figure.colorbar(picture, ax=axes, label="novelty")
    figure.savefig(out, metadata={"Software": None})


def main(args: list[str] | None = None) -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "novelty.png")
    parser.add_argument("--data", type=Path, default=DOCS / "data" / "novelty.json")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    print(f"{'bonus':<20} {'cells visited':>13}  first at the goal   ({STEPS} steps, {GRID * GRID} cells)")
    rows: dict[str, Any] = {}
    for name, chosen in BONUSES.items():
        camera = learn(chosen, options.seed)
        rows[name] = {"visited": len(camera.visited), "arrived": camera.arrived}
        when = "never" if camera.arrived is None else f"about step {camera.arrived}"
        print(f"{name:<20} {len(camera.visited):13d}  {when}", flush=True)
        if camera.shots:
            shots = camera.shots
    options.data.write_text(json.dumps({"seed": options.seed, "bonuses": rows, "shots": shots}) + "\n")
    draw(shots, options.out)


if __name__ == "__main__":
    main()
