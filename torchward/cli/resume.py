"""`torchward resume`: go on with a run that was stopped."""

from collections.abc import Sequence

from torchward.cli import positional, say

USAGE = """usage: torchward resume RUN

Goes on from the newest checkpoint with the settings that the run was started with, as if it had never stopped."""


def run(args: Sequence[str]) -> int:
    """The command."""
    if list(args) in ([], ["-h"], ["--help"]):
        print(USAGE)
        return 0 if args else 2
    words, rest = positional(args, ("RUN",), "resume")
    if rest:
        from torchward.cli import UsageError

        raise UsageError(
            f"resume takes no options, because a run keeps its own; got {' '.join(rest)}. A new run with others begins "
            f"from its policy: torchward train ALGORITHM TASK --init {words[0]} ..."
        )
    from torchward import launch
    from torchward.cli.train import go

    ready = launch.take_up(words[0])
    if ready.run.done:
        say(
            f"{words[0]} was already finished, at step {ready.run.step}; a new run goes on from its policy: torchward "
            f"train {ready.algorithm.name} {ready.task.source or 'TASK'} --init {words[0]}"
        )
    return go(ready)
