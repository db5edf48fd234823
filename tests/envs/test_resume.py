"""Worlds go on bit for bit from what they saved; or end their episodes at every checkpoint; or say that they cannot."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

from tests.envs.worlds import Walk, lively
from tests.nets.examples import equal, leaf
from torchward.checkpoint import load_tree, save_tree
from torchward.data.rollout import Finals, Rollout
from torchward.envs import spaces as sp
from torchward.envs.collect import EnvSource
from torchward.envs.faults import WorldError
from torchward.envs.in_process import InProcess
from torchward.envs.make import EnvOptions, make
from torchward.envs.native import Native
from torchward.envs.processes import Processes
from torchward.envs.worlds import Worlds


class Dice(gym.Env[Any, Any]):
    """Not determined by its seed: its dice are its own. But it can say where they stand."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.dice = np.random.default_rng()
        self.total = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.total = float(self.dice.normal())
        return self.see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.total += float(self.dice.normal()) + float(action)
        return self.see(), self.total, abs(self.total) > 6, False, {}

    def see(self) -> Any:
        return np.array([self.total, self.dice.bit_generator.state["state"]["state"] % 7], np.float32)


class SavedDice(Dice):
    def state_dict(self) -> dict[str, Any]:
        return {"dice": self.dice.bit_generator.state, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dice.bit_generator.state = state["dice"]
        self.total = state["total"]


class Continuous(gym.Env[Any, Any]):
    """Deterministic, with nested observations and actions, which it spoils."""

    observation_space = gym.spaces.Dict(a=gym.spaces.Box(-1, 1, (2,)), b=gym.spaces.Discrete(4, start=1))
    action_space = gym.spaces.Tuple((gym.spaces.Box(-np.inf, np.inf, (2,)), gym.spaces.Discrete(3)))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=2).clip(-1, 1)
        return self.see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        force, gear = action
        force *= 0.1  # in place: the action is the environment's own
        self.place = (self.place + force + 0.1 * self.np_random.normal(size=2)).clip(-1, 1)
        return self.see(), float(self.place.sum() * gear), bool(self.np_random.random() < 0.1), False, {}

    def see(self) -> Any:
        return {"a": self.place.astype(np.float32), "b": 1 + int(10 * abs(self.place[0])) % 4}


