"""From an observation of any space to one feature vector: one-hot, flatten, normalise, convolve, concatenate."""

from collections.abc import Iterator
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from torchward.nets import spaces
from torchward.nets.conv import Impala, Nature
from torchward.nets.mlp import orthogonal
from torchward.nets.normalize import RunningNorm
from torchward.nets.spaces import Space, SpaceError, Tree

Encoder: TypeAlias = Literal["nature", "impala"]


class Features(nn.Module):
    """Observations ``[..., *event]`` to features ``[..., size]``.

    Box leaves are flattened and, if asked, normalised together; uint8 images go through a convolutional encoder each,
    in ``[0, 1]``; Discrete and MultiDiscrete leaves become one-hot. The entry ``action_mask`` of a Dict is left out."""

    def __init__(self, space: Space, encoder: Encoder, normalize: bool) -> None:
        super().__init__()
        self.space = space
        self.vectors = [(path, leaf) for path, leaf in _leaves(space) if not _is_image(leaf)]
        self.images = [(path, leaf) for path, leaf in _leaves(space) if _is_image(leaf)]
        if not self.vectors and not self.images:
            raise SpaceError(f"the observation space {spaces.describe(space)} holds nothing to learn from")
        self.real = sum(leaf.size for _, leaf in self.vectors if isinstance(leaf, spaces.Box))
        self.norm = RunningNorm(self.real) if normalize and self.real else None
        build = {"nature": Nature, "impala": Impala}[encoder]
        self.encoders = nn.ModuleList([orthogonal(build(*_channels_height_width(leaf))) for _, leaf in self.images])
        self.size = sum(_width(leaf) for _, leaf in self.vectors) + sum(map(width_of, self.encoders))
        self.is_plain = isinstance(space, spaces.Box) and len(space.shape) == 1 and not self.images

    def forward(self, observation: Tree) -> Tensor:
        if self.is_plain:
            assert isinstance(observation, Tensor)
            plain = observation.float()
            return self.norm(plain) if self.norm is not None else plain
        parts: list[Tensor] = []
        reals = self._reals(observation)
        if reals is not None:
            parts.append(self.norm(reals) if self.norm is not None else reals)
        labels = [(path, leaf) for path, leaf in self.vectors if not isinstance(leaf, spaces.Box)]
        parts += [_one_hot(leaf, _get(observation, path)) for path, leaf in labels]
        for (path, leaf), encoder in zip(self.images, self.encoders, strict=True):
            parts.append(_encode(encoder, leaf, _get(observation, path)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def absorb(self, observation: Tree, mask: Tensor | None = None) -> None:
        """Let the normaliser's statistics take in what was seen, where ``mask`` is True."""
        if self.norm is not None:
            reals = self._reals(observation)
            assert reals is not None
            self.norm.absorb(reals, mask)

    def _reals(self, observation: Tree) -> Tensor | None:
        boxes = [(path, leaf) for path, leaf in self.vectors if isinstance(leaf, spaces.Box)]
        flat = [_flatten(_get(observation, path).float(), len(leaf.shape)) for path, leaf in boxes]
        return torch.cat(flat, -1) if len(flat) > 1 else flat[0] if flat else None


def width_of(encoder: nn.Module) -> int:
    """The number of features that an encoder gives. Raises :class:`SpaceError` if it does not say so."""
    width = getattr(encoder, "features", None)
    if not isinstance(width, int):
        name = type(encoder).__name__
        raise SpaceError(f"expected an encoder with an integer attribute 'features', its width; {name} has none")
    return width


def encode_rows(encoder: nn.Module, space: Space, observation: Tree) -> Tensor:
    """A user's encoder from ``[N, ...]`` to ``[N, features]``, applied to observations with any leading axes."""
    lead: tuple[int, ...] = ()

    def rows(inner: Space, tree: Tree) -> Tree:
        nonlocal lead
        if isinstance(inner, spaces.Dict):
            assert isinstance(tree, dict)
            return {name: rows(part, tree[name]) for name, part in inner.spaces.items()}
        if isinstance(inner, spaces.Tuple):
            assert isinstance(tree, tuple)
            return tuple(rows(part, branch) for part, branch in zip(inner.spaces, tree, strict=True))
        assert isinstance(tree, Tensor)
        event = spaces.event_shape(inner)
        lead = tuple(tree.shape[: tree.ndim - len(event)])
        return tree.reshape(-1, *event)

    features: Tensor = encoder(rows(space, observation))
    return features.reshape(*lead, -1)


def action_mask(space: Space, observation: Tree) -> Tree | None:
    """The mask that travels in an observation, or None."""
    if spaces.has_mask(space):
        assert isinstance(observation, dict)
        return observation[spaces.MASK]
    return None


def _leaves(space: Space, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Space]]:
    if isinstance(space, spaces.Dict):
        for name, inner in space.spaces.items():
            if not (path == () and name == spaces.MASK):
                yield from _leaves(inner, (*path, name))
    elif isinstance(space, spaces.Tuple):
        for i, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*path, i))
    else:
        yield path, space


def _get(tree: Tree, path: tuple[str | int, ...]) -> Tensor:
    for key in path:
        tree = tree[key]  # type: ignore[index]
    assert isinstance(tree, Tensor)
    return tree


def _is_image(space: Space) -> bool:
    return isinstance(space, spaces.Box) and space.is_image


def _channels_height_width(space: Space) -> tuple[int, int, int]:
    """An image's axes: channels are last if the last axis is the smallest, else first."""
    assert isinstance(space, spaces.Box)
    first, middle, last = space.shape
    return (last, first, middle) if last <= first else (first, middle, last)


def _encode(encoder: nn.Module, space: Space, image: Tensor) -> Tensor:
    assert isinstance(space, spaces.Box)
    lead = image.shape[:-3]
    flat = image.reshape(-1, *space.shape)
    if space.shape[2] <= space.shape[0]:
        flat = flat.permute(0, 3, 1, 2)
    features: Tensor = encoder(flat.float() / 255.0)
    return features.reshape(*lead, -1)


def _width(space: Space) -> int:
    match space:
        case spaces.Box():
            return space.size
        case spaces.Discrete():
            return space.n
        case spaces.MultiDiscrete():
            return sum(space.nvec)
        case spaces.MultiBinary():
            return space.n
    raise SpaceError(f"{spaces.describe(space)} is not a leaf")


def _one_hot(space: Space, x: Tensor) -> Tensor:
    match space:
        case spaces.Discrete():
            return nn.functional.one_hot(x.long() - space.start, space.n).float()
        case spaces.MultiDiscrete():
            parts = [nn.functional.one_hot(x[..., i].long(), n).float() for i, n in enumerate(space.nvec)]
            return torch.cat(parts, -1)
    return x.float()


def _flatten(x: Tensor, event_axes: int) -> Tensor:
    return x.unsqueeze(-1) if event_axes == 0 else x.flatten(-event_axes) if event_axes > 1 else x
