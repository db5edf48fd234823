"""`torchward data`: a look at a task's text before any training on it."""

from collections.abc import Sequence

from torchward.cli import UsageError, train

USAGE = """usage: torchward data ALGORITHM TASK [--option value ...]

Takes what `torchward train` takes: put `data` in its place, and see what that command would learn from. How much text
there is, how long it is, what repeats itself, what of validation stands in training; and in words what is wrong. TASK
is a task of text. With --init tokens are those of the run's policy."""


def run(args: Sequence[str]) -> int:
    """The command."""
    if list(args) in ([], ["-h"], ["--help"]):
        print(USAGE)
        return 0 if args else 2
    asked = train.read("data", args)
    from torchward import launch_policies
    from torchward.data.texts import CorpusTask, MaskedTask
    from torchward.language.documents import imitated
    from torchward.language.report import report
    from torchward.language.text_task import Text
    from torchward.tasks import find

    task = find.task(asked.task, asked.settings.env).task
    if not isinstance(task, Text):
        raise UsageError(f"data looks at tasks of text, and {asked.task} is none")
    if (init := asked.launched.get("init")) is not None:
        policy = launch_policies.policy_of(init)
        if not hasattr(policy, "vocabulary"):
            raise UsageError(
                f"expected the run of a language model to begin from, and {init} has a {type(policy).__name__}"
            )
        task = task.using(policy)
    reads_all = asked.algorithm.learns_from in (CorpusTask, MaskedTask)
    learnt, held_out = task.corpus_sides() if reads_all else task.sides()
    found = report(learnt, held_out, task.tokenizer, max_length=getattr(asked.settings.config, "max_length", None))
    print(found, end="")
    shown = [*task.problems.imitated, *task.problems.test]
    unanswered = [each for each in shown if imitated(each) is None]
    if asked.algorithm.name == "sft" and 0 < len(unanswered) < len(shown):
        some = f"{len(unanswered):,} of {len(shown):,} have no answer, {unanswered[0].origin} for one"
        print(f"! {some}: sft passes them over")
    if asked.algorithm.name == "sft" and init is None:
        print("! counted by a tokenizer made of this text: sft has that of the run that it begins from, give --init")
    return 0
