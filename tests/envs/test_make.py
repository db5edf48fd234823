"""From whatever a user calls an environment to worlds; and a sentence for what cannot be one."""

import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tests.envs.worlds import Walk, lively
from torchward import random_state
from torchward.envs.collect import EnvSource
from torchward.envs.faults import WorldError
from torchward.envs.in_process import InProcess
from torchward.envs.make import EnvOptions, make, make_env, name_of, step_seconds
from torchward.envs.native import Native
from torchward.envs.processes import Processes
from torchward.envs.task import Control
from torchward.nets.spaces import Box, Discrete

SYNC = EnvOptions(vectorization="sync")


def lengths(task: Control, n: int = 2) -> list[int]:
    """The lengths of some episodes, played by the task's own worlds."""
    source = task.source(n, 0)
    source.collect(lively(task.observation_space, task.action_space), 40)
    source.close()
    return [episode.length for episode in source.episodes()]


class Slow(Walk):
    def __init__(self, world: int = 0, pace: int = 1) -> None:
        super().__init__(world)
        self.pace = pace

    def step(self, action: Any) -> Any:
        seen, reward, terminated, truncated, info = super().step(action)
        return seen * self.pace, reward, terminated, truncated, info


class Recorded(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """A wrapper that Gymnasium can make anew."""

    def __init__(self, env: Any, factor: float = 1.0) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, factor=factor)
        super().__init__(env)
        self.factor = factor

    def step(self, action: Any) -> Any:
        seen, reward, *rest = self.env.step(action)
        return seen, float(reward) * self.factor, *rest


