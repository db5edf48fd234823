"""A tree of sums: changes a few of many numbers, and finds where a running sum lies, in three gathers for a million."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["SumTree"]

FAN = 64
"""Children of a node. Wide, because a gather costs the same for 2 numbers as for 64 that lie together."""


class SumTree:
    """``size`` numbers that are not negative, zero at first, and sums of 64 of them, of 64 of these, and so on.

    A sum is always taken over all its children, never moved by a difference: it depends on the numbers as they are now,
    not on how they became so, and no rounding adds up."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.levels = [np.zeros(_padded(size))]
        while len(self.levels[-1]) > FAN:
            self.levels.append(np.zeros(_padded(len(self.levels[-1]) // FAN)))

    @property
    def leaves(self) -> NDArray[np.float64]:
        """The numbers ``[size]``."""
        return self.levels[0][: self.size]

    @property
    def total(self) -> float:
        return float(self.levels[-1].cumsum()[-1])

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self.levels)

    def set(self, index: NDArray[np.int64], value: NDArray[np.float64] | float) -> None:
        """Change the numbers at ``index`` ``[K]``; where one is named twice, the last value counts."""
        self.levels[0][index] = value
        for children, parents in zip(self.levels, self.levels[1:], strict=False):
            index = index // FAN
            if len(index) > FAN:
                index = np.unique(index)
            parents[index] = children.reshape(-1, FAN)[index].sum(1)

    def find(self, at: NDArray[np.float64]) -> NDArray[np.int64]:
        """For each of ``at`` ``[K]``, within ``[0, total)``, the first index up to which the numbers add up to more:
        index i is found on a stretch as long as the i-th number. One that is zero is never found."""
        top = self.levels[-1].cumsum()
        at = np.minimum(at, np.nextafter(top[-1], 0.0))
        node = top.searchsorted(at, "right")
        left = at - (top[node] - self.levels[-1][node])
        each = np.arange(len(at))
        for children in self.levels[-2::-1]:
            sums = children.reshape(-1, FAN)[node].cumsum(1)
            left = np.clip(left, 0.0, np.nextafter(sums[:, -1], 0.0))  # a sum's last digit depends on its order
            child = (sums <= left[:, None]).sum(1)
            left -= np.where(child > 0, sums[each, child - 1], 0.0)
            node = node * FAN + child
        return node

    def load(self, leaves: NDArray[np.float64]) -> None:
        """Set all numbers."""
        self.set(np.arange(self.size), leaves)


def _padded(size: int) -> int:
    return -(-size // FAN) * FAN
