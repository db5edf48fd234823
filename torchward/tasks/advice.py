"""Which algorithm for which task: a table of rules, from the first that holds to the last, and what to mind."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from torchward.data.memory import bytes_of
from torchward.fields import change
from torchward.nets import spaces
from torchward.tasks import find
from torchward.tasks.facts import Facts

TABLE = 100_000
"""Entries of a table of values that random play still fills in a reasonable time."""
DEAR = 1e-3
"""Seconds of a step from which experience is dearer than what is learnt from it: a step of PPO on a small network costs
about a tenth of that, one of DQN or SAC several times as much."""


class Rule(NamedTuple):
    """An algorithm, when it is the one to take, and why."""

    algorithm: str
    when: str
    holds: Callable[[Facts], bool]
    because: str
    steps: Callable[[Facts], int]
    """A budget to begin with, in environment steps."""
    settings: Mapping[str, Any] = {}


RULES = (
    Rule(
        "dynamic_programming",
        "the environment has a table of its transition probabilities",
        lambda facts: facts.has_model,
        "nothing has to be tried out: value iteration finds the best policy from the probabilities, to any precision",
        lambda facts: 1_000,
    ),
    Rule(
        "q_learning",
        f"states and actions are numbered, at most {TABLE:,} pairs",
        lambda facts: 0 < facts.pairs <= TABLE,
        "a table holds every value by itself, so nothing that is learnt here spoils what was learnt there",
        lambda facts: max(20_000, 200 * facts.pairs),
    ),
    Rule(
        "sac",
        "goals that the environment can judge; actions are real numbers",
        lambda facts: facts.has_goals and facts.is_real,
        "an episode that missed its goal still shows how to get to where it went: hindsight learns from that",
        lambda facts: 300_000,
        {"replay": "her"},
    ),
    Rule(
        "dqn",
        "goals that the environment can judge; an action is one of several",
        lambda facts: facts.has_goals and facts.chooses,
        "an episode that missed its goal still shows how to get to where it went: hindsight learns from that",
        lambda facts: 300_000,
        {"replay": "her"},
    ),
    Rule(
        "sac",
        "actions are real numbers, alone or beside choices",
        lambda facts: facts.is_real or facts.is_mixed,
        "it learns from each step many times, explores by its own entropy, and asks for little tuning",
        lambda facts: 1_000_000 if facts.sees_pictures else 300_000,
    ),
    Rule(
        "dqn",
        f"an action is one of several, and a step takes {1000 * DEAR:g} ms or more",
        lambda facts: facts.chooses and facts.seconds >= DEAR and not facts.sees_pictures,
        "experience is dear here, and a replay lets each step be learnt from several times",
        lambda facts: 100_000,
    ),
    Rule(
        "ppo",
        "pictures are seen, and an action is one of several",
        lambda facts: facts.chooses and facts.sees_pictures,
        "a step costs it less than half of the arithmetic that DQN needs, and many environments are seen at once",
        lambda facts: 10_000_000,
    ),
    Rule(
        "ppo",
        f"an action is one of several, and a step takes less than {1000 * DEAR:g} ms",
        lambda facts: facts.chooses and facts.seconds < DEAR,
        "steps are cheap, so the algorithm that wastes some and has few ways to go wrong is the quickest",
        lambda facts: 1_000_000,
    ),
    Rule(
        "ppo",
        "anything else, such as several choices at once",
        lambda facts: True,
        "it takes any space, and has few ways to go wrong",
        lambda facts: 10_000_000 if facts.sees_pictures else 1_000_000,
    ),
    Rule(
        "dqn",
        "an action is one of several, and steps are to be saved rather than time",
        lambda facts: facts.chooses,
        "it needs fewer steps than PPO, and more time for each",
        lambda facts: 10_000_000 if facts.sees_pictures else 200_000,
    ),
)
"""Of the rules that hold the first one is the advice, unless a later one has tuned settings for the task."""


class Remark(NamedTuple):
    """What to mind of a task, whichever algorithm; with the settings that help, by those who have them."""

    when: str
    holds: Callable[[Facts], bool]
    says: str
    settings: Callable[[Facts, str], Mapping[str, Any]]


def _nothing(facts: Facts, algorithm: str) -> Mapping[str, Any]:
    return {}


REMARKS = (
    Remark(
        "random play hardly ever earns anything else than usual",
        lambda facts: facts.is_sparse and not facts.has_model and not facts.has_goals,
        "rewards are sparse: what is new has to be worth something by itself (docs/exploration.md)",
        lambda facts, algorithm: (
            {"initial_q": max(1.0, facts.mean_return)}
            if algorithm == "q_learning"
            else {"exploration_bonus": "random_distillation"}
        ),
    ),
    Remark(
        "no episode ended while we looked",
        lambda facts: facts.episodes == 0,
        "no episode ended in random play; where there is no time limit, give one: --max-episode-steps",
        _nothing,
    ),
    Remark(
        "a time limit ends episodes",
        lambda facts: facts.limited > 0,
        "a time limit is no end of the story: what comes behind it is still worth something, and is taken so here",
        _nothing,
    ),
    Remark(
        "numbers above 10 are seen",
        lambda facts: facts.scale > 10.0,
        "large numbers slow a network down: bring what is seen to the order of 1",
        lambda facts, algorithm: (
            {} if algorithm in ("q_learning", "dynamic_programming") else {"normalize_observation": True}
        ),
    ),
    Remark(
        "returns differ by more than 100",
        lambda facts: facts.std_return > 100.0,
        "large returns make for large errors: scale what is earned",
        lambda facts, algorithm: {"normalize_reward": True} if algorithm == "ppo" else {},
    ),
    Remark(
        "episodes of more than 500 steps, seldom paid",
        lambda facts: facts.horizon > 500 and facts.rewarded < 0.02,
        "with gamma 0.99 what comes in 500 steps is worth 0.7 % of itself: look further ahead",
        lambda facts, algorithm: {} if algorithm == "dynamic_programming" else {"gamma": 0.999},
    ),
    Remark(
        "some actions are forbidden in some states",
        lambda facts: spaces.has_mask(facts.observation),
        "masks are respected by every algorithm with choices: what is forbidden is never drawn, nor learnt from",
        _nothing,
    ),
)


class Advice(NamedTuple):
    """An algorithm to take, and how it is called."""

    rule: Rule
    tuned: bool
    """There are settings for this very task."""
    settings: Mapping[str, Any]
    """What to set beside them, or beside the defaults."""
    steps: int

    def command(self, task: str, options: str = "") -> str:
        """What to type."""
        flags = "".join(
            f" --{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            for name, value in self.settings.items()
        )
        steps = "" if self.tuned else f" --total-timesteps {self.steps}"
        return f"torchward train {self.rule.algorithm} {task}{options}{flags}{steps}"


def advise(facts: Facts, task: Any, source: Any) -> tuple[list[Advice], list[Remark]]:
    """All that may be taken, the best first, and what to mind (but for what tuned settings have minded already).
    ``source`` is how the task was named."""
    found: dict[str, Advice] = {}
    remarks = [remark for remark in REMARKS if remark.holds(facts)]
    for rule in RULES:
        if rule.algorithm not in found and rule.holds(facts) and _takes(rule, task):
            preset = find.preset(rule.algorithm, source)
            settings = dict(rule.settings) | _of_a_vector(rule, task)
            if preset is None:
                for remark in remarks:
                    settings |= remark.settings(facts, rule.algorithm)
            steps = rule.steps(facts) if preset is None else preset.config.total_timesteps
            found[rule.algorithm] = Advice(rule, preset is not None, settings, steps)
    first, *others = found.values()
    # Settings that were tried on this very task outweigh a rule for tasks like it; a model outweighs both.
    if not first.tuned and not facts.has_model:
        first = next((advice for advice in others if advice.tuned), first)
    rest = [advice for advice in found.values() if advice is not first]
    remarks = [remark for remark in remarks if remark.settings is _nothing or not first.tuned]
    fitting = [_fitting(advice, facts, task, source) for advice in (first, *rest)]
    return [advice for advice, _ in fitting], remarks + [remark for _, remark in fitting[:1] if remark is not None]


def _fitting(advice: Advice, facts: Facts, task: Any, source: Any) -> tuple[Advice, Remark | None]:
    """The advice with a replay that fits into half of the memory that is free, and what is to be said of that, if it is
    not the one that it would be."""
    preset = find.preset(advice.rule.algorithm, source)
    config = find.algorithm(advice.rule.algorithm).Config() if preset is None else preset.config
    config = change(config, advice.settings)
    if not facts.memory or not hasattr(config, "buffer_size") or config.buffer_on_disk:
        return advice, None
    wanted = bytes_of(config, task)
    if 2 * wanted <= facts.memory:
        return advice, None
    fits = max(1, config.buffer_size * facts.memory // (2 * wanted))
    round_ = 10 ** max(0, len(str(fits)) - 2)
    size = fits // round_ * round_
    says = (
        f"a replay of {config.buffer_size:,} steps would take {_gigabytes(wanted)}, and {_gigabytes(facts.memory)} of "
        f"memory are free here: {size:,} steps take half of that; --buffer-on-disk keeps more of them in files"
    )
    remark = Remark("the replay would take more than half of the free memory", lambda facts: True, says, _nothing)
    return advice._replace(settings={**advice.settings, "buffer_size": size}), remark


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"


def _takes(rule: Rule, task: Any) -> bool:
    """Whether the algorithm accepts the task's spaces: each one checks that itself."""
    algorithm = find.algorithm(rule.algorithm)
    if not hasattr(algorithm.module, "check"):
        return True
    try:
        algorithm.module.check(algorithm.Config(), task)
    except ValueError:  # SpaceError, ConfigError
        return False
    return True


def _of_a_vector(rule: Rule, task: Any) -> dict[str, Any]:
    """What an algorithm has to be told of a task that is a vector: how many environments that holds."""
    held, config = getattr(task, "held", None), find.algorithm(rule.algorithm).Config
    return {"n_envs": held} if held is not None and "n_envs" in {field.name for field in fields(config)} else {}


def table() -> str:
    """The rules and remarks as Markdown."""
    lines = ["| when | take | because |", "|---|---|---|"]
    for rule in RULES:
        with_ = "".join(f" `--{name} {value}`" for name, value in rule.settings.items())
        lines.append(f"| {rule.when} | `{rule.algorithm}`{with_} | {rule.because} |")
    lines += ["", "| and if | then mind |", "|---|---|"]
    lines += [f"| {remark.when} | {remark.says} |" for remark in REMARKS]
    return "\n".join(lines)
