"""Worlds to rollouts: whatever steps them and however they reset themselves, the same rows, values and advantages."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from torch import Tensor

from tests.envs.worlds import KINDS, LIMIT, Row, Walk, always_the_mode, close, lively, rows, walk_start, walk_step
from tests.nets.examples import equal, leaf
from torchward.data.protocols import Episode
from torchward.data.rollout import Rollout, concatenate
from torchward.envs.collect import EnvSource
from torchward.envs.native import Native
from torchward.envs.worlds import Worlds
from torchward.functional.advantages import gae

N, HORIZONS = 3, (7, 1, 12, 20)
CELLS = ["none", "lstm", "gru"]


def collected(
    kind: str, cell: str, horizons: tuple[int, ...] = HORIZONS
) -> tuple[list[Rollout], list[Episode], Worlds]:
    worlds = KINDS[kind](Walk, N, False)
    source = EnvSource(worlds, seed=0)
    policy = always_the_mode(lively(worlds.observation_space, worlds.action_space, cell))
    rollouts = [source.collect(policy, horizon) for horizon in horizons]
    finished = source.episodes()
    assert source.episodes() == []
    source.close()
    return rollouts, finished, worlds


@pytest.fixture(scope="module", params=CELLS)
def expected(request: Any) -> Iterator[tuple[str, list[list[Row]]]]:
    """Every world alone, played by hand: episode after episode, step after step, with values where they belong."""
    worlds = KINDS["in process"](Walk, 1, False)
    policy = always_the_mode(lively(worlds.observation_space, worlds.action_space, request.param))
    yield request.param, [list(by_hand(policy, world, sum(HORIZONS))) for world in range(N)]


@torch.no_grad()
def by_hand(policy: Any, world: int, steps: int) -> Iterator[Row]:
    episode = 0
    while steps > 0:
        position, state = walk_start(world, episode), policy.initial_state(1)
        for time in range(LIMIT):
            seen = torch.tensor([[position, time / LIMIT]])
            value = policy.value(seen, state)
            acted = policy.act(seen, state, None)
            state = acted.state
            position, reward, terminated, truncated = walk_step(position, time, int(acted.action))
            following = policy.value(torch.tensor([[position, (time + 1) / LIMIT]]), state)
            facts = torch.tensor(reward), torch.tensor(terminated), torch.tensor(terminated or truncated)
            yield Row(seen[0], acted.action[0], acted.log_prob[0], *facts, value[0], following[0])
            steps -= 1
            if terminated or truncated:
                break
        episode += 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_rows_played_by_hand(kind: str, expected: tuple[str, list[list[Row]]]) -> None:
    """Also that a recurrent policy judges a final observation with the state before the reset, then begins anew."""
    cell, by_world = expected
    rollouts, _, _ = collected(kind, cell)
    for world in range(N):
        got = rows(rollouts, world)
        resets = sum(int((~rollout.loss_mask[world]).sum()) for rollout in rollouts)
        assert len(got) == sum(HORIZONS) - resets and (resets > 0) == (kind == "next step")
        for t, (row, by_hand) in enumerate(zip(got, by_world[world], strict=False)):
            assert close(row, by_hand), (t, row, by_hand)


def test_the_rows_hold_every_kind_of_end(expected: tuple[str, list[list[Row]]]) -> None:
    """Ends, time limits, and values in between: or the test above would show little."""
    _, by_world = expected
    every = [row for world in by_world for row in world]
    ends = {(bool(row.terminated), bool(row.boundary)) for row in every}
    assert ends == {(False, False), (False, True), (True, True)}
    assert len({int(leaf(row.action)) for row in every}) == 2
    assert float(torch.stack([row.next_value for row in every]).std()) > 0.1


@pytest.mark.parametrize("cell", ["none", "lstm"])
def test_advantages_agree_in_every_mode(cell: str) -> None:
    """On the episodes that ended within the rollout, whose advantages need nothing from beyond it."""
    found: dict[str, list[list[float]]] = {}
    for kind in KINDS:
        (rollout,), _, _ = collected(kind, cell, (40,))
        assert rollout.value is not None and rollout.next_value is not None
        advantage = gae(
            rollout.reward, rollout.value, rollout.next_value, rollout.terminated, rollout.boundary, 0.9, 0.8
        )
        found[kind] = []
        for world in range(N):
            last = int(torch.nonzero(rollout.boundary[world] & rollout.loss_mask[world])[-1])
            found[kind].append(advantage[world, : last + 1][rollout.loss_mask[world, : last + 1]].tolist())
    for kind in KINDS:
        for world in range(N):
            length = min(len(found[kind][world]), len(found["in process"][world]))
            assert length >= 25
            assert found[kind][world][:length] == pytest.approx(found["in process"][world][:length], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_rows_are_marked_and_everything_else_is_not(kind: str) -> None:
    (rollout,), _, worlds = collected(kind, "none", (30,))
    reset = ~rollout.loss_mask
    if kind != "next step":
        assert not reset.any()
        return
    assert rollout.boundary[reset].all() and not rollout.reward[reset].any() and not rollout.terminated[reset].any()
    before = reset[:, 1:]
    assert rollout.boundary[:, :-1][before].all()  # the last step that was chosen is a boundary too
    ended = rollout.boundary & ~reset
    assert torch.equal(ended[:, :-1], before)
    assert rollout.next_value is not None and rollout.value is not None
    assert torch.equal(rollout.next_value[:, :-1][before], rollout.value[:, 1:][before])
    assert rollout.steps == int((~reset).sum()) and worlds.n == N


@pytest.mark.parametrize("kind", KINDS)
def test_what_truly_came_next_is_at_hand(kind: str, expected: tuple[str, list[list[Row]]]) -> None:
    """The next row; or the observation after the last row; or the one among finals, which no reset row shows."""
    cell, by_world = expected
    rollouts, _, _ = collected(kind, cell)
    kept = {world: iter(by_world[world]) for world in range(N)}
    named = 0
    for rollout in rollouts:
        assert rollout.last is not None and (rollout.finals is None or kind != "next step")
        shown = torch.cat([leaf(rollout.observation), leaf(rollout.last)[:, None]], 1)
        for world in range(N):
            for t in torch.nonzero(rollout.loss_mask[world]).flatten().tolist():
                following = shown[world, t + 1]
                if rollout.finals is not None:
                    here = (rollout.finals.row == world) & (rollout.finals.time == t)
                    assert int(here.sum()) == int(rollout.boundary[world, t])
                    if here.any():
                        named, following = named + 1, leaf(rollout.finals.observation)[here][0]
                position, time = leaf(next(kept[world]).observation).tolist()
                action = int(leaf(rollout.action)[world, t])
                assert following.tolist() == pytest.approx(
                    [walk_step(position, round(time * LIMIT), action)[0], time + 1 / LIMIT]
                )
    assert (named > 5) == (kind != "next step")


def test_what_comes_next_is_joined_with_the_rows() -> None:
    """The same steps in one rollout and in four that are joined: also where worlds write over their observations."""
    for kind in KINDS:
        (one,), (*four,) = collected(kind, "none", (40,))[0], collected(kind, "none", HORIZONS)[0]
        joined = concatenate(four)
        assert equal(joined.observation, one.observation)
        assert one.last is not None and joined.last is not None and equal(joined.last, one.last)
        if one.finals is None:
            assert kind == "next step" and joined.finals is None
        else:
            assert joined.finals is not None and equal(joined.finals.observation, one.finals.observation)
            assert torch.equal(joined.finals.row, one.finals.row) and torch.equal(joined.finals.time, one.finals.time)


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_are_those_that_ended(kind: str, expected: tuple[str, list[list[Row]]]) -> None:
    cell, by_world = expected
    rollouts, finished, _ = collected(kind, cell)
    wanted = []
    for world in range(N):
        total, length = 0.0, 0
        for row in by_world[world][: len(rows(rollouts, world))]:
            total, length = total + float(row.reward), length + 1
            if row.boundary:
                wanted.append((round(total, 3), length))
                total, length = 0.0, 0
    assert sorted((round(episode.return_, 3), episode.length) for episode in finished) == sorted(wanted)


@pytest.mark.parametrize("kind", ["in process", "next step", "same step", "disabled"])
@pytest.mark.parametrize("cell", ["none", "lstm"])
def test_one_whole_episode_of_each_world(kind: str, cell: str) -> None:
    worlds = KINDS[kind](Walk, N, False)
    source = EnvSource(worlds, seed=0)
    policy = always_the_mode(lively(worlds.observation_space, worlds.action_space, cell))
    source.collect(policy, 5)
    source.episodes()
    rollout = source.collect(policy, None)
    episodes = source.episodes()
    assert len(episodes) == N
    for world, episode in enumerate(episodes):
        chosen = rollout.loss_mask[world]
        length = int(chosen.sum())
        assert chosen[:length].all() and rollout.boundary[world, length - 1]
        assert not rollout.boundary[world, : length - 1].any()
        assert leaf(rollout.observation)[world, 0, 1] == 0
        assert episode.length == length
        assert episode.return_ == pytest.approx(float(rollout.reward[world, :length].sum()), abs=1e-4)
    assert rollout.value is not None and rollout.value.shape == rollout.reward.shape


def test_a_policy_without_a_critic_has_no_values() -> None:
    from torchward.nets.actor_critic import ActorCritic, Network

    for network in (Network(), Network(recurrent="lstm")):
        worlds = KINDS["in process"](Walk, N, False)
        policy = ActorCritic(worlds.observation_space, worlds.action_space, network, critic=False)
        rollout = EnvSource(worlds, 0).collect(policy, 10)
        assert rollout.value is None and rollout.next_value is None


@pytest.mark.parametrize("kind", ["in process", "next step"])
def test_a_state_begins_anew_as_the_policy_says(kind: str) -> None:
    """initial_state need not be zeros: here it is 5, and each step adds 1."""
    from torchward.data.protocols import Acted

    class Counts:
        history = True

        def __init__(self, inner: Any) -> None:
            self.inner = inner
            self.noise = inner.noise

        def initial_state(self, batch: int) -> Tensor:
            return torch.full((batch,), 5.0)

        def act(self, observation: Any, state: Any, noise: Any) -> Acted:
            acted = self.inner.act(observation, (), noise)
            return Acted(acted.action, acted.log_prob, state.clone(), state + 1)

        def value(self, observation: Any, state: Any) -> Tensor:
            return torch.as_tensor(state)

    worlds = KINDS[kind](Walk, N, False)
    policy: Any = Counts(lively(worlds.observation_space, worlds.action_space))
    rollout = EnvSource(worlds, 0).collect(policy, 30)
    for world in range(N):
        time = 0
        for row in rows([rollout], world):
            assert row.value == 5 + time and row.next_value == 6 + time
            time = 0 if row.boundary else time + 1


def test_what_was_seen_last_stays_when_worlds_write_over_it() -> None:
    vector = SyncVectorEnv([partial(Walk, i) for i in range(N)], copy=False)
    source = EnvSource(Native("walk", vector), seed=0)
    policy = lively(source.worlds.observation_space, source.worlds.action_space)
    first, second = source.collect(policy, 3), source.collect(policy, 3)
    assert first.last is not None and torch.equal(leaf(first.last), leaf(second.observation)[:, 0])


def test_one_seed_one_rollout() -> None:
    def rollout(seed: int) -> Rollout:
        import gymnasium as gym

        from torchward.envs.in_process import InProcess

        worlds = InProcess("CartPole-v1", [gym.make("CartPole-v1") for _ in range(2)])
        return EnvSource(worlds, seed).collect(lively(worlds.observation_space, worlds.action_space), 50)

    first, again, other = rollout(0), rollout(0), rollout(1)
    for name in ("observation", "action", "log_prob", "value"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    assert not torch.equal(*leaf(first.observation))
