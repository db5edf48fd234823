"""Collecting ahead: who acts, what is told and when, that nothing differs from a plain source but the policy's age; and
that it goes on bit for bit, tells of errors, and ends."""

import gc
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from tests.envs.test_resume import WORLDS, Continuous, limited, same, through_disk
from tests.envs.worlds import KINDS, Walk, lively
from torchward.data import ahead
from torchward.data.ahead import Actor, Ahead
from torchward.data.protocols import Acted, Episode, Evaluated, Policy
from torchward.data.rollout import Rollout
from torchward.data.tree import Tree
from torchward.envs.collect import EnvSource
from torchward.envs.faults import WorldError
from torchward.envs.in_process import InProcess
from torchward.nets.deterministic_actor import DeterministicActor
from torchward.nets.q_network import QNet
from torchward.nets.q_policy import QPolicy
from torchward.nets.spaces import Box, Discrete


class Known(nn.Module):
    """A policy that is learnt by counting: a parameter, a statistic, and a number that a learner sets."""

    history = False

    def __init__(self) -> None:
        super().__init__()
        self.learnt = nn.Parameter(torch.zeros(1))
        self.inner = nn.BatchNorm1d(1)
        self.epsilon = 0.0

    def learn(self) -> None:
        with torch.no_grad():
            self.learnt.add_(1.0)
            self.mean().add_(10.0)
        self.epsilon += 100.0

    def mean(self) -> Tensor:
        assert isinstance(self.inner.running_mean, Tensor)
        return self.inner.running_mean

    def initial_state(self, batch: int) -> Tree:
        return ()

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        return ()

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        seen = self.learnt + self.mean() + self.epsilon
        return Acted(seen, seen, None, ())

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        return None

    def evaluate_actions(self, observation: Tree, action: Tree, state: Tree, boundary: Tensor) -> Evaluated:
        raise NotImplementedError


