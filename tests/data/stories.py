"""Worlds that write down what happens in them: a plain list of steps, against which any replay can be held."""

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Generator, Tensor

from tests.envs.worlds import KINDS
from torchward.data.protocols import Acted
from torchward.data.tree import Tree, tree_leaves
from torchward.envs.collect import EnvSource
from torchward.envs.worlds import Worlds

N = 3
LIVES = ("in process", "next step", "same step", "disabled")
"""The kinds of worlds that step in this process, in all three autoreset modes."""


@dataclass
class Told:
    """One step, as the world itself wrote it down."""

    seen: Any
    action: Any
    reward: float
    terminated: bool
    ended: bool
    following: Any
    behind: bool = False
    """True once the world has begun anew: what it ended in is then a row of its own."""


@dataclass
class Story:
    """The steps of each world, in the order in which they happened."""

    worlds: list[list[Told]] = field(default_factory=lambda: [[] for _ in range(N)])

    def find(self, observation: Tree) -> tuple[int, int]:
        """The world and the number of the step that an observation was acted on in."""
        world, number = (int(x) for x in name_of(observation))
        return world, number

    def outcome(self, world: int, number: int, gamma: float, n_steps: int) -> tuple[float, float, Any]:
        """The discounted rewards, the discount, and the observation behind them, step by step."""
        total, factor = 0.0, 1.0
        for step in self.worlds[world][number : number + n_steps]:
            total += factor * step.reward
            factor *= gamma
            if step.ended:
                break
        return total, 0.0 if step.terminated else factor, step.following

    def rows(self, world: int) -> list[int | None]:
        """What a replay has of a world: its steps by their numbers, and None for each final observation."""
        rows: list[int | None] = []
        for number, step in enumerate(self.worlds[world]):
            rows += [number, None] if step.behind else [number]
        return rows

    def kept(self, window: int) -> set[tuple[int, int]]:
        """The world and number of each step among the last ``window`` rows of each world."""
        every = ((world, self.rows(world)[-window:]) for world in range(N))
        return {(world, number) for world, numbers in every for number in numbers if number is not None}


class World(gym.Env[Any, Any]):
    """Ends by chance, in any of the ways. Every observation bears the world's number and that of its step."""

    observation_space: gym.Space[Any] = gym.spaces.Box(-np.inf, np.inf, (4,))
    action_space: gym.Space[Any] = gym.spaces.Discrete(3)

    def __init__(self, world: int, story: Story, ends: float = 0.15) -> None:
        self.random, self.world, self.told, self.ends = Random(world), world, story.worlds[world], ends

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if self.told:
            self.told[-1].ended = self.told[-1].behind = True  # also where it was only broken off
        self.begin()
        self.seen = self.look()
        return self.seen, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = self.random.randint(-8, 8) / 4.0
        terminated, truncated = self.random.random() < self.ends, self.random.random() < self.ends
        before, self.told_action = self.seen, np.array(action)
        self.told.append(Told(before, self.told_action, reward, terminated, terminated or truncated, None))
        self.seen = self.told[-1].following = self.look()
        return self.seen, reward, terminated, truncated, {}

    def begin(self) -> None:
        """An episode begins."""

    def look(self) -> Any:
        return np.array([self.world, len(self.told), self.random.random(), self.random.random()], np.float32)


class Pictures(World):
    """Stacks of four frames, each of two channels; the channels come first. Actions are two numbers."""

    observation_space = gym.spaces.Box(0, 255, (8, 9, 10), np.uint8)
    action_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    padding = "first"

    def begin(self) -> None:
        self.frames: deque[Any] = deque(maxlen=4)

    def frame(self) -> Any:
        frame = np.frombuffer(self.random.randbytes(2 * 9 * 10), np.uint8).reshape(2, 9, 10).copy()
        frame[0, 0, :4] = self.world, len(self.told) // 256, len(self.told) % 256, 77
        return frame

    def look(self) -> Any:
        frame = self.frame()
        while len(self.frames) < 3:
            self.frames.append(frame if self.padding == "first" else np.zeros_like(frame))
        self.frames.append(frame)
        return np.concatenate(self.frames)


