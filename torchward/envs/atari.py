"""Atari 2600 games by ALE's own vectoriser, with every choice of how they are played and seen in plain sight.

Where the loss of a life ends an episode (``life_loss_ends``), the game goes on all the same, as in Mnih et al. (2015):
so a policy also learns what comes after, such as having to press fire again. (ALE's own ``episodic_life`` begins a new
game after every life.) A stack of frames begins anew with every episode, with zeros before its first frame: that is
how ALE begins a game, and what a replay with ``stack_padding = "zero"`` rebuilds.
"""

import difflib
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from torchward.envs.faults import WorldError
from torchward.envs.worlds import episode_seed

INSTALL = "pip install 'torchward[atari]'"


@dataclass(frozen=True)
class Machado:
    """Whole games, sticky actions, all 18 actions, no sight of the lives (Machado et al. 2018)."""

    frameskip: int = 4
    """Frames for which an action is held; the maximum of the last two is what is seen."""
    repeat_action_probability: float = 0.25
    """Chance in each frame that the console still takes the action before (sticky actions)."""
    full_action_space: bool = True
    """All 18 actions of the console, in place of those that do something in this game."""
    life_loss_ends: bool = False
    """A lost life ends an episode while learning; the game goes on. Evaluations are whole games all the same."""
    clip_reward: bool = True
    """Cut the reward of a step to [-1, 1] while learning. Evaluations have the game's own scores."""
    fire_on_reset: bool = False
    """Press fire once when a game begins, where the game has such a button."""
    noop_max: int = 0
    """A game begins with a number of frames without an action, at random up to this one."""
    grayscale: bool = True
    """Brightness alone, in place of red, green and blue."""
    img_height: int = 84
    """Rows of pixels of a frame."""
    img_width: int = 84
    """Columns of pixels of a frame."""
    frame_stack: int = 4
    """Frames that are seen at once, the newest last."""
    max_frames: int = 108_000
    """Frames of the console after which a game is cut off: half an hour."""


@dataclass(frozen=True)
class Classic(Machado):
    """As DQN was made known: no sticky actions, random starts, an episode for each life (Mnih et al. 2015)."""

    repeat_action_probability: float = 0.0
    full_action_space: bool = False
    life_loss_ends: bool = True
    noop_max: int = 30


Atari = Machado | Classic


def is_atari(environment: Any) -> bool:
    """Whether an id names a game of ALE: ALE/Pong-v5, or ale_py:ALE/Pong-v5."""
    return isinstance(environment, str) and environment.rpartition(":")[2].startswith("ALE/")


def rom(name: str) -> str:
    """What ALE calls the game of an id. Raises :class:`WorldError` where ALE or the game is missing."""
    roms = _ale(name).roms
    from ale_py.registration import rom_id_to_name

    games = {f"ALE/{rom_id_to_name(game)}-v5": game for game in roms.get_all_rom_ids()}
    identity = name.rpartition(":")[2]
    if identity not in games:
        close = difflib.get_close_matches(identity, games, 1, 0.5) or ["ALE/Pong-v5"]
        raise WorldError(f"expected the id of an Atari game, got {name!r}. Did you mean {close[0]!r}?")
    return str(games[identity])


def _ale(name: str) -> Any:
    try:
        import ale_py
    except ImportError as error:
        raise WorldError(f"{name} needs ALE, the Atari emulator: {INSTALL}") from error
    return ale_py


class AtariVector(VectorEnv[Any, Any, Any]):
    """``n_envs`` games of one kind, stepped by ALE in threads of its own, that begin anew within the step in which they
    end. Images are ``[frame_stack, height, width]``, or of colours ``[frame_stack * 3, height, width]``.

    With ``whole_games`` a lost life ends nothing and rewards are not clipped; what is seen stays the same.

    Raises :class:`WorldError` for what ALE does not have."""

    def __init__(self, name: str, n_envs: int, atari: Atari, whole_games: bool = False) -> None:
        game = rom(name)
        check(atari)
        from ale_py.vector_env import AtariVectorEnv

        self.name, self.num_envs, self.atari, self.whole_games = name, n_envs, atari, whole_games
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.vector = AtariVectorEnv(
            game,
            n_envs,
            max_num_frames_per_episode=atari.max_frames,
            repeat_action_probability=atari.repeat_action_probability,
            full_action_space=atari.full_action_space,
            autoreset_mode=AutoresetMode.SAME_STEP,
            img_height=atari.img_height,
            img_width=atari.img_width,
            grayscale=atari.grayscale,
            stack_num=atari.frame_stack,
            frameskip=atari.frameskip,
            maxpool=True,
            noop_max=atari.noop_max + 1,  # ALE draws below it
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=atari.clip_reward and not whole_games,
            use_fire_reset=atari.fire_on_reset,
        )
        channels = atari.frame_stack * (1 if atari.grayscale else 3)
        self.single_observation_space = gym.spaces.Box(0, 255, (channels, atari.img_height, atari.img_width), np.uint8)
        self.single_action_space = self.vector.single_action_space
        self.observation_space = batch_space(self.single_observation_space, n_envs)
        self.action_space = batch_space(self.single_action_space, n_envs)

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """All games from their beginning. ALE reads a game's file again for a seed, which takes longer than a hundred
        steps: so only here, not after every game."""
        seeds = np.array([episode_seed(seed, i, 0) for i in range(self.num_envs)]) if isinstance(seed, int) else None
        seen, info = self.vector.reset(seed=seeds)
        self.lives = info["lives"]
        self.own = np.ones(self.num_envs, np.int64)
        """The frames in each stack that belong to the running episode, or life."""
        return self._images(seen), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        seen, reward, terminated, truncated, info = self.vector.step(np.asarray(actions, np.int64))
        over, lives = terminated | truncated, info["lives"]
        lost = (lives < self.lives) & (lives > 0) & ~over if self.atari.life_loss_ends else np.zeros_like(over)
        self.lives, self.own = lives, self.own + 1
        ended, told = over | lost, {}
        if ended.any():
            final = seen.copy()
            final[over] = info["final_obs"][over] if over.any() else 0
            told["final_obs"] = self._images(self._begun(final))
        self.own[ended] = 1
        if not self.whole_games:
            terminated = terminated | lost
        return self._images(self._begun(seen)), reward, terminated, truncated, told

    def _begun(self, seen: NDArray[Any]) -> NDArray[Any]:
        """Stacks whose frames from before the episode are blank."""
        size = self.atari.frame_stack
        if (self.own < size).any():
            seen[np.arange(size) < size - self.own[:, None]] = 0
        return seen

    def _images(self, seen: NDArray[Any]) -> NDArray[Any]:
        if self.atari.grayscale:
            return seen
        colours = np.moveaxis(seen, -1, 2)
        return colours.reshape(self.num_envs, -1, *seen.shape[2:4])

    def close_extras(self, **kwargs: Any) -> None:
        self.vector.close()


