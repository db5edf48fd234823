"""LSTM and GRU over rows in which episodes end: one step at a time to act, whole rows at once to learn."""

from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Cell: TypeAlias = Literal["lstm", "gru"]
State: TypeAlias = tuple[Tensor, ...]


class Recurrent(nn.Module):
    """One recurrent layer. Its state is ``(h, c)`` for an LSTM and ``(h,)`` for a GRU, each ``[B, hidden]``."""

    def __init__(self, inputs: int, hidden: int, cell: Cell) -> None:
        super().__init__()
        self.hidden = hidden
        self.cell = cell
        self.layer: nn.RNNBase = (nn.LSTM if cell == "lstm" else nn.GRU)(inputs, hidden, batch_first=True)
        for name, parameter in self.layer.named_parameters():
            nn.init.zeros_(parameter) if "bias" in name else nn.init.orthogonal_(parameter)

    def train(self, mode: bool = True) -> "Recurrent":
        """The layer itself is always in training: it drops nothing, and cuDNN has no gradient for one that is not."""
        super().train(mode)
        self.layer.train()
        return self

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Zeros."""
        weight = next(self.layer.parameters())
        return tuple(weight.new_zeros(batch, self.hidden) for _ in range(2 if self.cell == "lstm" else 1))

    def step(self, x: Float[Tensor, "batch inputs"], state: State) -> tuple[Float[Tensor, "batch hidden"], State]:
        """One step of ``[B, inputs]``: the output ``[B, hidden]`` and the next state."""
        weights = self.layer.weight_ih_l0, self.layer.weight_hh_l0, self.layer.bias_ih_l0, self.layer.bias_hh_l0
        if self.cell == "lstm":
            h, c = torch.lstm_cell(x, state, *weights)  # type: ignore[arg-type]
            return h, (h, c)
        h = torch.gru_cell(x, state[0], *weights)  # type: ignore[arg-type]
        return h, (h,)

    def unroll(
        self, x: Float[Tensor, "batch time inputs"], state: State, boundary: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time hidden"]:
        """Rows ``[B, T, inputs] -> [B, T, hidden]`` from the state before their first step; the state is zero after
        every step at which ``boundary`` ``[B, T]`` is True.

        Rows are cut at their boundaries into sequences, which one call runs side by side, padded at their ends; so an
        episode costs no Python, and no step sees another episode."""
        batch, steps = boundary.shape
        starts = torch.cat([torch.ones_like(boundary[:, :1]), boundary[:, :-1]], 1)
        time = torch.arange(steps, device=x.device).expand(batch, steps)
        position = time - torch.where(starts, time, 0).cummax(1).values
        sequence = starts.flatten().cumsum(0).reshape(batch, steps) - 1
        count, length = int(sequence[-1, -1]) + 1, int(position.max()) + 1
        padded = x.new_zeros(count, length, x.shape[-1]).index_put((sequence, position), x)
        first = sequence[:, 0]
        initial = [part.new_zeros(count, self.hidden).index_put((first,), part)[None] for part in state]
        outputs, _ = self.layer(padded, tuple(initial) if self.cell == "lstm" else initial[0])
        rows: Tensor = outputs[sequence, position]
        return rows
