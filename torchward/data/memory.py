"""What the algorithms that learn from a replay have in common: how their settings are checked, and make the replay."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from torchward.config import ConfigError, verify_training
from torchward.data.hindsight import HER, Memory, with_goals
from torchward.data.intrinsic import ExplorationBonus, NoBonus
from torchward.data.protocols import Shaping, Task
from torchward.data.replay import Prioritised, Replay, StackPadding

LOG_STEPS = 500
"""Environment steps to a line of metrics where a run's options say nothing: an iteration is only a few steps."""
MEASURED = 16
"""Minibatches of which one is measured: losses and entropies cost as much as an update of the target."""


class Settings(Protocol):
    """The settings that all of them have."""

    @property
    def n_envs(self) -> int: ...
    @property
    def train_freq(self) -> int: ...
    @property
    def gradient_steps(self) -> int: ...
    @property
    def buffer_size(self) -> int: ...
    @property
    def buffer_on_disk(self) -> bool: ...
    @property
    def replay(self) -> Any: ...
    @property
    def frame_stack(self) -> int: ...
    @property
    def stack_padding(self) -> StackPadding: ...
    @property
    def learning_starts(self) -> int: ...
    @property
    def gamma(self) -> float: ...
    @property
    def tau(self) -> float: ...
    @property
    def exploration_bonus(self) -> ExplorationBonus: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> str: ...


SIZES = ("total_timesteps", "n_envs", "train_freq", "batch_size", "buffer_size", "n_steps", "frame_stack")


def verify(settings: Settings, *sizes: str) -> None:
    """Raises ConfigError for a number that cannot be; ``sizes`` are the fields, beside those that all have, that are
    at least 1. For sizes that do not fit together, too: a rollout has to fit into the replay, and each of its steps
    may end an episode, which takes a row as well; and for hindsight beside a bonus, which it would lose."""
    verify_training(settings)
    for name in (*SIZES, *sizes):
        if getattr(settings, name) < 1:
            raise ConfigError(f"expected {name} of at least 1, got {getattr(settings, name)}")
    if not 0.0 <= settings.gamma <= 1.0:
        raise ConfigError(f"expected gamma within [0, 1], got {settings.gamma}")
    if not 0.0 < settings.tau <= 1.0:
        raise ConfigError(f"expected tau within (0, 1], got {settings.tau}; with 0 the target would never move")
    if settings.buffer_size < (least := 2 * settings.n_envs * settings.train_freq):
        raise ConfigError(
            f"expected buffer_size of at least 2 * n_envs * train_freq = {least}, got {settings.buffer_size} with "
            f"n_envs={settings.n_envs} and train_freq={settings.train_freq}"
        )
    if isinstance(settings.replay, HER) and not isinstance(settings.exploration_bonus, NoBonus):
        raise ConfigError(
            "expected no exploration_bonus with hindsight, whose other goals pay what the environment says alone, got "
            f"{type(settings.exploration_bonus).__name__}; leave one out"
        )
    if settings.gradient_steps < 1 and settings.gradient_steps != -1:
        raise ConfigError(f"expected gradient_steps of at least 1, or -1, got {settings.gradient_steps}")
    if settings.learning_starts < 0:
        raise ConfigError(f"expected learning_starts of at least 0, got {settings.learning_starts}")


def tell_if_idle(starts: int, total: int, say: Callable[[str], None]) -> None:
    """Say so where the ``starts`` steps before the first update are all that there are."""
    if starts >= total:
        say(f"nothing will be learnt: updates begin after {starts} steps (learning_starts), and the run has {total}")


def updates_of(settings: Settings) -> int:
    """The minibatches of an update."""
    return settings.gradient_steps if settings.gradient_steps > 0 else settings.n_envs * settings.train_freq


def replay_of(settings: Settings, task: Task, directory: Path, period: int, shaping: Sequence[Shaping] = ()) -> Memory:
    """The replay that settings ask for; on the disk in ``directory``, with room for all that may come within the
    ``period`` of steps between two checkpoints, where behind every step there may be the final observation of its
    episode. Raises as :func:`~torchward.data.hindsight.with_goals` and :class:`~torchward.data.replay.Replay` do, and
    ConfigError where there is not as much memory, and for ``shaping`` that hindsight would lose."""
    if isinstance(settings.replay, HER) and shaping:
        raise ConfigError(
            "expected no shaping with hindsight, whose other goals pay what the environment says alone, got "
            f"{', '.join(type(each).__name__ for each in shaping)}; leave one out"
        )
    steps = -(-period // settings.n_envs) + settings.train_freq
    try:
        replay = Replay(
            task.observation_space, task.action_space, settings.n_envs, settings.buffer_size,
            seed=settings.seed, device=settings.device,
            frame_stack=settings.frame_stack, stack_padding=settings.stack_padding,
            prioritised=settings.replay if isinstance(settings.replay, Prioritised) else None,
            directory=directory if settings.buffer_on_disk else None,
            reserve=2 * steps + 2 if settings.buffer_on_disk else 0,
        )  # fmt: skip
    except (MemoryError, RuntimeError) as error:  # NumPy raises the one, torch the other
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise ConfigError(
            f"expected memory for a replay of buffer_size = {settings.buffer_size} steps, which takes "
            f"{bytes_of(settings, task):,} bytes, got none on {settings.device}; set a smaller --buffer-size, or keep "
            "it in files with --buffer-on-disk"
        ) from error
    return with_goals(replay, settings.replay, task)


def bytes_of(settings: Settings, task: Task) -> int:
    """The bytes that the replay of such settings takes, in memory or in files: what one more row takes, as often as
    there are rows."""
    few, more = (
        Replay(
            task.observation_space, task.action_space, 1, rows, seed=0, device="meta", frame_stack=settings.frame_stack,
            prioritised=settings.replay if isinstance(settings.replay, Prioritised) else None,
        ).nbytes
        for rows in (64, 128)
    )  # fmt: skip
    return few + (more - few) * (settings.buffer_size - 64) // 64


def check_replay(settings: Settings, task: Task) -> None:
    """Raise a SpaceError or ConfigError if no replay takes the task: what is tried here is thrown away."""
    replay = Replay(task.observation_space, task.action_space, 1, 1, seed=0, frame_stack=settings.frame_stack)
    with_goals(replay, settings.replay, task)
