"""How actions are chosen while action values are learnt: settings that the table and the networks share."""

from dataclasses import dataclass

from torch import Tensor

from torchward.config import ConfigError
from torchward.functional.value_losses import boltzmann_probs, epsilon_greedy_probs


def within_unit(owner: str, **values: float) -> None:
    """Raises ConfigError unless every number lies in [0, 1]."""
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"expected {name} of {owner} within [0, 1], got {value}")


def anneal(start: float, end: float, fraction: float, progress: float) -> float:
    """From start to end in a straight line while progress goes from 0 to fraction; then end."""
    return end if progress >= fraction else start + (end - start) * progress / fraction


@dataclass(frozen=True)
class EpsilonGreedy:
    """Explore by any action with probability epsilon, else take the best one."""

    start: float = 1.0
    """Epsilon at the first step."""
    end: float = 0.05
    """Epsilon once it is annealed."""
    fraction: float = 0.5
    """The part of the run over which it is annealed, linearly."""

    def __post_init__(self) -> None:
        within_unit("EpsilonGreedy", start=self.start, end=self.end, fraction=self.fraction)

    def probs(self, q: Tensor, progress: float) -> Tensor:
        """The probabilities of the actions, once the part ``progress`` of the run is over."""
        return epsilon_greedy_probs(q, self.at(progress)[0])

    def at(self, progress: float) -> tuple[float, float]:
        """Epsilon, and a temperature of 0, which stands for none."""
        return anneal(self.start, self.end, self.fraction, progress), 0.0


@dataclass(frozen=True)
class Boltzmann:
    """Explore by taking better actions more often: softmax(Q / temperature)."""

    start: float = 1.0
    """The temperature at the first step, in units of return."""
    end: float = 0.05
    """The temperature once it is annealed."""
    fraction: float = 0.5
    """The part of the run over which it is annealed, linearly."""

    def __post_init__(self) -> None:
        within_unit("Boltzmann", fraction=self.fraction)
        for name in ("start", "end"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"expected a temperature above 0 as {name} of Boltzmann, got {getattr(self, name)}")

    def probs(self, q: Tensor, progress: float) -> Tensor:
        """The probabilities of the actions, once the part ``progress`` of the run is over."""
        return boltzmann_probs(q, self.at(progress)[1])

    def at(self, progress: float) -> tuple[float, float]:
        """An epsilon of 0, and the temperature."""
        return 0.0, anneal(self.start, self.end, self.fraction, progress)


Exploration = EpsilonGreedy | Boltzmann
