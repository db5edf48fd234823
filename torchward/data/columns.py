"""Rows of a space, in as few bytes as it needs: in memory, on a GPU, or in files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.tree import Tree
from torchward.nets import spaces
from torchward.nets.spaces import Box, Space, SpaceError

__all__ = ["Columns"]


class Columns:
    """``rows`` elements of a space, one column for each of its leaves.

    A Box keeps its own dtype (images stay uint8), bits take a byte each, other integers eight. With ``frame_stack`` k
    every image is a stack of k frames, of which only the newest, the last one, is kept: images are uint8 and have three
    axes, and that of the channels holds the frames one after the other.

    The columns lie on ``device``; or in a ``directory``, as files that are opened where they exist and made where
    they do not. What is taken from them comes to ``device``.

    Raises :class:`SpaceError` where nothing can be unstacked, ConfigError for files of another size."""

    def __init__(
        self, space: Space, rows: int, device: torch.device, directory: Path | None, name: str, frame_stack: int = 1
    ) -> None:
        self.space, self.device = space, device
        self.columns: list[_Column] = []
        for i, leaf in enumerate(spaces.leaves(space)):
            file = None if directory is None else directory / f"{name}-{i}.bin"
            self.columns.append(_Column(leaf, rows, device, file, frame_stack))
        if frame_stack > 1 and not any(column.axis is not None for column in self.columns):
            raise SpaceError(
                f"frame_stack = {frame_stack} needs images (uint8, three axes), got {spaces.describe(space)}; leave it "
                "at 1"
            )

    def entry(self, name: str) -> "_Column":
        """The column of an entry of a Dict that is a leaf."""
        assert isinstance(self.space, spaces.Dict)
        before = list(self.space.spaces).index(name)
        return self.columns[sum(1 for part in list(self.space.spaces.values())[:before] for _ in spaces.leaves(part))]

    @property
    def nbytes(self) -> int:
        return sum(column.data.nbytes for column in self.columns)

    def leaves(self, tree: Tree) -> list[Tensor]:
        """The leaves of an element of the space, in the order of the columns."""
        return list(_leaves(self.space, tree))

    def put(self, index: NDArray[np.int64], tree: Tree) -> None:
        """Write leaves ``[*index.shape, ...]`` into the rows at ``index``."""
        for column, leaf in zip(self.columns, _leaves(self.space, tree), strict=True):
            column.put(index, leaf)

    def clear(self, index: NDArray[np.int64]) -> None:
        """Write zeros into the rows at ``index`` ``[K]``."""
        for column in self.columns:
            column.data.index_fill_(0, column.where(index), 0)

    def take(self, index: NDArray[np.int64]) -> Tree:
        """The rows at ``index`` ``[...]``, as ``[..., *event]``."""
        return _tree(self.space, iter([column.take(index).to(self.device) for column in self.columns]))

    def take_stacks(self, index: NDArray[np.int64], blank: NDArray[np.bool_]) -> Tree:
        """As :meth:`take` for ``index[..., -1]``; of images the stacks of the frames at ``index`` ``[..., k]``, the
        newest last, with zeros where one is ``blank``."""
        zeros = np.flatnonzero(blank)
        leaves = (c.take(index[..., -1]) if c.axis is None else c.take_stacks(index, zeros) for c in self.columns)
        return _tree(self.space, (leaf.to(self.device) for leaf in leaves))

    def data(self, streams: int) -> list[Tensor]:
        """The columns' own memory, each as ``[streams, rows / streams, ...]``."""
        return [column.data.view(streams, -1, *column.data.shape[1:]) for column in self.columns]

    def flush(self) -> None:
        """Force what was written to files onto the disk."""
        for column in self.columns:
            if isinstance(column.array, np.memmap):
                column.array.flush()


