"""A reward for the new, beside the environment's own: as shaping, so it serves any algorithm."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.random import generator
from torchward.data.rollout import Rollout
from torchward.data.shaping import RewardScale
from torchward.data.tree import Tree, tree_leaves, tree_map

Steps: TypeAlias = tuple[Tree, Tree, Tree]
"""What was observed, what was done, and what was observed next: leaves ``[N, ...]``."""
PIECE = 1024
"""Steps that are measured at a time."""


class Novelty(Protocol):
    """Says how new steps are. What it knows stands still until it is told to :meth:`learn` them."""

    def measure(self, steps: Steps) -> Tensor:
        """How new each step is, ``[N]`` of float32, never below 0."""
        ...

    def learn(self, steps: Steps) -> dict[str, Tensor | float]:
        """Get to know these steps, ``N`` of at least 1; and metrics."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Bonus:
    """A :class:`~torchward.data.protocols.Shaping` that adds ``coef`` times the novelty of each step to its reward.

    Novelty is measured with all that is known before the rollout, which is learnt afterwards: whether a step comes
    first or last in it makes no difference. With ``normalize`` it is divided by the running deviation of its own
    discounted return, as its scale is nobody's choice (Burda et al. 2019, section 2.4). In the first ``warm_up`` steps
    nothing is paid.

    An ``episodic`` bonus is a reward like any other: what could still be found ends with the episode. Else the end
    takes nothing away. Burda et al. (2019, section 2.3) have a critic of its own for that, whose returns run on into
    the next episode. Here the step that terminates is paid what these would go on with, by the mean of the bonus over
    the last ``1 / (1 - gamma)`` steps: ``gamma / (1 - gamma) * mean``. No critic, and no algorithm, need know of it.

    Returns that are reported and evaluations hold none of this: sources count what environments pay.

    Raises ConfigError for a discount of 1 without episodes, for there the bonus that is ahead has no bound."""

    def __init__(
        self, novelty: Novelty, coef: float, gamma: float, *, normalize: bool, episodic: bool, warm_up: int
    ) -> None:
        if not episodic and not gamma < 1.0:
            raise ConfigError(
                f"expected gamma below 1 with a bonus that is not episodic, got {gamma}: the sum over all episodes has "
                "no bound"
            )
        self.novelty, self.coef, self.gamma = novelty, coef, gamma
        self.episodic, self.warm_up = episodic, warm_up
        self.scale = RewardScale(gamma) if normalize else None
        self.seen = 0
        self.mean: Tensor | None = None
        """Of the bonus, before ``coef``, over the last ``1 / (1 - gamma)`` steps."""

    @torch.no_grad()
    def shape(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor | float]]:
        """The rollout with the bonus in its rewards ``[B, T]``; and the mean of what was paid for a step."""
        chosen, steps = rollout.loss_mask, steps_of(rollout)
        total = chosen.sum().clamp_min(1)
        pieces = [self.novelty.measure(piece) for piece in _pieces(steps, PIECE)]
        bonus = torch.where(chosen, torch.cat(pieces).view_as(rollout.reward), 0.0)
        metrics: dict[str, Tensor | float] = {"novelty": bonus.sum() / total}
        if self.scale is not None:
            ends = rollout.boundary if self.episodic else torch.zeros_like(rollout.boundary)
            scaled, _ = self.scale.shape(replace(rollout, reward=bonus, boundary=ends))
            bonus = scaled.reward
        ahead = bonus.new_zeros(()) if self.mean is None else self.mean.to(bonus.device)
        self.mean = torch.lerp(bonus.sum() / total, ahead, self.gamma ** rollout.reward.shape[1])
        if not self.episodic:
            bonus = bonus + rollout.terminated * chosen * (ahead * self.gamma / (1.0 - self.gamma))
        paid = bonus * (self.coef if self.seen >= self.warm_up else 0.0)
        self.seen += rollout.reward.numel()
        metrics["bonus"] = paid.sum() / total
        which = chosen.flatten().nonzero().squeeze(1)
        if len(which):
            taken = tree_map(lambda leaf: leaf.index_select(0, which), steps)
            assert isinstance(taken, tuple)
            metrics |= self.novelty.learn((taken[0], taken[1], taken[2]))
        return replace(rollout, reward=rollout.reward + paid), metrics

    def state_dict(self) -> dict[str, Any]:
        return {
            "novelty": self.novelty.state_dict(),
            "scale": None if self.scale is None else self.scale.state_dict(),
            "seen": self.seen,
            "mean": self.mean,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.novelty.load_state_dict(state["novelty"])
        if self.scale is not None:
            self.scale.load_state_dict(state["scale"])
        self.seen, self.mean = int(state["seen"]), state["mean"]


def arrived(rollout: Rollout) -> Tree:
    """What was truly observed after each step, leaves ``[B, T, ...]``. Raises ValueError for a rollout whose source
    does not say what came last."""
    if rollout.last is None:
        raise ValueError("expected a rollout whose `last` says what was seen after it, got None from its source")
    following = tree_map(
        lambda leaf, last: torch.cat([leaf[:, 1:], last.unsqueeze(1)], 1), rollout.observation, rollout.last
    )
    if (ends := rollout.finals) is not None:
        tree_map(lambda leaf, final: leaf.index_put_((ends.row, ends.time), final), following, ends.observation)
    return following


def steps_of(rollout: Rollout) -> Steps:
    """The steps of a rollout, row by row; also those that no policy chose."""
    flat = tree_map(lambda leaf: leaf.flatten(0, 1), (rollout.observation, rollout.action, arrived(rollout)))
    assert isinstance(flat, tuple)
    return flat[0], flat[1], flat[2]


class Backlog:
    """What is to be learnt from once, in minibatches that are always full: what is left over waits for more.

    Rollouts may be of four steps or of four thousand; for what learns from them they are alike."""

    def __init__(self, batch_size: int, seed: int, name: str) -> None:
        self.batch_size = batch_size
        self.generator = generator(seed, name)
        self.waiting: list[Tree] = []
        self.count = 0

    def take(self, tree: Tree) -> Iterator[Tree]:
        """The minibatches ``[batch_size, ...]`` that leaves ``[N, ...]``, and what has waited, make in random order."""
        device = next(tree_leaves(tree)).device  # a checkpoint brings them back on the CPU
        self.waiting = [tree_map(lambda leaf: leaf.to(device), each) for each in self.waiting] + [tree]
        self.count += len(next(tree_leaves(tree)))
        if self.count < self.batch_size:
            return
        joined = _joined(self.waiting)
        order = torch.randperm(self.count, generator=self.generator).to(next(tree_leaves(joined)).device)
        full = self.count - self.count % self.batch_size
        self.count -= full
        self.waiting = [tree_map(lambda leaf: leaf[order[full:]], joined)] if self.count else []
        for begin in range(0, full, self.batch_size):
            where = order[begin : begin + self.batch_size]
            yield tree_map(lambda leaf, where=where: leaf[where], joined)

    def state_dict(self) -> dict[str, Any]:
        waiting = _joined(self.waiting) if self.waiting else None
        return {"waiting": waiting, "count": self.count, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.waiting = [] if state["waiting"] is None else [state["waiting"]]
        self.count = int(state["count"])
        self.generator.set_state(state["generator"])


def _joined(trees: list[Tree]) -> Tree:
    return trees[0] if len(trees) == 1 else tree_map(lambda *leaves: torch.cat(leaves), trees[0], *trees[1:])


def _pieces(steps: Steps, size: int) -> Iterator[Steps]:
    for begin in range(0, len(next(tree_leaves(steps))), size):
        observation, action, following = steps
        yield (_rows(observation, begin, size), _rows(action, begin, size), _rows(following, begin, size))


def _rows(tree: Tree, begin: int, size: int) -> Tree:
    return tree_map(lambda leaf: leaf[begin : begin + size], tree)
