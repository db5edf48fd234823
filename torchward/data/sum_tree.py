"""A tree of sums: changes a few of many numbers, and finds where their running sum passes a value."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["SumTree"]

FAN = 16
"""Children of a node. A level costs a dozen calls of NumPy, however many children are looked at: few are best."""
TOP = 4096
"""Nodes without a parent, at most; they are added up each time."""


class SumTree:
    """``size`` numbers that are not negative, zero at first, and above them the sums of 16 each, of 16 of these, ...

    A sum is always taken over all its children, never moved by a difference: it depends on the numbers as they are, not
    on how they became so, and no rounding adds up."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.levels = [np.zeros(_padded(size))]
        while len(self.levels[-1]) > TOP:
            self.levels.append(np.zeros(_padded(len(self.levels[-1]) // FAN)))

    @property
    def leaves(self) -> NDArray[np.float64]:
        """The numbers ``[size]``."""
        return self.levels[0][: self.size]

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self.levels)

    def set(self, index: NDArray[np.int64], value: NDArray[np.float64] | float) -> None:
        """Change the numbers at ``index`` ``[K]``; where one is named twice, the last value counts."""
        self.levels[0][index] = value
        for children, parents in zip(self.levels, self.levels[1:], strict=False):
            index = index // FAN
            if len(index) > 1000:
                index = np.unique(index)
            parents[index] = children.reshape(-1, FAN)[index].sum(1)

    def find(self, share: NDArray[np.float64]) -> NDArray[np.int64]:
        """For each of ``share`` ``[K]``, within [0, 1): the first index up to which the numbers add up to more than
        that share of all. The i-th is so found on a stretch as long as its own share; one that is zero, never."""
        top = self.levels[-1].cumsum()
        at = share * top[-1]
        node: NDArray[np.int64] = top.searchsorted(at, "right")
        at -= np.where(node > 0, top[node - 1], 0.0)
        each = np.arange(len(at))
        for children in self.levels[-2::-1]:
            sums = children.reshape(-1, FAN)[node].cumsum(1)
            at = np.minimum(at, np.nextafter(sums[:, -1], 0.0))  # sums in another order differ in their last digit
            child = (sums <= at[:, None]).sum(1)
            at -= np.where(child > 0, sums[each, child - 1], 0.0)
            node = node * FAN + child
        return node


def _padded(size: int) -> int:
    return -(-size // FAN) * FAN