def check(atari: Atari) -> None:
    """Raise :class:`WorldError` for a number that cannot be."""
    least = {"frameskip": 1, "noop_max": 0, "img_height": 1, "img_width": 1, "frame_stack": 1, "max_frames": 1}
    for name, number in least.items():
        if getattr(atari, name) < number:
            raise WorldError(f"expected {name} of Atari of at least {number}, got {getattr(atari, name)}")
    if not 0.0 <= atari.repeat_action_probability < 1.0:
        raise WorldError(
            f"expected repeat_action_probability of Atari within [0, 1), got {atari.repeat_action_probability}"
        )


def envpool_arguments(atari: Atari, whole_games: bool = False) -> dict[str, Any]:
    """The same choices in EnvPool's words. (Its stacks go on over a lost life, and begin by repeating a frame.)"""
    return {
        "frame_skip": atari.frameskip,
        "repeat_action_probability": atari.repeat_action_probability,
        "full_action_space": atari.full_action_space,
        "episodic_life": atari.life_loss_ends and not whole_games,
        "reward_clip": atari.clip_reward and not whole_games,
        "use_fire_reset": atari.fire_on_reset,
        "noop_max": max(1, atari.noop_max),
        "gray_scale": atari.grayscale,
        "img_height": atari.img_height,
        "img_width": atari.img_width,
        "stack_num": atari.frame_stack,
        "max_episode_steps": -(-atari.max_frames // atari.frameskip),
    }


class Seen(gym.Wrapper[Any, Any, Any, Any]):
    """Single frames as the stacks that the vector shows."""

    def __init__(self, env: Any, atari: Atari) -> None:
        super().__init__(env)
        self.atari = atari
        shape = (atari.img_height, atari.img_width) if atari.grayscale else (3, atari.img_height, atari.img_width)
        self.blank = np.zeros(shape, np.uint8)
        channels = atari.frame_stack * (1 if atari.grayscale else 3)
        self.observation_space = gym.spaces.Box(0, 255, (channels, atari.img_height, atari.img_width), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        frame, info = self.env.reset(seed=seed, options=options)
        self.lives: int = info["lives"]
        self.frames: list[NDArray[Any]] = []
        return self._stack(frame), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        frame, reward, terminated, truncated, info = self.env.step(action)
        if self.atari.life_loss_ends and 0 < info["lives"] < self.lives:
            self.frames = []
        self.lives = info["lives"]
        return self._stack(frame), reward, terminated, truncated, info

    def _stack(self, frame: NDArray[Any]) -> NDArray[Any]:
        size = self.atari.frame_stack
        frame = frame if self.atari.grayscale else np.moveaxis(frame, -1, 0)
        self.frames = [*self.frames, frame][-size:]
        stack = [*[self.blank] * (size - len(self.frames)), *self.frames]
        return np.stack(stack) if self.atari.grayscale else np.concatenate(stack)


class Fire(gym.Wrapper[Any, Any, Any, Any]):
    """Presses fire, for one frame, when a game begins."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.env.reset(seed=seed, options=options)
        seen, _, _, _, info = self.env.step(1)
        return seen, info


def single(name: str, atari: Atari, **kwargs: Any) -> "gym.Env[Any, Any]":
    """One whole game with rewards as they are, which can be rendered: Gymnasium's own wrappers around ALE, for films.

    Raises :class:`WorldError` for what ALE does not have, or where OpenCV is missing."""
    rom(name)
    check(atari)
    from gymnasium.error import DependencyNotInstalled
    from gymnasium.wrappers import AtariPreprocessing

    env: Any = gym.make(
        name.rpartition(":")[2],
        disable_env_checker=True,
        frameskip=1,
        repeat_action_probability=atari.repeat_action_probability,
        full_action_space=atari.full_action_space,
        max_num_frames_per_episode=atari.max_frames,
        **kwargs,
    )
    if atari.fire_on_reset and env.unwrapped.get_action_meanings()[1:2] == ["FIRE"]:
        env = Fire(env)
    try:
        env = AtariPreprocessing(
            env,
            noop_max=atari.noop_max,
            frame_skip=atari.frameskip,
            screen_size=(atari.img_width, atari.img_height),
            grayscale_obs=atari.grayscale,
        )
    except DependencyNotInstalled as error:
        raise WorldError(f"a single game of {name} needs OpenCV: {INSTALL}") from error
    return Seen(env, atari)