class Plain(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that it cannot."""

    factor = 3.0

    def step(self, action: Any) -> Any:
        seen, reward, *rest = self.env.step(action)
        return seen, float(reward) * self.factor, *rest


class TestEnvironments:
    def test_an_id(self) -> None:
        task = Control("CartPole-v1", SYNC)
        assert task.name == "CartPole-v1" and task.action_space == Discrete(2)
        assert isinstance(task.observation_space, Box) and task.observation_space.shape == (4,)
        assert lengths(task)

    def test_a_class(self) -> None:
        task = Control(Walk)
        assert task.name == "Walk" and max(lengths(task)) <= 6

    def test_a_factory(self) -> None:
        task = Control(lambda: Slow(pace=2))
        assert task.name == "<lambda>"
        assert isinstance(task.env(), Slow) and task.env().pace == 2  # type: ignore[attr-defined]
        assert lengths(task)

    def test_keyword_arguments_reach_a_class(self) -> None:
        made: Any = make_env(Slow, EnvOptions(env_kwargs={"pace": 3}), world=1)
        assert (made.pace, made.world) == (3, 1)

    def test_keyword_arguments_reach_an_id(self) -> None:
        made: Any = make_env("FrozenLake-v1", EnvOptions(env_kwargs={"map_name": "8x8"}))
        assert made.observation_space.n == 64

    def test_an_instance_without_a_registration_is_copied(self) -> None:
        instance = Slow(pace=5)
        instance.reset()
        task = Control(instance)
        copies = [task.env(), task.env()]
        assert task.name == "Slow" and all(isinstance(each, Slow) and each.pace == 5 for each in copies)
        assert len({id(each) for each in (instance, *copies)}) == 3
        before = (instance.position, instance.time)
        assert lengths(task) and (instance.position, instance.time) == before

    def test_an_instance_with_a_registration_is_made_anew(self) -> None:
        instance = gym.make("FrozenLake-v1", map_name="8x8", max_episode_steps=7)
        task = Control(instance)
        assert task.name == "FrozenLake-v1" and task.observation_space == Discrete(64)
        assert max(lengths(task)) <= 7

    def test_an_instance_keeps_what_was_changed_on_it(self) -> None:
        instance: Any = gym.make("Pendulum-v1")
        instance.unwrapped.max_torque = 0.5
        task = Control(instance, EnvOptions(max_episode_steps=7))
        env: Any = task.env()
        assert env.unwrapped.max_torque == 0.5 and env.unwrapped is not instance.unwrapped
        assert max(lengths(task)) == 7
        assert task.env(render_mode="rgb_array").render_mode == "rgb_array"  # which needs it made anew

    def test_an_instance_that_only_gymnasium_can_make(self) -> None:
        """Box2D's worlds make themselves anew where they are copied; a lock can be copied by nobody."""
        task = Control(gym.make("LunarLander-v3", gravity=-5.0))
        env: Any = task.env()
        assert env.unwrapped.gravity == -5.0
        env.close()
        locked: Any = gym.make("FrozenLake-v1", map_name="8x8")
        locked.unwrapped.lock = threading.Lock()
        assert Control(locked).observation_space == Discrete(64)

    @pytest.mark.parametrize("wrap", [lambda env: Recorded(env, 3.0), Plain])
    def test_an_instance_keeps_its_wrappers(self, wrap: Any) -> None:
        env: Any = Control(wrap(gym.make("CartPole-v1"))).env()
        env.reset(seed=0)
        assert env.step(0)[1] == 3.0 and isinstance(env.unwrapped.state, np.ndarray | tuple)

    def test_an_instance_that_nobody_can_copy_wants_a_factory(self) -> None:
        instance = Walk()
        vars(instance)["lock"] = threading.Lock()
        with pytest.raises(WorldError, match=r"Walk cannot be copied \(cannot pickle .*give a factory"):
            Control(instance)
        vector = SyncVectorEnv([Walk])
        vars(vector)["lock"] = threading.Lock()
        task = Control(vector)
        with pytest.raises(WorldError, match="SyncVectorEnv cannot be copied for an evaluation of its own; give"):
            task.evaluate(lively(task.observation_space, task.action_space), 1, 0)

    def test_a_package_is_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "torchward_test_package.py").write_text(
            "import gymnasium\n"
            "gymnasium.register('torchward-test/Packed-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        try:
            task = Control("torchward_test_package:torchward-test/Packed-v0", SYNC)
            assert task.action_space == Discrete(2) and lengths(task)
        finally:
            del gym.registry["torchward-test/Packed-v0"], sys.modules["torchward_test_package"]

    @pytest.mark.parametrize("mode", AutoresetMode)
    def test_a_vector(self, mode: AutoresetMode) -> None:
        vector = SyncVectorEnv([Walk] * 3, autoreset_mode=mode)
        task = Control(vector)
        policy = lively(task.observation_space, task.action_space)
        source = task.source(3, 0)
        source.collect(policy, 5)
        before = [(env.position, env.time, env.episode) for env in vector.envs]  # type: ignore[attr-defined]
        assert len(task.evaluate(policy, 5, 0).returns) == 5
        assert [(env.position, env.time, env.episode) for env in vector.envs] == before  # type: ignore[attr-defined]
        with pytest.raises(WorldError, match="SyncVectorEnv holds 3 environments, but n_envs=4; set n_envs=3"):
            task.source(4, 0)
        with pytest.raises(WorldError, match="is a vector of environments, where one environment is needed"):
            task.env()

    def test_what_a_vector_takes_no_more(self) -> None:
        limited, named = EnvOptions(max_episode_steps=5), EnvOptions(env_kwargs={"pace": 2})
        vector = SyncVectorEnv([Walk] * 3)
        message = "SyncVectorEnv is a vector of environments, and takes no max_episode_steps, got 5; limit the"
        with pytest.raises(WorldError, match=message):
            Control(vector, limited)
        with pytest.raises(WorldError, match=message):
            make(vector, 3, limited)
        with pytest.raises(WorldError, match="<lambda> is a vector of environments, and takes no max_episode_steps"):
            Control(lambda: SyncVectorEnv([Walk] * 3), limited)
        with pytest.raises(WorldError, match="SyncVectorEnv is made already, and takes no pace; give a factory"):
            Control(vector, named)
        made: Any = make(lambda pace: SyncVectorEnv([lambda: Slow(pace=pace)] * 3), 3, named)
        assert made.vector.envs[0].pace == 2

    def test_a_factory_of_vectors(self) -> None:
        def walks() -> Any:
            return SyncVectorEnv([Walk] * 3)

        task = Control(walks)
        policy = lively(task.observation_space, task.action_space)
        assert isinstance(task.source(3, 0).worlds, Native)
        assert len(task.evaluate(policy, 2, 0).returns) == 2
        with pytest.raises(WorldError, match="walks holds 3 environments, but n_envs=1"):
            task.source(1, 0)


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Cartpole-v1", "expected the id of a registered environment, got 'Cartpole-v1'. Did you mean 'CartPole-v1'?"),
        ("CartPole-v9", "Did you mean 'CartPole-v"),
        ("LunarLander-v2", "Did you mean 'LunarLander-v3'?"),
        ("Sudoku-v0", "got 'Sudoku-v0'. `torchward list` shows them."),
        (
            "SudokuNoFrameskip-v4",
            "Atari games are called as in 'ALE/Sudoku-v5'; EnvOptions.atari says how they are played.",
        ),
        ("no_such_package:Walk-v0", "'no_such_package:Walk-v0' cannot be imported (No module named 'no_such_package'"),
        ("a b", "'a b' cannot be made: Malformed environment ID"),
    ],
)
def test_an_unknown_id_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(WorldError) as caught:
        Control(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_ids_registered_elsewhere_are_not_near_by_their_ending_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for known in ("Skiing-v0", "Pong-v4", "ALE/Pong-v5", "new/CartPole-v1"):  # as ale_py registers them, once imported
        monkeypatch.setitem(gym.registry, known, EnvSpec(known))
    for name, message in (
        ("Sudoku-v0", "got 'Sudoku-v0'. `torchward list` shows them."),
        ("Ponng-v4", "Did you mean 'ALE/Pong-v5'?"),
        ("Cartpole-v1", "Did you mean 'CartPole-v1'?"),
    ):
        with pytest.raises(WorldError) as caught:
            Control(name)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("LunarLander-v3", "Box2D", "pip install 'torchward[box2d]'"),
        ("BipedalWalker-v3", "Box2D", "pip install 'torchward[box2d]'"),
        ("HalfCheetah-v5", "mujoco", "pip install 'torchward[mujoco]'"),
    ],
)
def test_a_missing_package_names_the_extra(name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in list(sys.modules):
        if loaded.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco")):
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(WorldError, match=f"{name} needs a package that is not installed") as caught:
        make(name, 1)
    assert extra in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (lambda: "no world", "got <lambda>, which made a str"),
        (int, "got int, which made a int"),
        (lambda: 1 / 0, "<lambda> raised ZeroDivisionError when it was made"),
        (lambda: sys.exit(3), "<lambda> raised SystemExit when it was made: 3"),
    ],
)
def test_what_is_no_environment(environment: Any, message: str) -> None:
    with pytest.raises(WorldError, match=message):
        make_env(environment)


