"""Target networks: a copy that stands still, or follows at a distance, so that values do not chase themselves."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def twin(network: M) -> M:
    """A copy of ``network`` that no gradient reaches. Its observation statistics are those of the original, not a copy
    of them: both have to see the world alike."""
    memo: dict[int, Any] = {}
    features = getattr(network, "features", None)
    norm = getattr(features, "norm", None)
    if norm is not None:
        memo[id(norm)] = norm
    return copy.deepcopy(network, memo).requires_grad_(False)


@torch.no_grad()
def follow(target: list[Tensor], source: list[Tensor], tau: float) -> None:
    """Move each of ``target`` the part ``tau`` of the way to its ``source``; a ``tau`` of 1 copies (Lillicrap et al.
    2016, section 3; Mnih et al. 2015 copy now and then)."""
    if tau == 1.0:
        torch._foreach_copy_(target, source)
    else:
        torch._foreach_lerp_(target, source, tau)
