"""Dialogue: somebody wants a table booked or a device mended, and says so over several turns, each in its own manner.

The assistant asks, may confirm, and ends by an action in text: `book place rome date 3 may people four price 35` or
`fix device router by reset`. It is a success where that is what the user wants at that moment, to the letter. Who the
users are is said in `dialogue_user`, what they want in `dialogue_goals`, how they put it in `dialogue_words`. The goals
and phrasings of the test are none of those that are learnt from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, get_args

from torchward.data.random import derive
from torchward.language.bpe import BPE
from torchward.language.documents import Dialogue, Document, Message, Prompt
from torchward.language.task import Problems, TokenizerChoice
from torchward.tasks.dialogue_goals import Goals, Kind
from torchward.tasks.dialogue_rewards import Parts, Reward, register, success
from torchward.tasks.dialogue_teacher import QUESTIONS, Faults, taught
from torchward.tasks.dialogue_user import Mode, User, Users
from torchward.tasks.questions import between

MODES: tuple[Mode, ...] = get_args(Mode)
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Options:
    """Who talks, how patiently, and how well the demonstrations are made."""

    patience: int = 9
    """The most turns of the assistant that a user goes along with. How many, from ``hurry`` on, each draws."""
    hurry: int = 6
    """The fewest."""
    faults: Faults = field(default_factory=Faults)
    """How often the clerks have which fault that the demonstrations show."""
    demonstrations: int = 10_000
    """How many conversations are learnt from as they are."""
    problems: int = 12_000
    """How many users it talks to where it learns by reward: others than the demonstrations'."""
    test: int = 400
    """How many users are held out, with their goals and phrasings."""
    reward: Parts = field(default_factory=Parts)
    """The weights of what a conversation earns."""
    tokenizer: TokenizerChoice = field(default_factory=lambda: BPE(640, split_digits=False))
    """The tokenizer of a model that is made for it."""
    data_seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        between("hurry", self.hurry, 2)
        between("patience", self.patience, self.hurry)
        between("problems", self.problems, 1)
        between("demonstrations", self.demonstrations, 1)
        between("test", self.test, 1)


def make(options: Options) -> Problems:
    """The conversations. The metric is success alone."""
    goals = Goals(options.data_seed, held_out=False)
    random = Random(derive(options.data_seed, "dialogue train"))
    shown = []
    for i in range(options.demonstrations):
        columns = _somebody(random, goals, random.choice(MODES), options, held_out=False)
        talk = Dialogue(tuple(taught(random, columns, goals, options.faults)))
        shown.append(Document(talk, f"dialogue shown {i}", columns))
    train = []
    for i in range(options.problems):
        columns = _somebody(random, goals, random.choice(MODES), options, held_out=False)
        train.append(Document(_opening(columns), f"dialogue {i}", columns))
    known = register(message.content for document in shown for message in _assistants(document))
    return Problems(
        name="dialogue",
        train=train,
        test=held_out(options),
        shown=shown,
        reward=Reward(known | register(words for each in QUESTIONS.values() for words in each), options.reward),
        metric=success,
        partner=Users(),
        turns=options.patience,
        tokenizer=options.tokenizer,
        max_completion_length=24,
    )


def held_out(options: Options) -> list[Document]:
    """The test's users: each mode as often as the others, by turns."""
    goals = Goals(options.data_seed, held_out=True)
    random = Random(derive(options.data_seed, "dialogue test"))
    test = []
    for i in range(options.test):
        mode = MODES[i % len(MODES)]
        columns = _somebody(random, goals, mode, options, held_out=True)
        test.append(Document(_opening(columns), f"dialogue test {i} {mode}", columns))
    return test


def _somebody(random: Random, goals: Goals, mode: Mode, options: Options, held_out: bool) -> Mapping[str, Any]:
    goal = goals.draw(random, random.choice(KINDS))
    return {
        "goal": goal,
        "change": list(goals.change(random, goal)),
        "mode": mode,
        "patience": random.randint(options.hurry, options.patience),
        "seed": random.getrandbits(32),
        "held_out": held_out,
    }


def _opening(columns: Mapping[str, Any]) -> Prompt:
    return Prompt((Message("user", User(columns).opening()),))


def _assistants(document: Document) -> list[Message]:
    if not isinstance(document.content, Dialogue):
        return []
    return [message for message in document.content.messages if message.role == "assistant"]
