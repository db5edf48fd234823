"""A world that raises, or gives what no world may give, stops the run with its name and the step."""

import os
import signal
import sys
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from tests.envs.worlds import KINDS, Walk, lively
from torchward.envs.collect import EnvSource
from torchward.envs.faults import WorldError
from torchward.envs.in_process import InProcess
from torchward.envs.make import EnvOptions, make
from torchward.envs.native import Native
from torchward.nets.spaces import Box

# Gymnasium tells a worker's error as a warning before it raises it.
told = pytest.mark.filterwarnings("ignore:.*ERROR.*:UserWarning")


class Faulty(Walk):
    """A walk of world 1 of which goes wrong at its third step (or its second reset)."""

    def __init__(self, fault: str, world: int = 0) -> None:
        super().__init__(world)
        self.fault = fault if world == 1 else ""
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        seen, info = super().reset(seed=seed)
        if self.fault == "raise at reset" and self.episode == 1:
            raise ValueError("no way back")
        return seen, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        if self.steps == 3:
            match self.fault:
                case "raise":
                    raise ValueError("the floor is gone")
                case "nan reward":
                    reward = float("nan")
                case "nan observation" | "nan final":
                    seen = seen * np.nan
                    truncated = self.fault == "nan final"
                case "infinite observation":
                    seen = seen + np.array([np.inf, -np.inf], np.float32)
        return seen, reward, terminated, truncated, info


def source(kind: str, fault: str) -> EnvSource:
    return EnvSource(KINDS[kind](partial(Faulty, fault), 2, False), 0)


def policy(worlds: Any) -> Any:
    return lively(worlds.observation_space, worlds.action_space)


@told
@pytest.mark.parametrize("kind", KINDS)
def test_a_world_that_raises_is_named_with_the_step(kind: str) -> None:
    faulty = source(kind, "raise")
    with pytest.raises(WorldError, match=r"walk raised ValueError .*the floor is gone \(at step 4\)"):
        faulty.collect(policy(faulty.worlds), 10)
    faulty.close()


@told
@pytest.mark.parametrize("kind", KINDS)
def test_a_world_that_raises_at_a_reset_is_named(kind: str) -> None:
    faulty = source(kind, "raise at reset")
    with pytest.raises(WorldError, match=r"walk raised ValueError .*no way back \(at step \d+\)"):
        faulty.collect(policy(faulty.worlds), 30)
    faulty.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("horizon", [3, 10])  # the last step of a rollout, and one within
@pytest.mark.parametrize(
    ("fault", "what", "step"),
    [
        ("nan reward", "reward", 4),
        ("nan observation", "observation", 6),
        ("infinite observation", "observation", 6),
        ("nan final", "(final )?observation", None),
    ],
)
def test_what_is_no_number_is_told_before_anything_is_learnt(
    kind: str, fault: str, what: str, step: int | None, horizon: int
) -> None:
    faulty = source(kind, fault)
    with pytest.raises(WorldError, match=rf"walk returned NaN or infinity as {what} at step {step or '[46]'};"):
        faulty.collect(policy(faulty.worlds), horizon)
    faulty.close()


def test_steps_are_counted_over_rollouts() -> None:
    faulty = source("in process", "nan reward")
    faulty.collect(policy(faulty.worlds), 2)
    with pytest.raises(WorldError, match="as reward at step 4;"):
        faulty.collect(policy(faulty.worlds), 2)


class Misshapen(Walk):
    def __init__(self, when: int, observation: Any) -> None:
        super().__init__()
        self.when, self.observation = when, observation

    def _see(self) -> Any:
        return self.observation if self.time >= self.when else super()._see()


@pytest.mark.parametrize(
    ("observation", "told"),
    [
        (np.zeros(3), r"a ndarray of shape \(3,\)"),
        ([1.0], r"a list of shape \(1,\)"),
        (0.0, r"a float of shape \(\)"),
        ([[1.0], [2.0, 3.0]], "a list"),
        ({"x": np.zeros(2)}, r"\{x: a ndarray of shape \(2,\)\}"),
        (None, "a NoneType"),
    ],
)
def test_an_observation_of_another_shape_is_refused(observation: Any, told: str) -> None:
    with pytest.raises(WorldError, match=rf"walk gave an observation that does not fit its space Box\(2\): {told}"):
        EnvSource(InProcess("walk", [Misshapen(0, observation)]), 0)


