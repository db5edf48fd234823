"""Curiosity (Pathak et al. 2017, ICM): what could not be foretold of the consequences of one's own actions is new."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchward.config import ConfigError, verify_learning_rate
from torchward.data.bonus import Backlog, Steps
from torchward.data.random import seeded
from torchward.data.tree import Tree
from torchward.nets import spaces
from torchward.nets.adam import Adam
from torchward.nets.embedding import Embedding, Whiten
from torchward.nets.features import Encoder, Features
from torchward.nets.heads import head
from torchward.nets.mlp import Towers, orthogonal
from torchward.nets.spaces import Space


@dataclass(frozen=True)
class Curiosity:
    """The error of a model that foretells, from an action, what will be observed, in features of what actions move."""

    coef: float = 1.0
    """Weight of the bonus, which is in units of the deviation of its own return."""
    episodic: bool = True
    """Whether the end of an episode ends what the bonus still promises."""
    forward_weight: float = 0.2
    """Share of the foretelling model in the loss; the rest is that of the features (beta in the paper)."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    batch_size: int = 256
    """Steps in a minibatch; each step is learnt from once."""
    net_arch: tuple[int, ...] = (64,)
    """Widths of the hidden layers of the features and of both models upon them."""
    size: int = 32
    """Number of features."""
    encoder: Encoder = "nature"
    """The convolutional encoder of image observations."""
    warm_up: int = 1_000
    """Environment steps in which statistics are gathered, and nothing is paid."""

    def __post_init__(self) -> None:
        verify_learning_rate(self.learning_rate, "Curiosity")
        for name, least in (("batch_size", 1), ("size", 1), ("warm_up", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"expected {name} of Curiosity of at least {least}, got {getattr(self, name)}")
        if not 0.0 <= self.forward_weight <= 1.0:
            raise ConfigError(f"expected forward_weight of Curiosity within [0, 1], got {self.forward_weight}")


class Models(nn.Module):
    """Features of observations; the action out of those before and after it; those after it out of the action.

    The model of the action is a policy's head, whatever the actions are: its loss is ``-log p(a | s, s')``."""

    def __init__(self, settings: Curiosity, observation_space: Space, action_space: Space) -> None:
        super().__init__()
        self.embedding = Embedding(observation_space, settings.net_arch, settings.size, settings.encoder)
        self.inverse = Towers(1, 2 * settings.size, settings.net_arch, "relu")
        self.action = head(self.inverse.features, action_space)
        self.encode = Features(_from_zero(action_space), settings.encoder, normalize=False)
        self.dynamics = Towers(1, settings.size + self.encode.size, settings.net_arch, "relu")
        self.out = orthogonal(nn.Linear(self.dynamics.features, settings.size))

    def forward(self, observation: Tree, action: Tree, following: Tree) -> tuple[Tensor, Tensor]:
        """For whitened steps ``[N, ...]``: how unlikely each action is by the model that has to name it; and half the
        squared error of the features that were foretold (their equations 3 and 6)."""
        before, after = self.embedding(observation), self.embedding(following)
        latent = self.inverse.one(0, torch.cat([before, after], -1))
        head_: Any = self.action
        surprise: Tensor = -head_.log_prob(head_(latent, None), action)
        foretold = self.out(self.dynamics.one(0, torch.cat([before, self.encode(action)], -1)))
        error: Tensor = 0.5 * (foretold - after).square().sum(-1)
        return surprise, error


class Foresight:
    """A :class:`~torchward.data.bonus.Novelty`: ``|phi'(s, a) - phi(s')|^2 / 2``, with features phi that are learnt
    to tell actions: what no action moves, and what nobody can foretell, is not in them."""

    def __init__(
        self, settings: Curiosity, observation_space: Space, action_space: Space, seed: int, device: str
    ) -> None:
        with seeded(seed, "curiosity"):
            self.models = Models(settings, observation_space, action_space)
        self.models.to(device)
        self.whiten = Whiten(observation_space).to(device)
        self.forward_weight = settings.forward_weight
        self.optimizer = Adam(self.models.parameters(), settings.learning_rate)
        self.backlog = Backlog(settings.batch_size, seed, "curiosity/minibatches")
        self.losses = torch.zeros(2, device=device)

    def judge(self, steps: Any) -> tuple[Tensor, Tensor]:
        """As :class:`Models`, for steps that are not whitened yet."""
        observation, action, following = steps
        surprise, error = self.models(self.whiten(observation), action, self.whiten(following))
        return surprise, error

    @torch.no_grad()
    def measure(self, steps: Steps) -> Tensor:
        return self.judge(steps)[1]

    def learn(self, steps: Steps) -> dict[str, Tensor | float]:
        self.whiten.absorb(steps[2])
        for minibatch in self.backlog.take(steps):
            with torch.enable_grad():
                surprise, error = (each.mean() for each in self.judge(minibatch))
                # Their equation 7: the features feel both losses.
                loss = (1.0 - self.forward_weight) * surprise + self.forward_weight * error
                self.optimizer.zero_grad()
                loss.backward()
            self.optimizer.step()
            self.losses = torch.stack([surprise, error]).detach()
        inverse, dynamics = self.losses.unbind()
        return {"inverse_loss": inverse, "forward_loss": dynamics}

    def state_dict(self) -> dict[str, Any]:
        held = {name: getattr(self, name).state_dict() for name in _HELD}
        return {**held, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _HELD:
            getattr(self, name).load_state_dict(state[name])
        self.losses = state["losses"].to(self.losses.device)


_HELD = ("whiten", "models", "optimizer", "backlog")


def _from_zero(space: Space) -> Space:
    """The space of a policy's own actions: it counts choices from 0."""
    match space:
        case spaces.Discrete():
            return spaces.Discrete(space.n)
        case spaces.Dict():
            return spaces.Dict({name: _from_zero(inner) for name, inner in space.spaces.items()})
        case spaces.Tuple():
            return spaces.Tuple(tuple(_from_zero(inner) for inner in space.spaces))
    return space
