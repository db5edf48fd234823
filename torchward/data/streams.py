"""The rows of several worlds, each world's one behind the other in a ring: what a replay draws from.

A row holds an observation and what was done on it. Behind an episode's last step comes a row that only holds the
observation in which it ended (``boundary`` True, ``loss_mask`` False), as worlds give it that reset themselves in the
next step. So what truly came next after any step is the next row, no observation is kept twice, and a stack of frames
is a few rows that lie together.
"""

import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from torchward.data.columns import Columns
from torchward.data.rollout import Rollout
from torchward.data.tree import Tree
from torchward.nets import spaces
from torchward.nets.spaces import Space, SpaceError

__all__ = ["Bools", "Change", "Ints", "Outcome", "StackPadding", "Streams", "fold"]

Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
StackPadding: TypeAlias = Literal["first", "zero"]
"""What stands in a stack before an episode's first frame: that frame again, or zeros."""


class Change(NamedTuple):
    """Slots of rows that have left the window, and of rows that have come into it."""

    left: Ints
    new: Ints


class Outcome(NamedTuple):
    """What came of steps ``[B]``: how many followed each other, their discounted sum of rewards, and the discount of
    what came next, 0 behind a terminal state."""

    length: Ints
    reward: NDArray[np.float32]
    discount: NDArray[np.float32]


