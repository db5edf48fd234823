"""The demonstrations of `dialogue`: clerks who know what the user has said so far, and have the faults of clerks."""

from dataclasses import dataclass
from random import Random
from typing import Any

from torchward.language.documents import Message
from torchward.tasks.dialogue_goals import SLOTS, Goals, right, written
from torchward.tasks.dialogue_user import User
from torchward.tasks.questions import between

QUESTIONS: dict[str, tuple[str, ...]] = {
    "place": ("which city ?", "where ?"), "date": ("what date ?", "when ?"),
    "people": ("how many people ?", "for how many ?"), "price": ("at what price ?", "what is the budget ?"),
    "device": ("which device ?",), "symptom": ("what is wrong with it ?",), "tried": ("what have you tried ?",),
}  # fmt: skip
CONFIRMED, TWO = 0.4, 0.1
"""How often a clerk asks whether all is right before it acts, and asks for place and date at once."""


@dataclass(frozen=True)
class Faults:
    """How often a clerk has which fault."""

    overlooks: float = 0.6
    """Of the conversations: it keeps what it noted first, though the user changes its mind or corrects it."""
    hasty: float = 0.6
    """Of the conversations: it asks for nothing twice, and acts on a guess where it got no answer."""
    careless: float = 0.1
    """Of the turns: it asks for anything, known or not, or acts at once, on guesses."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            between(name, value, 0.0, 1.0)


def taught(random: Random, columns: Any, goals: Goals, faults: Faults) -> list[Message]:
    """A conversation of one clerk with the user of some columns."""
    user = User(columns)
    messages = [Message("user", user.opening())]
    noted: dict[str, str] = {}
    asked: set[str] = set()
    confirmed = random.random() >= CONFIRMED
    overlooks, hasty = random.random() < faults.overlooks, random.random() < faults.hasty
    while True:
        for slot in user.told:
            if slot not in noted or not overlooks:
                noted[slot] = user.goal[slot]
        missing = [slot for slot in SLOTS[user.kind] if slot not in noted]
        if hasty:
            missing = [slot for slot in missing if slot not in asked]
        guess = goals.draw(random, user.kind)
        known = {slot: noted.get(slot, guess[slot]) for slot in SLOTS[user.kind]}
        slip = random.random() < faults.careless
        if slip and missing and random.random() < 0.5:
            words = right(known)
        elif slip:
            words = random.choice(QUESTIONS[random.choice(SLOTS[user.kind])])
        elif missing[:2] == ["place", "date"] and random.random() < TWO:
            words = "where and when ?"
            asked.update(missing[:2])
        elif missing:
            words = random.choice(QUESTIONS[missing[0]])
            asked.add(missing[0])
        elif not confirmed:
            words, confirmed = written("right?", known), True
        else:
            words = right(known)
        messages.append(Message("assistant", words))
        answer = user.hear(words)
        if answer is None:
            return messages
        messages.append(Message("user", answer))
