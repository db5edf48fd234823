"""What the people of `dialogue` want: a table to be booked, or a device to be mended; and which of it is held out.

A goal is a value for each of its slots, and there is one right way to act on it. Held out are dates, each a day with a
month, and faults, each a device with its symptom and what was tried: a policy meets every day, month, device and
symptom when it learns, but not those together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from random import Random
from typing import Literal, TypeAlias

from torchward.data.random import derive

Kind: TypeAlias = Literal["booking", "repair"]
Goal: TypeAlias = Mapping[str, str]
"""A value for each slot."""

SLOTS: dict[Kind, tuple[str, ...]] = {
    "booking": ("place", "date", "people", "price"),
    "repair": ("device", "symptom", "tried"),
}
"""What each kind of goal is made of, in the order in which an action says it."""

PLACES = (
    "rome", "paris", "london", "berlin", "madrid", "vienna",
    "oslo", "lisbon", "athens", "dublin", "prague", "milan",
)  # fmt: skip
MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
DAYS = tuple(map(str, range(1, 29)))
PEOPLE = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
PRICES = tuple(map(str, range(30, 95, 5)))
DEVICES = ("router", "printer", "laptop", "phone", "camera", "tablet", "speaker", "screen")
REMEDIES: dict[str, tuple[str, str, str]] = {
    "slow": ("restart", "update", "reset"),
    "silent": ("volume", "cable", "update"),
    "hot": ("clean", "pause", "replace"),
    "dark": ("cable", "charge", "replace"),
    "stuck": ("restart", "reset", "charge"),
    "offline": ("cable", "restart", "update"),
}
"""What helps against a symptom: the first of them that was not tried."""
NOTHING = "nothing"
"""What somebody tried who tried nothing."""
HELD_OUT = 0.2
"""The share of the dates, and of the faults, that is held out."""


def tries(symptom: str) -> list[str]:
    """What may have been tried against a symptom: at most two of three remedies."""
    remedies = REMEDIES[symptom]
    return [" and ".join(some) or NOTHING for count in range(3) for some in combinations(remedies, count)]


def remedy(symptom: str, tried: str) -> str:
    """The first remedy that was not tried."""
    done = tried.split(" and ")
    return next(one for one in REMEDIES[symptom] if one not in done)


@dataclass(frozen=True)
class Action:
    """What the assistant does, in words that are read by :func:`read`."""

    verb: str
    """book and fix end a conversation; right? asks whether what follows is so."""
    fields: Mapping[str, str]


FIELDS: dict[str, tuple[str, ...]] = {
    "book": SLOTS["booking"],
    "fix": ("device", "by"),
    "right?": (*SLOTS["booking"], *SLOTS["repair"]),
}
"""What may follow a verb."""


def read(words: str) -> Action | None:
    """The action that is written so, such as `fix device router by reset`; None for anything else. The verb comes
    first; each field stands at most once, its value behind it."""
    verb, *rest = words.split(" ")
    names = FIELDS.get(verb, ())
    if not rest or rest[0] not in names:
        return None
    fields: dict[str, list[str]] = {}
    for word in rest:
        if word in names:
            name = word
            if name in fields:
                return None
            fields[name] = []
        else:
            fields[name].append(word)
    if not all(fields.values()):
        return None
    return Action(verb, {name: " ".join(value) for name, value in fields.items()})


def written(verb: str, fields: Mapping[str, str]) -> str:
    """An action as :func:`read` reads it."""
    return " ".join([verb, *(f"{name} {value}" for name, value in fields.items())])


def kind_of(goal: Goal) -> Kind:
    """Whether it is a table or a device."""
    return "booking" if "place" in goal else "repair"


def right(goal: Goal) -> str:
    """The action that is asked for."""
    if kind_of(goal) == "booking":
        return written("book", {slot: goal[slot] for slot in SLOTS["booking"]})
    return written("fix", {"device": goal["device"], "by": remedy(goal["symptom"], goal["tried"])})


class Goals:
    """The goals of one side: those that are learnt from, or those that are held out."""

    def __init__(self, data_seed: int, held_out: bool) -> None:
        def side(every: list[tuple[str, ...]], name: str) -> list[tuple[str, ...]]:
            Random(derive(data_seed, f"dialogue {name}")).shuffle(every)
            count = round(HELD_OUT * len(every))
            return every[:count] if held_out else every[count:]

        self.dates = [" ".join(date) for date in side(list(product(DAYS, MONTHS)), "dates")]
        faults = side([(a, b, c) for a in DEVICES for b in REMEDIES for c in tries(b)], "faults")
        self._others = {fault: [other for other in faults if _apart(fault, other)] for fault in faults}
        self.faults = [fault for fault in faults if self._others[fault]]

    def draw(self, random: Random, kind: Kind) -> dict[str, str]:
        """A goal."""
        values: Sequence[str]
        if kind == "repair":
            values = random.choice(self.faults)
        else:
            values = [random.choice(each) for each in (PLACES, self.dates, PEOPLE, PRICES)]
        return dict(zip(SLOTS[kind], values, strict=True))

    def change(self, random: Random, goal: Goal) -> tuple[str, str]:
        """A slot with another value that it may change to. What results is a goal of the same side."""
        if kind_of(goal) == "repair":
            other = random.choice(self._others[tuple(goal[slot] for slot in SLOTS["repair"])])
            slot = "device" if other[0] != goal["device"] else "symptom"
            return slot, other[SLOTS["repair"].index(slot)]
        slot = random.choice(SLOTS["booking"])
        while (value := self.draw(random, "booking")[slot]) == goal[slot]:
            pass
        return slot, value


def _apart(fault: Sequence[str], other: Sequence[str]) -> bool:
    """Whether they differ in the device alone, or in the symptom alone."""
    return fault[2] == other[2] and (fault[0] == other[0]) != (fault[1] == other[1])
