"""The choice of what is paid for the new, as a setting of every algorithm that can be paid for it."""

from dataclasses import dataclass
from typing import TypeAlias

from torchward.data.bonus import Bonus
from torchward.data.counts import Counts, Visits
from torchward.data.curiosity import Curiosity, Foresight
from torchward.data.protocols import Shaping, Task
from torchward.data.random_distillation import Distillation, RandomDistillation


@dataclass(frozen=True)
class NoBonus:
    """Nothing: rewards are the environment's own."""


ExplorationBonus: TypeAlias = NoBonus | Counts | Curiosity | RandomDistillation


def bonuses(chosen: ExplorationBonus, task: Task, gamma: float, seed: int, device: str) -> list[Shaping]:
    """The shaping that a setting asks for, made for the spaces of a task; none for :class:`NoBonus`. ``gamma`` is the
    discount of what is learnt from it."""
    seen, done = task.observation_space, task.action_space
    match chosen:
        case Counts(coef, episodic=episodic):
            visits = Visits(chosen, seen, done)
            return [Bonus(visits, coef, gamma, normalize=False, episodic=episodic, warm_up=0)]
        case Curiosity(coef, episodic, warm_up=warm_up):
            foresight = Foresight(chosen, seen, done, seed, device)
            return [Bonus(foresight, coef, gamma, normalize=True, episodic=episodic, warm_up=warm_up)]
        case RandomDistillation(coef, episodic, warm_up=warm_up):
            distillation = Distillation(chosen, seen, seed, device)
            return [Bonus(distillation, coef, gamma, normalize=True, episodic=episodic, warm_up=warm_up)]
        case NoBonus():
            return []