@pytest.mark.parametrize(
    "instance", [lambda: Walk(), lambda: SyncVectorEnv([Walk] * 2), lambda: gym.make("CartPole-v1")]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_factory_makes_a_new_environment_at_each_call(instance: Any, wrapped: bool) -> None:
    made = instance()
    message = "^expected a new environment from each call of <lambda>, got the same one; build it within"
    with pytest.raises(WorldError, match=message):
        Control(lambda: Plain(made) if wrapped and isinstance(made, gym.Env) else made)
    Control(instance)
    if isinstance(made, gym.Env):
        with pytest.raises(WorldError, match=message):
            make(lambda: made, 2, SYNC)


def test_wrong_keyword_arguments() -> None:
    with pytest.raises(WorldError, match=r"'CartPole-v1' cannot be made: .*unexpected keyword argument 'colour'"):
        make("CartPole-v1", 1, EnvOptions(env_kwargs={"colour": 1}))
    with pytest.raises(WorldError, match=r"Slow raised TypeError when it was made: .*unexpected keyword argument"):
        make(Slow, 1, EnvOptions(env_kwargs={"colour": 1}))
    with pytest.raises(WorldError, match=r"CartPole-v1.*unexpected keyword argument 'colour'"):
        make("CartPole-v1", 8, EnvOptions(env_kwargs={"colour": 1}))


class TestVectorization:
    def test_natively_where_gymnasium_can_and_it_pays(self) -> None:
        assert isinstance(make("CartPole-v1", 8), Native)
        assert isinstance(make("CartPole-v1", 2), InProcess)
        assert isinstance(make("CartPole-v1", 8, EnvOptions(max_episode_steps=10)), InProcess)
        assert isinstance(make("CartPole-v1", 2, EnvOptions(vectorization="native")), Native)
        limited: Any = make("CartPole-v1", 2, EnvOptions(vectorization="native", max_episode_steps=7))
        assert limited.vector.max_episode_steps == 7
        assert isinstance(make(Walk, 8), InProcess)

    def test_a_costly_step_gets_a_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from torchward.envs import make as making

        monkeypatch.setattr(making, "step_seconds", lambda env: 1.0)
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        worlds = make(Walk, 2)
        assert isinstance(worlds, Processes)
        worlds.close()
        assert isinstance(make(Walk, 1), InProcess)
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        assert isinstance(make(Walk, 2), InProcess)

    def test_a_very_costly_step_is_not_taken_often(self) -> None:
        class Counts(Walk):
            steps = 0

            def step(self, action: Any) -> Any:
                self.steps += 1
                return super().step(action)

        for patience, steps in ((0.0, 3), (1e9, 32)):
            world = Counts()
            assert step_seconds(world, patience=patience) > 0.0 and world.steps == steps

    def test_a_reset_without_options(self) -> None:
        """Nobody gives any: a world that takes none is one in a process of its own, too."""

        class Short(Walk):
            def reset(self, *, seed: int | None = None) -> Any:  # type: ignore[override]
                return super().reset(seed=seed)

        for how in ("sync", "async"):
            assert lengths(Control(Short, EnvOptions(vectorization=how)))

    def test_processes_do_not_draw_alike(self) -> None:
        """From the generators that all share, of which a fork has a copy: equal seeds of a run give equal worlds."""

        class Global(Walk):
            observation_space = gym.spaces.Box(0, 1, (2,))

            def _see(self) -> Any:
                return np.array([np.random.rand(), random.random()], np.float32)  # noqa: NPY002

        def drawn(seed: int) -> Any:
            np.random.seed(seed)  # noqa: NPY002
            random.seed(seed)
            worlds = make(Global, 3, EnvOptions(vectorization="async"))
            before = np.random.get_state()[1], random.getstate()  # type: ignore[index]  # noqa: NPY002
            seen = np.stack([worlds.reset(0), worlds.step(np.zeros(3, np.int64)).observation])  # type: ignore[list-item]
            worlds.close()
            after = np.random.get_state()[1], random.getstate()  # type: ignore[index]  # noqa: NPY002
            assert (before[0] == after[0]).all() and before[1] == after[1]
            return seen

        generators = random_state.capture_global()
        try:
            first, again, other = drawn(3), drawn(3), drawn(4)
        finally:
            random_state.restore_global(generators)
        assert len(np.unique(first)) == first.size == 12
        assert (first == again).all() and not (first == other).any()

    def test_no_vector_form(self) -> None:
        with pytest.raises(WorldError, match="Walk has no vector form of its own; use vectorization='sync' or 'async'"):
            make(Walk, 2, EnvOptions(vectorization="native"))
        with pytest.raises(WorldError, match="LunarLander-v3 has no vector form of its own"):
            make("LunarLander-v3", 2, EnvOptions(vectorization="native"))
        with pytest.raises(WorldError, match="Did you mean 'CartPole-v1'"):
            make("Cartpole-v1", 2, EnvOptions(vectorization="native"))

    def test_at_least_one(self) -> None:
        with pytest.raises(WorldError, match="expected at least one environment, got n_envs=0"):
            make(Walk, 0)

    def test_processes_and_in_process_are_the_same_worlds(self) -> None:
        """For one seed, whatever the world: here with its own randomness and time limit."""
        rollouts = []
        how: Any
        for how in ("sync", "async"):
            worlds = make("CartPole-v1", 2, EnvOptions(vectorization=how, max_episode_steps=12))
            source = EnvSource(worlds, 4)
            rollouts.append(source.collect(lively(worlds.observation_space, worlds.action_space), 100))
            source.close()
        for name in ("observation", "action", "reward", "terminated", "boundary", "value", "next_value"):
            assert torch.equal(*(getattr(rollout, name) for rollout in rollouts))
        ends, limits = (rollouts[0].boundary & each for each in (rollouts[0].terminated, ~rollouts[0].terminated))
        assert ends.any() and limits.any()


class TestTimeLimits:
    def test_an_id_takes_it_in_place_of_its_own(self) -> None:
        env: Any = make_env("CartPole-v1", EnvOptions(max_episode_steps=600))
        assert env.spec.max_episode_steps == 600

    def test_a_class_takes_it(self) -> None:
        assert max(lengths(Control(Walk, EnvOptions(max_episode_steps=2)))) == 2

    @pytest.mark.parametrize("steps", [3, 600])
    def test_an_instance_takes_it(self, steps: int) -> None:
        env: Any = Control(gym.make("CartPole-v1"), EnvOptions(max_episode_steps=steps)).env()
        env.reset(seed=0)
        limits = []
        layer = env
        while isinstance(layer, gym.Wrapper):
            if isinstance(layer, gym.wrappers.TimeLimit):
                limits.append(layer._max_episode_steps)
            layer = layer.env
        assert limits == [steps]


def test_names() -> None:
    assert name_of("a:B-v0") == "a:B-v0" and name_of(Walk) == "Walk" and name_of(Walk()) == "Walk"
    assert name_of(gym.make("CartPole-v1")) == "CartPole-v1"
    assert name_of(SyncVectorEnv([Walk])) == "SyncVectorEnv"


@pytest.fixture(autouse=True)
def _no_registration_is_left() -> Iterator[None]:
    before = set(gym.registry)
    yield
    assert set(gym.registry) == before
