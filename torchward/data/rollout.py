"""What was seen, done and earned, ``[B, T]``; and the same with its credit, ready to be learnt from.

Three facts stand in three tensors. ``terminated``: there is no future after this step, bootstrapping stops.
``boundary``: the next row is not this step's future, the trace stops. ``loss_mask``: the policy chose this action.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor

from torchward.data.tree import Tree, tree_map

__all__ = ["Batch", "Finals", "Rollout", "concatenate"]


@dataclass(frozen=True)
class Batch:
    """Steps with their credit. Every tensor is ``[B, T, ...]``, ``state`` is ``[B, ...]``."""

    observation: Tree
    action: Tree
    log_prob: Float[Tensor, "batch time"]
    advantage: Float[Tensor, "batch time"]
    target: Float[Tensor, "batch time"]
    boundary: Bool[Tensor, "batch time"]
    loss_mask: Bool[Tensor, "batch time"]
    value: Float[Tensor, "batch time"] | None = None
    state: Tree = ()

    def __len__(self) -> int:
        """The number of rows, B."""
        return self.log_prob.shape[0]

    def _each(self, function: Any) -> "Batch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {n: v if v is None else tree_map(function, v) for n, v in values.items()}
        return replace(self, **changed)

    def steps(self) -> "Batch":
        """Every step a row of its own, ``[B * T, 1, ...]``: for policies that need no history."""
        if self.log_prob.shape[1] == 1 and self.state == ():
            return self  # they are
        return replace(self, state=())._each(lambda x: x.reshape(-1, 1, *x.shape[2:]))

    def rows(self, index: Tensor | slice) -> "Batch":
        """The rows at ``index``."""
        if isinstance(index, slice):
            return self._each(lambda x: x[index])
        return self._each(lambda x: x.index_select(0, index))  # half the time of x[index]

    def until(self, time: int) -> "Batch":
        """The first ``time`` steps of each row: the rest has to be padding."""
        cut = replace(self, state=())._each(lambda x: x[:, :time])
        return replace(cut, state=self.state)

    def minibatches(self, batch_size: int, generator: Generator, history: bool) -> Iterator["Batch"]:
        """The steps once, in random order, in minibatches of ``batch_size`` steps. With ``history`` rows stay whole,
        and a minibatch holds as many rows as make up ``batch_size`` steps, at least one."""
        batch = self if history else self.steps()
        rows = max(1, batch_size // self.log_prob.shape[1]) if history else batch_size
        order = torch.randperm(len(batch), generator=generator, device=generator.device)
        if rows >= len(batch):
            yield batch
            return
        yield from batch.rows(order.to(self.log_prob.device)).split(rows)

    def microbatches(self, rows: int | None) -> Iterator["Batch"]:
        """The batch in consecutive pieces of at most ``rows`` rows; None: whole."""
        if rows is None or rows >= len(self):
            yield self
            return
        yield from self.split(rows)

    def split(self, rows: int) -> Iterator["Batch"]:
        """Consecutive pieces of ``rows`` rows; the last may have fewer."""
        # Each field is split at once: the steps of a small network take no longer than slicing all fields for each.
        for parts in zip(*(_split(getattr(self, f.name), rows) for f in fields(self)), strict=False):
            yield Batch(*parts)


def _split(tree: Tree | None, rows: int) -> Iterator[Any]:
    """A tree of leaves ``[B, ...]`` in pieces of ``rows`` rows; what has no leaf is the same for ever."""
    if isinstance(tree, Tensor):
        return iter(tree.split(rows))
    if not tree:
        return repeat(tree)
    branches = zip(
        *(_split(branch, rows) for branch in (tree.values() if isinstance(tree, dict) else tree)), strict=False
    )
    return (dict(zip(tree, parts, strict=True)) for parts in branches) if isinstance(tree, dict) else branches


@dataclass(frozen=True)
class Finals:
    """The observations ``[K, ...]`` in which episodes ended whose row shows the next episode one step later: that of
    ``row[i]`` ended in ``observation[i]`` by its step at ``time[i]``."""

    row: Int64[Tensor, " ends"]
    time: Int64[Tensor, " ends"]
    observation: Tree


@dataclass(frozen=True)
class Rollout:
    """What a source hands to a learner. Every tensor is ``[B, T, ...]``; ``context`` holds what belongs to a whole
    row, ``[B, ...]``: ``state`` (before the first step), and where there are such a prompt, group, agent or version.

    ``next_value`` is the value of the observation that truly came next: after a time limit, that of the final
    observation, not of the next episode's first. The observations themselves, for who looks again at old steps, are
    the next row's; after the last row ``last`` ``[B, ...]``; and where an episode ended, those of ``finals``, unless a
    reset row follows: that one shows the final observation, and ``finals`` does not name it."""

    observation: Tree
    action: Tree
    log_prob: Float[Tensor, "batch time"]
    reward: Float[Tensor, "batch time"]
    terminated: Bool[Tensor, "batch time"]
    boundary: Bool[Tensor, "batch time"]
    loss_mask: Bool[Tensor, "batch time"]
    value: Float[Tensor, "batch time"] | None = None
    next_value: Float[Tensor, "batch time"] | None = None
    reference_log_prob: Float[Tensor, "batch time"] | None = None
    context: dict[str, Tree] = field(default_factory=dict)
    last: Tree | None = None
    finals: Finals | None = None
    begun_anew: bool = False
    """Whether it does not go on where the last rollout stopped, and no boundary there says so."""

    @property
    def steps(self) -> int:
        """The number of steps that the policy chose."""
        return int(self.loss_mask.sum())

    def values(self) -> tuple[Tensor, Tensor]:
        """``value`` and ``next_value``; ValueError where the policy has no critic to give them."""
        if self.value is None or self.next_value is None:
            raise ValueError(
                "expected a policy with a critic, got one without; take another, or reinforce with baseline='none'"
            )
        return self.value, self.next_value

    def credited(self, advantage: Float[Tensor, "batch time"], target: Float[Tensor, "batch time"]) -> Batch:
        """The batch to learn from: ``advantage`` for the policy, ``target`` for the critic, both ``[B, T]``."""
        return Batch(
            observation=self.observation,
            action=self.action,
            log_prob=self.log_prob,
            advantage=advantage,
            target=target,
            boundary=self.boundary,
            loss_mask=self.loss_mask,
            value=self.value,
            state=self.context.get("state", ()),
        )


def concatenate(rollouts: list[Rollout]) -> Rollout:
    """Rollouts of the same rows, one after the other in time; the context is that of the first."""
    if len(rollouts) == 1:
        return rollouts[0]
    whole = ("context", "last", "finals", "begun_anew")
    names = [f.name for f in fields(Rollout) if f.name not in whole and getattr(rollouts[0], f.name) is not None]
    joined: dict[str, Any] = {
        n: tree_map(lambda *leaves: torch.cat(leaves, 1), *(getattr(r, n) for r in rollouts)) for n in names
    }
    return replace(rollouts[0], **joined, last=rollouts[-1].last, finals=_follow_up(rollouts))


def _follow_up(rollouts: list[Rollout]) -> Finals | None:
    """The ends of all rollouts, by their times in the joined one."""
    found, start = [], 0
    for rollout in rollouts:
        if rollout.finals is not None:
            found.append(replace(rollout.finals, time=rollout.finals.time + start))
        start += rollout.reward.shape[1]
    if not found:
        return None
    observation = tree_map(lambda *leaves: torch.cat(leaves), *(ends.observation for ends in found))
    return Finals(torch.cat([ends.row for ends in found]), torch.cat([ends.time for ends in found]), observation)
