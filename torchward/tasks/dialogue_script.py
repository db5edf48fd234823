"""A baseline of `dialogue` without any learning: it fills slots by keywords, asks for what is missing, and confirms.

As such systems are built: patterns find values in what was said, and what was found last counts. It knows the phrasings
that are held out as well as the others, for whoever writes such rules thinks of both. What it does not know are
misspellings, words that deny, and remarks that are none of the matter's.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torchward.language.documents import Document
from torchward.tasks.dialogue_goals import (
    DAYS,
    DEVICES,
    MONTHS,
    NOTHING,
    PEOPLE,
    PLACES,
    PRICES,
    REMEDIES,
    SLOTS,
    Kind,
    right,
    written,
)
from torchward.tasks.dialogue_user import User

QUESTIONS: dict[str, str] = {
    "place": "which city ?", "date": "what date ?", "people": "how many people ?", "price": "at what price ?",
    "device": "which device ?", "symptom": "what is wrong with it ?", "tried": "what have you tried ?",
}  # fmt: skip
REMEDY = "|".join(sorted({one for each in REMEDIES.values() for one in each}))


def _any(words: Sequence[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


PATTERNS: dict[str, tuple[str, ...]] = {
    "place": (rf"\b(?P<v>{_any(PLACES)})\b",),
    "date": (
        rf"\b(?P<d>{_any(DAYS)}) (?:of )?(?P<m>{_any(MONTHS)})\b", rf"\b(?P<m>{_any(MONTHS)}) (?P<d>{_any(DAYS)})\b",
    ),
    "people": (
        rf"\b(?P<v>{_any(PEOPLE)}) (?:people|of us)\b", rf"\b(?:we are|table for|will be) (?P<v>{_any(PEOPLE)})\b",
    ),
    "price": (
        rf"\b(?P<v>{_any(PRICES)}) euros\b", rf"\b(?:at most|up to|price is|more than) (?P<v>{_any(PRICES)})\b",
        rf"\b(?P<v>{_any(PRICES)}) at most\b",
    ),
    "device": (rf"\b(?P<v>{_any(DEVICES)})\b",),
    "symptom": (rf"\b(?P<v>{_any(tuple(REMEDIES))})\b",),
    "tried": (rf"\b(?P<v>(?:{REMEDY})(?: and (?:{REMEDY}))?)\b", rf"\b(?P<v>{NOTHING})\b"),
}  # fmt: skip
BARE: dict[str, Sequence[str]] = {"people": PEOPLE, "price": PRICES}
"""What is understood without a word beside it."""


@dataclass(frozen=True)
class Script:
    """The rules. ``confirms``: asks whether all is right before it acts, and takes the correction."""

    confirms: bool = True

    def __call__(self, heard: Sequence[str], said: Sequence[str]) -> str:
        """What it says next, from all that the user said and all that it said itself."""
        kind = next((kind for kind in SLOTS if any(self._topic(words) == kind for words in heard)), None)
        filled: dict[str, str] = {}
        for words in heard:
            self._fill(filled, words)
        if kind is None:
            kind = "repair" if filled.keys() & set(SLOTS["repair"]) and "place" not in filled else None
        kind = kind or ("booking" if "table" in " ".join(heard) else "repair")
        slots = {slot: filled[slot] for slot in SLOTS[kind] if slot in filled}
        for slot in SLOTS[kind]:
            if slot not in slots:
                return QUESTIONS[slot]
        confirmation = written("right?", slots)
        if self.confirms and confirmation not in said:
            return confirmation
        return right(slots)

    @staticmethod
    def _topic(words: str) -> Kind | None:
        if re.search(r"\b(table|book)\b", words):
            return "booking"
        return "repair" if re.search(r"\b(broken|work)\b", words) else None

    @staticmethod
    def _fill(filled: dict[str, str], words: str) -> None:
        """Note what a turn says."""
        for slot, patterns in PATTERNS.items():
            found = [match for pattern in patterns for match in re.finditer(pattern, words)]
            if found:
                groups = max(found, key=lambda match: match.end()).groupdict()
                filled[slot] = groups.get("v") or f"{groups['d']} {groups['m']}"
        for slot, values in BARE.items():
            if words.removesuffix(" please") in values:
                filled[slot] = words


Speaker = Callable[[Sequence[str], Sequence[str]], str]
"""What says the assistant's next words, from all that the user said and all that it said itself."""


def converse(speaker: Speaker, columns: Any) -> tuple[User, list[str], list[str]]:
    """A conversation of ``speaker`` with the user of some columns: the user at its end, its words, the speaker's."""
    user = User(columns)
    heard, said = [user.opening()], list[str]()
    while not user.over:
        said.append(speaker(heard, said))
        if (answer := user.hear(said[-1])) is not None:
            heard.append(answer)
    return user, heard, said


def evaluate(speaker: Speaker, documents: Sequence[Document]) -> dict[str, float]:
    """The success of ``speaker`` with the users of documents: of each mode, and of ``all``."""
    found: dict[str, list[bool]] = {"all": []}
    for document in documents:
        success = converse(speaker, document.columns)[0].success
        for name in ("all", document.columns["mode"]):
            found.setdefault(name, []).append(success)
    return {name: sum(each) / len(each) for name, each in found.items()}
