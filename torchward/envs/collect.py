"""Worlds x policy -> Rollout: the source of experience of control."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from torchward.data.protocols import Episode, Policy
from torchward.data.rollout import Finals, Rollout, concatenate
from torchward.data.tree import Tree, replace_rows, tree_map
from torchward.envs import spaces as sp
from torchward.envs.acting import acting
from torchward.envs.faults import WorldError
from torchward.envs.spaces import Arrays
from torchward.envs.worlds import Step, Worlds, episode_seed
from torchward.nets import spaces

EPISODE_BLOCK = 64
"""Steps between two looks at whether every world has ended its episode."""
EPISODE_LIMIT = 1_000_000
"""Steps after which an episode is taken to have no end."""


class _Final(NamedTuple):
    """Where worlds ended and have begun anew within one step."""

    time: int
    where: NDArray[Any]
    observation: Tree
    value: Tensor | None


class EnvSource:
    """A :class:`~torchward.data.protocols.Source` that steps worlds with a policy.

    Every rollout is ``[n, horizon]`` and goes on where the last one stopped. All of a rollout's randomness is drawn
    before it begins. The values of a policy without history are computed for all steps at once, after the last."""

    def __init__(self, worlds: Worlds, seed: int, device: str | torch.device = "cpu") -> None:
        self.worlds = worlds
        self.seed = seed
        self.device = torch.device(device)
        self.resumable = worlds.resumable
        self.generator = Generator(self.device).manual_seed(episode_seed(seed, worlds.n, 0))
        self.cuts = 0
        self.steps = 0
        self.state: Tree | None = None
        self._begin(worlds.reset(episode_seed(seed, 0, 0)))

    def _begin(self, observation: Arrays) -> None:
        self.observation = observation
        self.returns = np.zeros(self.worlds.n, np.float64)
        self.lengths = np.zeros(self.worlds.n, np.int64)
        self.finished: list[Episode] = []

    def collect(self, policy: Policy, horizon: int | None) -> Rollout:
        """The next ``horizon`` steps of every world; None: one whole episode in each, begun anew.

        Raises :class:`WorldError`, with the environment's name and the step, if it raises, returns NaN, or gives a mask
        that forbids all that could be done on an observation other than an episode's last."""
        return self._whole_episodes(policy) if horizon is None else self._steps(policy, horizon)

    def _whole_episodes(self, policy: Policy) -> Rollout:
        """Worlds that end early step on until the last one does; those steps are padding, and enter no statistics."""
        self._anew()
        pieces: list[Rollout] = []
        over = torch.zeros(self.worlds.n, 1, dtype=torch.bool, device=self.device)
        while not over.all():
            if len(pieces) * EPISODE_BLOCK >= EPISODE_LIMIT:
                raise WorldError(
                    f"{self.worlds.name} ended no episode within {EPISODE_LIMIT} steps; set max_episode_steps"
                )
            piece = self._steps(policy, EPISODE_BLOCK)
            before = piece.boundary.cumsum(1) - piece.boundary.long() > 0
            pieces.append(replace(piece, loss_mask=piece.loss_mask & ~before & ~over))
            over = over | piece.boundary.any(1, keepdim=True)
        rollout = replace(concatenate(pieces), begun_anew=True)
        rewards = torch.where(rollout.loss_mask, rollout.reward, 0.0).double().sum(1).tolist()
        lengths = rollout.loss_mask.sum(1).tolist()
        self.finished = [Episode(reward, length) for reward, length in zip(rewards, lengths, strict=True)]
        return rollout

    @torch.no_grad()
    def _steps(self, policy: Policy, horizon: int) -> Rollout:
        worlds, n, lead = self.worlds, self.worlds.n, (horizon, self.worlds.n)
        seen = sp.empty(worlds.observation_space, lead)
        reward = np.zeros(lead, np.float32)
        terminated, truncated, reset = np.zeros(lead, bool), np.zeros(lead, bool), np.zeros(lead, bool)
        start = self.state = policy.initial_state(n) if self.state is None else self.state
        act = acting(policy, worlds.action_space, seen, lead, start, self.generator)
        finals: list[_Final] = []
        with torch.inference_mode():  # a quarter off the time of a small network's operations
            for t in range(horizon):
                sp.put(seen, t, self.observation)
                action = act.act(t)
                try:
                    step = worlds.step(action)
                except WorldError as error:
                    self._refuse_nan("observation", sp.take(seen, slice(t + 1)))  # on which a policy acts as it may
                    # Whether this row only shows where an episode ended is said by the step that has failed.
                    running = np.concatenate([~reset[:t], ~(terminated | truncated)[max(t - 1, 0) : t]])
                    self._refuse_empty_masks(sp.take(seen, slice(len(running))), running)
                    raise WorldError(f"{error} (at step {self.steps + t * n})") from error
                reward[t], terminated[t], truncated[t], reset[t] = (
                    step.reward,
                    step.terminated,
                    step.truncated,
                    step.reset,
                )
                self.observation = step.observation
                if step.final is not None:
                    finals.append(self._final(policy, t, step, act.state))
                if policy.history:
                    # A world that resets itself within the next step shows its final observation first: state lives on.
                    fresh = step.reset if step.final is None else step.terminated | step.truncated | step.reset
                    if fresh.any():
                        act.state = replace_rows(act.state, torch.from_numpy(fresh), policy.initial_state(n))
        self.state = state = tree_map(torch.clone, act.state)  # inference's own tensors cannot be learnt from
        self._refuse_nan("reward", reward)
        self._refuse_nan("observation", seen)
        self._refuse_nan("observation", sp.take(self.observation, None), horizon)
        self._refuse_empty_masks(seen, ~reset)
        self._account(reward, terminated | truncated, ~reset)
        observation = self._to_device(sp.tensors(seen))
        last, ends = self._to_device(sp.tensors(self.observation)), self._ends(finals)
        value, next_value = self._values(policy, observation, act.values, last, state, finals, ends)
        return Rollout(
            observation=tree_map(_batch_first, observation),
            action=act.action(),
            log_prob=act.log_prob(),
            reward=self._rows(reward),
            terminated=self._rows(terminated),
            boundary=self._rows(terminated | truncated | reset),
            loss_mask=self._rows(~reset),
            value=None if value is None else _batch_first(value),
            next_value=None if next_value is None else _batch_first(next_value),
            context={"state": start} if policy.history else {},
            last=tree_map(torch.clone, last),  # worlds may write their next observations over it
            finals=ends,
        )

    def _final(self, policy: Policy, t: int, step: Step, state: Tree) -> _Final:
        """The observations in which worlds ended at step ``t``, and, while its state is at hand, a policy's values."""
        assert step.final is not None
        where = np.flatnonzero(step.terminated | step.truncated)
        final = sp.take(step.final, where)
        self._refuse_nan("final observation", sp.take(final, None), t)
        observation = self._to_device(sp.tensors(final))
        before = tree_map(lambda leaf: leaf[where], state) if policy.history else ()
        return _Final(t, where, observation, policy.value(observation, before) if policy.history else None)

    def _ends(self, finals: list[_Final]) -> Finals | None:
        """All ends of a rollout in one."""
        if not finals:
            return None
        row = np.concatenate([final.where for final in finals])
        time = np.repeat(np.array([final.time for final in finals], np.int64), [len(final.where) for final in finals])
        observation = tree_map(lambda *leaves: torch.cat(leaves), *(final.observation for final in finals))
        return Finals(torch.from_numpy(row).to(self.device), torch.from_numpy(time).to(self.device), observation)

    def _values(
        self,
        policy: Policy,
        observation: Tree,
        acted: list[Tensor | None],
        last: Tree,
        state: Tree,
        finals: list[_Final],
        ends: Finals | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Values ``[T, n]`` of what was seen, and of what truly came next."""
        last_value = policy.value(last, state)
        if last_value is None:
            return None, None
        if policy.history:
            value = torch.stack([v for v in acted if v is not None])
        else:
            every = policy.value(self._to_device(observation), ())
            assert every is not None
            value = every
        next_value = torch.cat([value[1:], last_value[None]])
        if ends is not None:
            if policy.history:
                final_value = torch.cat([final.value for final in finals if final.value is not None])
            else:
                joined = policy.value(ends.observation, ())
                assert joined is not None
                final_value = joined
            next_value[ends.time, ends.row] = final_value
        return value, next_value

    def _account(self, reward: NDArray[Any], ended: NDArray[Any], chosen: NDArray[Any]) -> None:
        """Note the episodes that ended: the sums of ``reward`` ``[T, n]`` and of ``chosen`` since they began."""
        self.steps += int(chosen.sum())
        if not ended.any():
            self.returns += reward.sum(0, np.float64)
            self.lengths += chosen.sum(0)
            return
        rewards, steps = reward.cumsum(0, np.float64), chosen.cumsum(0)
        for t, i in np.argwhere(ended):
            self.finished.append(Episode(float(self.returns[i] + rewards[t, i]), int(self.lengths[i] + steps[t, i])))
            self.returns[i], self.lengths[i] = -rewards[t, i], -steps[t, i]
        self.returns += rewards[-1]
        self.lengths += steps[-1]

    def _rows(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array.T).to(self.device)

    def _refuse_nan(self, what: str, arrays: Arrays, begin: int = 0) -> None:
        """Raise where ``arrays`` ``[T, n, ...]``, which begin at the rollout's step ``begin``, are not finite."""
        for array in sp.leaves(arrays):
            if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
                step = self.steps + (begin + int(np.argwhere(~finite)[0][0])) * self.worlds.n
                raise WorldError(
                    f"{self.worlds.name} returned NaN or infinity as {what} at step {step}; nothing was learnt from it"
                )

    def _refuse_empty_masks(self, seen: Arrays, running: NDArray[Any]) -> None:
        """Raise where the mask of an observation ``[T, n, ...]``, of those that were acted on (``running`` ``[T, n]``),
        forbids every action, or every one of a part."""
        if not isinstance(seen, dict) or spaces.MASK not in seen:
            return
        for part, allowed in sp.choosable(self.worlds.action_space, seen[spaces.MASK]):
            if (stuck := running & ~allowed).any():
                t, world = np.argwhere(stuck)[0]
                raise WorldError(
                    f"expected {self.worlds.name} to allow an action wherever one follows, got an action_mask that "
                    f"forbids every one{part} in world {world} at step {self.steps + int(t) * self.worlds.n}; end the "
                    "episode there, or allow one that does nothing"
                )

    def _to_device(self, tree: Tree) -> Tree:
        return tree if self.device.type == "cpu" else tree_map(lambda leaf: leaf.to(self.device), tree)

    def episodes(self) -> list[Episode]:
        finished, self.finished = self.finished, []
        return finished

    def cut(self) -> bool:
        """Begin every world anew if they cannot be brought back; their running episodes enter no statistics."""
        if not self.resumable:
            finished = self.finished
            self._anew()
            self.finished = finished
        return not self.resumable

    def _anew(self) -> None:
        self.cuts += 1
        self._begin(self.worlds.reset(episode_seed(self.seed, 0, self.cuts)))
        self.state = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "cuts": self.cuts,
            "steps": self.steps,
            "generator": self.generator.get_state(),
            "worlds": self.worlds.state_dict() if self.resumable else None,
            "policy_state": self.state,
            "returns": self.returns.copy(),
            "lengths": self.lengths.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cuts, self.steps = int(state["cuts"]), int(state["steps"])
        self.generator.set_state(state["generator"])
        if self.resumable and state["worlds"] is not None:  # None: what saved them had to cut them
            self._begin(self.worlds.load_state_dict(state["worlds"]))
            self.returns, self.lengths = np.array(state["returns"]), np.array(state["lengths"])
            stood = state["policy_state"]
            self.state = None if stood is None else self._to_device(stood)
        else:
            self._begin(self.worlds.reset(episode_seed(self.seed, 0, self.cuts)))

    def close(self) -> None:
        self.worlds.close()


def device_of(policy: Policy) -> torch.device:
    """Where a policy's tensors lie; the CPU for one that has none."""
    tensors = [*policy.parameters(), *policy.buffers()] if isinstance(policy, torch.nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")


def _batch_first(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1)
