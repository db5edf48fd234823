"""A source that collects the next rollout while the last one is learnt from, in lockstep: nothing depends on timing."""

import copy
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import fields, replace
from functools import partial
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from torchward.data.protocols import Episode, Policy, Source
from torchward.data.rollout import Finals, Rollout
from torchward.data.tree import tree_map
from torchward.nets.target import follow

PATIENCE = 10.0
"""Seconds that :meth:`Ahead.close` grants to a step that is being made: an environment may hang, a program must end."""
PLAIN = (int, float, str, type(None))  # flags are ints; a tuple, as a union of types takes four times as long to ask

T = TypeVar("T", Rollout, Finals)


class Collected(NamedTuple):
    """A rollout, the episodes that ended in it, and the horizon that it was asked for with."""

    rollout: Rollout
    episodes: list[Episode]
    horizon: int | None


Tasks: TypeAlias = "SimpleQueue[tuple[Future[Collected], Callable[[], Collected]] | None]"


class Ahead:
    """A :class:`~torchward.data.protocols.Source` in front of another: while one of its rollouts is learnt from, a
    thread collects the next.

    What :meth:`collect` hands out was collected by the policy that was given to it the time before, as it was then:
    one update old, in plain attributes and statistics too, and after a warm start by that of the warm start. The first
    rollout, and the first after a cut, are by the policy that is given with them. A module acts as a copy, which is
    only written while the thread waits; any other policy must not change.

    The thread is at work from :meth:`collect` until :meth:`episodes`, or any other method but :meth:`close`, has waited
    for it. What a loop does in between must not touch the environments, nor draw from a generator that they or the
    policy draw from: torch's global one, say, by an encoder's dropout. Then equal seeds give equal runs, and
    :meth:`state_dict` holds the rollout that lies ready, so that a resumed run equals the uninterrupted one.

    An error of the other source is raised by the next :meth:`collect`, :meth:`cut` or :meth:`state_dict`."""

    def __init__(self, source: Source) -> None:
        self.source, self.resumable = source, source.resumable
        self.pending: Future[Collected] | None = None
        self.told: list[Episode] = []
        self.actor: Actor | None = None
        self.tasks: Tasks = SimpleQueue()
        self.thread = Thread(target=_work, args=(self.tasks,), name="torchward-ahead", daemon=True)
        self.thread.start()
        # Also where nobody calls close: when this object is forgotten, and before the interpreter is taken down.
        self.end = weakref.finalize(self, _end, self.tasks, self.thread)

    def collect(self, policy: Policy, horizon: int | None) -> Rollout:
        """The rollout that was collected ahead; the next one is begun with ``policy`` as it is now.

        Raises ValueError for another ``horizon`` than the time before, and for a source that was closed."""
        if not self.end.alive:
            raise ValueError("expected a source that is open, got one that was closed")
        if self.pending is None:
            self._begin(policy, horizon)
        collected = self._meet()
        assert collected is not None
        self.resumable = self.source.resumable  # a curriculum's changes with its level
        if collected.horizon != horizon:
            raise ValueError(f"expected the horizon {collected.horizon} that was collected ahead, got {horizon}")
        self.told += collected.episodes
        self._begin(policy, horizon)
        return collected.rollout

    def _begin(self, policy: Policy, horizon: int | None) -> None:
        """Let the thread collect, by a copy of the policy as it is now."""
        acting = policy
        if isinstance(policy, nn.Module):
            if self.actor is None or self.actor.original is not policy:
                self.actor = Actor(policy)
            acting = self.actor.renewed()
        self.pending = Future()
        self.tasks.put((self.pending, partial(_collect, self.source, acting, horizon)))

    def _meet(self) -> Collected | None:
        """Wait for the thread; what it collected, or None where it was not asked to. Its error is raised once."""
        pending = self.pending
        if pending is None:
            return None
        if pending.exception() is not None:  # this waits
            self.pending = None
        return pending.result()

    def episodes(self) -> list[Episode]:
        """The episodes that ended in what was handed out since the last call. It waits for the thread, so that
        evaluations and checkpoints, which loops come to after this, have the process to themselves."""
        if self.pending is not None:
            self.pending.exception()
        told, self.told = self.told, []
        return told

    def cut(self) -> bool:
        """As the source does; where it ends its episodes, the rollout that lies ready is thrown away with them."""
        self._meet()
        cut = self.source.cut()
        if cut:
            self.pending = None
        return cut

    def state_dict(self) -> dict[str, Any]:
        ready = self._meet()
        return {"source": self.source.state_dict(), "ready": None if ready is None else _to_state(ready)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._meet()
        self.source.load_state_dict(state["source"])
        self.pending, self.told = None, []
        if state["ready"] is not None:
            self.pending = Future()
            self.pending.set_result(_from_state(state["ready"]))

    def close(self) -> None:
        """End the thread, and close the source; one that hangs in a step is left to the end of the process."""
        self.end()
        if not self.thread.is_alive():
            self.source.close()


class Actor:
    """A copy of a policy to act with, which is brought up to date in a few operations: parameters, buffers (so a
    normaliser's statistics), and numbers, strings and flags that modules have as plain attributes."""

    def __init__(self, original: nn.Module) -> None:
        self.original = original
        self.copy: Any = copy.deepcopy(original).requires_grad_(False)
        self.modules = list(zip(original.modules(), self.copy.modules(), strict=True))

    def renewed(self) -> Policy:
        """The copy, as the original is now."""
        leading: list[Tensor] = []  # looked up each time: a buffer may have been put in another's place
        following: list[Tensor] = []
        for own, other in self.modules:
            other.__dict__.update((name, value) for name, value in own.__dict__.items() if isinstance(value, PLAIN))
            for mine, theirs in ((own._parameters, other._parameters), (own._buffers, other._buffers)):
                for name, tensor in mine.items():
                    if tensor is not None and (copied := theirs[name]) is not None:
                        leading.append(tensor)
                        following.append(copied)
        if leading:
            follow(following, leading, 1.0)
        acting: Policy = self.copy
        return acting


def _collect(source: Source, policy: Policy, horizon: int | None) -> Collected:
    rollout = source.collect(policy, horizon)
    # In memory of its own, laid out as that of a checkpoint: sums and products round alike before and after one.
    owned = _each(lambda leaf: leaf.clone(memory_format=torch.contiguous_format), rollout)
    return Collected(owned, source.episodes(), horizon)


def _work(tasks: Tasks) -> None:
    """What the thread does until it is told None. While it waits it holds on to nothing."""
    while (task := tasks.get()) is not None:
        future, collect = task
        try:
            future.set_result(collect())
        except BaseException as error:
            future.set_exception(error)
        del task, future, collect


def _end(tasks: Tasks, thread: Thread) -> None:
    tasks.put(None)
    if thread is not current_thread():  # where the garbage is collected there
        thread.join(PATIENCE)


def _each(function: Callable[[Tensor], Tensor], thing: T) -> T:
    """A rollout with ``function`` applied to all its tensors."""
    changed: dict[str, Any] = {}
    for field in fields(thing):
        value = getattr(thing, field.name)
        if isinstance(value, Finals):
            changed[field.name] = _each(function, value)
        elif value is not None and not isinstance(value, bool):
            changed[field.name] = tree_map(function, value)
    return replace(thing, **changed)


def _to_state(ready: Collected) -> dict[str, Any]:
    finals = None if ready.rollout.finals is None else vars(ready.rollout.finals)
    return {
        "rollout": {**vars(ready.rollout), "finals": finals},
        "device": str(ready.rollout.reward.device),
        "episodes": [(episode.return_, episode.length) for episode in ready.episodes],
        "horizon": ready.horizon,
    }


def _from_state(state: dict[str, Any]) -> Collected:
    stored, device = state["rollout"], state["device"]
    finals = None if stored["finals"] is None else Finals(**stored["finals"])
    rollout = _each(lambda leaf: leaf.to(device), Rollout(**{**stored, "finals": finals}))
    return Collected(rollout, [Episode(*episode) for episode in state["episodes"]], state["horizon"])