class Constant(Known):
    """Acts by one number for ever."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.epsilon = number


class Plain:
    """The same, no module."""

    history = False

    def __init__(self, number: float) -> None:
        self.inner = Constant(number).requires_grad_(False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Script:
    """A source of rollouts ``[1, horizon]`` that pay what the policy says. One episode ends in each of them."""

    resumable = True

    def __init__(self) -> None:
        self.count, self.closed, self.threads = 0, 0, set[str]()
        self.ended: list[Episode] = []
        self.gate: threading.Event | None = None

    def collect(self, policy: Policy, horizon: int | None) -> Rollout:
        self.threads.add(threading.current_thread().name)
        if self.gate is not None:
            assert self.gate.wait(60.0)
        if self.count == 5:
            self.count += 1
            self.trip()
        self.count += 1
        self.ended.append(Episode(float(self.count), 1))
        pays = policy.act((), (), None).log_prob
        assert not pays.requires_grad
        no, row = torch.zeros(1, horizon or 1, dtype=torch.bool), torch.zeros(1, horizon or 1)
        return Rollout(
            observation=row, action=row, log_prob=row, reward=row + pays, terminated=no, boundary=no, loss_mask=~no
        )

    def trip(self) -> None:
        raise WorldError("the sixth time")

    def episodes(self) -> list[Episode]:
        ended, self.ended = self.ended, []
        return ended

    def cut(self) -> bool:
        return not self.resumable

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def opened() -> Iterator[Callable[[Any], Ahead]]:
    sources: list[Ahead] = []

    def begin(source: Any) -> Ahead:
        sources.append(Ahead(source))
        return sources[-1]

    yield begin
    for source in sources:
        source.close()


Opened = Callable[[Any], Ahead]


def paid(rollout: Rollout) -> float:
    return float(rollout.reward[0, 0])


# Who acts


def test_the_actor_is_one_update_old(opened: Opened) -> None:
    """In its parameters, in its statistics, and in what a learner sets: each counts in another digit."""
    source, policy, acted = opened(Script()), Known(), []
    for _ in range(5):
        acted.append(paid(source.collect(policy, 1)))
        policy.learn()
        assert source.episodes() == [Episode(float(len(acted)), 1)]
    assert acted == [0.0, 0.0, 111.0, 222.0, 333.0]


def test_what_is_learnt_meanwhile_is_not_seen(opened: Opened) -> None:
    """The thread stands before its first step until the update is over: so the two do overlap, and do not mix."""
    script = Script()
    source, policy = opened(script), Known()
    source.collect(policy, 1)
    for update in range(3):
        source.episodes()
        script.gate = threading.Event()
        source.collect(policy, 1)
        assert source.pending is not None and not source.pending.done()
        policy.learn()
        script.gate.set()
        assert source.pending.result().rollout.reward.tolist() == [[111.0 * update]]
    assert script.threads == {"torchward-ahead"}


@pytest.mark.parametrize("kind", [Constant, Plain])
def test_another_policy_takes_over_a_rollout_later(kind: Any, opened: Opened) -> None:
    source, warm, policy = opened(Script()), kind(7.0), Constant(8.0)
    given = [warm, warm, policy, policy]
    assert [paid(source.collect(each, 1)) for each in given] == [7.0, 7.0, 7.0, 8.0]


def test_a_policy_that_offers_arrays_offers_those_of_the_copy() -> None:
    """The original has worked out where its own lie before it is copied."""
    torch.manual_seed(0)
    policy = QPolicy(Box((3,)), Discrete(4), QNet(net_arch=(16,)))
    noise = policy.noise((1, 5), Generator().manual_seed(0))
    seen = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    before = policy.in_arrays(noise, 5)(0, seen)[0]
    actor = Actor(policy)
    choose = actor.renewed().in_arrays(noise, 5)  # type: ignore[attr-defined]
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.neg_()
    after = policy.in_arrays(noise, 5)(0, seen)[0]
    assert (before != after).any()
    assert (choose(0, seen)[0] == before).all()
    actor.renewed()
    assert (choose(0, seen)[0] == after).all()


def test_nothing_of_the_copy_lies_where_the_policy_does() -> None:
    policy = DeterministicActor(Box((3,)), Box((2,), -1.0, 1.0))
    policy.noise_std, policy.body.training = 0.5, False
    copy: Any = Actor(policy).renewed()
    assert copy.noise_std == 0.5 and not copy.body.training and copy.training
    own, other = ({t.data_ptr() for t in each.state_dict().values()} for each in (policy, copy))
    assert not own & other
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert all(parameter.requires_grad for parameter in policy.parameters())


# What is collected


@pytest.mark.parametrize("cell", ["none", "lstm"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_that_never_changes_collects_what_it_would_without(kind: str, cell: str, opened: Opened) -> None:
    def begun() -> EnvSource:
        return EnvSource(KINDS[kind](Walk, 3, False), 1)

    plain, source = begun(), opened(begun())
    policy = lively(plain.worlds.observation_space, plain.worlds.action_space, cell)
    for _ in range(6):
        expected = plain.collect(policy, 7)
        assert same(source.collect(policy, 7), expected)
        assert source.episodes() == plain.episodes()
    plain.close()


def test_whole_episodes_are_collected_too(opened: Opened) -> None:
    plain, other = (EnvSource(KINDS["in process"](Walk, 3, False), 1) for _ in range(2))
    source, policy = opened(other), lively(plain.worlds.observation_space, plain.worlds.action_space)
    for _ in range(3):
        assert same(source.collect(policy, None), plain.collect(policy, None))
        assert source.episodes() == plain.episodes()


def test_the_horizon_is_known_ahead(opened: Opened) -> None:
    source, policy = opened(Script()), Known()
    source.collect(policy, 2)
    with pytest.raises(ValueError, match="the horizon 2 that was collected ahead, got 3"):
        source.collect(policy, 3)
    assert source.collect(policy, 2).reward.shape == (1, 2)


# To go on


@pytest.mark.parametrize(
    ("name", "cell"),
    [(name, cell) for name in WORLDS for cell in ("none", "lstm") if cell == "none" or "processes" not in name],
)
def test_it_goes_on_bit_for_bit(name: str, cell: str, tmp_path: Path, opened: Opened) -> None:
    one, other = opened(EnvSource(WORLDS[name](), 3)), opened(EnvSource(WORLDS[name](), 5))
    assert one.resumable and isinstance(one.source, EnvSource)
    policy = lively(one.source.worlds.observation_space, one.source.worlds.action_space, cell)
    for count in (0, 1, 4):
        for _ in range(count):
            one.collect(policy, 9)
            one.episodes()
        assert not one.cut()
        other.load_state_dict(through_disk(one.state_dict(), tmp_path / str(count)))
        for _ in range(3):
            ours, theirs = one.collect(policy, 9), other.collect(policy, 9)
            assert same(ours, theirs)
            assert ours.reward.stride() == theirs.reward.stride()
            told = one.episodes()
            assert told == other.episodes() and len(told) == int((ours.boundary & ours.loss_mask).sum())


def test_what_lay_ready_is_thrown_away_where_episodes_are_cut(tmp_path: Path, opened: Opened) -> None:
    def begun() -> EnvSource:
        source = EnvSource(InProcess("uncertain", [limited(Continuous, 15) for _ in range(2)]), 1)
        source.resumable = False  # as if its registration said so
        return source

    one, other = opened(begun()), opened(begun())
    assert not one.resumable and isinstance(one.source, EnvSource)
    policy = lively(one.source.worlds.observation_space, one.source.worlds.action_space)
    for checkpoint in range(3):
        for _ in range(2):
            one.collect(policy, 10)
            one.episodes()
        assert one.cut()
        other.load_state_dict(through_disk(one.state_dict(), tmp_path / str(checkpoint)))
        following = one.collect(policy, 10)
        assert same(other.collect(policy, 10), following)
        assert one.episodes() == other.episodes()
        assert isinstance(one.source.worlds, InProcess)
        first: Any = one.source.worlds.reset(one.source.worlds.past.seed)
        begun_with: Any = following.observation
        assert (begun_with["a"][:, 0].numpy() == first["a"]).all()
        one.cut()


# Errors, and the end


@pytest.mark.parametrize("verb", ["collect", "cut", "state_dict"])
def test_an_error_is_told_with_where_it_was(verb: str, opened: Opened) -> None:
    source, policy = opened(Script()), Known()
    verbs: dict[str, Callable[[], Any]] = {
        "collect": lambda: source.collect(policy, 1), "cut": source.cut, "state_dict": source.state_dict
    }  # fmt: skip
    for _ in range(5):
        source.collect(policy, 1)
        assert len(source.episodes()) == 1  # also where the next one has failed: it was not asked for yet
    with pytest.raises(WorldError, match="the sixth time") as caught:
        verbs[verb]()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names.index(verb) < names.index("_work") < names.index("trip")
    assert source.state_dict()["ready"] is None  # it is told once, and the source stands where it failed
    assert paid(source.collect(policy, 1)) == 0.0


def test_an_environment_that_raises_is_named(opened: Opened) -> None:
    class Faulty(gym.Env[Any, Any]):
        observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)
        time = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            return np.zeros(1, np.float32), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            self.time += 1
            return np.zeros(1, np.float32), 0.0 if self.time < 12 else float("nan"), False, False, {}

    source = opened(EnvSource(InProcess("Faulty", [Faulty()]), 0))
    policy = QPolicy(Box((1,)), Discrete(2))
    source.collect(policy, 5)
    source.collect(policy, 5)
    with pytest.raises(WorldError, match="Faulty returned NaN or infinity as reward at step 11"):
        source.collect(policy, 5)


def test_closing_ends_the_thread_and_closes_once() -> None:
    script = Script()
    source = Ahead(script)
    source.collect(Known(), 1)
    assert source.thread.is_alive()
    source.close()
    assert not source.thread.is_alive() and script.closed == 1
    with pytest.raises(ValueError, match="got one that was closed"):
        source.collect(Known(), 1)


def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "PATIENCE", 0.05)
    script, policy = Script(), Known()
    source = Ahead(script)
    source.collect(policy, 1)
    source.episodes()
    script.gate = threading.Event()
    source.collect(policy, 1)
    source.close()
    assert source.thread.is_alive() and script.closed == 0
    script.gate.set()
    source.thread.join(60.0)
    assert not source.thread.is_alive()


def test_what_is_forgotten_leaves_no_thread() -> None:
    script = Script()
    source = Ahead(script)
    source.collect(Known(), 1)
    thread, gone = source.thread, weakref.ref(script)
    del source, script
    gc.collect()
    assert not thread.is_alive() and gone() is None


class Drifting(torch.nn.Module):
    """Its buffer is another tensor after each step, and its temperature may go out."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))
        self.temperature: float | None = 0.3


def test_a_buffer_that_was_replaced_and_a_number_that_is_none_are_seen() -> None:
    original = Drifting()
    actor = Actor(original)
    original.mean, original.temperature = torch.full((1,), 5.0), None
    copied: Any = actor.renewed()
    assert float(copied.mean) == 5.0 and copied.temperature is None
    original.mean = original.mean + 1.0
    assert float(actor.renewed().mean) == 6.0  # type: ignore[attr-defined]
