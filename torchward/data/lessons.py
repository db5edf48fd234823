"""Rows to learn from, with what each of their tokens is worth: of a divergence, and of its own log-probability."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchward.data.packing import Rows
from torchward.data.rollout import Rollout
from torchward.nets.language_model import parts


@dataclass(frozen=True)
class Lesson:
    """Rows, and what each of their tokens is worth."""

    rows: Rows
    weight: Float[Tensor, "rows time"]
    """Of the divergence."""
    advantage: Float[Tensor, "rows time"]
    """Of the log-probability of the token that came: 1 is cross-entropy."""
    group: Int64[Tensor, " rows"] | None = None
    """Which prompt the student's own answers are to; None: they are not its own."""

    @property
    def taught(self) -> Tensor:
        """Where there is something to learn."""
        return self.rows.loss_mask & ((self.weight != 0.0) | (self.advantage != 0.0))


def pieces(lesson: Lesson, size: int) -> Iterator[tuple[Lesson, Tensor]]:
    """The rows that teach, ``size`` at a time, of about equal lengths, each piece cut to its longest; and which they
    are."""
    mask = lesson.taught
    lengths = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)
    order = lengths.argsort(stable=True, descending=True)[: int((lengths > 0).sum())]
    for index in order.split(size):
        if not len(index):
            return
        until = int(lengths[index[0]])
        rows, weight, advantage = vars(lesson.rows), lesson.weight, lesson.advantage
        cut = Rows(**{name: x.index_select(0, index)[:, :until] for name, x in rows.items()})
        yield Lesson(cut, weight[index, :until], advantage[index, :until]), index


def rows_of(rollout: Rollout, until: int | None = None) -> Rows:
    """What was written, one text a row; of each, the first ``until`` steps."""
    tokens, _ = parts(rollout.observation)
    action = rollout.action
    assert isinstance(action, Tensor)
    alone = torch.zeros_like(tokens)
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    rows = Rows(tokens, action.clamp_min(0), rollout.loss_mask, positions, alone)
    return Rows(**{name: x[:, :until] for name, x in vars(rows).items()})
