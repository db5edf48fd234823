"""`torchward watch`: a run's policy at work, as a film or in a window."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from torchward.cli import UsageError, arguments, positional

if TYPE_CHECKING:
    from torchward.envs.faults import WorldError

GIF_FPS = 50
"""Viewers show a GIF no faster."""


@dataclass(frozen=True)
class Watch:
    """Film the policy of a run while it plays, or show it in a window."""

    out: str | None = None
    """The film, .gif or .mp4; without it, video.mp4 in the run (video.gif where imageio-ffmpeg is not installed)."""
    episodes: int = 1
    """Episodes that are played."""
    seed: int = 0
    """Decides how they begin."""
    max_steps: int = 2000
    """Steps after which an episode that has not ended is left."""
    fps: int = 0
    """Frames per second; 0: what the environment says."""
    stochastic: bool = False
    """Draw the actions, in place of taking the most likely ones."""
    which: Literal["best", "last"] = "best"
    """The policy of the best evaluation in training (where there was none: of the end), or that of the end."""
    window: bool = False
    """Show a window, and write no film."""


def run(args: Sequence[str]) -> int:
    """The command."""
    words, rest = positional(args, ("RUN",), "watch")
    options: Watch = arguments.read_one(Watch(), rest, "torchward watch RUN")
    if options.out is not None and Path(options.out).suffix.lower() not in (".gif", ".mp4"):
        raise UsageError(f"a film ends in .gif or .mp4; got --out {options.out}")
    if options.window and options.out is not None:
        raise UsageError("a window writes no film: leave out --window or --out")
    if options.episodes < 1:
        raise UsageError(f"episodes has to be at least 1; got {options.episodes}")

    from torchward.launch import reopen_task
    from torchward.launch_checks import check_spaces
    from torchward.nets import saving
    from torchward.run import read_manifest

    path = Path(words[0])
    manifest = read_manifest(path)["manifest"]
    found = reopen_task(path, manifest)
    policy = saving.load(path, which="last" if options.which == "last" else None)
    check_spaces(policy, f"the policy of {path}", found)
    env = _env(found.task, manifest["task_name"], "human" if options.window else "rgb_array")
    fps = options.fps or int(env.metadata.get("render_fps") or 30)
    returns: list[float] = []
    from gymnasium.error import DependencyNotInstalled

    try:
        frames = play(env, policy, options, returns, manifest["task_name"])
        if options.window:
            for _ in frames:
                pass
            out = None
        else:
            out = (
                Path(options.out) if options.out is not None else path / ("video.mp4" if _has_ffmpeg() else "video.gif")
            )
            out.parent.mkdir(parents=True, exist_ok=True)
            (write_mp4 if out.suffix.lower() == ".mp4" else write_gif)(out, frames, fps)
    except DependencyNotInstalled as error:
        raise UsageError(
            f"rendering needs a package that is not installed ({str(error).splitlines()[0]}); "
            "pip install 'torchward[classic]' brings it for classic control, [toy], [box2d] and [mujoco] for the others"
        ) from error
    finally:
        env.close()
    earned = ", ".join(f"{value:.2f}" for value in returns)
    print(f"{'' if out is None else f'{out}: '}return {earned}")
    return 0


def play(env: Any, policy: Any, options: Watch, returns: list[float], name: str) -> Iterator[NDArray[Any]]:
    """The frames of whole episodes; the return of each is added to `returns`. Raises WorldError where the environment
    raises, but for a package that it lacks."""
    from torchward.envs import faults
    from torchward.nets.spaces import MASK, has_mask

    needs_mask = has_mask(policy.observation_space)
    for episode in range(options.episodes):
        with _telling(partial(faults.failed_reset, name, 0)):
            given: Any = env.reset(seed=options.seed + episode)
        faults.check_reset(name, 0, given)
        seen, info = given
        state, total = None, 0.0
        yield _frame(env, name)
        for step in range(options.max_steps):
            if needs_mask and not (isinstance(seen, dict) and MASK in seen):
                seen = {**(seen if isinstance(seen, dict) else {"observation": seen}), MASK: info[MASK]}
            seed = options.seed + 1_000_003 * episode + step if options.stochastic else None
            action, state = policy.predict(seen, state, deterministic=not options.stochastic, seed=seed)
            seen, reward, terminated, truncated, info = _step(env, name, action)
            total += float(reward)
            yield _frame(env, name)
            if terminated or truncated:
                break
        returns.append(total)


def write_gif(path: Path, frames: Iterator[NDArray[Any]], fps: int) -> None:
    """Write an endless GIF; of more than 50 frames a second, some are left out."""
    from PIL import Image

    every = -(-fps // GIF_FPS)
    # Reduced to a palette one by one: a long film of full frames would not fit into memory.
    images = (Image.fromarray(frame).quantize(128) for i, frame in enumerate(frames) if i % every == 0)
    first = next(images)
    duration = round(1000 * every / fps)
    first.save(path, format="GIF", save_all=True, append_images=images, duration=duration, loop=0)


def write_mp4(path: Path, frames: Iterator[NDArray[Any]], fps: int) -> None:
    """Write an H.264 film; odd sides lose a row or column of pixels, because the format has none."""
    if not _has_ffmpeg():
        raise UsageError("an MP4 needs imageio and imageio-ffmpeg: pip install 'torchward[video]', or write a .gif")
    import imageio_ffmpeg

    first = next(frames)
    height, width = first.shape[0] // 2 * 2, first.shape[1] // 2 * 2
    writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, macro_block_size=2, quality=7)
    writer.send(None)
    writer.send(np.ascontiguousarray(first[:height, :width]))
    for frame in frames:
        writer.send(np.ascontiguousarray(frame[:height, :width]))
    writer.close()


def _has_ffmpeg() -> bool:
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def _env(task: Any, name: str, mode: str) -> Any:
    """One environment that renders. Raises UsageError where there is none."""
    from torchward.envs.faults import WorldError

    if not callable(getattr(task, "env", None)):
        raise UsageError(f"{name} is a task without an environment that could be seen")
    try:
        env = task.env(render_mode=mode)
    except WorldError as error:
        if "render_mode" not in str(error):
            raise
        env = task.env()  # it takes no such argument: it may render all the same
    offers = env.metadata.get("render_modes") or []
    if env.render_mode != mode or (offers and mode not in offers):
        has = ", ".join(offers) or "none"
        env.close()
        raise UsageError(f"{name} cannot be shown: it needs the render mode {mode}, but offers {has}")
    return env


@contextmanager
def _telling(failed: "Callable[[BaseException], WorldError]") -> Iterator[None]:
    """What an environment raises is said in a sentence; of a package that it lacks `run` says more."""
    from gymnasium.error import DependencyNotInstalled

    from torchward.envs.faults import RAISED

    try:
        yield
    except DependencyNotInstalled:
        raise
    except RAISED as error:
        raise failed(error) from error


def _step(env: Any, name: str, action: Any) -> Any:
    """The five values of a step."""
    from torchward.envs import faults

    given: Any = faults.MISSING
    with _telling(lambda error: faults.failed_step(name, 0, given, error)):
        given = env.step(action)
        _, reward, terminated, truncated, _ = given
    faults.check_step(name, 0, reward, terminated, truncated)
    return given


def _unseen(name: str, error: BaseException) -> "WorldError":
    from torchward.envs.faults import WorldError

    return WorldError(
        f"{name} raised {type(error).__name__} in render: {error}; `torchward evaluate` plays without pictures"
    )


def _frame(env: Any, name: str) -> NDArray[Any]:
    """What the environment looks like now: [height, width, 3] of uint8; nothing where it draws into its own window."""
    if env.render_mode == "human":
        return np.empty(0, np.uint8)
    with _telling(partial(_unseen, name)):
        picture = env.render()
    array = np.asarray(picture)
    if array.ndim != 3 or array.shape[2] != 3:
        raise UsageError(
            f"expected a picture [height, width, 3] from render(), got {type(picture).__name__} {array.shape}"
        )
    if array.dtype.kind == "f":
        raise UsageError(f"expected a picture of numbers from 0 to 255, uint8, from render(), got {array.dtype}")
    return array.astype(np.uint8, copy=False)