class SavedVector(SyncVectorEnv):
    """A vector that can say its state."""

    def state_dict(self) -> dict[str, Any]:
        states = [env.state_dict() for env in self.envs]  # type: ignore[attr-defined]
        return {"envs": states, "auto": self._autoreset_envs.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for env, inner in zip(self.envs, state["envs"], strict=True):
            env.load_state_dict(inner)  # type: ignore[attr-defined]
        self._autoreset_envs = np.array(state["auto"])


def limited(make: Callable[[], Any], steps: int) -> Any:
    return gym.wrappers.TimeLimit(make(), steps)


N = 4
WORLDS: dict[str, Callable[[], Worlds]] = {
    "CartPole, native": lambda: make("CartPole-v1", N),
    "CartPole": lambda: make("CartPole-v1", N, EnvOptions(vectorization="sync")),
    "CartPole in processes": lambda: make("CartPole-v1", 3, EnvOptions(vectorization="async")),
    "LunarLander": lambda: make("LunarLander-v3", 2, EnvOptions(vectorization="sync")),
    "nested": lambda: InProcess("nested", [Continuous() for _ in range(N)]),
    "nested in processes": lambda: Processes("nested", [Continuous] * 2),
    "with a state of its own": lambda: InProcess("dice", [limited(SavedDice, 9) for _ in range(N)]),
    "a vector with a state": lambda: Native("dice", SavedVector([SavedDice] * N)),
}


def through_disk(state: Any, path: Path) -> Any:
    save_tree(path, state)
    return load_tree(path)


def same(left: Rollout | Finals, right: Rollout | Finals) -> bool:
    pairs = ((getattr(left, f.name), getattr(right, f.name)) for f in fields(left))
    there = ((a, b) for a, b in pairs if a is not None)
    return all(
        same(a, b) if isinstance(a, Finals) else a is b if isinstance(a, bool) else equal(a, b) for a, b in there
    )


@pytest.fixture
def opened() -> Iterator[Callable[..., EnvSource]]:
    sources: list[EnvSource] = []

    def make(worlds: Worlds, seed: int = 0) -> EnvSource:
        sources.append(EnvSource(worlds, seed))
        return sources[-1]

    yield make
    for source in sources:
        source.close()


@pytest.mark.parametrize(
    ("name", "cell"),  # processes take long to start, and do not see the policy
    [(name, cell) for name in WORLDS for cell in ("none", "lstm") if cell == "none" or "processes" not in name],
)
def test_a_source_goes_on_bit_for_bit(name: str, cell: str, tmp_path: Path, opened: Callable[..., EnvSource]) -> None:
    one = opened(WORLDS[name](), 3)
    assert one.resumable
    policy = lively(one.worlds.observation_space, one.worlds.action_space, cell)
    other = opened(WORLDS[name](), 5)
    for horizon in (0, 41, 1, 30):  # before the first step; and as often as one likes
        if horizon:
            one.collect(policy, horizon)
        one.episodes()
        one.cut()  # which does nothing here
        other.load_state_dict(through_disk(one.state_dict(), tmp_path / str(horizon)))
        for steps in (1, 25):
            assert same(one.collect(policy, steps), other.collect(policy, steps))
        assert one.episodes() == other.episodes()
        assert one.state is not None and other.state is not None and equal(one.state, other.state)


def test_a_saved_state_is_a_copy(opened: Callable[..., EnvSource]) -> None:
    """It may be written while the worlds go on."""
    for name in ("CartPole, native", "CartPole", "with a state of its own"):
        source = opened(WORLDS[name]())
        policy = lively(source.worlds.observation_space, source.worlds.action_space, "lstm")
        source.collect(policy, 10)
        state = source.state_dict()
        first = source.collect(policy, 30)
        source.load_state_dict(state)
        assert same(source.collect(policy, 30), first)


def test_old_actions_are_forgotten() -> None:
    """What is kept to repeat is no longer than the oldest episode, however long the run."""
    worlds = InProcess("walk", [Walk(i) for i in range(2)])
    worlds.reset(0)
    for _ in range(4201):
        worlds.step(np.zeros(2, np.int64))
    assert len(worlds.past.actions) < 200
    assert len(worlds.state_dict()["actions"]) <= 6


def test_the_environment_may_spoil_its_action(opened: Callable[..., EnvSource]) -> None:
    source = opened(WORLDS["nested"]())
    policy = lively(source.worlds.observation_space, source.worlds.action_space)
    rollout = source.collect(policy, 20)
    with torch.no_grad():
        judged = policy.evaluate_actions(rollout.observation, rollout.action, (), rollout.boundary)
    assert float((judged.log_prob - rollout.log_prob).abs().max()) < 1e-5


@pytest.mark.parametrize("hows", [("sync", "async"), ("async", "sync")])
def test_worlds_of_the_other_kind_go_on_from_a_state(
    hows: tuple[Any, Any], tmp_path: Path, opened: Callable[..., EnvSource]
) -> None:
    """Where a step costs about as much as a message, another start or machine may choose the other kind."""

    def dice() -> Any:
        return limited(SavedDice, 9)

    one, other = (opened(make(dice, 2, EnvOptions(vectorization=how))) for how in hows)
    policy = lively(one.worlds.observation_space, one.worlds.action_space)
    one.collect(policy, 13)
    one.episodes()
    other.load_state_dict(through_disk(one.state_dict(), tmp_path))
    for steps in (1, 25):
        assert same(one.collect(policy, steps), other.collect(policy, steps))
    assert one.episodes() == other.episodes()


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_state_may_be_actions_as_processes_once_saved_it(how: Any, opened: Callable[..., EnvSource]) -> None:
    class Said(Continuous):
        def state_dict(self) -> dict[str, Any]:
            return {"place": self.place, "random": self.np_random.bit_generator.state}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.place, self.np_random.bit_generator.state = state["place"], state["random"]

    one = opened(Processes("nested", [Said] * 2))
    assert "actions" in one.worlds.state_dict()
    policy = lively(one.worlds.observation_space, one.worlds.action_space)
    one.collect(policy, 15)
    other = opened(make(Said, 2, EnvOptions(vectorization=how)), 1)
    other.load_state_dict(one.state_dict())
    assert "worlds" in other.worlds.state_dict()
    assert same(one.collect(policy, 20), other.collect(policy, 20))


class TestNondeterministic:
    """Seeds decide here too, so that a resumed source can be compared; but the registration says that they do not."""

    @pytest.fixture(autouse=True)
    def registered(self) -> Iterator[None]:
        def uncertain(**kwargs: Any) -> Any:
            return limited(Continuous, 15)

        gym.register("torchward-test/Uncertain-v0", uncertain, nondeterministic=True)
        yield
        del gym.registry["torchward-test/Uncertain-v0"]

    @pytest.mark.parametrize("how", ["sync", "async"])
    def test_its_episodes_end_at_every_checkpoint(
        self, how: Any, tmp_path: Path, opened: Callable[..., EnvSource]
    ) -> None:
        options = EnvOptions(vectorization=how)
        one = opened(make("torchward-test/Uncertain-v0", 2, options), 1)
        assert not one.resumable
        policy = lively(one.worlds.observation_space, one.worlds.action_space, "lstm")
        rollout = one.collect(policy, 40)
        assert not one.worlds.past.actions  # type: ignore[attr-defined]  # nobody repeats them
        ended = one.episodes()
        assert len(ended) == int((rollout.boundary & rollout.loss_mask).sum())
        one.cut()
        assert one.episodes() == []
        state = through_disk(one.state_dict(), tmp_path)
        following = one.collect(policy, 40)
        assert not leaf(following.context["state"], 0).any()
        lengths = [episode.length for episode in one.episodes()]
        assert sum(lengths) <= 80 and max(lengths) <= 15  # none that began before the cut
        other = opened(make("torchward-test/Uncertain-v0", 2, options), 1)
        other.load_state_dict(state)
        assert same(other.collect(policy, 40), following)

    def test_what_ended_before_a_cut_is_still_told(self, opened: Callable[..., EnvSource]) -> None:
        source = opened(make("torchward-test/Uncertain-v0", 2, EnvOptions(vectorization="sync")))
        rollout = source.collect(lively(source.worlds.observation_space, source.worlds.action_space), 40)
        source.cut()
        assert len(source.episodes()) == int(rollout.boundary.sum()) > 0

    def test_each_cut_begins_other_episodes(self, opened: Callable[..., EnvSource]) -> None:
        source = opened(make("torchward-test/Uncertain-v0", 2, EnvOptions(vectorization="sync")))
        seen = []
        for _ in range(3):
            seen.append(np.array(sp.leaves(source.observation)[0]))
            source.cut()
        assert len({tuple(each.ravel()) for each in seen}) == 3

    def test_a_state_of_its_own_makes_up_for_it(self) -> None:
        def dice(**kwargs: Any) -> Any:
            return SavedDice()

        gym.register("torchward-test/Dice-v0", dice, nondeterministic=True)
        try:
            assert make("torchward-test/Dice-v0", 2, EnvOptions(vectorization="sync")).resumable
        finally:
            del gym.registry["torchward-test/Dice-v0"]


class Absent(Dice):
    """Ends by chance, and then refuses to go on."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.total > 100:
            raise ValueError("it is over")
        self.total += 200 * float(self.dice.random() < 0.3)
        return np.zeros(2, np.float32), 0.0, self.total > 100, False, {}


@pytest.mark.parametrize("kind", [Dice, Absent])
@pytest.mark.parametrize("processes", [False, True])
def test_a_world_that_only_claims_to_be_determined_is_found_out(
    kind: Any, processes: bool, opened: Callable[..., EnvSource]
) -> None:
    def worlds() -> Worlds:
        return Processes("Dice", [kind] * 2) if processes else InProcess("Dice", [kind() for _ in range(2)])

    one = opened(worlds())
    policy = lively(one.worlds.observation_space, one.worlds.action_space)
    message = "Dice did not come back to where it stood.*state_dict and load_state_dict, or register it"
    for _ in range(20):
        one.collect(policy, 1)
        if max(one.lengths) >= 3:
            break
    state = one.state_dict()
    with pytest.raises(WorldError, match=message):
        for _ in range(20):  # Absent comes back by chance, now and then
            opened(worlds()).load_state_dict(state)


def test_an_unknown_wrapper_is_brought_back_by_repeating(opened: Callable[..., EnvSource]) -> None:
    """A wrapper with a memory of its own, around an environment with a state: the state alone would not do."""

    class Smooth(gym.ObservationWrapper[Any, Any, Any]):
        memory = np.zeros(2, np.float32)

        def reset(self, **kwargs: Any) -> Any:
            self.memory = np.zeros(2, np.float32)
            return super().reset(**kwargs)

        def observation(self, observation: Any) -> Any:
            self.memory = (self.memory + observation) / 2
            return self.memory

    class Seeded(Walk):
        def state_dict(self) -> dict[str, Any]:
            return {"position": self.position, "time": self.time, "episode": self.episode}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            vars(self).update(state)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.episode = (seed or 0) % 5
            return super().reset(seed=seed)

    def worlds() -> InProcess:
        return InProcess("smooth", [Smooth(Seeded(i)) for i in range(2)])

    one, other = opened(worlds()), opened(worlds(), 1)
    policy = lively(one.worlds.observation_space, one.worlds.action_space)
    one.collect(policy, 15)
    assert not worlds().has_state and InProcess("plain", [Seeded()]).has_state
    other.load_state_dict(one.state_dict())
    assert same(one.collect(policy, 20), other.collect(policy, 20))
    assert isinstance(other.observation, np.ndarray)
    assert torch.equal(*(torch.from_numpy(np.asarray(s.observation)) for s in (one, other)))
