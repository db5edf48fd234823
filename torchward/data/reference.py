"""The policy that a run began with, to be compared with: by a copy, without new adapters, or by numbers kept of it."""

import copy
from contextlib import nullcontext
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchward.data.preferences import Answers, answer_log_probs
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import without_adapters

M = TypeVar("M", bound=nn.Module)


class Reference:
    """What ``policy`` is now. Where it has adapters that were just made, it is the policy without them, at no cost;
    else a copy, which shares all that does not learn: of adapters that a policy came with, these alone are copied."""

    def __init__(self, policy: LanguageModel, new_adapters: bool) -> None:
        self.copy = None if new_adapters else standing(policy)
        self.policy = policy

    @torch.no_grad()
    def log_probs(self, answers: Answers) -> Float[Tensor, " rows"]:
        """How likely it found each answer."""
        with without_adapters(self.policy) if self.copy is None else nullcontext(self.copy) as reference:
            return answer_log_probs(reference, answers)


def standing(policy: M) -> M:
    """A copy that does not learn, and shares the parameters that do not learn in the original either."""
    shared = {id(p): p for p in policy.parameters() if not p.requires_grad}
    return copy.deepcopy(policy, shared).eval().requires_grad_(False)
