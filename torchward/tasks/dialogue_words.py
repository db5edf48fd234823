"""How the people of `dialogue` put things: phrasings that are learnt from, and others that are held out."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from torchward.tasks.dialogue_goals import DEVICES, MONTHS, PLACES, REMEDIES


@dataclass(frozen=True)
class Phrases:
    """What somebody says. `{}` is a value, `{d}` and `{m}` a day and its month, `{old}` what was said before."""

    openings: Mapping[str, tuple[str, ...]]
    """By kind of goal."""
    values: Mapping[str, tuple[str, ...]]
    """By slot."""
    changes: tuple[str, ...]
    remarks: tuple[str, ...]
    """What has nothing to do with the matter, though it may sound so."""
    unsure: tuple[str, ...]
    """In place of a slot that was asked for."""
    useless: tuple[str, ...]
    """In place of any answer, by somebody who does not help."""
    puzzled: tuple[str, ...]
    """The answer to what is no question."""
    yes: tuple[str, ...]
    no: tuple[str, ...]
    """What a correction begins with."""


LEARNT = Phrases(
    openings={
        "booking": (
            "i want a table", "book a table please", "i need a table", "can you book for me", "hello a table",
            "hello can you book a table", "i want to book", "please book me a table", "is there a table",
        ),
        "repair": (
            "i need help", "something is broken", "can you help me", "it does not work", "hello i need help",
            "please help", "hello it is broken", "my thing does not work", "help me please",
        ),
    },
    values={
        "place": (
            "in {}", "{} please", "it is in {}", "a table in {}", "in {} please", "the city is {}", "for {}",
            "{} is the place", "we are in {}", "somewhere in {}", "it has to be {}",
        ),
        "date": (
            "on {d} {m}", "on {m} {d}", "the {d} of {m}", "{d} {m} please", "for the {d} of {m}", "it is {m} {d}",
            "{m} {d} is the day", "we come on {m} {d}", "on the {d} of {m}", "the date is {d} {m}",
            "for {m} {d} please",
        ),
        "people": (
            "for {} people", "we are {}", "{} of us", "{} people", "it is for {} people", "a table for {}",
            "there are {} people", "we are {} of us", "there will be {}", "{} please", "it is {} of us",
        ),
        "price": (
            "for {} euros", "at most {} euros", "{} euros", "up to {} euros each", "the price is {} at most",
            "{} euros each please", "not more than {}", "it is {} euros", "{} at most please", "up to {} each",
            "more than {} euros is too much",
        ),
        "device": (
            "it is my {}", "my {}", "the {}", "i have a {}", "it is the {}", "with my {}", "a {} i have",
            "the {} here", "this is a {}", "it is a {} again",
        ),
        "symptom": (
            "it is {}", "it is very {}", "{} all day", "it has been {}", "so {} again", "it gets {}",
            "very {} again", "so it gets {}", "it was {} all day", "{} it is",
        ),
        "tried": (
            "i tried {}", "{} so far", "we did {}", "only {}", "i have tried {}", "{} was tried",
            "i have only tried {}", "so far i tried {}", "it was {}", "{} i did",
        ),
    },
    changes=(
        "make it {} , not {old}", "no , not {old} but {}", "sorry , {} instead of {old}", "actually {}",
        "wait , {} and not {old}", "instead of {old} it is {}", "actually not {old} , {}", "wait , not {old} but {}",
        "sorry , make it {}",
    ),
    remarks=(
        "what a day", "my dog is here", "it is raining", "my sister is in {place}", "last time we were {people}",
        "i am late", "a friend has a {device}", "my dog is in {place}", "a friend is late",
        "we were {people} last time",
    ),
    unsure=("i do not know yet", "let me think", "ask me later", "i have to ask", "i do not think so"),
    useless=("why do you ask", "just do it", "that is not important", "hurry up", "do not ask", "is that important"),
    puzzled=("sorry ?", "what do you mean ?"),
    yes=("yes", "yes please", "yes it is right"),
    no=("no", "no sorry", "no , sorry", "no no"),
)  # fmt: skip

HELD_OUT = Phrases(
    openings={
        "booking": ("hello i want to book", "a table please", "please help me book a table"),
        "repair": ("hello something does not work", "please help me", "my thing is broken"),
    },
    values={
        "place": ("it is for {}", "the table is in {}", "{} is the city"),
        "date": ("it is on {m} {d}", "on the {d} of {m} please", "{m} {d} please"),
        "people": ("a table for {} people", "there are {} of us", "we are {} people"),
        "price": ("it is {} euros at most", "up to {} euros please", "not more than {} euros"),
        "device": ("i have a {} here", "it is a {}", "the {} i have"),
        "symptom": ("it is {} again", "so it is {}", "it has been very {}"),
        "tried": ("so far {}", "i did {}", "only {} was tried"),
    },
    changes=("sorry , not {old} but {}", "wait , make it {} instead of {old}", "actually {} , not {old}"),
    remarks=("my dog is late", "what a day it is", "a friend is in {place}", "last time it was for {people}"),
    unsure=("i have to think", "i do not know"),
    useless=("just book it", "do not ask me", "why is that important"),
    puzzled=("sorry what ?", "what ?"),
    yes=("yes it is",),
    no=("no , wait",),
)

FRAGILE = frozenset((*PLACES, *MONTHS, *DEVICES, *REMEDIES)) - {"may", "hot"}
"""Words that are misspelt. Of the shortest ones little would be left."""


def misspelt(word: str, random: Random) -> str:
    """The word with two inner letters exchanged, or one of them left out or doubled; never the word itself."""
    i = random.randrange(1, len(word) - 2)
    ways = [word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:]]
    if word[i] != word[i + 1]:
        ways.append(word[:i] + word[i + 1] + word[i] + word[i + 2 :])
    return random.choice(ways)


def told(phrase: str, slot: str, value: str) -> str:
    """A phrase about a slot's value."""
    day, _, month = value.partition(" ")
    return phrase.format(value, d=day, m=month) if slot == "date" else phrase.format(value)


UNITS = {"people": "{} people", "price": "{} euros", "device": "the {}"}
"""By what a value is known out of its phrase."""


def plainly(slot: str, value: str) -> str:
    """A value that can be told from those of other slots."""
    return UNITS.get(slot, "{}").format(value)