class Answers(Walk):
    """A walk whose third step gives what it is told to."""

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.given = given

    def step(self, action: Any) -> Any:
        names = ("observation", "reward", "terminated", "truncated", "info")
        answer = dict(zip(names, super().step(action), strict=True))
        return tuple((answer | self.given if self.time == 3 else answer).values())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"reward": None}, "expected a number as the reward of walk, got None in world 0; return a float"),
        ({"reward": "1.0"}, "expected a number as the reward of walk, got '1.0' in world 0"),
        ({"reward": np.ones(1)}, r"a number as the reward of walk, got (array\(\[1\.\]\)|a ndarray of shape \(1,\))"),
        ({"reward": (1.0, 2.0)}, r"a number as the reward of walk, got \(1\.0, 2\.0\) in world 0"),
        ({"reward": np.zeros((9, 9))}, r"a number as the reward of walk, got a ndarray of shape \(9, 9\) in world 0"),
        ({"terminated": None}, "expected True or False as terminated of walk, got None in world 0; return a bool"),
        ({"truncated": 0.5}, "expected True or False as truncated of walk, got 0.5 in world 0"),
        ({"observation": np.array(["0.1", "0.2"])}, r"not fit its space Box\(2\): a ndarray of shape \(2,\) of text"),
        ({"observation": ["0.1", "0.2"]}, r"not fit its space Box\(2\): a list of shape \(2,\) of text"),
        ({"observation": np.zeros(2, complex)}, r"Box\(2\): a ndarray of shape \(2,\) of complex numbers"),
        ({"more": 0}, "the five values observation, reward, terminated, truncated, info, got 6 values in world 0"),
    ],
)
def test_what_no_step_may_give_is_told(given: dict[str, Any], told: str) -> None:
    for world in (Answers(**given), gym.wrappers.TimeLimit(Answers(**given), 99)):
        faulty = EnvSource(InProcess("walk", [world]), 0)
        with pytest.raises(WorldError, match=rf"{told if 'more' not in given else 'the five values'}.*\(at step 2\)"):
            faulty.collect(policy(faulty.worlds), 5)


@pytest.mark.parametrize(
    ("reward", "flag"),
    [(1, 0), (np.float16(1), np.bool_(False)), (np.array(1.0), np.array(False)), (True, np.int64(0))],
)
def test_any_number_is_a_reward_and_any_truth_a_flag(reward: Any, flag: Any) -> None:
    source = EnvSource(InProcess("walk", [Answers(reward=reward, terminated=flag)]), 0)
    rollout = source.collect(policy(source.worlds), 3)
    assert rollout.reward[0, 2] == 1.0 and not rollout.terminated[0, 2]


@pytest.mark.parametrize("limit", [False, True])
@pytest.mark.parametrize(("given", "told"), [((0, 0.0, False, {}), "got 4 values"), (None, "got a NoneType")])
def test_a_step_of_four_values_says_which_are_five(given: Any, told: str, limit: bool) -> None:
    class Old(Walk):
        def step(self, action: Any) -> Any:
            return given

    world: Any = gym.wrappers.TimeLimit(Old(), 9) if limit else Old()
    faulty = EnvSource(InProcess("walk", [world]), 0)
    wanted = "expected step of walk to return the five values observation, reward, terminated, truncated, info, "
    if limit and given is None:
        wanted, told = "walk raised TypeError", "in world 0"
    with pytest.raises(WorldError, match=wanted + (".*" if limit else told)):
        faulty.collect(policy(faulty.worlds), 5)


