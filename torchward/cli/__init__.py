"""The command line. This file imports nothing heavy, so that `torchward --help` is there at once."""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from torchward import __version__

COMMANDS = {
    "data": "data ALGORITHM TASK: look at a task's text before training on it",
    "train": "train ALGORITHM TASK: learn a task; makes a run",
    "resume": "resume RUN: go on with a run that was stopped",
    "evaluate": "evaluate RUN: play whole episodes with a run's policy",
    "watch": "watch RUN: film a run's policy, or show it in a window",
    "chat": "chat RUN: talk to a run's language model",
    "serve": "serve RUN: a local page to talk to a run's language model, and to judge its answers",
    "predict": "predict RUN: what a run's encoder puts into gaps, or which label its classifier gives",
    "doctor": "doctor RUN: look for faults in what a run's language model is trained on, and by",
    "export": "export RUN: one ONNX file that runs without torchward",
    "sweep": "sweep ALGORITHM TASK --seeds 10: many runs, over seeds and settings",
    "compare": "compare RUN...: curves and a table with intervals, of runs or a sweep",
    "advise": "advise TASK: look at a task, and say which algorithm to take, and why",
    "list": "list: algorithms, tasks with tuned settings, environments",
}
"""What a first word may be, each with its line of help. `run(arguments)` of the module of its name does it."""
_MODULES = {"list": "listing"}  # a module called list would hide Python's own here


class UsageError(ValueError):
    """A command line that cannot be read."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 if it failed, 2 if it was asked for wrongly, 130 if it was interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"torchward {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        from torchward.config import did_you_mean

        say(f"there is no command {name!r}.{did_you_mean(name, COMMANDS)} `torchward --help` lists them.")
        return 2
    try:
        code: int = import_module(f"torchward.cli.{_MODULES.get(name, name)}").run(rest)
        return code
    except SystemExit as exit_:  # after --help
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        # An error that torchward itself defines is a sentence for people, and so is a file that cannot be read or
        # written (a full disk names none); all else is a fault, and shows where it lies.
        if type(error).__module__.partition(".")[0] == "torchward":
            say(str(error))
            return 1 if isinstance(error, RuntimeError) else 2
        if isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC):
            say(
                f"expected files that can be read and written, got {error}; look at their rights, and at the space left"
            )
            return 1
        raise


def say(sentence: str) -> None:
    """Tell the person at the terminal something, on standard error, where there still is one."""
    with contextlib.suppress(OSError):
        print(f"torchward: {sentence}", file=sys.stderr, flush=True)


def positional(arguments: Sequence[str], names: Sequence[str], command: str) -> tuple[list[str], list[str]]:
    """The words that a command starts with, one for each of `names`, and the options behind them.

    Raises UsageError where words are missing; not where help is asked for."""
    words: list[str] = []
    for argument in arguments[: len(names)]:
        if argument.startswith("-"):
            break
        words.append(argument)
    rest = list(arguments[len(words) :])
    if len(words) < len(names) and not {"-h", "--help"} & set(rest):
        usage = f"torchward {command} {' '.join(names)}"
        raise UsageError(
            f"{names[len(words)]} is missing: {usage} [--option value ...]; see torchward {command} --help"
        )
    return words, rest


def _help() -> str:
    width = max(len(text.partition(":")[0]) for text in COMMANDS.values())
    lines = [f"  {use:<{width}}  {what.strip()}" for use, _, what in (t.partition(": ") for t in COMMANDS.values())]
    return "\n".join(
        [
            f"torchward {__version__}: reinforcement learning on PyTorch 2",
            "",
            "usage: torchward COMMAND ... [--option value ...]",
            "",
            *lines,
            "",
            "`torchward COMMAND --help` shows the options of a command, and `torchward train ppo CartPole-v1 --help`",
            "those of an algorithm, with the values that it takes for a task. To begin with:",
            "",
            "  torchward train ppo CartPole-v1 --name first",
            "  torchward watch runs/first",
        ]
    )
