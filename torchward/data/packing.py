"""Packing: sequences of many lengths into rows of one length, so that no arithmetic is spent on padding."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.sequences import Sequences

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Steps of sequences, packed: at each one, a token that was seen and the next one of the same sequence."""

    tokens: Int[Tensor, "rows time"]
    """What was seen."""
    targets: Int[Tensor, "rows time"]
    """What came next; of rows that are masked, what stood there."""
    loss_mask: Bool[Tensor, "rows time"]
    """True where what came next is learnt: an answer with its end-of-text; no prompt, no padding."""
    positions: Int[Tensor, "rows time"]
    """Of the token in its sequence's part of the row, from 0 on."""
    segments: Int[Tensor, "rows time"]
    """Which of the row's sequences it is, from 0 on; -1 for padding. Only equal ones may attend to each other."""

    def to(self, device: torch.device | str) -> "Rows":
        """The same on another device."""
        return Rows(*(field.to(device, non_blocking=True) for field in vars(self).values()))


@dataclass(frozen=True)
class Wrapped:
    """One sequence behind the other without a gap; one that meets the end of a row goes on in another row."""


@dataclass(frozen=True)
class Whole:
    """No sequence is cut: each goes into the row that it fills best, the longest first; what is left is padding."""


Packing: TypeAlias = Wrapped | Whole


class Plan(NamedTuple):
    """What lies where, once all are packed: ``P`` pieces of sequences in ``R`` rows, row by row."""

    source: Ints
    """``[P]`` The piece's first token among all."""
    length: Ints
    """``[P]`` Its number of steps."""
    place: Ints
    """``[P]`` Where in its row it begins."""
    rows: Ints
    """``[R + 1]`` The first piece of each row, and ``P``."""


def plan(sequences: Sequences, max_length: int, packing: Packing, generator: np.random.Generator | None) -> Plan:
    """Rows of ``max_length`` steps that hold each step of the sequences once. A generator shuffles sequences and rows.

    Raises ConfigError where a sequence that is to stay whole is longer than a row."""
    if max_length < 1:
        raise ConfigError(f"expected max_length of at least 1, got {max_length}")
    count = len(sequences)
    order = np.arange(count) if generator is None else generator.permutation(count)
    pack = _wrapped if isinstance(packing, Wrapped) else _whole
    made = pack(sequences, order, max_length)
    return made if generator is None else _reordered(made, generator.permutation(len(made.rows) - 1))


def gather(sequences: Sequences, plan: Plan, rows: Ints, max_length: int, pad_id: int) -> Rows:
    """The rows with these numbers ``[B]`` of a plan; -1 is a row of padding alone."""
    begin, end = np.where(rows < 0, 0, plan.rows[rows]), np.where(rows < 0, 0, plan.rows[rows + 1])
    row, nth = _ranges(end - begin)
    piece = begin[row] + nth
    part, step = _ranges(plan.length[piece])
    source = plan.source[piece][part] + step
    target = (row * max_length + plan.place[piece])[part] + step

    def filled(values: NDArray[np.generic], rest: int, dtype: type[np.generic]) -> Tensor:
        flat = np.full(len(rows) * max_length, rest, dtype)
        flat[target] = values
        return torch.from_numpy(flat.reshape(len(rows), max_length))

    return Rows(
        tokens=filled(sequences.tokens[source], pad_id, np.int64),
        targets=filled(sequences.tokens[source + 1], pad_id, np.int64),
        loss_mask=filled(sequences.own[source + 1], 0, np.bool_),
        positions=filled(step, 0, np.int64),
        segments=filled(nth[part], -1, np.int64),
    )


def once(
    sequences: Sequences, *, max_length: int, batch_size: int, pad_id: int, packing: Packing | None = None
) -> Iterator[Rows]:
    """Each step of the sequences once, in order, as validation wants it: batches ``[batch_size, max_length]``, the last
    of which is filled with rows of padding. Without a packing, sequences wrap."""
    made = plan(sequences, max_length, packing or Wrapped(), None)
    count = len(made.rows) - 1
    for begin in range(0, count, batch_size):
        numbers = np.arange(begin, begin + batch_size)
        yield gather(sequences, made, np.where(numbers < count, numbers, -1), max_length, pad_id)


def _wrapped(sequences: Sequences, order: Ints, max_length: int) -> Plan:
    """All steps are one line, cut where a sequence begins and at every ``max_length``."""
    begins = np.concatenate([[0], np.cumsum(sequences.steps[order])])
    total = int(begins[-1])
    cuts = np.union1d(begins[:-1], np.arange(0, total, max_length))
    which = np.searchsorted(begins, cuts, side="right") - 1
    return Plan(
        source=sequences.starts[order[which]] + cuts - begins[which],
        length=np.diff(np.append(cuts, total)),
        place=cuts % max_length,
        rows=np.searchsorted(cuts, np.arange(0, total + max_length, max_length)),
    )


def _whole(sequences: Sequences, order: Ints, max_length: int) -> Plan:
    """Best-fit decreasing: the row with the least room that suffices, or a new one."""
    steps = sequences.steps
    if (longest := int(steps.max())) > max_length:
        raise ConfigError(
            f"expected sequences of at most {max_length + 1} tokens, the length of a row and one, got sequence "
            f"{int(steps.argmax())} of {longest + 1}: raise max_length, truncate it by a rule, or let sequences wrap"
        )
    rows: list[list[int]] = []
    free: dict[int, list[int]] = {}  # rows by the room that they have left
    rooms: list[int] = []  # the keys of free, sorted
    for which in order[np.argsort(-steps[order], kind="stable")].tolist():
        need = int(steps[which])
        found = bisect_left(rooms, need)
        if found == len(rooms):
            rows.append([])
            row, room = len(rows) - 1, max_length
        else:
            room = rooms[found]
            row = free[room].pop()
            if not free[room]:
                del free[room], rooms[found]
        rows[row].append(which)
        if (left := room - need) > 0:
            if left not in free:
                insort(rooms, left)
            free.setdefault(left, []).append(row)
    packed = np.array([which for row in rows for which in row], np.int64)
    first = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    before = np.cumsum(steps[packed]) - steps[packed]
    place = before - np.repeat(before[first[:-1]], np.diff(first))
    return Plan(sequences.starts[packed], steps[packed], place, first)


def _reordered(plan: Plan, order: Ints) -> Plan:
    begin, count = plan.rows[order], np.diff(plan.rows)[order]
    row, nth = _ranges(count)
    piece = begin[row] + nth
    rows = np.concatenate([[0], np.cumsum(count)])
    return Plan(plan.source[piece], plan.length[piece], plan.place[piece], rows)


def _ranges(counts: Ints) -> tuple[Ints, Ints]:
    """For counts 2, 0, 3: to which each belongs, 0 0 2 2 2, and its place there, 0 1 0 1 2."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - (np.cumsum(counts) - counts)[which]
