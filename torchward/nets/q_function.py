"""The critics of SAC and TD3: what a choice is worth, given what is seen and the real numbers of the action.

One shape serves all actions: ``Q(s, a)`` of a Box has a single output, ``Q(s)[a]`` of choices one for each, and for a
hybrid action it is ``Q(s, reals)[choice]`` (Delalleau et al. 2019).
"""

from torch import Tensor

from torchward.nets.action_parts import ActionParts
from torchward.nets.actor_body import ActorNet
from torchward.nets.perceptrons import Perceptrons


def q_function(features: int, parts: ActionParts, network: ActorNet, n_critics: int = 2) -> Perceptrons:
    """``n_critics`` critics side by side: features ``[N, features]`` and reals ``[N, reals]`` to ``[n_critics, N,
    choices]``."""
    inputs = features + parts.reals
    return Perceptrons(n_critics, inputs, network.net_arch, parts.choices, network.activation_fn)


def value_of(q: Tensor, choice: Tensor | None) -> Tensor:
    """The values ``[n_critics, N]`` of the choices ``[N]`` that were made, out of those of all."""
    if choice is None:
        return q.squeeze(-1)
    return q.gather(-1, choice.expand(q.shape[0], -1).unsqueeze(-1)).squeeze(-1)
