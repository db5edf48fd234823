"""`torchward advise`: look at a task, and say which algorithm to take, with which settings, and why."""

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchward.cli import UsageError, arguments, positional
from torchward.cli.arguments import Group

if TYPE_CHECKING:
    from torchward.tasks.advice import Advice, Remark
    from torchward.tasks.facts import Facts

WIDTH = 110


@dataclass(frozen=True)
class Advise:
    """Look at a task in random play, and say which algorithm, settings and budget to take, and why."""

    seconds: float = 5.0
    """How long to play."""
    seed: int = 0
    """Decides how it is played."""
    table: bool = False
    """Show the rules, as Markdown, and look at no task."""


def run(args: Sequence[str]) -> int:
    """The command."""
    if "--table" in args:
        from torchward.tasks import advice

        print(advice.table())
        return 0
    words, rest = positional(args, ("TASK",), "advise")
    from torchward.config import from_json
    from torchward.envs.make import EnvOptions
    from torchward.fields import change

    groups = [Group("advise", Advise()), Group("environment", EnvOptions())]
    chosen, env = arguments.read(groups, rest, "torchward advise TASK")
    options = from_json(Advise, chosen)
    if not options.seconds > 0.0:
        raise UsageError(f"seconds have to be above 0; got {options.seconds}")
    from torchward.language.text_task import Text
    from torchward.tasks import advice, facts, find

    if not isinstance(find.options(words[0]), EnvOptions):
        raise _text(words[0])
    found = find.task(words[0], change(EnvOptions(), env))
    if isinstance(found.task, Text):
        raise _text(words[0])
    seen = facts.look(found.task, options.seconds, options.seed)
    advices, remarks = advice.advise(seen, found.task, found.source)
    given = " ".join(shlex.quote(word) for word in _environment_words(rest))
    print("\n".join(told(words[0], f" {given}" if given else "", seen, advices, remarks)))
    return 0


def _text(task: str) -> UsageError:
    """What is said of a task that is not played."""
    return UsageError(
        f"advise plays environments, and {task} is a task of text: `torchward data ALGORITHM TASK` looks at it, and "
        "docs/which-algorithm.md says what learns from text"
    )


def told(
    task: str, options: str, facts: "Facts", advices: "Sequence[Advice]", remarks: "Sequence[Remark]"
) -> list[str]:
    """The facts, the advice and its reasons, in lines."""
    from torchward.nets.spaces import describe

    first, *others = advices
    ends = f"{facts.episodes} ended" + (
        f", after {facts.horizon:.0f} steps on average, {facts.limited:.0%} of them by a time limit"
        if facts.episodes
        else ""
    )
    lines = [f"{task}, after {facts.steps:,} random steps", ""]
    rows = {
        "sees": describe(facts.observation) + (", with goals that it can judge" if facts.has_goals else ""),
        "does": describe(facts.action),
        "a step": f"{_time(facts.seconds)}, its random action included",
        "episodes": ends,
        "rewards": f"{_rewards(facts)}; returns {facts.mean_return:.4g} ± {facts.std_return:.3g}",
    }
    lines += [_filled(f"{name:<9} {text}", 10) for name, text in rows.items()]
    lines += ["", f"Take {first.rule.algorithm}:", "", f"  {first.command(shlex.quote(task), options)}", ""]
    budget = "sweeps" if first.rule.algorithm == "dynamic_programming" else "steps"
    stepping = f", of which the environment takes {_time(first.steps * facts.seconds)}" if budget == "steps" else ""
    rows = {
        "why": f"{first.rule.when}; {first.rule.because}",
        "settings": "tuned for this task" if first.tuned else "the defaults, but for what the command says",
        "budget": f"{first.steps:,} {budget}{stepping}",
    }
    lines += [_filled(f"{name:<9} {text}", 10) for name, text in rows.items()]
    lines += [_filled(f"{'mind' if i == 0 else '':<9} {remark.says}", 10) for i, remark in enumerate(remarks)]
    for advice in others:
        tuned = ", tuned for this task" if advice.tuned else ""
        lines.append(_filled(f"{'or':<9} {advice.rule.algorithm}{tuned}: {advice.rule.because}", 10))
    return lines


def _rewards(facts: "Facts") -> str:
    """How often a step, or an episode, pays anything else than usual, where there is something usual."""
    unlike = "pay something else than most do"
    if facts.rewarded <= 0.5:
        return f"{facts.rewarded:.1%} of the steps {unlike}, {facts.distinct:.0%} of the episodes"
    if facts.episodes < 2:
        return "what is paid differs from step to step"
    few = (
        f"; {facts.distinct:.0%} of the episodes {unlike}" if facts.distinct <= 0.5 else ", and from episode to episode"
    )
    return f"what is paid differs from step to step{few}"


def _environment_words(words: Sequence[str]) -> list[str]:
    """The options of the environment among the words of the command."""
    own = {"--seconds", "--seed"}
    kept, skip = list[str](), False
    for word in words:
        if skip or word.partition("=")[0] in own:
            skip = word in own and not skip
        else:
            kept.append(word)
    return kept


def _time(seconds: float) -> str:
    for unit, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e6:.3g} µs"


def _filled(text: Any, indent: int) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent=" " * (indent + 2))
