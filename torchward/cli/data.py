"""`torchward data`: a look at a task's text before any training on it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchward.cli import UsageError, train

if TYPE_CHECKING:
    from torchward.language.documents import Document
    from torchward.language.text_task import Text
    from torchward.tasks.find import Algorithm

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
    learnt, held_out = sides(asked.algorithm, task)
    length = getattr(asked.settings.config, "max_length", None)
    found = report(learnt, held_out, task.tokenizer, max_length=length, template=task.template)
    print(found, end="")
    shown = [*task.problems.imitated, *task.problems.test]
    unanswered = [each for each in shown if imitated(each) is None]
    if asked.algorithm.name == "sft" and 0 < len(unanswered) < len(shown):
        some = f"{len(unanswered):,} of {len(shown):,} have no answer to imitate, {unanswered[0].origin} for one"
        print(f"! {some}: sft passes them over")
    if asked.algorithm.name == "sft" and init is None:
        print("! counted by a tokenizer made of this text: sft has that of the run that it begins from, give --init")
    return 0


def sides(algorithm: "Algorithm", task: "Text") -> "tuple[Sequence[Document], Sequence[Document]]":
    """The documents that an algorithm would learn from, and those that it would validate on."""
    from torchward.data.preferences import PreferenceTask
    from torchward.data.texts import CorpusTask, MaskedTask, TextTask

    kind = algorithm.learns_from
    if kind in (CorpusTask, MaskedTask):
        return task.corpus_sides()
    if kind is TextTask:
        return task.imitated_sides()
    if kind is PreferenceTask:
        return task.rated_sides() if algorithm.name == "kto" else task.preference_sides()
    return task.sides()