@pytest.mark.parametrize("given", [np.zeros(2, np.float32), np.zeros(3), (np.zeros(2), None), {"a": 0, "b": 1}, None])
def test_a_reset_without_info_is_told(given: Any) -> None:
    class Curt(Walk):
        def reset(self, **kwargs: Any) -> Any:
            return given

    with pytest.raises(WorldError, match="expected reset of walk to return an observation and an info"):
        EnvSource(InProcess("walk", [Curt()]), 0)


@pytest.mark.parametrize("when", ["step", "reset"])
def test_a_world_that_leaves_the_program_has_failed(when: str) -> None:
    class Leaves(Walk):
        def step(self, action: Any) -> Any:
            return sys.exit(3) if when == "step" and self.time == 2 else super().step(action)

        def reset(self, **kwargs: Any) -> Any:
            return sys.exit("no way back") if when == "reset" and self.episode == 0 else super().reset(**kwargs)

    faulty = EnvSource(InProcess("walk", [Leaves()]), 0)
    told = r"in world 0: 3 \(at step 2\)" if when == "step" else "at the reset of world 0: no way back"
    with pytest.raises(WorldError, match=f"walk raised SystemExit {told}"):
        faulty.collect(policy(faulty.worlds), 30)


def test_a_world_that_is_interrupted_has_not_failed() -> None:
    class Interrupted(Walk):
        def step(self, action: Any) -> Any:
            raise KeyboardInterrupt

    faulty = EnvSource(InProcess("walk", [Interrupted()]), 0)
    with pytest.raises(KeyboardInterrupt):
        faulty.collect(policy(faulty.worlds), 5)


@pytest.mark.filterwarnings("ignore:.*WARN.*:UserWarning")
@pytest.mark.parametrize("when", ["step", "reset"])
def test_a_process_that_dies_is_told(when: str) -> None:
    class Dies(Walk):
        def step(self, action: Any) -> Any:
            return os._exit(9) if when == "step" and self.world and self.time == 2 else super().step(action)

        def reset(self, **kwargs: Any) -> Any:
            return os._exit(9) if when == "reset" and self.world and self.episode == 0 else super().reset(**kwargs)

    faulty = EnvSource(KINDS["processes"](Dies, 2, False), 0)
    told = r"expected every process of walk to live, but that of world 1 died \(exit code 9\)"
    told += r"; vectorization 'sync' .* \(at step 4\)" if when == "step" else r" at a reset; .* \(at step \d+\)"
    with pytest.raises(WorldError, match=told):
        faulty.collect(policy(faulty.worlds), 30)
    assert not any(process.is_alive() for process in faulty.worlds.vector.processes)  # type: ignore[attr-defined]
    faulty.close()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP"])
def test_what_a_terminal_tells_all_processes_ends_no_world(number: str) -> None:
    source, heard = EnvSource(KINDS["processes"](Walk, 2, False), 0), signal.getsignal(signal.SIGINT)
    for process in source.worlds.vector.processes:  # type: ignore[attr-defined]
        os.kill(process.pid, getattr(signal, number))
    assert source.collect(policy(source.worlds), 20).steps == 40
    assert signal.getsignal(signal.SIGINT) is heard
    source.close()


def test_also_later_where_it_cannot_be_stored() -> None:
    faulty = EnvSource(InProcess("walk", [Misshapen(2, np.zeros(3))]), 0)
    with pytest.raises(WorldError, match=r"does not fit its space Box\(2\).*\(at step 1\)"):
        faulty.collect(policy(faulty.worlds), 5)


@pytest.mark.parametrize("observation", [np.zeros(1), np.float64(0.5), 0.5, [0.5]])
def test_what_could_be_broadcast_is_no_observation(observation: Any) -> None:
    faulty = EnvSource(InProcess("walk", [Misshapen(2, observation)]), 0)
    with pytest.raises(WorldError, match=r"does not fit its space Box\(2\).*\(at step 1\)"):
        faulty.collect(policy(faulty.worlds), 5)


class Shown(gym.Env[Any, Any]):
    """It shows one thing, whatever is done."""

    def __init__(self, space: "gym.Space[Any]", shown: Any) -> None:
        self.observation_space, self.shown, self.action_space = space, shown, gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.shown, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.shown, 0.0, False, False, {}