class ZeroPictures(Pictures):
    """The same with zeros before an episode's first frame; the channels come last, among other things that are seen."""

    padding = "zero"
    observation_space: Any = gym.spaces.Dict(
        near=gym.spaces.Box(0, 255, (9, 10, 8), np.uint8),
        far=gym.spaces.Tuple((gym.spaces.Discrete(5, start=-1), gym.spaces.Box(-1, 1, (3,)))),
        action_mask=gym.spaces.MultiBinary(3),
    )
    action_space: Any = gym.spaces.Dict(a=gym.spaces.Discrete(3), b=gym.spaces.MultiBinary(2))

    def look(self) -> Any:
        bits = np.array([self.random.randint(0, 1) for _ in range(3)])
        where = np.array([self.random.random() for _ in range(3)], np.float32)
        picture = np.moveaxis(super().look(), 0, -1)
        return {"near": picture, "far": (np.int64(self.random.randint(-1, 3)), where), "action_mask": bits}


class Goals(World):
    """What is achieved is a number that tells the world and the step behind which it was; what is desired, a chance."""

    observation_space: Any = gym.spaces.Dict(
        observation=gym.spaces.Box(-np.inf, np.inf, (4,)),
        achieved_goal=gym.spaces.Box(-np.inf, np.inf, (2,)),
        desired_goal=gym.spaces.Box(-np.inf, np.inf, (2,)),
    )

    def begin(self) -> None:
        self.goal = np.array([self.random.randint(-9, -1), self.episode()], np.float32)

    def episode(self) -> int:
        return sum(step.ended for step in self.told)

    def look(self) -> Any:
        achieved = np.array([len(self.told), int(self.goal[1])], np.float32)
        return {"observation": super().look(), "achieved_goal": achieved, "desired_goal": self.goal}


def name_of(observation: Any) -> tuple[float, float]:
    """The numbers that a world wrote into an observation, of any kind."""
    if isinstance(observation, dict) and "observation" in observation:
        observation = observation["observation"]
    if isinstance(observation, dict):
        observation = np.moveaxis(np.asarray(observation["near"]), -1, 0)
    array = np.asarray(observation)
    if array.ndim == 1:
        return array[0], array[1]
    world, high, low = (int(x) for x in array[-2, 0, :3])
    return world, 256 * high + low


class Chance:
    """A policy that does anything."""

    history = False

    def __init__(self, space: Any) -> None:
        self.space = space

    def initial_state(self, batch: int) -> Tree:
        return ()

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        def draw(space: Any) -> Tree:
            if isinstance(space, gym.spaces.Dict):
                return {name: draw(inner) for name, inner in space.spaces.items()}
            if isinstance(space, gym.spaces.Discrete):
                return torch.randint(int(space.n), batch, generator=generator)
            if isinstance(space, gym.spaces.MultiBinary):
                return torch.randint(2, (*batch, *space.shape), generator=generator)
            return torch.randn((*batch, *space.shape), generator=generator)

        return draw(self.space)

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        assert noise is not None
        batch = next(iter(tree_leaves(noise))).shape[0]
        return Acted(noise, torch.zeros(batch), None, state)

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        return None


def begun(kind: str, world: type[World], ends: float = 0.15) -> tuple[Story, EnvSource, Any]:
    """A story that has not begun, the source that tells it, and the policy to call it with."""
    story = Story()
    worlds: Worlds = KINDS[kind](lambda i: world(i, story, ends), N, False)
    return story, EnvSource(worlds, seed=0), Chance(world.action_space)


def same(tree: Any, told: Any) -> bool:
    """Whether a tree of tensors holds what a world told, to the bit."""
    if isinstance(told, dict):
        return isinstance(tree, dict) and all(same(tree[name], part) for name, part in told.items())
    if isinstance(told, tuple):
        return all(same(branch, part) for branch, part in zip(tree, told, strict=True))
    if isinstance(told, np.ndarray) and told.dtype == object:
        return same(tree, told.item())
    array = np.asarray(told)
    return tuple(tree.shape) == array.shape and bool(np.array_equal(tree.numpy(), array))
