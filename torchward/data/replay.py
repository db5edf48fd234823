"""Replay: steps that were taken, kept to be learnt from again and again (Lin 1992; Mnih et al. 2015)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.random import derive
from torchward.data.rollout import Rollout
from torchward.data.streams import Change, Ints, Outcome, StackPadding, Streams
from torchward.data.sum_tree import SumTree
from torchward.data.tree import Tree
from torchward.nets.spaces import Space

__all__ = ["Prioritised", "Replay", "Sequences", "StackPadding", "Transitions", "Uniform"]

TRIES = 30
"""Times that more rows are drawn, because too many were no steps, before the steps are listed."""


@dataclass(frozen=True)
class Uniform:
    """Any step that is kept is as likely to be learnt from as any other."""


@dataclass(frozen=True)
class Prioritised:
    """Steps are drawn in proportion to ``(|error| + eps) ** alpha`` of the error that they were last learnt from, new
    ones to that of the largest so far (Schaul et al. 2016, proportional variant, equation 1)."""

    alpha: float = 0.6
    """0 draws uniformly, 1 in proportion to the errors."""
    beta: float = 0.4
    """How far importance weights make up for it at first: 0 not at all, 1 wholly. The loop moves it towards 1."""
    eps: float = 1e-6
    """What keeps a step without error from never being drawn again."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"expected {name} within [0, 1], got {getattr(self, name)}")
        if self.eps <= 0.0:
            raise ConfigError(f"expected eps above 0, got {self.eps}")


@dataclass(frozen=True)
class Transitions:
    """Steps ``[B]``, and what came of each within k: ``n_steps``, or fewer where its episode, or what is known of it,
    ends before. Their values are to become ``reward + discount * value(next_observation)``.

    ``reward`` is the sum of ``gamma^i r_i`` over the k steps; ``discount`` is ``gamma^k``, or 0 behind a terminal
    state. ``weight`` is a prioritised replay's importance weight, 1 of a uniform one. ``index``, on the CPU, names
    the steps to :meth:`Replay.update_priorities`."""

    observation: Tree
    action: Tree
    reward: Float[Tensor, " batch"]
    next_observation: Tree
    discount: Float[Tensor, " batch"]
    weight: Float[Tensor, " batch"]
    index: Int64[Tensor, " batch"]


@dataclass(frozen=True)
class Sequences:
    """Consecutive rows ``[B, T]`` of one world each, of which the first is a step: row t + 1 shows what came next
    after row t. Behind an episode's last step that is its final observation, in a row with ``boundary`` True and
    ``loss_mask`` False; behind that row the next episode begins, and a recurrent state with it.

    ``weight`` and ``index`` ``[B]`` are those of the first steps."""

    observation: Tree
    action: Tree
    reward: Float[Tensor, "batch time"]
    terminated: Bool[Tensor, "batch time"]
    boundary: Bool[Tensor, "batch time"]
    loss_mask: Bool[Tensor, "batch time"]
    weight: Float[Tensor, " batch"]
    index: Int64[Tensor, " batch"]


