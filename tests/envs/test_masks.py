"""Action masks, from info and from the observation, through every kind of worlds: fresh at each step, and obeyed."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from tests.envs.worlds import KINDS, LIMIT, Masked, MaskedDict, Walk, allowed, lively
from tests.nets.examples import leaf
from torchward.envs import spaces as sp
from torchward.envs.collect import EnvSource
from torchward.envs.faults import WorldError
from torchward.envs.in_process import InProcess
from torchward.envs.make import EnvOptions, make
from torchward.envs.native import Native
from torchward.envs.task import Control
from torchward.nets.spaces import MASK, Box, Dict, Discrete, MultiBinary, Tuple


@pytest.mark.parametrize("where", ["info", "observation"])
@pytest.mark.parametrize(
    ("kind", "cell"),  # processes take long to start, and do not see the policy
    [(kind, cell) for kind in KINDS for cell in ("none", "lstm") if cell == "none" or kind != "processes"],
)
def test_masks_are_those_of_what_is_seen_and_are_obeyed(kind: str, where: str, cell: str) -> None:
    """The worlds refuse a forbidden action; and each mask is the one of its own position and time, also right after
    another world began anew, and in the rows that show a final observation."""
    world: Any = Masked if where == "info" else MaskedDict
    source = EnvSource(KINDS[kind](world, 3, where == "info"), 0)
    policy = lively(source.worlds.observation_space, source.worlds.action_space, cell)
    for horizon in (25, 7):
        rollout = source.collect(policy, horizon)
        seen, action = rollout.observation, leaf(rollout.action)
        plain, masks = leaf(seen, "observation" if where == "info" else "seen"), leaf(seen, MASK)
        for b in range(3):
            for t in range(horizon):
                position, time = float(plain[b, t, 0]), round(float(plain[b, t, 1]) * LIMIT)
                assert masks[b, t].tolist() == allowed(position, time).tolist(), (b, t)
        assert masks.gather(-1, action[..., None]).all()
        evaluated = policy.evaluate_actions(seen, action, rollout.context.get("state", ()), rollout.boundary)
        difference = (evaluated.log_prob - rollout.log_prob)[rollout.loss_mask].abs().max()
        assert difference.item() < 1e-5
        assert horizon == 7 or len(action.unique()) == 3
    source.close()


def test_the_space_says_where_the_mask_is() -> None:
    worlds = InProcess("masked", [Masked()], mask=True)
    assert worlds.observation_space == Dict({"observation": Box((2,)), MASK: MultiBinary(3)})
    already = InProcess("masked", [MaskedDict()], mask=True)  # the option does no harm
    assert already.observation_space == Dict({MASK: Box((3,), 0.0, 1.0), "seen": Box((2,))})


def test_a_dict_observation_takes_the_mask_of_info_in() -> None:
    class Both(Masked):
        observation_space: Any = gym.spaces.Dict(seen=gym.spaces.Box(-np.inf, np.inf, (2,)))

        def _see(self) -> Any:
            return {"seen": super()._see()}

    worlds = InProcess("both", [Both()], mask=True)
    assert worlds.observation_space == Dict({"seen": Box((2,)), MASK: MultiBinary(3)})
    seen = worlds.reset(0)
    assert isinstance(seen, dict) and sp.leaves(seen[MASK])[0].shape == (1, 3)


@pytest.mark.parametrize("kind", ["in process", "next step"])
def test_without_a_mask_in_info_the_option_is_an_error(kind: str) -> None:
    with pytest.raises(WorldError, match="action_mask is set, but walk has no 'action_mask' in its info"):
        EnvSource(KINDS[kind](Walk, 2, True), 0)


class Nested(Walk):
    """Two choices, each with a mask, and a number that has none."""

    action_space = gym.spaces.Tuple(
        (gym.spaces.Discrete(2), gym.spaces.Box(-1, 1, (1,)), gym.spaces.MultiDiscrete([2, 2]))
    )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        choice, _, pair = action
        masks = self._info()["action_mask"]
        assert masks["0"][int(choice)] and masks["2"][pair[0]] and masks["2"][2 + pair[1]]
        return super().step(choice)

    def _info(self) -> dict[str, Any]:
        return {
            "action_mask": {
                "0": np.array([self.time % 2 == 0, self.time % 3 > 0 or self.time == 3], np.int8),
                "2": np.array([1, self.position > 0, self.position > 1, 1], np.int8),
            }
        }


@pytest.mark.parametrize("kind", ["in process", "next step", "disabled", "processes"])
def test_parts_of_an_action_have_masks_of_their_own(kind: str) -> None:
    worlds = KINDS[kind](Nested, 2, True)
    mask = Dict({"0": MultiBinary(2), "2": MultiBinary(4)})
    assert worlds.observation_space == Dict({"observation": Box((2,)), MASK: mask})
    assert isinstance(worlds.action_space, Tuple)
    source = EnvSource(worlds, 0)
    rollout = source.collect(lively(worlds.observation_space, worlds.action_space), 30)
    assert len(leaf(rollout.action, 0).unique()) == 2
    source.close()


class Stuck(Nested):
    """A walk of world 1 of which, at its third step and where its episodes end, nothing may be done in one part."""

    def __init__(self, part: str, first: int, end: int, world: int = 0, at: int = 3) -> None:
        super().__init__(world)
        self.part, self.first, self.end, self.at = part, first, end, at if world == 1 else -1
        self.over = False

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, _ = Walk.step(self, action[0])
        self.over = terminated or truncated
        return seen, reward, terminated, truncated, self._info()

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self.over = False
        return super().reset(**kwargs)

    def _info(self) -> dict[str, Any]:
        masks = {"0": np.ones(2, np.int8), "2": np.ones(4, np.int8)}
        if self.over or self.time == self.at:
            masks[self.part][self.first : self.end] = 0
        return {"action_mask": masks}


PARTS = [("0", 0, 2, "0"), ("2", 0, 2, "choice 0"), ("2", 2, 4, "choice 1")]


@pytest.mark.parametrize("kind", ["in process", "next step", "disabled"])
@pytest.mark.parametrize("horizon", [4, 10])  # the last step of a rollout, and one within
@pytest.mark.parametrize(("part", "first", "end", "told"), PARTS)
def test_a_mask_that_forbids_everything_is_told(
    kind: str, horizon: int, part: str, first: int, end: int, told: str
) -> None:
    source = EnvSource(KINDS[kind](partial(Stuck, part, first, end), 2, True), 0)
    policy = lively(source.worlds.observation_space, source.worlds.action_space)
    with pytest.raises(WorldError, match=rf"forbids every one of .*{told}.* in world 1 at step 6;"):
        source.collect(policy, horizon)


@pytest.mark.parametrize("kind", ["in process", "next step", "disabled"])
def test_where_an_episode_ends_everything_may_be_forbidden(kind: str) -> None:
    source = EnvSource(KINDS[kind](partial(Stuck, "0", 0, 2, at=-1), 2, True), 0)
    policy = lively(source.worlds.observation_space, source.worlds.action_space)
    for _ in range(3):
        assert source.collect(policy, 15).boundary.any()


@pytest.mark.parametrize("time", [0, 2])
def test_it_is_told_also_where_the_world_refuses_what_is_then_done(time: int) -> None:
    class Refuses(Masked):
        def allowed(self) -> Any:
            return super().allowed() * (self.time != time)

    source = EnvSource(InProcess("walk", [Refuses()], True), 0)
    told = "walk raised AssertionError" if time == 0 else "forbids every one in world 0 at step [23];"
    with pytest.raises(WorldError, match=told):  # a first row may be the last of what was collected before
        source.collect(lively(source.worlds.observation_space, source.worlds.action_space), 5)


def test_bits_may_all_be_forbidden() -> None:
    space = Dict({"bits": MultiBinary(2), "how": Discrete(2)})
    masks: Any = {"bits": np.zeros((1, 2), np.int64), "how": np.ones((1, 2), np.int64)}
    assert [(part, allowed.tolist()) for part, allowed in sp.choosable(space, masks)] == [(" of 'how'", [True])]
    assert not list(sp.choosable(space, {"bits": masks["bits"]})), "a part without a mask"


def test_gymnasiums_own_masks() -> None:
    """Taxi gives one: bumping into walls is what it forbids."""
    task = Control("Taxi-v4", EnvOptions(action_mask=True))
    policy = lively(task.observation_space, task.action_space)
    rollout = task.source(2, 0).collect(policy, 60)
    seen, action = leaf(rollout.observation, "observation"), leaf(rollout.action)
    assert leaf(rollout.observation, MASK).gather(-1, action[..., None]).all()
    going_on = ~rollout.boundary[:, :-1]
    moved = seen[:, 1:] != seen[:, :-1]
    assert moved[going_on & (action[:, :-1] < 4)].all()  # an allowed move always moves
    assert len(task.evaluate(policy, 2, 0).returns) == 2


def test_an_unmasked_vector_is_not_chosen_for_masks() -> None:
    """CartPole's own vector form gives no masks; neither does CartPole."""
    with pytest.raises(WorldError, match="has no 'action_mask' in its info"):
        EnvSource(make("CartPole-v1", 8, EnvOptions(action_mask=True)), 0)


def test_a_vector_without_marks_gives_masks_for_all() -> None:
    class Whole(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            *rest, info = super().step(actions)
            return *rest, {MASK: info[MASK]}

    source = EnvSource(Native("walk", Whole([partial(Masked, i) for i in range(2)]), True), 0)
    source.collect(lively(source.worlds.observation_space, source.worlds.action_space), 20)
