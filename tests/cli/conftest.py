"""A command called in this process; a world and an algorithm as a user writes them; one short run that many look at."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from torchward.cli import main

WORLD = '''
"""Ten steps; the second action pays. It can be drawn, and it can be made to fail."""

import gymnasium as gym
import numpy as np


class Env(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}
    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode=None, fault="", after=40):
        self.render_mode, self.fault, self.after, self.count = render_mode, fault, after, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(), {}

    def step(self, action):
        self.steps += 1
        self.count += 1
        seen = self._seen()
        if self.count >= self.after and self.fault == "nan":
            seen[0] = np.nan
        if self.count >= self.after and self.fault == "raise":
            raise ValueError("the robot fell off the table")
        return seen, float(action), self.steps == 10, False, {}

    def render(self):
        return np.full((16, 24, 3), 20 * self.steps, np.uint8)

    def _seen(self):
        return self.np_random.uniform(-1, 1, 4).astype(np.float32)
'''

ALGORITHM = '''
"""Random search, as a user writes it."""

import os
import signal
from dataclasses import dataclass

import torch

from torchward.nets.actor_critic import ActorCritic


@dataclass(frozen=True)
class Config:
    """The settings of random search."""

    total_timesteps: int = 100
    """Steps of the search."""
    scale: float = 1.0
    """How far it looks."""
    seed: int = 0
    """Everything random follows from it."""


def train(config, task, run):
    if config.scale < 0:
        raise ValueError("nothing is nearer than here")
    generator = torch.Generator().manual_seed(config.seed)
    policy = ActorCritic(task.observation_space, task.action_space)
    with run:
        run.track(policy=policy, generator=generator)
        while not run.done:
            with torch.no_grad():
                for parameter in policy.parameters():
                    parameter.add_(config.scale * torch.randn(parameter.shape, generator=generator))
            result = task.evaluate(policy, 2, run.step)
            run.advance(10, [Ended(value, 10) for value in result.returns])
            run.log({"first": policy.head.linear.weight[0, 0]})
            if run.due("evaluate"):
                run.evaluation(result, policy)
            if run.due("checkpoint"):
                run.save()
            if run.step == int(os.environ.get("STOP_AT", -1)):
                os.kill(os.getpid(), signal.SIGTERM)
        run.finish(policy)
    return policy


@dataclass
class Ended:
    return_: float
    length: int
'''


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return call


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Each test works in a directory of its own, in which there are an algorithm and a world of the user's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world.py").write_text(WORLD)
    (tmp_path / "search.py").write_text(ALGORITHM)
    threads = torch.get_num_threads()
    yield tmp_path
    assert torch.get_num_threads() == threads


TINY = ("--total-timesteps", "256", "--n-envs", "2", "--n-steps", "64", "--batch-size", "64", "--n-epochs", "2")
QUIET = ("--no-tensorboard", "--no-progress")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of ppo in the user's world. Only for looking at."""
    home = tmp_path_factory.mktemp("trained")
    (home / "world.py").write_text(WORLD)
    before = os.getcwd()
    try:
        os.chdir(home)
        assert main(["train", "ppo", "./world.py", *TINY, *QUIET, "--name", "short", "--normalize-observation"]) == 0
    finally:
        os.chdir(before)
    return home / "runs" / "short"
