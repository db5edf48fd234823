"""Taste: guests pick between menus, by a true reward that is known, so that what is learnt from them can be measured.

A prompt names two guests, such as `BF:`; an answer is a menu, a letter for each dish, such as `kcafd`. What a menu is
truly worth follows from what each guest likes, which dishes go well behind each other, and how often one comes again.
Of two menus the guests pick the better one with the probability that Bradley and Terry give it: nobody can foresee all
of their picks, and how many can be, the documents say (:func:`bayes_accuracy`). The guests of the test set have never
been seen together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import exp
from random import Random
from string import ascii_lowercase, ascii_uppercase
from typing import Any, TypeAlias

import numpy as np

from torchward.config import ConfigError
from torchward.data.random import derive
from torchward.language.documents import Completion, Document, Preference
from torchward.language.rewards import column
from torchward.language.task import Problems
from torchward.language.tokenizer import Characters
from torchward.tasks.questions import between

Table: TypeAlias = list[list[float]]

SHORTEST, LONGEST = 4, 8
"""Dishes of a menu as people write it."""
SPREAD = 2.0
"""Standard deviation of what such menus are worth, in the log-odds of being picked."""
AGAIN, BEYOND = 1.5, 1.5
"""What a dish costs that comes again, and one behind the last that a menu should have, before rewards are scaled."""
ATTENTION = 0.3
"""How much people who write menus look at what their guests like."""
CALIBRATION = 4_096
"""Menus by which rewards are scaled."""


@dataclass(frozen=True)
class Options:
    """How many guests and dishes there are, and how much they said."""

    guests: int = 8
    """Guests, of whom two come at a time."""
    dishes: int = 12
    """Dishes that a menu is made of."""
    held_out: int = 6
    """Pairs of guests that are held out."""
    pairs: int = 30_000
    """Picks between two menus to learn from."""
    test: int = 2_000
    """Picks of the held-out guests."""
    menus: int = 20_000
    """Menus without a judgement, to pretrain on."""
    data_seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        between("guests", self.guests, 3, 26)
        between("dishes", self.dishes, 2, 26)
        between("pairs", self.pairs, 1)
        between("test", self.test, 1)
        between("menus", self.menus, 2)
        every = self.guests * (self.guests - 1) // 2
        if not 1 <= self.held_out < every:
            raise ConfigError(
                f"expected held_out from 1 to {every - 1}, for there are {every} in all, got {self.held_out}"
            )


@dataclass(frozen=True)
class World:
    """What guests like and how menus are written, which all follow from the options and their seed."""

    options: Options

    @cached_property
    def likes(self) -> Table:
        """``[guests, dishes]``"""
        likes: Table = self._generator("likes").normal(size=(self.options.guests, self.options.dishes)).tolist()
        return likes

    @cached_property
    def goes(self) -> Table:
        """``[dishes, dishes]`` What one dish adds to the one before it: something for one in eight."""
        random = self._generator("goes")
        size = (self.options.dishes, self.options.dishes)
        goes: Table = np.where(random.random(size) < 0.125, random.normal(scale=1.5, size=size), 0.0).tolist()
        return goes

    @cached_property
    def follows(self) -> Table:
        """``[dishes, dishes]`` How likely each dish is behind another by habit, whoever comes."""
        size = self.options.dishes
        follows: Table = self._generator("follows").dirichlet(np.full(size, 0.7), size=size).tolist()
        return follows

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation of what menus are worth, before it is scaled."""
        random = Random(derive(self.options.data_seed, "taste calibration"))
        tables = list(combinations(range(self.options.guests), 2))
        worth = []
        for _ in range(CALIBRATION):
            guests = random.choice(tables)
            worth.append(self._raw(guests, self.menu(random, guests)))
        return float(np.mean(worth)), float(np.std(worth))

    def menu(self, random: Random, guests: Sequence[int]) -> str:
        """A menu as people write it: mostly by habit, and with half an eye on who comes."""
        every = range(self.options.dishes)
        liked = [exp(ATTENTION * sum(self.likes[guest][dish] for guest in guests)) for dish in every]
        dishes = random.choices(every, liked)
        while len(dishes) < LONGEST and (len(dishes) < SHORTEST or random.random() > 1 / 3):
            habit = self.follows[dishes[-1]]
            dishes += random.choices(every, [habit[dish] * liked[dish] for dish in every])
        return "".join(ascii_lowercase[dish] for dish in dishes)

    def worth(self, guests: str, menu: str) -> float:
        """The true reward: 0 on average over menus as people write them, with a standard deviation of 2; the difference
        of two is the log-odds of being picked. What is no dish is one that no one likes."""
        mean, spread = self.scale
        return SPREAD * (self._raw(numbers(guests), menu) - mean) / spread

    def _raw(self, guests: Sequence[int], menu: str) -> float:
        total, before, seen = 0.0, None, set[str]()
        for place, letter in enumerate(menu):
            dish = ascii_lowercase.find(letter)
            if not 0 <= dish < self.options.dishes:
                total, before = total - AGAIN, None
                continue
            if letter in seen:
                total -= AGAIN
            else:
                total += sum(self.likes[guest][dish] for guest in guests) / 2**0.5
            if before is not None:
                total += self.goes[before][dish]
            if place >= LONGEST:
                total -= BEYOND
            seen.add(letter)
            before = dish
        return (total - BEYOND * max(0, SHORTEST - len(menu))) / max(1, len(menu))

    def _generator(self, name: str) -> np.random.Generator:
        return np.random.default_rng(derive(self.options.data_seed, f"taste {name}"))


