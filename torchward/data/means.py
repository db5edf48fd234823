"""Means of what many updates measure, added up where the numbers are and read when they are shown."""

from typing import Any

import torch
from torch import Tensor


class Means:
    """Running sums of named numbers, which are not read while they are added up."""

    def __init__(self, *names: str, device: str | torch.device = "cpu") -> None:
        self.names = names
        self.sums = torch.zeros(len(names), device=device)
        self.count = 0

    @torch.no_grad()
    def add(self, *values: Tensor) -> None:
        """One value for each name, each a single number."""
        self.sums += torch.stack(values)
        self.count += 1

    def take(self) -> dict[str, Tensor]:
        """The means since the last call; nothing where there was none to add."""
        if self.count == 0:
            return {}
        means = dict(zip(self.names, (self.sums / self.count).unbind(), strict=True))
        self.sums, self.count = torch.zeros_like(self.sums), 0
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums.copy_(state["sums"])
        self.count = int(state["count"])
