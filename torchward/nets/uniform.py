"""The policy that knows nothing yet: any action of the space, each as likely as the other."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from torchward.nets import spaces
from torchward.nets.features import action_mask
from torchward.nets.heads import gumbel, require_mask
from torchward.nets.outputs import Acted, Evaluated
from torchward.nets.spaces import Space, Tree, mask_space


class UniformPolicy:
    """A :class:`~torchward.data.protocols.Policy` that draws from the action space: of the choices that are allowed
    each as often, of real numbers any within [-1, 1], the units in which a bounded Box is meant. It fills a replay
    before there is anything to learn from.

    ``initial_state`` is that of the policy in whose place it acts, so that a recurrent one finds what it expects.
    Raises :class:`~torchward.nets.spaces.SpaceError` for a mask that does not fit the actions."""

    history = False

    def __init__(
        self, observation_space: Space, action_space: Space, initial_state: Callable[[int], Tree] = lambda batch: ()
    ) -> None:
        if (mask := mask_space(observation_space)) is not None:
            require_mask(action_space, mask)
        self.observation_space, self.action_space = observation_space, action_space
        self.initial_state = initial_state

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        """A score for each choice, of which the highest is taken; real numbers as they are."""
        return _noise(self.action_space, batch, generator)

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        """Without noise, one of the equally likely: the first choice that is allowed, and the middle of a Box."""
        drawn = self._zeros(observation) if noise is None else noise
        action, log_prob = _choose(self.action_space, drawn, action_mask(self.observation_space, observation))
        return Acted(action, log_prob, None, state)

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        return None

    def evaluate_actions(self, observation: Tree, action: Tree, state: Tree, boundary: Tensor) -> Evaluated:
        log_prob = self.act(observation, state, None).log_prob
        return Evaluated(log_prob, -log_prob, None)  # all actions are equally likely: the entropy is their surprise

    def _zeros(self, observation: Tree) -> Tree:
        space, leaf = self.observation_space, observation
        while not isinstance(leaf, Tensor):
            assert isinstance(space, spaces.Dict | spaces.Tuple)
            key = next(iter(space.spaces)) if isinstance(space, spaces.Dict) else 0
            space, leaf = space.spaces[key], leaf[key]  # type: ignore[index]
        batch = leaf.shape[: leaf.ndim - len(spaces.event_shape(space))]
        return _zero(_noise(self.action_space, tuple(batch), Generator(leaf.device)))


def _noise(space: Space, batch: tuple[int, ...], generator: Generator) -> Tree:
    match space:
        case spaces.Dict():
            return {name: _noise(inner, batch, generator) for name, inner in space.spaces.items()}
        case spaces.Tuple():
            return tuple(_noise(inner, batch, generator) for inner in space.spaces)
        case spaces.Discrete():
            return gumbel((*batch, space.n), generator)
        case spaces.MultiDiscrete():
            return gumbel((*batch, sum(space.nvec)), generator)
    shape = (*batch, *spaces.event_shape(space))
    return torch.empty(shape, device=generator.device).uniform_(-1.0, 1.0, generator=generator)


def _zero(tree: Tree) -> Tree:
    if isinstance(tree, dict):
        return {name: _zero(branch) for name, branch in tree.items()}
    return tuple(map(_zero, tree)) if isinstance(tree, tuple) else torch.zeros_like(tree)


def _choose(space: Space, noise: Tree, mask: Tree | None) -> tuple[Tree, Tensor]:
    """The action, and the logarithm of its probability, or density in units of [-1, 1]."""
    if isinstance(noise, dict):
        assert isinstance(space, spaces.Dict)
        named = {name: _choose(inner, noise[name], _part(mask, name)) for name, inner in space.spaces.items()}
        return {name: action for name, (action, _) in named.items()}, _sum([log_prob for _, log_prob in named.values()])
    if isinstance(noise, tuple):
        assert isinstance(space, spaces.Tuple)
        parts = [_choose(inner, noise[i], _part(mask, str(i))) for i, inner in enumerate(space.spaces)]
        return tuple(action for action, _ in parts), _sum([log_prob for _, log_prob in parts])
    assert mask is None or isinstance(mask, Tensor)
    allowed = None if mask is None else mask != 0
    match space:
        case spaces.Discrete():
            return _one(noise, allowed)
        case spaces.MultiDiscrete():
            masks = [None] * len(space.nvec) if allowed is None else list(allowed.split(list(space.nvec), -1))
            pairs = [_one(part, open_) for part, open_ in zip(noise.split(list(space.nvec), -1), masks, strict=True)]
            return torch.stack([action for action, _ in pairs], -1), _sum([log_prob for _, log_prob in pairs])
        case spaces.MultiBinary():
            bits = noise > 0 if allowed is None else (noise > 0) & allowed
            free = torch.ones_like(noise) if allowed is None else allowed.float()
            return bits.long(), -math.log(2.0) * free.sum(-1)
    event = len(spaces.event_shape(space))
    density = -math.log(2.0) * math.prod(spaces.event_shape(space))
    return noise, noise.new_full(noise.shape[: noise.ndim - event], density)


def _one(noise: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    """One choice. A mask that forbids everything, as that of a final observation may, is none."""
    if allowed is None:
        return noise.argmax(-1), noise.new_full(noise.shape[:-1], -math.log(noise.shape[-1]))
    allowed = allowed | ~allowed.any(-1, keepdim=True)
    return noise.masked_fill(~allowed, -math.inf).argmax(-1), -allowed.sum(-1).float().log()


def _part(mask: Tree | None, name: str) -> Tree | None:
    return mask.get(name) if isinstance(mask, dict) else None


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0)
