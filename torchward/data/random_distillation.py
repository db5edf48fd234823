"""Random network distillation (Burda et al. 2019): what a network cannot yet copy of another's answers is new."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchward.config import ConfigError, verify_learning_rate
from torchward.data.bonus import Backlog, Steps
from torchward.data.random import seeded
from torchward.nets.adam import Adam
from torchward.nets.embedding import Embedding, Whiten
from torchward.nets.features import Encoder
from torchward.nets.spaces import Space


@dataclass(frozen=True)
class RandomDistillation:
    """The error of a network that learns the answers of a random one, at what is observed after a step."""

    coef: float = 1.0
    """Weight of the bonus, which is in units of the deviation of its own return."""
    episodic: bool = False
    """Whether the end of an episode ends what the bonus still promises."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    batch_size: int = 256
    """Steps in a minibatch; each step is learnt from once."""
    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of both networks."""
    size: int = 32
    """Numbers in an answer."""
    encoder: Encoder = "nature"
    """The convolutional encoder of image observations."""
    warm_up: int = 1_000
    """Environment steps in which statistics are gathered, and nothing is paid."""

    def __post_init__(self) -> None:
        verify_learning_rate(self.learning_rate, "RandomDistillation")
        for name, least in (("batch_size", 1), ("size", 1), ("warm_up", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"expected {name} of RandomDistillation of at least {least}, got {getattr(self, name)}"
                )


class Distillation:
    """A :class:`~torchward.data.bonus.Novelty`: ``mean_i (f_i(s') - g_i(s'))^2``, with f learnt and g random and fixed.

    Both look at whitened observations: a fixed network has no other way to be in proportion to its inputs."""

    def __init__(self, settings: RandomDistillation, observation_space: Space, seed: int, device: str) -> None:
        parts = (observation_space, settings.net_arch, settings.size, settings.encoder)
        with seeded(seed, "random distillation"):
            self.target, self.predictor = Embedding(*parts), Embedding(*parts)
        self.whiten = Whiten(observation_space).to(device)
        self.target.to(device).requires_grad_(False)
        self.predictor.to(device)
        self.optimizer = Adam(self.predictor.parameters(), settings.learning_rate)
        self.backlog = Backlog(settings.batch_size, seed, "random distillation/minibatches")
        self.loss = torch.zeros((), device=device)

    def errors(self, seen: Any) -> Tensor:
        """``[N]``, with gradient where that is wanted."""
        errors: Tensor = (self.predictor(seen) - self.target(seen)).square().mean(-1)
        return errors

    @torch.no_grad()
    def measure(self, steps: Steps) -> Tensor:
        return self.errors(self.whiten(steps[2]))

    def learn(self, steps: Steps) -> dict[str, Tensor | float]:
        self.whiten.absorb(steps[2])
        for following in self.backlog.take(steps[2]):
            with torch.enable_grad():
                loss = self.errors(self.whiten(following)).mean()
                self.optimizer.zero_grad()
                loss.backward()
            self.optimizer.step()
            self.loss = loss.detach()
        return {"distillation_loss": self.loss}

    def state_dict(self) -> dict[str, Any]:
        held = {name: getattr(self, name).state_dict() for name in _HELD}
        return {**held, "loss": self.loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _HELD:
            getattr(self, name).load_state_dict(state[name])
        self.loss = state["loss"].to(self.loss.device)


_HELD = ("whiten", "target", "predictor", "optimizer", "backlog")
