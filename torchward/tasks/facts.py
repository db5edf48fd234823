"""What can be told of a task without learning anything: its spaces, and a few figures of random play."""

import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchward.data.protocols import Episode
from torchward.data.tree import tree_leaves
from torchward.nets import spaces
from torchward.nets.spaces import Space
from torchward.nets.uniform import UniformPolicy

CHUNK = 50
"""Steps between two looks at the clock."""
STEPS = 20_000
"""Steps after which enough was seen, however quickly they came."""


@dataclass(frozen=True)
class Facts:
    """What was seen of a task in ``steps`` random steps."""

    name: str
    observation: Space
    action: Space
    steps: int
    seconds: float
    """Of a step, with its random action."""
    episodes: int
    """Those that ended."""
    horizon: float
    """The mean length of the episodes that ended; of the running one where none did."""
    limited: float
    """The share of these ends that a time limit made."""
    rewarded: float
    """The share of the steps that paid something else than most did."""
    distinct: float
    """The share of the episodes that paid something else than most did."""
    mean_return: float
    std_return: float
    scale: float
    """The largest number that was seen, labels and pictures aside."""
    has_model: bool
    """Its transition probabilities are known."""
    has_goals: bool
    """It says what any goal would have paid."""
    memory: int = 0
    """The bytes of memory that are free on this machine; 0 where nobody says."""

    @property
    def chooses(self) -> bool:
        """An action is one of several."""
        return isinstance(self.action, spaces.Discrete)

    @property
    def is_real(self) -> bool:
        """An action is made of real numbers alone."""
        return isinstance(self.action, spaces.Box)

    @property
    def is_mixed(self) -> bool:
        """An action is made of real numbers and of choices."""
        kinds = {type(leaf) for leaf in spaces.leaves(self.action)}
        return spaces.Box in kinds and len(kinds) > 1

    @property
    def pairs(self) -> int:
        """Entries of a table of values; 0 where none can be made."""
        numbered = isinstance(self.observation, spaces.Discrete) and isinstance(self.action, spaces.Discrete)
        return self.observation.n * self.action.n if numbered else 0  # type: ignore[union-attr]

    @property
    def sees_pictures(self) -> bool:
        return any(isinstance(leaf, spaces.Box) and leaf.is_image for leaf in spaces.leaves(self.observation))

    @property
    def is_sparse(self) -> bool:
        """Random play seldom finds out that one thing pays better than another."""
        return self.distinct < 0.05 if self.episodes >= 10 else self.rewarded < 0.005


def look(task: Any, seconds: float, seed: int = 0) -> Facts:
    """Play ``task``, a :class:`~torchward.data.protocols.Task`, at random for so many seconds, or ``STEPS`` steps; at
    least one chunk of them. A vector is played as it is. What the environment raises is passed on."""
    n = getattr(task, "held", None) or 1
    source = task.source(n, seed)
    policy = UniformPolicy(task.observation_space, task.action_space)
    rewards: Counter[float] = Counter()
    ended: list[Episode] = []
    ends = limits = steps = 0
    spent = scale = 0.0
    try:
        source.collect(policy, 2)  # what is done once is no part of a step
        while spent < seconds and steps < STEPS:
            begun = time.perf_counter()
            rollout = source.collect(policy, CHUNK)
            spent += time.perf_counter() - begun
            steps += rollout.steps
            own = rollout.loss_mask
            rewards.update(rollout.reward[own].tolist())
            ends += int((rollout.boundary & own).sum())
            limits += int((rollout.boundary & own & ~rollout.terminated).sum())
            scale = max(scale, _scale(task.observation_space, rollout.observation))
            ended += source.episodes()
    finally:
        source.close()
    returns = torch.tensor([episode.return_ for episode in ended] or [0.0], dtype=torch.float64)
    return Facts(
        name=task.name,
        observation=task.observation_space,
        action=task.action_space,
        steps=steps,
        seconds=spent / steps,
        episodes=len(ended),
        horizon=sum(episode.length for episode in ended) / len(ended) if ended else steps / n,
        limited=limits / ends if ends else 0.0,
        rewarded=_unlike_most([round(reward, 6) for reward in rewards.elements()]),
        distinct=_unlike_most([round(episode.return_, 6) for episode in ended]),
        mean_return=float(returns.mean()),
        std_return=float(returns.std(correction=0)),
        scale=scale,
        has_model=_can(task, "model"),
        has_goals=_has_goal_entries(task.observation_space) and _judges(task, rollout.observation),
        memory=free_memory(),
    )


def free_memory() -> int:
    """The bytes of memory that programs can have without any being put out to the disk; 0 where nobody says."""
    try:
        kilobytes = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"), re.MULTILINE)
        if kilobytes:
            return 1024 * int(kilobytes[1])
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # no Linux; no such name; no POSIX
        return 0


def _unlike_most(values: Sequence[float]) -> float:
    return 1.0 - max(Counter(values).values()) / len(values) if values else 0.0


def _scale(space: Space, observation: Any) -> float:
    if isinstance(space, spaces.Dict):
        return max((_scale(part, observation[name]) for name, part in space.spaces.items()), default=0.0)
    if isinstance(space, spaces.Tuple):
        return max((_scale(part, observation[i]) for i, part in enumerate(space.spaces)), default=0.0)
    (leaf,) = tree_leaves(observation)
    assert isinstance(leaf, Tensor)
    return float(leaf.abs().max()) if isinstance(space, spaces.Box) and not space.is_image and leaf.numel() else 0.0


def _has_goal_entries(space: Space) -> bool:
    return isinstance(space, spaces.Dict) and {"observation", "achieved_goal", "desired_goal"} <= set(space.spaces)


def _judges(task: Any, observation: Any) -> bool:
    """Whether a task says of a batch of two goals what they would have paid, as hindsight asks it; ``observation`` is
    of a rollout."""
    try:
        achieved, desired = (observation[name].flatten(0, 1)[:2] for name in ("achieved_goal", "desired_goal"))
        goals = task.goals()
        goals.compute_reward(achieved, desired)
        if goals.compute_terminated is not None:
            goals.compute_terminated(achieved, desired)
    except Exception:  # whatever is wrong with it, it is no help
        return False
    return True


def _can(task: Any, verb: str) -> bool:
    """Whether a task has what it offers to have: some environments have a model."""
    try:
        getattr(task, verb)()
    except Exception:  # whatever is wrong with it, it is no help
        return False
    return True