def numbers(guests: str) -> list[int]:
    """Which guests they are."""
    return [ascii_uppercase.index(guest) for guest in guests]


@dataclass(frozen=True)
class Truth:
    """The true reward of menus."""

    world: World

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """What each menu is worth to its guests."""
        guests = column(columns, "guests")
        return [self.world.worth(who, menu) for who, menu in zip(guests, completions, strict=True)]


def make(options: Options) -> Problems:
    """Picks to learn from, and those of guests who were never seen together. The reward is the true one, of which a
    reward model knows nothing but the picks."""
    world = World(options)
    every = ["".join(ascii_uppercase[guest] for guest in pair) for pair in combinations(range(options.guests), 2)]
    order = np.random.default_rng(derive(options.data_seed, "taste held out")).permutation(len(every))
    test, train = ([every[i] for i in part] for part in (order[: options.held_out], order[options.held_out :]))
    random = Random(derive(options.data_seed, "taste menus"))
    written = []
    for i in range(options.menus):
        guests = random.choice(train)
        menu = world.menu(random, numbers(guests))
        written.append(Document(Completion(f"{guests}:", menu), f"taste menu {i}"))
    return Problems(
        name="taste",
        train=_picks(world, train, options.pairs, "train"),
        test=_picks(world, test, options.test, "test"),
        reward=Truth(world),
        tokenizer=Characters(),
        max_completion_length=LONGEST + 3,
        corpus=written,
    )


def _picks(world: World, tables: list[str], count: int, which: str) -> list[Document]:
    random = Random(derive(world.options.data_seed, f"taste picks {which}"))
    found: list[Document] = []
    while len(found) < count:
        guests = random.choice(tables)
        menus = world.menu(random, numbers(guests)), world.menu(random, numbers(guests))
        if menus[0] == menus[1]:
            continue
        better = world.worth(guests, menus[0]) - world.worth(guests, menus[1])
        first = random.random() < 1.0 / (1.0 + exp(-better))
        chosen, rejected = menus if first else menus[::-1]
        columns = {"guests": guests, "better_by": better if first else -better}
        found.append(Document(Preference(f"{guests}:", chosen, rejected), f"taste {which} {len(found)}", columns))
    return found


def bayes_accuracy(documents: Sequence[Document]) -> float:
    """The share of picks that one who knows the true reward would foresee, in expectation: the limit for everybody."""
    gaps = np.array([document.columns["better_by"] for document in documents])
    return float(np.mean(1.0 / (1.0 + np.exp(-np.abs(gaps)))))