class _Column:
    """The rows of one leaf of a space, ``data`` ``[rows, ...]``; ``axis`` is where a stack has its frames, or None."""

    def __init__(self, space: Space, rows: int, device: torch.device, file: Path | None, frame_stack: int) -> None:
        shape = list(spaces.event_shape(space))
        self.event = torch.Size(shape)
        self.axis: int | None = None
        if frame_stack > 1 and isinstance(space, Box) and space.is_image:
            self.axis = 2 if shape[2] <= shape[0] else 0  # as convolutions read it
            if shape[self.axis] % frame_stack:
                raise SpaceError(
                    f"expected images of frame_stack = {frame_stack} frames, got {spaces.describe(space)}, whose "
                    f"{shape[self.axis]} channels are no multiple of it"
                )
            shape[self.axis] //= frame_stack
        self.bits = isinstance(space, spaces.MultiBinary)
        dtype = np.dtype("bool" if self.bits else space.dtype if isinstance(space, Box) else "int64")
        if file is None:
            self.data = torch.zeros(rows, *shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, device=device)
            self.array = self.data.numpy() if device.type == "cpu" else None
        else:
            self.array = _open(file, dtype, (rows, *shape))
            self.data = torch.from_numpy(self.array)

    def put(self, index: NDArray[np.int64], leaf: Tensor) -> None:
        lead = index.ndim
        if leaf.shape[lead:] != self.event:
            raise SpaceError(f"expected rows of shape {tuple(self.event)}, got {tuple(leaf.shape[lead:])}")
        if self.axis is not None:
            width = self.data.shape[1 + self.axis]
            leaf = leaf.narrow(lead + self.axis, self.event[self.axis] - width, width)
        if self.array is not None:  # index_copy_ takes thirty times as long for images on a CPU
            self.array[index] = leaf.detach().cpu().numpy()
        else:
            self.data.index_copy_(0, self.where(index), leaf.to(self.data).flatten(0, lead - 1))

    def where(self, index: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(index.reshape(-1)).to(self.data.device)

    def take(self, index: NDArray[np.int64]) -> Tensor:
        taken = self.data.index_select(0, self.where(index))
        taken = taken if index.ndim == 1 else taken.view(*index.shape, *self.data.shape[1:])
        return taken.long() if self.bits else taken

    def take_stacks(self, index: NDArray[np.int64], zeros: NDArray[np.int64]) -> Tensor:
        """The frames at ``index`` ``[..., k]`` as images; those at the places ``zeros``, of all frames, are blank."""
        assert self.axis is not None
        frames = self.data.index_select(0, self.where(index))
        if len(zeros):
            frames.index_fill_(0, self.where(zeros), 0)
        frames = frames.view(*index.shape, *self.data.shape[1:])
        stack = index.ndim - 1
        return frames.movedim(stack, stack + self.axis).reshape(*index.shape[:-1], *self.event)


def _open(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The array that a file holds; what is written to it is written to the file. A new file takes room on the disk
    only as it is filled."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if file.exists() and file.stat().st_size != size:
        raise ConfigError(
            f"expected a replay of {size} bytes in {file}, or none, got one of {file.stat().st_size}: it was made with "
            "other settings; give another directory, or in a run set checkpoint_freq to the steps that lay between two "
            "checkpoints (of 0, a tenth of the run)"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    return np.memmap(file, dtype, "r+" if file.exists() else "w+", shape=shape)


def _leaves(space: Space, tree: Any) -> Iterator[Tensor]:
    """The leaves of a tree in the order of its space, however the tree itself is ordered."""
    if isinstance(space, spaces.Dict):
        for name, inner in space.spaces.items():
            yield from _leaves(inner, tree[name])
    elif isinstance(space, spaces.Tuple):
        for inner, branch in zip(space.spaces, tree, strict=True):
            yield from _leaves(inner, branch)
    else:
        yield tree


def _tree(space: Space, leaves: Iterator[Tensor]) -> Tree:
    """The inverse of :func:`_leaves`."""
    if isinstance(space, spaces.Dict):
        return {name: _tree(inner, leaves) for name, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_tree(inner, leaves) for inner in space.spaces)
    return next(leaves)
