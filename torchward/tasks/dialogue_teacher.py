"""The demonstrations of `dialogue`: a teacher who knows what the user has said so far, and is careless at times."""

from random import Random
from typing import Any

from torchward.language.documents import Message
from torchward.tasks.dialogue_goals import SLOTS, Goals, right, written
from torchward.tasks.dialogue_user import User

QUESTIONS: dict[str, tuple[str, ...]] = {
    "place": ("which city ?", "where ?"), "date": ("what date ?", "when ?"),
    "people": ("how many people ?", "for how many ?"), "price": ("at what price ?", "what is the budget ?"),
    "device": ("which device ?",), "symptom": ("what is wrong with it ?",), "tried": ("what have you tried ?",),
}  # fmt: skip
CONFIRMED, TWO = 0.4, 0.1
"""How often it asks whether all is right before it acts, and asks for place and date at once."""


def taught(random: Random, columns: Any, goals: Goals, careless: float) -> list[Message]:
    """A conversation with the user of some columns.

    In ``careless`` of its turns the teacher does what a poor assistant does: acts before it knows all, on guesses; or
    asks again for what it was told. And it then acts on what it noted when it first heard it, whatever has changed."""
    user = User(columns)
    messages = [Message("user", user.opening())]
    noted: dict[str, str] = {}
    confirmed = random.random() >= CONFIRMED
    forgets = random.random() < careless
    while True:
        for slot in user.told:
            if slot not in noted or not forgets:
                noted[slot] = user.goal[slot]
        missing = [slot for slot in SLOTS[user.kind] if slot not in user.told]
        slip = random.random() < careless
        if slip and missing and random.random() < 0.5:
            guess = goals.draw(random, user.kind)
            words = right({slot: noted.get(slot, guess[slot]) for slot in SLOTS[user.kind]})
        elif slip:
            words = random.choice(QUESTIONS[random.choice(SLOTS[user.kind])])
        elif missing[:2] == ["place", "date"] and random.random() < TWO:
            words = "where and when ?"
        elif missing:
            words = random.choice(QUESTIONS[missing[0]])
        elif not confirmed:
            words, confirmed = written("right?", {slot: noted[slot] for slot in SLOTS[user.kind]}), True
        else:
            words = right({slot: noted[slot] for slot in SLOTS[user.kind]})
        messages.append(Message("assistant", words))
        answer = user.hear(words)
        if answer is None:
            return messages
        messages.append(Message("user", answer))
