"""`torchward list`: what there is to train, and on what."""

import textwrap
from collections.abc import Sequence

USAGE = """usage: torchward list

Shows the algorithms, the tasks that have tuned settings, and the environments that Gymnasium knows here."""


def run(args: Sequence[str]) -> int:
    """The command."""
    if args:
        print(USAGE)
        return 0 if list(args) in (["-h"], ["--help"]) else 2
    from torchward.tasks import text
    from torchward.tasks.control import PRESETS
    from torchward.tasks.find import algorithms, problems

    found = algorithms()
    width = max(map(len, found))
    print("Algorithms (torchward train ALGORITHM TASK):")
    for name, line in found.items():
        print(textwrap.fill(line, 110, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * (width + 4)))
    print("  ./mine.py, a file of your own with a dataclass Config and a function train(config, task, run)")
    print("\nTasks with tuned settings, which are used where no option says otherwise:")
    for name in found:
        tasks = [task for algorithm, task in (*PRESETS, *text.PRESETS) if algorithm == name]
        if tasks:
            print(f"  {name:<{width}}  {', '.join(tasks)}")
    print("\nTasks of text (pretrain, sft, grpo, ppo, masked_lm; classify where they have labels):")
    for name, line in problems().items():
        print(textwrap.fill(line, 110, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * (width + 4)))
    print("  ./book.txt, ./answers.jsonl, ./feedback.db, ./folder/: text of your own")
    print("\nAny other task works with the defaults:")
    print("  a Gymnasium id, such as MountainCar-v0; one of another package by package:Id-v0")
    print("  ./mytask.py, a file of your own with a class Env, a function make() that returns one, or a task")
    print("\nRegistered with Gymnasium here (some need an extra: box2d, mujoco, toy):")
    print(textwrap.fill(", ".join(_registered()), 110, initial_indent="  ", subsequent_indent="  "))
    return 0


def _registered() -> list[str]:
    """The newest version of each id."""
    import gymnasium as gym

    newest: dict[tuple[str | None, str], tuple[int, str]] = {}
    for spec in gym.registry.values():
        key = (spec.namespace, spec.name)
        newest[key] = max(newest.get(key, (-1, "")), (spec.version or 0, spec.id))
    hidden = ("phys2d/", "tabular/", "GymV")  # they need JAX, or the old Gym
    return sorted(name for _, name in newest.values() if not name.startswith(hidden))
