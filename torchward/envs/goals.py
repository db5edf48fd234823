"""What an environment pays for one goal where another was meant: the ``compute_reward`` of goal environments."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchward.data.hindsight import Goals
from torchward.envs.faults import RAISED, WorldError


def goals(env: Any, name: str) -> Goals:
    """The rewards, and where it has them the ends, of an environment whose observations are goals: its
    ``compute_reward(achieved_goal, desired_goal, info)`` and ``compute_terminated``, on batches of goals ``[K, ...]``.

    Raises :class:`WorldError` for an environment without such a reward; so do they where they raise, or do not give
    ``[K]``, though False alone is understood."""

    def of(verb: str) -> Any:
        try:
            return env.get_wrapper_attr(verb)
        except AttributeError:
            return None

    reward, terminated = of("compute_reward"), of("compute_terminated")
    if reward is None:
        raise WorldError(
            f"{name} has no compute_reward(achieved_goal, desired_goal, info), by which hindsight judges other goals; "
            "give it one, or leave hindsight out"
        )

    def called(verb: str, function: Any, achieved: Tensor, desired: Tensor) -> Any:
        try:
            return function(achieved.cpu().numpy(), desired.cpu().numpy(), {})
        except RAISED as error:
            raise WorldError(
                f"{verb} of {name} raised {type(error).__name__}: {error}; hindsight calls it with arrays of goals "
                f"{list(achieved.shape)}, and an empty info"
            ) from error

    def compute_reward(achieved: Tensor, desired: Tensor) -> Tensor:
        paid = np.asarray(called("compute_reward", reward, achieved, desired), np.float32)
        if paid.shape != achieved.shape[:1]:
            raise WorldError(
                f"expected compute_reward of {name} to take goals [K, ...] and give rewards [K], got "
                f"{list(paid.shape)} for K = {len(achieved)}; write it for arrays, as in "
                "-np.linalg.norm(achieved - desired, axis=-1)"
            )
        return torch.from_numpy(paid).to(achieved.device)

    def compute_terminated(achieved: Tensor, desired: Tensor) -> Tensor:
        ends = np.asarray(called("compute_terminated", terminated, achieved, desired), bool)
        if ends.shape != achieved.shape[:1] and ends.any():  # False alone says that no goal ends an episode
            raise WorldError(
                f"expected compute_terminated of {name} to take goals [K, ...] and give ends [K], got "
                f"{list(ends.shape)} for K = {len(achieved)}; write it for arrays"
            )
        return torch.from_numpy(np.broadcast_to(ends, achieved.shape[:1]).copy()).to(achieved.device)

    return Goals(compute_reward, None if terminated is None else compute_terminated)