class Replay:
    """The last ``capacity`` rows of ``n_envs`` worlds together: steps, and the observations in which episodes ended.

    Steps are drawn uniformly, or as ``prioritised`` says. With ``frame_stack`` k an observation's images are stacks
    of k frames, the newest last, with ``stack_padding`` before an episode's first; each frame is kept once.
    Observations and actions lie on ``device``, where samples come; or as files in ``directory``, with ``reserve``
    rows more of each world than are drawn from. As many may come between two checkpoints: steps, and a row for each
    episode that ends. All that is random follows from ``seed``.

    Raises ValueError for sizes that cannot be, SpaceError for a ``frame_stack`` that the observations do not fit."""

    def __init__(
        self,
        observation_space: Space,
        action_space: Space,
        n_envs: int,
        capacity: int,
        *,
        seed: int,
        device: str | torch.device = "cpu",
        frame_stack: int = 1,
        stack_padding: StackPadding = "first",
        prioritised: Prioritised | None = None,
        directory: Path | None = None,
        reserve: int = 0,
    ) -> None:
        for name, number in {"n_envs": n_envs, "capacity": capacity, "frame_stack": frame_stack}.items():
            if number < 1:
                raise ValueError(f"expected {name} of at least 1, got {number}")
        self.n_envs, self.device, self.prioritised = n_envs, torch.device(device), prioritised
        self.streams = Streams(
            observation_space,
            action_space,
            n_envs,
            -(-capacity // n_envs),
            device=self.device,
            frame_stack=frame_stack,
            stack_padding=stack_padding,
            directory=directory,
            reserve=reserve,
        )
        self.generator = np.random.default_rng(derive(seed, "replay"))
        self.priorities = None if prioritised is None else SumTree(n_envs * self.streams.size)
        self.largest = 1.0
        """The largest priority so far, before alpha."""
        self.beta = 0.0 if prioritised is None else prioritised.beta
        """How far importance weights make up for unequal chances now."""

    def __len__(self) -> int:
        """The number of steps that may be drawn now."""
        return self.streams.steps

    @property
    def nbytes(self) -> int:
        """The bytes of all that is kept."""
        return self.streams.nbytes + (0 if self.priorities is None else self.priorities.nbytes)

    # What is put in

    def add(self, rollout: Rollout) -> None:
        """Keep a rollout ``[n_envs, T]``, which goes on where the last one stopped, unless it says that it was begun
        anew. Raises as :meth:`~torchward.data.streams.Streams.add` does; and RuntimeError where the ``reserve`` is used
        up."""
        if rollout.begun_anew:
            self.cut()
        self._weigh(self.streams.add(rollout))

    def cut(self) -> None:
        """The worlds were broken off: what is added next came after nothing."""
        self._weigh(self.streams.cut())

    def _weigh(self, change: Change) -> None:
        if self.priorities is not None and self.prioritised is not None:
            self.priorities.set(change.left, 0.0)
            chance = self.largest**self.prioritised.alpha
            self.priorities.set(change.new, np.where(self.streams.loss_mask[change.new], chance, 0.0))

    def update_priorities(self, index: Int64[Tensor, " batch"], priority: Float[Tensor, " batch"]) -> None:
        """Tell how large the errors of steps were: ``index`` is that of a sample, ``priority`` its ``|error|``. Steps
        that have left the replay since are passed over. Raises ValueError for an error that is not finite."""
        if self.priorities is None or self.prioritised is None:
            return
        row, stream = np.divmod(index.cpu().numpy(), self.n_envs)
        error = np.abs(priority.detach().cpu().numpy().astype(np.float64)) + self.prioritised.eps
        if not np.isfinite(error).all():
            raise ValueError("expected finite errors as priorities, got NaN or infinity: what is learnt has diverged")
        here = row >= self.streams.oldest[stream]
        self.priorities.set(self.streams.slots(stream, row)[here], error[here] ** self.prioritised.alpha)
        self.largest = max(self.largest, float(error.max()))

    # What is taken out

    def sample(self, batch_size: int, gamma: float, n_steps: int = 1) -> Transitions:
        """``batch_size`` steps, with what came of them within ``n_steps``.

        Of a uniform replay each is any of the steps that are kept, whichever else are drawn; of a prioritised one the
        i-th is drawn from the i-th of ``batch_size`` equal shares of all chances (Schaul et al. 2016, appendix B.2.1).
        Raises ValueError where none is kept."""
        stream, row = self.draw(batch_size)
        return self.transitions(stream, row, self.streams.follow(stream, row, gamma, n_steps))

    def transitions(self, stream: Ints, row: Ints, outcome: Outcome) -> Transitions:
        """Steps that were drawn, with what came of them."""
        slots = self.streams.slots(stream, row)
        return Transitions(
            observation=self.streams.observe(stream, row),
            action=self.streams.action.take(slots),
            reward=self._tensor(outcome.reward),
            next_observation=self.streams.observe(stream, row + outcome.length),
            discount=self._tensor(outcome.discount),
            weight=self._weight(slots),
            index=torch.from_numpy(row * self.n_envs + stream),
        )

    def sample_sequences(self, batch_size: int, length: int) -> Sequences:
        """``batch_size`` stretches of ``length`` rows, each drawn by the chance of its first step. Raises ValueError
        where no step has ``length`` - 1 rows behind it."""
        stream, row = self.draw(batch_size, length)
        streams, rows = np.repeat(stream[:, None], length, 1), row[:, None] + np.arange(length)
        slots = self.streams.slots(streams, rows)
        return Sequences(
            observation=self.streams.observe(streams, rows),
            action=self.streams.action.take(slots),
            reward=self._tensor(self.streams.reward[slots]),
            terminated=self._tensor(self.streams.terminated[slots]),
            boundary=self._tensor(self.streams.boundary[slots]),
            loss_mask=self._tensor(self.streams.loss_mask[slots]),
            weight=self._weight(slots[:, 0]),
            index=torch.from_numpy(row * self.n_envs + stream),
        )

    def draw(self, count: int, length: int = 1) -> tuple[Ints, Ints]:
        """The streams and row numbers of ``count`` steps that have ``length`` - 1 rows behind them.

        Rows are drawn, and those that are no such steps are passed over: among the others chances are as if these were
        all there is."""
        if not self.streams.steps:
            return self._listed(count, length)
        stream, row = self._among_all(count, length)
        for _ in range(TRIES):
            if len(row) >= count:
                return stream[:count], row[:count]
            more = self._among_all(count - len(row), length)
            stream, row = np.concatenate([stream, more[0]]), np.concatenate([row, more[1]])
        more = self._listed(count, length)
        return np.concatenate([stream, more[0]])[:count], np.concatenate([row, more[1]])[:count]

    def _among_all(self, count: int, length: int) -> tuple[Ints, Ints]:
        """About ``count`` such steps as :meth:`draw` draws: of rows drawn by their chances, those that are one. A row
        that is no step has no chance in a prioritised replay, and that of a step in a uniform one."""
        streams = self.streams
        if self.priorities is not None and length == 1:
            return streams.rows(self.priorities.find((np.arange(count) + self.generator.random(count)) / count))
        if self.priorities is not None:
            stream, row = streams.rows(self.priorities.find(self.generator.random(count)))
            fits = row + length <= streams.written[stream]
        else:
            every = self.n_envs * streams.longest
            drawn = self.generator.integers(every, size=int(1.1 * count * every / streams.steps) + 4)
            stream, offset = (np.zeros_like(drawn), drawn) if self.n_envs == 1 else np.divmod(drawn, streams.longest)
            row = streams.oldest[stream] + offset
            fits = streams.loss_mask[streams.slots(stream, row)] & (row + length <= streams.written[stream])
        return stream[fits], row[fits]

    def _listed(self, count: int, length: int) -> tuple[Ints, Ints]:
        """As :meth:`draw`, from a list of all such steps: for when there are few among the rows."""
        streams = self.streams
        end = np.maximum(streams.written - length + 1, streams.oldest)
        slots = streams.between(streams.oldest, end)
        slots = slots[streams.loss_mask[slots]]
        if not len(slots):
            what = "a step" if length == 1 else f"a step with {length - 1} rows behind it"
            raise ValueError(f"expected {what} in the replay before it is sampled, got none; collect more first")
        chances = np.ones(len(slots)) if self.priorities is None else self.priorities.leaves[slots]
        sums = chances.cumsum()
        at = np.minimum(self.generator.random(count) * sums[-1], np.nextafter(sums[-1], 0.0))
        return streams.rows(slots[sums.searchsorted(at, "right")])

    def _weight(self, slots: Ints) -> Float[Tensor, " batch"]:
        """Importance weights ``(N P(i)) ** -beta`` of drawn rows, over the largest of them (Schaul et al. 2016, section
        3.4): the number N of steps and the sum of all chances drop out."""
        if self.priorities is None:
            return torch.ones(len(slots), device=self.device)
        chances = self.priorities.leaves[slots]
        return self._tensor(((chances.min() / chances) ** self.beta).astype(np.float32))

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    # What is kept

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on bit for bit. Of a replay in memory the tensors are its own:
        save them before more is added. One in files forces them onto the disk, and keeps the rows of this state there
        until it is asked for the next."""
        priorities = None if self.priorities is None else self.priorities.leaves.copy()
        return {
            "streams": self.streams.state_dict(),
            "generator": dict(self.generator.bit_generator.state),
            "priorities": priorities,
            "largest": self.largest,
            "beta": self.beta,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError for the state of a replay of other sizes, and for files that are not those of the state."""
        self.streams.load_state_dict(state["streams"])
        self.generator.bit_generator.state = state["generator"]
        if self.priorities is not None:
            self.priorities.set(np.arange(self.priorities.size), state["priorities"])
        self.largest, self.beta = float(state["largest"]), float(state["beta"])
