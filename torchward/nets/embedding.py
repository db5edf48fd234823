"""From an observation of any space to a vector that says where it lies: whitened, then through a network."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from torchward.nets import spaces
from torchward.nets.features import Encoder, Features
from torchward.nets.mlp import Towers, orthogonal
from torchward.nets.normalize import RunningNorm
from torchward.nets.spaces import Space, Tree

CLIP = 5.0
"""Standard deviations at which what is whitened is cut off (Burda et al. 2019, section 2.4)."""
PIECE = 256
"""Observations whose statistics are taken in at a time, in float64."""


class Whiten(nn.Module):
    """Brings every number of an observation's Boxes, each pixel too, to zero mean and unit variance by running
    statistics, which stand still until :meth:`absorb`. The structure stays; what is discrete stays as it is.

    An image comes back in units of 255, by which encoders divide it."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        boxes = [leaf for leaf in spaces.leaves(space) if isinstance(leaf, spaces.Box)]
        self.norms = nn.ModuleList([RunningNorm(box.size, CLIP) for box in boxes])

    def forward(self, observation: Tree) -> Tree:
        """Observations ``[N, ...]``, whitened."""
        norms = iter(self.norms)

        def whitened(box: spaces.Box, x: Tensor) -> Tensor:
            flat: Tensor = next(norms)(x.float().reshape(len(x), -1))
            return flat.view(x.shape) * (255.0 if box.is_image else 1.0)

        return _map_boxes(whitened, self.space, observation)

    def absorb(self, observation: Tree) -> None:
        """Let the statistics take in observations ``[N, ...]``."""
        norms: Any = iter(self.norms)

        def taken_in(box: spaces.Box, x: Tensor) -> Tensor:
            norm = next(norms)
            for piece in x.reshape(len(x), -1).split(PIECE):
                norm.absorb(piece.float())
            return x

        _map_boxes(taken_in, self.space, observation)


class Embedding(nn.Module):
    """Whitened observations ``[N, ...]`` to vectors ``[N, size]``: features, hidden layers, a linear one. All weights
    are orthogonal with gain sqrt(2), as those of Burda et al. 2019."""

    def __init__(self, space: Space, net_arch: Sequence[int], size: int, encoder: Encoder) -> None:
        super().__init__()
        self.features = Features(space, encoder, normalize=False)
        self.tower = Towers(1, self.features.size, net_arch, "relu")
        self.out = orthogonal(nn.Linear(self.tower.features, size))

    def forward(self, observation: Tree) -> Tensor:
        embedded: Tensor = self.out(self.tower.one(0, self.features(observation)))
        return embedded


def _map_boxes(function: Callable[[spaces.Box, Tensor], Tensor], space: Space, tree: Tree) -> Tree:
    """``function`` applied to the leaves of ``tree`` that are Boxes, in the order of the space."""
    if isinstance(space, spaces.Dict):
        assert isinstance(tree, dict)
        return {name: _map_boxes(function, inner, tree[name]) for name, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        assert isinstance(tree, tuple)
        return tuple(_map_boxes(function, inner, part) for inner, part in zip(space.spaces, tree, strict=True))
    assert isinstance(tree, Tensor)
    return function(space, tree) if isinstance(space, spaces.Box) else tree
