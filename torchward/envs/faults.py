"""What can be wrong with what an environment does and gives, each said in one sentence: in which world, and what to do.

Functions that return an error leave it to their caller to raise it from what was caught.
"""

from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from torchward.envs import spaces as sp
from torchward.nets import spaces
from torchward.nets.spaces import Space


class WorldError(RuntimeError):
    """An environment raised, or gave what no environment may give."""


RAISED = (Exception, SystemExit)
"""What an environment may raise: one that leaves the program has failed, one that is interrupted has not."""
NUMBERS = frozenset({float, int, bool, np.float64, np.float32, np.int64, np.int32, np.bool_})
"""Types that are numbers at sight; of a reward of another, :func:`check_step` says."""
WHOLE = NUMBERS - {float, np.float64, np.float32}
"""Those of them that are whole."""
FLAGS = frozenset({bool, np.bool_, int})
"""Types that are True or False at sight."""
MISSING = object()
"""In the place of what a step gave, where it raised."""


def shared(name: str) -> WorldError:
    """Two worlds are one object."""
    return WorldError(
        f"expected a new environment from each call of {name}, got the same one; build it within, as lambda: MyEnv() "
        "does"
    )


def failed_reset(name: str, i: int, error: BaseException) -> WorldError:
    """A reset of world ``i`` raised."""
    return WorldError(f"{name} raised {type(error).__name__} at the reset of world {i}: {error}")


def failed_step(name: str, i: int, given: Any, error: BaseException) -> WorldError:
    """What is wrong with a step of world ``i`` that raised, or that has ``given`` something else than five values."""
    if given is MISSING and not raised_in_a_wrapper(error):
        return WorldError(f"{name} raised {type(error).__name__} in world {i}: {error}")
    got = f"{len(given)} values" if isinstance(given, tuple | list) else sp.outline(given)
    if given is MISSING:
        got = f"others ({error})"
    return WorldError(
        f"expected step of {name} to return the five values observation, reward, terminated, truncated, info, "
        f"got {got} in world {i}; the `done` of older environments is terminated where a task is over, and "
        "truncated where a time limit ended it"
    )


def check_step(name: str, i: int, reward: Any, *flags: Any) -> None:
    """Raise :class:`WorldError` for a reward that is no number, or a flag that is neither True nor False."""
    if not _is_scalar(reward, "biuf"):
        raise WorldError(
            f"expected a number as the reward of {name}, got {_shown(reward)} in world {i}; return a float"
        )
    for what, flag in zip(("terminated", "truncated"), flags, strict=True):
        if not _is_scalar(flag, "biu"):
            raise WorldError(
                f"expected True or False as {what} of {name}, got {_shown(flag)} in world {i}; return a bool"
            )


def check_reset(name: str, i: int, given: Any) -> None:
    """Raise :class:`WorldError` for a reset that did not give an observation and an info."""
    if not isinstance(given, tuple | list) or len(given) != 2 or not isinstance(given[1], dict):
        raise WorldError(
            f"expected reset of {name} to return an observation and an info, which is a dict, got "
            f"{sp.outline(given)} at the reset of world {i}; return observation, {{}}"
        )


def check_observation(name: str, space: Space, seen: Any, numbers: bool, n: int | None = None) -> None:
    """Raise :class:`WorldError` for an observation, or a batch of ``n``, that is none of its space; its ``numbers`` are
    looked at where that is asked for."""
    if not sp.fits(space, seen, n):
        raise misfit(name, space, seen, n)
    if numbers and not sp.holds(space, seen):
        raise misplaced(name, space)


def misfit(name: str, space: Space, seen: Any, n: int | None = None) -> WorldError:
    """An observation, or a batch of ``n``, is none of its space."""
    what = spaces.describe(space) if n is None else f"{n} x {spaces.describe(space)}"
    return WorldError(f"{name} gave an observation that does not fit its space {what}: {sp.outline(seen)}")


def misplaced(name: str, space: Space) -> WorldError:
    """An observation has the shape of its space, but not its numbers."""
    return WorldError(
        f"{name} gave an observation whose numbers are none of its space {spaces.describe(space)}: they are broken, or "
        "too large, or choices that there are not; scale them, or give the space that they are of"
    )


def no_mask(name: str) -> WorldError:
    """An info has no mask, where masks were asked for."""
    return WorldError(
        f"action_mask is set, but {name} has no 'action_mask' in its info; leave the option out, or let reset and "
        "step return one"
    )


def no_final(name: str) -> WorldError:
    """A vector that starts anew within a step does not show in what its episodes ended."""
    return WorldError(f"{name} resets itself within a step but its info has no 'final_obs'; value estimates need it")


def unread_final(name: str, key: str) -> WorldError:
    """A vector that is taken to start anew at its next step shows that it has done so within this one."""
    return WorldError(
        f"expected {name} to start an episode anew at the step after its end, as its metadata say or leave open, got "
        f"{key!r} in the info of that end; write metadata = {{'autoreset_mode': AutoresetMode.SAME_STEP}} in its class "
        f"if it starts anew within the step, or leave {key} out"
    )


def strayed(name: str) -> WorldError:
    """A world that was brought back by its seed and its actions came somewhere else."""
    return WorldError(
        f"{name} did not come back to where it stood: the same seed and actions led elsewhere. Give it state_dict and "
        "load_state_dict, or register it with nondeterministic=True, so that checkpoints end its episodes"
    )


def died(name: str, processes: Sequence[BaseProcess], when: str) -> WorldError:
    """Some of the worlds' ``processes`` are no more; ``when`` is nothing, or "at a reset "."""
    ends = list[str]()
    for i, process in enumerate(processes):
        process.join(1.0 if not ends else 0.0)  # its pipe closes a little before it ends
        if not process.is_alive():
            ends.append(f"that of world {i} died (exit code {process.exitcode})")
    return WorldError(
        f"expected every process of {name} to live, but {', '.join(ends) or 'one hung up'} {when}".rstrip()
        + "; vectorization 'sync' steps it in this process, which shows why"
    )


def _is_scalar(value: Any, kinds: str) -> bool:
    """Whether it is one number of these kinds of NumPy's, whatever holds it."""
    try:
        array = np.asarray(value)
    except Exception:  # a ragged list, a tensor that lies elsewhere
        return False
    return array.ndim == 0 and array.dtype.kind in kinds


def _shown(value: Any) -> str:
    """A bad value for messages: itself where that is short, else its shape."""
    text = repr(value)
    return text if len(text) < 20 else sp.outline(value)


def raised_in_a_wrapper(error: BaseException) -> bool:
    """Whether Gymnasium could not take apart what a step gave: its wrappers expect five values."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return where.startswith("gymnasium.") and "expected 5" in str(error)