class Streams:
    """The last ``window`` rows of each of ``n`` streams.

    A stream counts its rows from 0 on: a row's number stays, its slot (where it lies, over all streams) is used again.
    Beside the window the ring has room for the older frames of the window's first stack, and for the observation that
    will be acted on next. Observations and actions lie on ``device``, all that indices are worked out from on the CPU.

    In a ``directory``, observations and actions are files that :meth:`state_dict` does not copy. Rows that it may still
    ask for are not written over until it is called again; the ring has ``reserve`` rows more of each stream for that.

    Raises SpaceError for observations that ``frame_stack`` does not fit."""

    def __init__(
        self,
        observation_space: Space,
        action_space: Space,
        n: int,
        window: int,
        *,
        device: torch.device,
        frame_stack: int,
        stack_padding: StackPadding,
        directory: Path | None,
        reserve: int,
    ) -> None:
        self.n, self.window, self.frame_stack, self.stack_padding = n, window, frame_stack, stack_padding
        self.on_disk, self.reserve = directory is not None, reserve if directory is not None else 0
        self.size = window + (frame_stack - 1) + 1 + self.reserve
        rows = n * self.size
        self.observation = Columns(observation_space, rows, device, directory, "observation", frame_stack)
        self.action = Columns(spaces.acted(action_space), rows, device, directory, "action")
        self.reward = np.zeros(rows, np.float32)
        self.terminated, self.boundary, self.loss_mask = (np.zeros(rows, bool) for _ in range(3))
        self.every: Ints = np.arange(n)
        self.written: Ints = np.zeros(n, np.int64)
        """The rows that each stream has had: the number that its next one will have."""
        self.oldest: Ints = np.zeros(n, np.int64)
        """The number of the first row of each window."""
        self.longest = 0
        """The number of rows in the longest window."""
        self.steps = 0
        """The steps in all windows: rows with ``loss_mask`` True."""
        self.saved: Ints = np.zeros(n, np.int64)
        """``written``, as the last :meth:`state_dict` of files has it."""
        self.unproved = 2 if frame_stack > 1 else 0
        """Starts of episodes behind which stacks are still compared with those that came."""

    @property
    def nbytes(self) -> int:
        """The bytes of all that is kept."""
        flags = (self.reward, self.terminated, self.boundary, self.loss_mask)
        return self.observation.nbytes + self.action.nbytes + sum(array.nbytes for array in flags)

    # Where rows lie

    def slots(self, stream: Ints, row: Ints) -> Ints:
        """The slots of the rows with these numbers."""
        slots: Ints = row % self.size
        return slots if self.n == 1 else slots + stream * self.size

    def rows(self, slots: Ints) -> tuple[Ints, Ints]:
        """The streams and numbers of the rows of the window that lie there."""
        stream: Ints = slots // self.size
        newest = self.written[stream] - 1
        return stream, newest - (newest - slots) % self.size

    def between(self, begin: Ints, end: Ints) -> Ints:
        """The slots of the rows from ``begin`` to before ``end`` of each stream."""
        if self.n == 1:
            return np.arange(begin[0], end[0]) % self.size
        count = end - begin
        if not count.any():
            return np.empty(0, np.int64)
        stream = np.repeat(self.every, count)
        within = np.arange(len(stream)) - np.repeat(count.cumsum() - count, count)
        return self.slots(stream, begin[stream] + within)

    # What comes in

    def add(self, rollout: Rollout) -> Change:
        """Append the rows of a rollout ``[n, T]``, which goes on where the last one stopped.

        Raises ValueError for a rollout of another number of rows, for one that is longer than the window, and for one
        that does not say what came next; SpaceError for observations that the space or ``frame_stack`` does not fit."""
        if rollout.last is None:
            raise ValueError("expected a rollout whose `last` says what was seen after it, got None from its source")
        reward, terminated, boundary, loss_mask = (
            fact.cpu().numpy() for fact in (rollout.reward, rollout.terminated, rollout.boundary, rollout.loss_mask)
        )
        n, time = reward.shape
        if n != self.n:
            raise ValueError(f"expected a rollout of n_envs = {self.n} rows, got {n}")
        row = self.written[:, None] + np.arange(time)
        ended = np.zeros((n, time), bool)
        if rollout.finals is not None:
            stream, moment = rollout.finals.row.cpu().numpy(), rollout.finals.time.cpu().numpy()
            ended[stream, moment] = True
            row += ended.cumsum(1) - ended
        self._require_ends(boundary & loss_mask & ~ended, loss_mask)
        change = self._advance(time + ended.sum(1))
        slots = self.slots(self.every[:, None], row)
        self._write(slots, reward, terminated, boundary, loss_mask)
        self.observation.put(slots, rollout.observation)
        self.action.put(slots, rollout.action)
        if rollout.finals is not None:
            behind = self.slots(stream, row[stream, moment] + 1)
            self._write(behind, 0.0, False, True, False)
            self.observation.put(behind, rollout.finals.observation)
            self.action.clear(behind)
        self.observation.put(self.slots(self.every, self.written), rollout.last)
        self.steps += int(loss_mask.sum())
        if self.unproved:
            self._prove_stacks(row, rollout)
            self.unproved -= self.unproved == 1 or rollout.finals is not None or bool((boundary & ~loss_mask).any())
        return change

    def cut(self) -> Change:
        """End the running episodes where they stand: what is added next came after nothing."""
        newest = self.slots(self.every, self.written - 1)
        running = (self.written > 0) & ~self._closes(newest)
        self.boundary[newest[running]] = True
        behind = self.slots(self.every, self.written)[running]
        change = self._advance(running.astype(np.int64))
        self._write(behind, 0.0, False, True, False)
        self.action.clear(behind)
        return change

    def _closes(self, slots: Ints) -> Bools:
        """Whether rows hold the observation in which an episode ended."""
        closes: Bools = self.boundary[slots] & ~self.loss_mask[slots]
        return closes

    def _advance(self, added: Ints) -> Change:
        """Move each window on by so many rows."""
        if (most := int(added.max())) > self.window:
            raise ValueError(f"expected a rollout of at most {self.window} rows of each environment, got {most}")
        begin, before = self.written, self.oldest
        written = begin + added
        if self.on_disk:
            self._require_reserve(written)
        self._move(written)
        change = Change(self.between(before, self.oldest), self.between(begin, written))
        self.steps -= int(self.loss_mask[change.left].sum())
        return change

    def _move(self, written: Ints) -> None:
        self.written, self.oldest = written, np.maximum(written - self.window, 0)
        self.longest = int((self.written - self.oldest).max())

    def _require_reserve(self, written: Ints) -> None:
        """Nothing that the last state_dict may sample is written over; nor the older frames of its first stacks."""
        kept = np.maximum(self.saved - self.window - (self.frame_stack - 1), 0)
        if ((written - self.size >= kept) & (self.saved > 0)).any():
            raise RuntimeError(
                f"the replay's files keep what the last checkpoint may sample, with {self.reserve} rows more for each "
                f"environment, and {int((written - self.saved).max())} came since; set reserve to twice the steps of "
                "an environment between two checkpoints, or more"
            )

    def _write(self, slots: Ints, reward: Any, terminated: Any, boundary: Any, loss_mask: Any) -> None:
        self.reward[slots], self.terminated[slots] = reward, terminated
        self.boundary[slots], self.loss_mask[slots] = boundary, loss_mask

    def _require_ends(self, unnamed: Bools, loss_mask: Bools) -> None:
        """Where an episode ended and no final observation is given, the next row has to be one that shows it."""
        newest = self.slots(self.every, self.written - 1)
        before = (self.written > 0) & self.boundary[newest] & self.loss_mask[newest]
        if (before & loss_mask[:, 0]).any() or (unnamed.any() and (unnamed[:, :-1] & loss_mask[:, 1:]).any()):
            raise ValueError(
                "expected the observation in which an episode ended, among the rollout's finals or in a row behind its "
                "end with loss_mask False, got neither; where worlds were broken off, call cut()"
            )

    def _prove_stacks(self, row: Ints, rollout: Rollout) -> None:
        """Compare stacks as they are rebuilt with those that came."""
        rebuilt = self.observation.leaves(self.observe(np.repeat(self.every[:, None], row.shape[1], 1), row))
        given = self.observation.leaves(rollout.observation)
        if not all(torch.equal(mine, theirs.to(mine)) for mine, theirs in zip(rebuilt, given, strict=True)):
            raise SpaceError(
                f"expected images of frame_stack = {self.frame_stack} frames, the newest last, with stack_padding = "
                f"{self.stack_padding!r} before an episode's first; got images that are made otherwise"
            )

    # What goes out

    def observe(self, stream: Ints, row: Ints) -> Tree:
        """The observations of rows ``[...]``, with their stacks."""
        if self.frame_stack == 1:
            return self.observation.take(self.slots(stream, row))
        back = np.arange(self.frame_stack)[::-1]
        stream, rows = stream[..., None], row[..., None] - back
        # Going back from the newest frame, those of its own episode end behind a row that closes one.
        foreign = (self._closes(self.slots(stream, rows)) | (rows < 0))[..., -2::-1]
        own = np.logical_and.accumulate(~foreign, -1).sum(-1)[..., None]
        index = self.slots(stream, row[..., None] - np.minimum(back, own))
        return self.observation.take_stacks(index, (back > own) & (self.stack_padding == "zero"))

    def follow(self, stream: Ints, row: Ints, gamma: float, n_steps: int) -> Outcome:
        """What came of rows ``[B]`` within ``n_steps``: fewer where a boundary or the newest row comes before."""
        if n_steps == 1:
            slots = self.slots(stream, row)
            discount = np.where(self.terminated[slots], np.float32(0.0), np.float32(gamma))
            return Outcome(np.ones_like(row), self.reward[slots], discount)
        slots, counts = self.span(stream, row, n_steps)
        return fold(self.reward[slots], self.terminated[slots], counts, gamma)

    def span(self, stream: Ints, row: Ints, n_steps: int) -> tuple[Ints, Bools]:
        """The slots ``[B, n_steps]`` of rows and of those behind them; and which of them follow each other: not those
        behind a boundary, nor those that have not been."""
        rows = row[:, None] + np.arange(n_steps)
        slots = self.slots(stream[:, None], rows)
        goes_on = ~self.boundary[slots[:, :-1]] & (rows[:, 1:] < self.written[stream][:, None])
        counts = np.ones(rows.shape, bool)
        counts[:, 1:] = np.logical_and.accumulate(goes_on, 1)
        return slots, counts

    def last(self, stream: Ints, row: Ints) -> Ints:
        """The numbers of the rows in which the episodes of rows ``[B]`` ended; of a running one, the number of what was
        seen last and is not acted on yet."""
        last = self.written[stream]
        open_, begin = np.arange(len(row)), row + 1
        while len(open_):
            rows = begin[:, None] + np.arange(64)
            found = self._closes(self.slots(stream[open_, None], rows)) & (rows < self.written[stream[open_], None])
            here = found.any(1)
            last[open_[here]] = begin[here] + found[here].argmax(1)
            more = ~here & (begin + 64 < self.written[stream[open_]])
            open_, begin = open_[more], begin[more] + 64
        return last

    # What is kept

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs. Tensors share their memory with the streams, so save them before the next
        rows are added; of files there is a checksum alone."""
        filled = min(int(self.written.max()) + 1, self.size)
        flags = {name: flag.reshape(self.n, -1)[:, :filled].copy() for name, flag in self._flags().items()}
        state = {"shape": self._shape(), "written": self.written.copy(), "unproved": self.unproved, "flags": flags}
        if self.on_disk:
            self.observation.flush()
            self.action.flush()
            self.saved = self.written
            return {**state, "proof": self._proof()}
        columns = {"observation": self.observation, "action": self.action}
        return {**state, **{name: [data[:, :filled] for data in c.data(self.n)] for name, c in columns.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring the rows back, each into the slot where it lay.

        Raises ValueError for streams of other sizes, and for files that are not those of the state."""
        if tuple(state["shape"]) != self._shape():
            raise ValueError(
                f"expected a replay of (n_envs, rows of each, frame_stack) = {self._shape()}, got one of "
                f"{tuple(state['shape'])}"
            )
        self._move(np.array(state["written"]))
        self.unproved = int(state["unproved"])
        for name, flag in self._flags().items():
            stored = state["flags"][name]
            flag.reshape(self.n, -1)[:, : stored.shape[1]] = stored
        self.steps = int(self.loss_mask[self.between(self.oldest, self.written)].sum())
        if not self.on_disk:
            for name, columns in (("observation", self.observation), ("action", self.action)):
                for data, stored in zip(columns.data(self.n), state[name], strict=True):
                    data[:, : stored.shape[1]] = stored.to(data.device)
            return
        self.saved = self.written
        if self._proof() != state["proof"]:
            raise ValueError(
                "expected the files of the replay that the checkpoint speaks of, got others; bring them back"
            )

    def _flags(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in ("reward", "terminated", "boundary", "loss_mask")}

    def _shape(self) -> tuple[int, int, int]:
        return self.n, self.size, self.frame_stack

    def _proof(self) -> int:
        """A checksum of some rows, the oldest and the newest among them."""
        slots = self.between(self.oldest, self.written)
        some = slots[np.linspace(0, len(slots) - 1, min(len(slots), 32)).astype(np.int64)]
        proof = 0
        for data in (*self.observation.data(1), *self.action.data(1)):
            proof = zlib.crc32(data[0, torch.from_numpy(some)].numpy().tobytes(), proof)
        return proof


def fold(reward: NDArray[np.float32], terminated: Bools, counts: Bools, gamma: float) -> Outcome:
    """The outcome of the steps ``[B, k]`` that ``counts`` says."""
    length = counts.sum(1)
    total = np.where(counts, reward * gamma ** np.arange(counts.shape[1]), 0.0).sum(1)
    discount = np.where((terminated & counts).any(1), 0.0, gamma**length)
    return Outcome(length, total.astype(np.float32), discount.astype(np.float32))
