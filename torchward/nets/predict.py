"""NumPy in, NumPy out: one observation or a batch of them, through any policy, to the environment's actions."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from torchward.nets import spaces
from torchward.nets.outputs import Acted
from torchward.nets.spaces import Space, SpaceError, Tree


class Acting(Protocol):
    """A policy of any kind, as far as acting needs it."""

    @property
    def observation_space(self) -> Space: ...

    @property
    def action_space(self) -> Space: ...

    def initial_state(self, batch: int) -> Tree: ...
    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree: ...
    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted: ...
    def parameters(self) -> Iterator[Tensor]: ...
    def buffers(self) -> Iterator[Tensor]: ...


@torch.no_grad()
def predict(
    policy: Acting, observation: Any, state: Tree | None, deterministic: bool, seed: int | None
) -> tuple[Any, Tree]:
    """See :meth:`torchward.nets.actor_critic.ActorCritic.predict`."""
    tree, batch = tensors(policy.observation_space, observation)
    single = batch is None
    if single:
        tree = _each(tree, lambda leaf: leaf.unsqueeze(0))
    rows = 1 if batch is None else batch
    device = next(chain(policy.parameters(), policy.buffers())).device
    tree = _each(tree, lambda leaf: leaf.to(device))
    if state is None:
        state = policy.initial_state(rows)
    noise = None
    if not deterministic:
        generator = Generator(device)
        generator.manual_seed(int(torch.randint(2**62, ())) if seed is None else seed)
        noise = policy.noise((rows,), generator)
    acted = policy.act(tree, state, noise)
    action = spaces.env_action(policy.action_space, acted.action)
    return _numpy(_each(action, lambda leaf: leaf.squeeze(0)) if single else action), acted.state


def tensors(space: Space, observation: Any) -> tuple[Tree, int | None]:
    """An observation of NumPy arrays as tensors, and its batch size; None for a single observation.
    Raises :class:`SpaceError` where shapes or names do not fit."""
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, dict) or set(space.spaces) - set(observation):
            got = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
            raise SpaceError(f"expected a dictionary with the entries {sorted(space.spaces)}, got {got}")
        parts = {name: tensors(inner, observation[name]) for name, inner in space.spaces.items()}
        return {name: tree for name, (tree, _) in parts.items()}, _agree([batch for _, batch in parts.values()])
    if isinstance(space, spaces.Tuple):
        if not isinstance(observation, tuple | list) or len(observation) != len(space.spaces):
            raise SpaceError(f"expected a tuple of {len(space.spaces)} observations, got {type(observation).__name__}")
        pairs = [tensors(inner, part) for inner, part in zip(space.spaces, observation, strict=True)]
        return tuple(tree for tree, _ in pairs), _agree([batch for _, batch in pairs])
    try:
        array = np.array(observation, np.dtype(space.dtype) if isinstance(space, spaces.Box) else np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise SpaceError(
            f"expected numbers for {spaces.describe(space)}, got {type(observation).__name__}: {error}"
        ) from error
    shape = spaces.event_shape(space)
    if array.shape == shape:
        return torch.from_numpy(array), None
    if array.ndim == len(shape) + 1 and array.shape[1:] == shape:
        return torch.from_numpy(array), array.shape[0]
    batch = ", ".join(map(str, ("n", *shape)))
    raise SpaceError(f"expected one observation of shape {shape} or a batch of shape ({batch}), got {array.shape}")


def _agree(batches: list[int | None]) -> int | None:
    if len(set(batches)) > 1:
        raise SpaceError(f"the parts of an observation must be one each, or batches of one size; got sizes {batches}")
    return batches[0]


def _each(tree: Tree, function: Any) -> Tree:
    if isinstance(tree, dict):
        return {name: _each(branch, function) for name, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_each(branch, function) for branch in tree)
    leaf: Tensor = function(tree)
    return leaf


def _numpy(tree: Tree) -> Any:
    if isinstance(tree, dict):
        return {name: _numpy(branch) for name, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_numpy(branch) for branch in tree)
    array = tree.cpu().numpy()
    return array[()] if array.ndim == 0 else array  # a number, as environments that look it up in a table expect
