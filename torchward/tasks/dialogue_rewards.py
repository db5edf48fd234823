"""What a conversation of `dialogue` earns: a sum of named parts, of which success is by far the largest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from torchward.tasks.dialogue_goals import DAYS, DEVICES, MONTHS, PEOPLE, PLACES, PRICES, REMEDIES
from torchward.tasks.dialogue_user import Conversation

REMEDY_NAMES = tuple(one for each in REMEDIES.values() for one in each)
VALUES = frozenset((*PLACES, *MONTHS, *DAYS, *PEOPLE, *PRICES, *DEVICES, *REMEDIES, *REMEDY_NAMES))
BEGIN, END, VALUE = "<", ">", "_"


def pairs(words: str) -> list[tuple[str, str]]:
    """The neighbours in a turn, its begin and end among them. A value counts as a value, whichever it is."""
    return list(pairwise([BEGIN, *(VALUE if word in VALUES else word for word in words.split(" ")), END]))


def register(turns: Iterable[str]) -> frozenset[tuple[str, str]]:
    """All neighbours in the turns of an assistant."""
    return frozenset(pair for words in turns for pair in pairs(words))


@dataclass(frozen=True)
class Parts:
    """The parts, each from 0 to 1; or their weights."""

    success: float = 1.0
    """Whether what was wanted was done, to the letter."""
    brevity: float = 0.2
    """The share of the user's patience that was left, where it was a success; else 0."""
    language: float = 0.05
    """The share of neighbouring words that the demonstrations' assistant says too, over all turns."""
    variety: float = 0.05
    """The share of the turns that were not said before."""


def success(prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
    """The metric: 1 for each conversation that ended in the right action."""
    return [float(conversation.user.success) for conversation in _conversations(completions, columns)]


@dataclass(frozen=True)
class Reward:
    """The weighted sum of the parts."""

    known: frozenset[tuple[str, str]]
    """The register, by :func:`register`."""
    weights: Parts = field(default_factory=Parts)

    def parts(self, conversation: Conversation) -> Parts:
        """The parts of a conversation, before they are weighted."""
        user, said = conversation.user, conversation.said
        spoken = [pair for words in said for pair in pairs(words)]
        return Parts(
            success=float(user.success),
            brevity=max(0.0, 1.0 - user.turns / user.patience) if user.success else 0.0,
            language=sum(pair in self.known for pair in spoken) / len(spoken),
            variety=len(set(said)) / len(said),
        )

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        weights, earned = vars(self.weights), []
        for conversation in _conversations(completions, columns):
            parts = vars(self.parts(conversation))
            earned.append(sum(weight * parts[name] for name, weight in weights.items()))
        return earned


def _conversations(completions: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Iterable[Conversation]:
    for row, completion in enumerate(completions):
        yield Conversation({name: values[row] for name, values in columns.items()}, [completion])