PICTURE = gym.spaces.Box(0, 255, (2, 2, 1), np.uint8)
PAIR = gym.spaces.MultiDiscrete([2, 3])


@pytest.mark.parametrize(
    ("space", "shown", "told"),
    [
        (PICTURE, np.full((2, 2, 1), 0.9), r"Box\(2 x 2 x 1, uint8\)"),
        (PICTURE, np.full((2, 2, 1), 300), r"Box\(2 x 2 x 1, uint8\)"),
        (PICTURE, np.full((2, 2, 1), -1), r"Box\(2 x 2 x 1, uint8\)"),
        (PICTURE, np.full((2, 2, 1), np.nan), r"Box\(2 x 2 x 1, uint8\)"),
        (gym.spaces.Discrete(3), 3, r"Discrete\(3\)"),
        (gym.spaces.Discrete(3, start=1), 0, r"Discrete\(3\)"),
        (gym.spaces.Discrete(3), 1.5, r"Discrete\(3\)"),
        (PAIR, np.array([1, 3]), "MultiDiscrete"),
        (gym.spaces.Dict(a=PAIR), {"a": np.array([-1, 0])}, "Dict"),
        (gym.spaces.Tuple((PICTURE,)), (np.full((2, 2, 1), 0.5),), "Tuple"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_numbers_of_another_space_are_refused(space: "gym.Space[Any]", shown: Any, told: str) -> None:
    with pytest.raises(WorldError, match=rf"walk gave an observation whose numbers are none of its space {told}"):
        EnvSource(InProcess("walk", [Shown(space, shown)]), 0)


@pytest.mark.parametrize(
    ("space", "shown"),
    [
        (PICTURE, np.full((2, 2, 1), 200.0)),
        (PICTURE, np.full((2, 2, 1), 255)),
        (PICTURE, np.full((2, 2, 1), True)),
        (gym.spaces.Discrete(3, start=1), np.int8(3)),
        (gym.spaces.Discrete(3), np.array(2)),
        (gym.spaces.Box(0.0, 1.0, (2,)), np.array([7.0, -3.0])),
        (gym.spaces.Tuple((PAIR, PICTURE)), (np.array([1.0, 2.0]), np.zeros((2, 2, 1), np.uint8))),
    ],
)
def test_numbers_that_stay_what_they_are_are_taken(space: "gym.Space[Any]", shown: Any) -> None:
    EnvSource(InProcess("walk", [Shown(space, shown)]), 0).close()


class Counts(Shown):
    """It counts its steps, beyond what its space has."""

    def __init__(self, space: "gym.Space[Any]", shown: Any, by: Any = 1, world: int = 0) -> None:
        super().__init__(space, shown)
        self.by = by

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        def more(part: Any) -> Any:
            return np.asarray(part + self.by) if isinstance(part, np.ndarray) else part + self.by

        named = isinstance(self.shown, dict)
        self.shown = {name: more(part) for name, part in self.shown.items()} if named else more(self.shown)
        return super().step(action)


@told
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("space", "shown", "named"),
    [
        (gym.spaces.Discrete(4, start=1), 1, r"Discrete\(4\)"),
        (gym.spaces.Discrete(4, start=1), np.int64(1), r"Discrete\(4\)"),
        (gym.spaces.Discrete(4, start=1), np.array(1), r"Discrete\(4\)"),
        (gym.spaces.MultiDiscrete([9, 4]), np.array([0, 0]), r"MultiDiscrete\(9, 4\)"),
        (gym.spaces.Dict(n=gym.spaces.Discrete(4)), {"n": 0}, r"Dict\(n: Discrete\(4\)\)"),
    ],
)
def test_a_choice_that_there_is_not_is_told_at_any_step(
    kind: str, space: "gym.Space[Any]", shown: Any, named: str
) -> None:
    faulty = EnvSource(KINDS[kind](lambda world: Counts(space, shown), 2, False), 0)
    with pytest.raises(WorldError, match=rf"walk gave .* whose numbers are none of its space {named}.*\(at step 6\)"):
        faulty.collect(policy(faulty.worlds), 10)
    faulty.close()


@told
@pytest.mark.parametrize("kind", ["in process", "processes"])
@pytest.mark.parametrize("by", [0.5, np.float32(0.5)])
def test_a_choice_is_a_whole_number_at_any_step(kind: str, by: Any) -> None:
    faulty = EnvSource(KINDS[kind](lambda world: Counts(gym.spaces.Discrete(4), 0, by), 2, False), 0)
    with pytest.raises(WorldError, match=r"whose numbers are none of its space Discrete\(4\).*\(at step 0\)"):
        faulty.collect(policy(faulty.worlds), 10)
    faulty.close()


def test_a_choice_of_no_number_is_told() -> None:
    broken = np.array(None, dtype=object)
    with pytest.raises(WorldError, match="whose numbers are none of its space"):
        EnvSource(InProcess("walk", [Shown(gym.spaces.Discrete(4), broken)]), 0)


class Vector(VectorEnv[Any, Any, Any]):
    """Two worlds that end at their second step, and show there what they are told to."""

    def __init__(self, space: "gym.Space[Any]", last: Any) -> None:
        self.num_envs, self.last = 2, last
        self.single_observation_space, self.single_action_space = space, gym.spaces.Discrete(2)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def reset(self, **kwargs: Any) -> Any:
        self.time = 0
        return np.zeros((2, *self.single_observation_space.shape), np.int64), {}  # type: ignore[misc]

    def step(self, actions: Any) -> Any:
        self.time += 1
        ended = np.full(2, self.time == 2)
        seen, _ = self.reset() if ended.all() else (np.zeros((2, *self.single_observation_space.shape), np.int64), None)  # type: ignore[misc]
        info = {"final_obs": self.last, "_final_obs": ended} if ended.all() else {}
        return seen, np.zeros(2), ended, np.zeros(2, bool), info


@pytest.mark.parametrize(
    ("space", "last", "message"),
    [
        (gym.spaces.Discrete(3), np.array([0, 3]), r"whose numbers are none of its space Discrete\(3\).*\(at step 2\)"),
        (gym.spaces.Discrete(3), np.array([1.5, 0]), r"whose numbers are none of its space Discrete\(3\)"),
        (gym.spaces.MultiDiscrete([3, 3]), np.zeros((2, 1), np.int64), "that does not fit its space MultiDiscrete"),
    ],
)
def test_the_last_observation_of_a_vector_is_looked_at(space: "gym.Space[Any]", last: Any, message: str) -> None:
    faulty = EnvSource(Native("walk", Vector(space, last)), 0)
    with pytest.raises(WorldError, match=message):
        faulty.collect(policy(faulty.worlds), 10)
    faulty.close()


@told
@pytest.mark.parametrize("kind", ["in process", "processes"])
def test_what_could_be_broadcast_is_none_in_a_process_of_its_own_either(kind: str) -> None:
    faulty = EnvSource(KINDS[kind](lambda world: Misshapen(2, np.zeros(1)), 2, False), 0)
    with pytest.raises(WorldError, match=r"^walk gave an observation that does not fit its space Box\(2\): a ndarray"):
        faulty.collect(policy(faulty.worlds), 5)
    faulty.close()


@told
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reward": np.ones(1)}, "^expected a number as the reward of walk, got"),
        ({"terminated": None}, "^expected True or False as terminated of walk, got None in world 0"),
        ({"more": 0}, "^expected step of walk to return the five values .* got (6 values|others .*) in world 0"),
    ],
)
def test_what_no_step_may_give_is_told_of_a_process_too(given: dict[str, Any], message: str) -> None:
    for world in (lambda _: Answers(**given), lambda _: gym.wrappers.TimeLimit(Answers(**given), 99)):
        faulty = EnvSource(KINDS["processes"](world, 1, False), 0)
        with pytest.raises(WorldError, match=message):
            faulty.collect(policy(faulty.worlds), 5)
        faulty.close()


