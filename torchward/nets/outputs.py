"""What a policy says of steps: when it acts, and when it is asked about what was done."""

from typing import NamedTuple

from torch import Tensor

from torchward.nets.spaces import Tree


class Acted(NamedTuple):
    """What ``act`` says of one step of ``B`` rows."""

    action: Tree
    log_prob: Tensor
    value: Tensor | None
    state: Tree


class Evaluated(NamedTuple):
    """What ``evaluate_actions`` says of ``[B, T]`` steps."""

    log_prob: Tensor
    entropy: Tensor
    value: Tensor | None
