"""A place in a corpus: batches of packed rows without end, shuffled anew in every epoch, resumed bit for bit."""

from typing import Any

import numpy as np
import torch

from torchward.config import ConfigError
from torchward.data.packing import Packing, Plan, Rows, Wrapped, gather, plan
from torchward.data.random import derive
from torchward.data.sequences import Sequences

__all__ = ["Cursor"]


class Cursor:
    """Batches ``[batch_size, max_length]`` of the steps of ``sequences``; each step once an epoch.

    An epoch's order is a function of the seed and of its number. So the place is two numbers, and of the tokens there
    is no second copy. A batch that an epoch does not fill goes on in the next one: all have one shape.
    Raises ConfigError for a size below 1, and where a sequence that is to stay whole is longer than a row.
    """

    def __init__(
        self,
        sequences: Sequences,
        *,
        max_length: int,
        batch_size: int,
        pad_id: int,
        packing: Packing | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"expected batch_size of at least 1, got {batch_size}")
        self.sequences, self.max_length, self.batch_size, self.pad_id = sequences, max_length, batch_size, pad_id
        self.packing: Packing = packing or Wrapped()
        self.seed, self.shuffle = seed, shuffle
        self.epoch, self.row = 0, 0
        """The epoch, from 0 on, and how many of its rows have been handed out."""
        self._plan = self._planned(0)

    @property
    def rows(self) -> int:
        """How many rows this epoch has."""
        return len(self._plan.rows) - 1

    @property
    def epochs(self) -> float:
        """How often the corpus has been read."""
        return self.epoch + self.row / self.rows

    def next(self) -> Rows:
        """The next batch."""
        parts, wanted = [], self.batch_size
        while wanted:
            if self.row == self.rows:
                self.epoch, self.row = self.epoch + 1, 0
                self._plan = self._planned(self.epoch)
            count = min(wanted, self.rows - self.row)
            numbers = np.arange(self.row, self.row + count)
            parts.append(gather(self.sequences, self._plan, numbers, self.max_length, self.pad_id))
            self.row, wanted = self.row + count, wanted - count
        if len(parts) == 1:
            return parts[0]
        return Rows(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    def state_dict(self) -> dict[str, Any]:
        """The place, and by what it is meant."""
        return {"epoch": self.epoch, "row": self.row, "of": self._meant()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken. Raises ConfigError where text, tokenizer, packing or seed are others."""
        meant = self._meant()
        for name, was in state["of"].items():
            if meant[name] != was:
                raise ConfigError(
                    f"expected {name} of the data to be {was}, as it was when the run was saved, got {meant[name]}: "
                    "resume with the same text and settings"
                )
        self.epoch, self.row = state["epoch"], state["row"]
        self._plan = self._planned(self.epoch)

    def _meant(self) -> dict[str, Any]:
        return {
            "text": self.sequences.fingerprint,
            "max_length": self.max_length,
            "packing": type(self.packing).__name__,
            "seed": self.seed,
            "shuffle": self.shuffle,
        }

    def _planned(self, epoch: int) -> Plan:
        generator = np.random.default_rng(derive(self.seed, f"epoch {epoch}")) if self.shuffle else None
        return plan(self.sequences, self.max_length, self.packing, generator)