def test_a_vector_of_another_shape_is_refused() -> None:
    class Short(SyncVectorEnv):
        def reset(self, **kwargs: Any) -> Any:
            seen, info = super().reset(**kwargs)
            return seen[:1], info

    with pytest.raises(WorldError, match=r"does not fit its space 2 x Box\(2\): a ndarray of shape \(1, 2\)"):
        EnvSource(Native("walk", Short([Walk, Walk])), 0)


def test_a_vector_may_reuse_its_arrays_and_have_types_of_its_own() -> None:
    class Double(Walk):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)  # type: ignore[arg-type]

        def _see(self) -> Any:
            return super()._see().astype(np.float64)

    for mode in AutoresetMode:
        fresh, reused = (
            EnvSource(Native("walk", SyncVectorEnv([Double] * 2, copy=copy, autoreset_mode=mode)), 0)
            for copy in (True, False)
        )
        assert fresh.worlds.observation_space == Box((2,))
        chooser = policy(fresh.worlds)
        for _ in range(2):
            left, right = fresh.collect(chooser, 15), reused.collect(chooser, 15)
            for name in ("observation", "next_value", "reward"):
                assert (getattr(left, name) == getattr(right, name)).all()


@pytest.mark.parametrize("key", ["final_obs", "final_observation"])
def test_a_vector_that_shows_its_last_observations_has_to_say_when_it_starts_anew(key: str) -> None:
    class Forgets(Vector):
        def __init__(self) -> None:
            super().__init__(gym.spaces.Discrete(3), np.zeros(2, np.int64))
            self.metadata = {}

        def step(self, actions: Any) -> Any:
            *rest, info = super().step(actions)
            return *rest, {name.replace("final_obs", key): value for name, value in info.items()}

    faulty = EnvSource(Native("walk", Forgets()), 0)
    message = f"got {key!r} in the info of that end; write metadata = {{'autoreset_mode': AutoresetMode.SAME_STEP}} in"
    with pytest.raises(WorldError, match=message):
        faulty.collect(policy(faulty.worlds), 5)


