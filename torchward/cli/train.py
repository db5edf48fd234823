"""`torchward train`: from names and options to a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torchward.cli import arguments, positional, say
from torchward.cli.arguments import Group

if TYPE_CHECKING:
    from torchward import launch
    from torchward.tasks.control import Preset
    from torchward.tasks.find import Algorithm

USAGE = """usage: torchward train ALGORITHM TASK [--option value ...]

ALGORITHM is one of torchward's ({algorithms}), or a file of your own: ./mine.py
TASK is a Gymnasium id (CartPole-v1, package:Id-v0), or a file of your own: ./mytask.py

The options are those of the algorithm, of the run and of the environment, with the values that they start from:
  torchward train ppo --help
  torchward train ppo CartPole-v1 --help"""


@dataclass(frozen=True)
class Launch:
    """Where a run lies, and what it starts from."""

    name: str | None = None
    """The run lies in runs/NAME; without it, in a new directory named for algorithm, task and seed."""
    path: str | None = None
    """The run lies in this directory, in place of runs/NAME."""
    init: str | None = None
    """Start from the policy of this run, which may be of another task with equal spaces, or from a pretrained model in
    a local directory of transformers (docs/pretrained-models.md says which)."""
    teacher: str | None = None
    """distill learns from the policy of this run, or from a pretrained model in a local directory of transformers."""
    kl_coef: float = 0.0
    """With --init: what each step pays for the distance of its log-probability from that of the policy there."""
    kl_target: float | None = None
    """Let kl_coef follow this divergence of a whole row (a text, an episode's steps between two updates)."""
    reward_model: str | None = None
    """On a task of text: answers earn what the reward model of this run says of them, in place of the task's reward, by
    which they are still evaluated."""
    pessimism: float = 0.0
    """With --reward-model: how many standard deviations of its members' opinions are taken away."""
    kl_budget: float | None = None
    """With --init, on text: say so when a text is further than this from the policy there, in nats."""
    threads: int = 0
    """Threads that compute; 0: one for small networks, where it is the fastest, else torch's own choice."""


def run(args: Sequence[str]) -> int:
    """The command."""
    from torchward.tasks import find

    if list(args) in ([], ["-h"], ["--help"]):
        print(USAGE.format(algorithms=", ".join(find.algorithms())))
        return 0 if args else 2
    from torchward import launch

    asked = read("train", args)
    algorithm = asked.algorithm
    ready = launch.begin(algorithm, asked.task, asked.settings, **asked.launched)
    if ready.run.options.progress:
        known = algorithm.source == algorithm.name and find.preset(algorithm.name, asked.task) is not None
        tuned = "its tuned settings" if known else "default settings"
        say(f"{algorithm.name} on {ready.task.name} from {tuned}; the run lies in {ready.run.path}")
        for line in differences(ready):
            say(line)
    return go(ready)


class Asked(NamedTuple):
    """What a command line names."""

    algorithm: "Algorithm"
    task: str
    settings: "Preset"
    launched: dict[str, Any]
    """The fields of Launch that it changes."""


def read(command: str, args: Sequence[str]) -> Asked:
    """The words and options of ``torchward train``, or of a command that is given the same ones."""
    from torchward import launch
    from torchward.tasks import find

    words, options = positional(args, ("ALGORITHM", "TASK"), command)
    algorithm = find.algorithm(words[0])
    start = launch.defaults(algorithm, words[1] if len(words) > 1 else "TASK")
    groups = [
        Group(algorithm.name, start.config),
        Group("run", start.options),
        Group("environment", start.env),
        Group("launch", Launch()),
    ]
    *changed, launched = arguments.read(groups, options, f"torchward {command} {' '.join(words)}")
    settings = launch.change_all(start, {name: value for part in changed for name, value in part.items()})
    return Asked(algorithm, words[1], settings, launched)


def differences(ready: "launch.Ready") -> list[str]:
    """What the run that it begins from had otherwise of the same task, in a line: it may be meant, or forgotten."""
    from torchward.run import RunError, read_manifest

    own = ready.run.manifest
    if own["init"] is None:
        return []
    try:
        before = read_manifest(own["init"])["manifest"]
    except RunError:  # a policy's directory, or one of transformers
        return []
    if own["task"] is None or before.get("task") != own["task"]:
        return []
    here = own["env"]
    other = [f"{key} {value} (here {here.get(key)})" for key, value in before["env"].items() if here.get(key) != value]
    return [f"note: {own['init']} had {', '.join(other)}"] if other else []


def go(ready: "launch.Ready") -> int:
    """Train, and turn an environment that fails into one sentence."""
    from torchward.envs.faults import WorldError

    told = ready.run.path / "failed" / "error.txt"
    before = told.stat().st_mtime_ns if told.exists() else 0
    try:
        ready.go()
    except WorldError as error:
        if not told.exists() or told.stat().st_mtime_ns == before:  # else the run has said it
            say(str(error))
        return 1
    return 130 if ready.interrupted else 0
