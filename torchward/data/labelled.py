"""Batches of texts with their labels: padded to the longest, shuffled anew in every epoch, resumed bit for bit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.random import derive
from torchward.data.sequences import Sequences

__all__ = ["Batch", "Shuffled", "in_order"]


@dataclass(frozen=True)
class Batch:
    """Texts, padded at the right."""

    tokens: Int[Tensor, "texts time"]
    mask: Bool[Tensor, "texts time"]
    """False for padding."""
    label: Int[Tensor, " texts"]
    """The number of each text's label."""

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        return Batch(*(field.to(device, non_blocking=True) for field in vars(self).values()))


class Shuffled:
    """Batches of ``batch_size`` texts without end; each text once an epoch. A batch that an epoch does not fill goes on
    in the next one. An epoch's order is a function of the seed and of its number, so the place is two numbers.

    Raises ConfigError where there are not as many labels as texts, or no text."""

    def __init__(
        self, sequences: Sequences, labels: NDArray[np.int64], *, batch_size: int, pad_id: int, seed: int = 0
    ) -> None:
        if batch_size < 1 or len(labels) != len(sequences) or not len(labels):
            raise ConfigError(
                f"expected batch_size of at least 1 and a label for each text, got {batch_size}, {len(labels)} labels "
                f"and {len(sequences)} texts"
            )
        self.sequences, self.labels, self.batch_size, self.pad_id = sequences, labels, batch_size, pad_id
        self.seed = seed
        self.epoch, self.place = 0, 0
        self._order = self._ordered(0)

    @property
    def epochs(self) -> float:
        """How often all texts have been read."""
        return self.epoch + self.place / len(self.labels)

    def next(self) -> Batch:
        """The next batch."""
        taken: list[int] = []
        while len(taken) < self.batch_size:
            if self.place == len(self.labels):
                self.epoch, self.place = self.epoch + 1, 0
                self._order = self._ordered(self.epoch)
            more = self._order[self.place : self.place + self.batch_size - len(taken)]
            taken += more.tolist()
            self.place += len(more)
        return _batch(self.sequences, self.labels, np.array(taken), self.pad_id)

    def state_dict(self) -> dict[str, Any]:
        """The place, and by what it is meant."""
        return {"epoch": self.epoch, "place": self.place, "of": self._meant()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken. Raises ConfigError where texts, labels or seed are others."""
        meant = self._meant()
        for name, was in state["of"].items():
            if meant[name] != was:
                raise ConfigError(
                    f"expected {name} of the data to be {was}, as it was when the run was saved, got {meant[name]}: "
                    "resume with the same text and settings"
                )
        self.epoch, self.place = state["epoch"], state["place"]
        self._order = self._ordered(self.epoch)

    def _meant(self) -> dict[str, Any]:
        labels = Sequences(self.labels, np.ones(0, np.bool_), np.zeros(0, np.int64)).fingerprint
        return {"text": self.sequences.fingerprint, "labels": labels, "seed": self.seed}

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng(derive(self.seed, f"epoch {epoch}")).permutation(len(self.labels))


def in_order(sequences: Sequences, labels: NDArray[np.int64], *, batch_size: int, pad_id: int) -> Iterator[Batch]:
    """Each text once, the last batch as large as it is."""
    for begin in range(0, len(labels), batch_size):
        yield _batch(sequences, labels, np.arange(begin, min(begin + batch_size, len(labels))), pad_id)


def _batch(sequences: Sequences, labels: NDArray[np.int64], which: NDArray[np.int64], pad_id: int) -> Batch:
    lengths = np.diff(sequences.starts)[which]
    time = np.arange(lengths.max())
    mask = time < lengths[:, None]
    tokens = np.full(mask.shape, pad_id, np.int64)
    tokens[mask] = np.concatenate([sequences.tokens[sequences.starts[i] : sequences.starts[i + 1]] for i in which])
    return Batch(*map(torch.from_numpy, (tokens, mask, labels[which])))