def test_a_vector_may_say_0_and_1() -> None:
    class Numbers(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            seen, reward, terminated, truncated, info = super().step(actions)
            return seen, reward, terminated.astype(np.int64), truncated.astype(np.int8), info

    for mode in AutoresetMode:
        one, other = (
            EnvSource(Native("walk", kind([Walk] * 2, autoreset_mode=mode)), 0) for kind in (SyncVectorEnv, Numbers)
        )
        left, right = (each.collect(policy(each.worlds), 25) for each in (one, other))
        assert one.episodes() == other.episodes() and (left.loss_mask == right.loss_mask).all()
        assert right.terminated.dtype == left.terminated.dtype and (left.boundary == right.boundary).all()


def test_a_same_step_vector_has_to_give_its_final_observations() -> None:
    class Silent(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            *rest, info = super().step(actions)
            info.pop("final_obs", None)
            return *rest, info

    vector = Silent([Walk, Walk], autoreset_mode=AutoresetMode.SAME_STEP)
    faulty = EnvSource(Native("walk", vector), 0)
    with pytest.raises(WorldError, match="its info has no 'final_obs'"):
        faulty.collect(policy(faulty.worlds), 20)


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_an_environment_that_raises_is_found_by_the_run_not_by_the_stopwatch(vectorization: Any) -> None:
    def broken() -> Any:
        return Faulty("raise", 1)

    worlds = make(broken, 2, EnvOptions(vectorization=vectorization))
    assert isinstance(worlds, InProcess)
    with pytest.raises(WorldError, match=r"broken raised ValueError in world 0: the floor is gone \(at step 4\)"):
        EnvSource(worlds, 0).collect(policy(worlds), 10)


def test_an_episode_without_an_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchward.envs import collect

    class Endless(Walk):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return self._see(), 0.0, False, False, {}

    monkeypatch.setattr(collect, "EPISODE_LIMIT", 128)
    endless = EnvSource(InProcess("walk", [Endless()]), 0)
    with pytest.raises(WorldError, match="walk ended no episode within 128 steps; set max_episode_steps"):
        endless.collect(policy(endless.worlds), None)
