"""The people of `dialogue`: each wants something, answers in its own manner, may change its mind, and leaves in time.

What somebody says follows from the columns of a document and from what the assistant said so far: nothing else is kept,
so that a conversation is resumed by its words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, TypeAlias

from torchward.language.task import Reply
from torchward.tasks.dialogue_goals import DEVICES, PEOPLE, PLACES, SLOTS, Action, kind_of, read, right
from torchward.tasks.dialogue_words import FRAGILE, HELD_OUT, LEARNT, misspelt, plainly, told

Mode: TypeAlias = Literal["cooperative", "noisy", "changing", "uncooperative"]


@dataclass(frozen=True)
class Manner:
    """How often somebody does what, at each of its turns."""

    volunteered: float = 0.3
    """Says one more thing than was asked; in the opening, up to two."""
    misspelling: float = 0.0
    """Of each word that can be misspelt."""
    remark: float = 0.0
    """Says something that has nothing to do with it, before or behind the answer."""
    unsure: float = 0.0
    """Leaves out what was asked for."""
    elsewhere: float = 0.0
    """Says something else that is wanted, instead of what was asked for."""
    useless: float = 0.0
    """Says nothing that helps."""
    bare: float = 0.1
    """Says the value and no word more."""
    changes: bool = False
    """Changes its mind once."""


MANNERS: dict[Mode, Manner] = {
    "cooperative": Manner(),
    "noisy": Manner(misspelling=0.35, remark=0.4, unsure=0.15),
    "changing": Manner(changes=True),
    "uncooperative": Manner(volunteered=0.0, elsewhere=0.3, useless=0.2, bare=0.7),
}
"""The manner of each mode."""

ASKED: dict[str, frozenset[str]] = {
    "place": frozenset({"where", "city"}), "date": frozenset({"when", "date"}), "people": frozenset({"many"}),
    "price": frozenset({"price", "budget"}), "device": frozenset({"device"}), "symptom": frozenset({"wrong"}),
    "tried": frozenset({"tried"}),
}  # fmt: skip
"""The words by which it is heard what is asked for."""
AT_ONCE = 2
"""To how many questions of one turn somebody answers: the first ones, in the order of the slots."""


class User:
    """Somebody, as a document's columns have it: goal, change, mode, patience, seed, held_out."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.goal: dict[str, str] = dict(columns["goal"])
        """What is wanted now."""
        self.kind = kind_of(self.goal)
        self.manner = MANNERS[columns["mode"]]
        self.change: tuple[str, str] | None = tuple(columns["change"]) if self.manner.changes else None
        """The slot that will change, and to what; None once it has."""
        self.patience = int(columns["patience"])
        """How many turns of the assistant it goes along with."""
        self.seed = columns["seed"]
        self.phrases = HELD_OUT if columns["held_out"] else LEARNT
        self.told: list[str] = []
        """The slots that were spoken of, the first one first."""
        self.turns = 0
        """Of the assistant's."""
        self.over = False
        self.success = False

    def opening(self) -> str:
        """Its first words."""
        random = self._random()
        said = [random.choice(self.phrases.openings[self.kind])]
        slots = [slot for slot in SLOTS[self.kind] if slot != "tried"]
        random.shuffle(slots)
        count = sum(random.random() < self.manner.volunteered for _ in range(2))
        if self.change is not None:  # what changes was said before
            slots.sort(key=lambda slot: self.change is not None and slot != self.change[0])
            count = max(count, 1)
        return self._noise(" ".join(said + [self._tell(slot, random) for slot in slots[:count]]), random)

    def hear(self, words: str) -> str | None:
        """Its answer to the assistant's words; None where it is over: by an action, or for want of patience."""
        self.turns += 1
        action = read(words)
        if action is not None and action.verb != "right?":
            self.over, self.success = True, read(right(self.goal)) == action
        elif self.turns >= self.patience:
            self.over = True
        return None if self.over else self._answer(words, action)

    def _answer(self, words: str, confirmed: Action | None) -> str:
        random = self._random()
        manner, heard = self.manner, set(words.split(" "))
        asked = [slot for slot in SLOTS[self.kind] if heard & ASKED[slot]][:AT_ONCE]
        changing = self.change if self.turns >= random.randint(1, 2) else None
        if confirmed is not None:
            said = self._confirmed(confirmed, random)
        elif random.random() < manner.useless:
            return random.choice(self.phrases.useless)
        elif not asked:
            said = random.choice(self.phrases.puzzled)
        elif random.random() < manner.unsure:
            said = random.choice(self.phrases.unsure)
        else:
            others = [slot for slot in SLOTS[self.kind] if slot not in self.told and slot not in asked]
            if others and random.random() < manner.elsewhere:
                asked = [random.choice(others)]
            elif others and random.random() < manner.volunteered:
                asked.append(random.choice(others))
            bare = random.random() < manner.bare
            said = " ".join(self._tell(slot, random, bare) for slot in asked)
        if changing is not None:
            said = f"{said} , {self._change(*changing, random)}"
        return self._noise(said, random)

    def _confirmed(self, action: Action, random: Random) -> str:
        """Whether it is so, and the first thing that is not."""
        for slot, value in action.fields.items():
            if self.goal.get(slot) != value:
                if slot not in self.goal:
                    return random.choice(self.phrases.puzzled)
                return f"{random.choice(self.phrases.no)} {self._tell(slot, random)}"
            self._note(slot)
        return random.choice(self.phrases.yes)

    def _change(self, slot: str, value: str, random: Random) -> str:
        old, self.goal[slot], self.change = self.goal[slot], value, None
        return random.choice(self.phrases.changes).format(plainly(slot, value), old=plainly(slot, old))

    def _tell(self, slot: str, random: Random, bare: bool = False) -> str:
        self._note(slot)
        value = self.goal[slot]
        return value if bare else told(random.choice(self.phrases.values[slot]), slot, value)

    def _note(self, slot: str) -> None:
        if slot not in self.told:
            self.told.append(slot)

    def _noise(self, said: str, random: Random) -> str:
        words = [
            misspelt(word, random) if word in FRAGILE and random.random() < self.manner.misspelling else word
            for word in said.split(" ")
        ]
        if random.random() < self.manner.remark:
            remark = random.choice(self.phrases.remarks).format(
                place=random.choice(PLACES),
                people=plainly("people", random.choice(PEOPLE)),
                device=random.choice(DEVICES),
            )
            words = [*words, ",", remark] if random.random() < 0.5 else [remark, ",", *words]
        return " ".join(words)

    def _random(self) -> Random:
        """Of this turn alone, so that what was said before does not shift it."""
        return Random(f"{self.seed} {self.turns}")


class Conversation:
    """A user with all that both said, from the assistant's words alone. A turn of several lines is that many turns."""

    def __init__(self, columns: Mapping[str, Any], said: Sequence[str]) -> None:
        self.user = User(columns)
        self.user.opening()
        self.said: list[str] = []
        """The assistant's turns, up to the one that ended it."""
        self.answer: str | None = None
        for words in "\n".join(said).split("\n"):
            self.said.append(words)
            self.answer = self.user.hear(words)
            if self.user.over:
                break


class Users:
    """The partner: whoever a document's columns describe. It pays nothing: the reward does."""

    def __call__(self, said: Sequence[str], columns: Mapping[str, Any]) -> Reply:
        return Reply(Conversation(columns, said).answer)
