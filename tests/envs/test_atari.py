"""Atari by ALE's vector: held against ALE stepped by hand, and against what a replay makes of it."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from tests.data.stories import Chance
from torchward.data.replay import Replay
from torchward.envs.atari import Atari, AtariVector, Classic, Machado, envpool_arguments
from torchward.envs.collect import EnvSource
from torchward.envs.faults import WorldError
from torchward.envs.make import EnvOptions, make
from torchward.envs.task import Control
from torchward.envs.worlds import episode_seed
from torchward.nets.spaces import Box, Discrete, SpaceError

pytest.importorskip("ale_py", reason="needs the extra atari")

BREAKOUT = "ALE/Breakout-v5"
STILL = Classic(noop_max=0)
"""Without any randomness: what happens follows from the actions."""


@pytest.fixture(scope="module", autouse=True)
def _registration() -> Iterator[None]:
    """ALE registers its games when it is first imported; other tests look at what is registered."""
    from ale_py.registration import register_v5_envs

    if BREAKOUT not in gym.registry:
        register_v5_envs()  # type: ignore[no-untyped-call]
    yield
    for name in [name for name, spec in gym.registry.items() if "ale_py" in str(spec.entry_point)]:
        del gym.registry[name]


def by_hand(game: str, n: int, atari: Atari) -> Any:
    """ALE's vector with nothing between it and its caller; it never begins anew by itself within a test."""
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        game, n, autoreset_mode=AutoresetMode.NEXT_STEP, stack_num=1, noop_max=1, use_fire_reset=False,
        reward_clipping=False, episodic_life=False, repeat_action_probability=0.0,
        full_action_space=atari.full_action_space, max_num_frames_per_episode=atari.max_frames,
    )  # fmt: skip


def actions(steps: int, n: int, kinds: int) -> Any:
    return np.random.default_rng(0).integers(0, kinds, (steps, n))


class TestSteps:
    def test_a_life_ends_an_episode_and_not_the_game(self) -> None:
        """Frames, rewards and lives are ALE's own; a stack shows what came since the life began and nothing else."""
        ours, ale = AtariVector(BREAKOUT, 2, STILL), by_hand("breakout", 2, STILL)
        seen, _ = ours.reset(seed=3)
        frame, info = ale.reset(seed=np.array([episode_seed(3, i, 0) for i in range(2)]))
        past: list[list[Any]] = [[frame[i, 0]] for i in range(2)]
        ended = 0
        for action in actions(130, 2, 4):
            assert all(np.array_equal(seen[i], padded(past[i])) for i in range(2))
            lives = info["lives"]
            seen, reward, terminated, truncated, told = ours.step(action)
            frame, score, over, _, info = ale.step(action)
            assert not over.any() and not truncated.any(), "the test is for a game that goes on"
            assert np.array_equal(reward, np.clip(score, -1, 1)) and reward.dtype.kind == "i"
            assert np.array_equal(terminated, info["lives"] < lives)
            assert ("final_obs" in told) == terminated.any()
            for i in range(2):
                past[i].append(frame[i, 0])
                if terminated[i]:
                    ended += 1
                    assert np.array_equal(told["final_obs"][i], padded(past[i]))
                    past[i] = past[i][-1:]
        assert ended >= 4

    def test_a_game_that_is_over_begins_anew_within_the_step(self) -> None:
        atari = replace(STILL, max_frames=200)
        ours, ale = AtariVector(BREAKOUT, 1, atari), by_hand("breakout", 1, atari)
        first, _ = ours.reset(seed=0)
        ale.reset(seed=np.array([episode_seed(0, 0, 0)]))
        frames = []
        for action in actions(50, 1, 4):
            seen, _, terminated, truncated, told = ours.step(action)
            frames.append(ale.step(action)[0][0, 0])
        assert truncated[0] and not terminated[0]
        assert np.array_equal(told["final_obs"][0], np.stack(frames[-4:]))
        assert np.array_equal(seen, first), "without random starts every game begins in the same way"

    def test_whole_games_have_the_scores_of_the_game(self) -> None:
        """And show the same as those that are learnt from."""
        name, atari = "ALE/SpaceInvaders-v5", STILL
        learnt, whole = (AtariVector(name, 1, atari, games) for games in (False, True))
        seen, same = (vector.reset(seed=1)[0] for vector in (learnt, whole))
        scores, ends = [], []
        for action in actions(260, 1, 6):
            assert np.array_equal(seen, same)
            (seen, clipped, over, *_), (same, score, game_over, *_) = learnt.step(action), whole.step(action)
            assert clipped[0] == np.sign(score[0])
            scores.append(score[0])
            ends.append((over[0], game_over[0]))
        assert max(scores) > 1 and (True, False) in ends and (False, True) not in ends

    def test_colours_are_channels(self) -> None:
        grey, colour = (AtariVector(BREAKOUT, 1, replace(STILL, grayscale=g, img_width=50)) for g in (True, False))
        assert grey.single_observation_space.shape == (4, 84, 50)
        assert colour.single_observation_space.shape == (12, 84, 50)
        for vector in (grey, colour):
            vector.reset(seed=0)
        for action in actions(6, 1, 4):
            one, three = grey.step(action)[0], colour.step(action)[0]
        weights = np.array([0.299, 0.587, 0.114])
        mixed = np.einsum("fchw,c->fhw", three[0].reshape(4, 3, 84, 50).astype(float), weights)
        assert np.abs(mixed - one[0]).mean() < 4.0, "brightness is what the eye makes of the colours"


def padded(frames: list[Any]) -> Any:
    return np.stack([*[np.zeros((84, 84), np.uint8)] * (4 - len(frames)), *frames[-4:]])


@pytest.mark.parametrize(
    "atari", [Machado(max_frames=120), Classic(), Classic(grayscale=False, max_frames=130, frame_stack=3)]
)
def test_a_replay_rebuilds_the_stacks_that_were_seen(atari: Atari) -> None:
    """Of frames that it keeps once: across lost lives, ends of games and time limits."""
    task = Control(BREAKOUT, EnvOptions(atari=atari))
    source = task.source(3, 0)
    replay = Replay(
        task.observation_space, task.action_space, 3, 3 * 300, seed=0,
        frame_stack=atari.frame_stack, stack_padding="zero",
    )  # fmt: skip
    replay.streams.unproved = 0  # it would look at the first stacks itself
    shown: list[list[Any]] = [[] for _ in range(3)]
    for _ in range(4):
        rollout = source.collect(Chance(gym.spaces.Discrete(4)), 50)  # type: ignore[arg-type]
        replay.add(rollout)
        assert isinstance(rollout.observation, torch.Tensor)
        finals = {}
        if rollout.finals is not None:
            for i, (row, time) in enumerate(
                zip(rollout.finals.row.tolist(), rollout.finals.time.tolist(), strict=True)
            ):
                finals[row, time] = rollout.finals.observation[i]  # type: ignore[index]
        for row in range(3):
            for time in range(50):
                shown[row].append(rollout.observation[row, time])
                if (row, time) in finals:
                    shown[row].append(finals[row, time])
    ends = 0
    for row in range(3):
        numbers = np.arange(replay.streams.written[row])
        rebuilt = replay.streams.observe(np.full_like(numbers, row), numbers)
        assert torch.equal(torch.as_tensor(rebuilt), torch.stack(shown[row]))
        ends += len(numbers) - 200
    assert ends >= 6
    assert source.cut(), "ALE's state cannot be brought back, so checkpoints cut its games"
    replay.cut()
    replay.add(source.collect(Chance(gym.spaces.Discrete(4)), 5))  # type: ignore[arg-type]
    source.close()


def test_a_replay_with_another_padding_refuses() -> None:
    task = Control(BREAKOUT)
    replay = Replay(task.observation_space, task.action_space, 1, 100, seed=0, frame_stack=4, stack_padding="first")
    with pytest.raises(SpaceError, match=r"frame_stack = 4 frames, .* stack_padding = 'first'"):
        replay.add(task.source(1, 0).collect(Chance(gym.spaces.Discrete(18)), 5))  # type: ignore[arg-type]


class TestTask:
    def test_the_presets_differ_as_they_should(self) -> None:
        modern, classic = Control(BREAKOUT), Control(BREAKOUT, EnvOptions(atari=Classic()))
        assert modern.action_space == Discrete(18) and classic.action_space == Discrete(4)
        assert modern.observation_space == classic.observation_space == Box((4, 84, 84), 0.0, 255.0, "uint8")
        assert Machado().repeat_action_probability == 0.25 and not Machado().life_loss_ends
        assert Classic().repeat_action_probability == 0.0 and Classic().life_loss_ends

    def test_evaluations_are_whole_games(self) -> None:
        task = Control("ALE/Breakout-v5", EnvOptions(atari=Classic()))
        lives = EnvSource(task.worlds(1), 0)
        policy = Chance(gym.spaces.Discrete(4))
        lives.collect(policy, 400)  # type: ignore[arg-type]
        games = task.evaluate(policy, 2, 0, deterministic=False)  # type: ignore[arg-type]
        assert max(episode.length for episode in lives.episodes()) < 80 < min(games.lengths)

    def test_a_time_limit_is_counted_in_steps(self) -> None:
        task = Control(BREAKOUT, EnvOptions(max_episode_steps=30, atari=STILL))
        evaluation = task.evaluate(Chance(gym.spaces.Discrete(4)), 1, 0, deterministic=False)  # type: ignore[arg-type]
        assert evaluation.lengths == [30]

    @pytest.mark.parametrize("atari", [STILL, replace(STILL, grayscale=False), replace(STILL, fire_on_reset=True)])
    def test_a_film_shows_what_the_vector_sees(self, atari: Atari) -> None:
        pytest.importorskip("cv2", reason="needs the extra atari")
        env = Control(BREAKOUT, EnvOptions(atari=atari)).env(render_mode="rgb_array")
        vector = AtariVector(BREAKOUT, 1, atari)
        seen, same = env.reset(seed=0)[0], vector.reset(seed=0)[0]
        lost = 0
        for action in actions(60, 1, 4):
            assert np.array_equal(seen, same[0])
            assert env.observation_space.contains(seen)
            seen, *_ = env.step(action[0])
            same, _, ended, *_ = vector.step(action)
            lost += ended[0]
        assert lost >= 1
        picture: Any = env.render()
        assert picture.shape == (210, 160, 3)
        env.close()


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("ALE/Pongg-v5", EnvOptions(), "expected the id of an Atari game, got .* Did you mean 'ALE/Pong-v5'?"),
        (BREAKOUT, EnvOptions(vectorization="async"), "stepped by ALE's own vector; leave vectorization='async' out"),
        (BREAKOUT, EnvOptions(env_kwargs={"mode": 3}), "takes no env_kwargs: the fields of EnvOptions.atari say"),
        (BREAKOUT, EnvOptions(atari=Machado(frameskip=0)), "expected frameskip of Atari of at least 1, got 0"),
        (BREAKOUT, EnvOptions(atari=Machado(repeat_action_probability=1.5)), r"within \[0, 1\), got 1.5"),
    ],
)  # fmt: skip
def test_what_cannot_be_played(name: str, options: EnvOptions, sentence: str) -> None:
    with pytest.raises(WorldError, match=sentence.replace("?", r"\?")):
        Control(name, options)


def test_without_ale_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(WorldError, match=r"ALE/Pong-v5 needs ALE, .*: pip install 'torchward\[atari\]'"):
        Control("ALE/Pong-v5")


def test_envpool_is_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in: of a game of Atari, and not of another world."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def make_pool(name: str, **kwargs: Any) -> Any:
        asked.append((name, kwargs))
        raise ValueError("no more is needed")

    def make_spec(name: str) -> Any:
        return SimpleNamespace(config=SimpleNamespace(_fields=("episodic_life",) if name == "Pong-v5" else ()))

    module = ModuleType("envpool")
    vars(module).update(make=make_pool, make_spec=make_spec)
    monkeypatch.setitem(sys.modules, "envpool", module)
    options = EnvOptions(vectorization="envpool", atari=Classic())
    for name, whole in (("ALE/Pong-v5", False), ("Pong-v5", True), ("CartPole-v1", False)):
        with pytest.raises(WorldError, match="EnvPool cannot make"):
            make(name, 2, options, whole)
    (first, learnt), (second, whole_game), (_, other) = asked
    assert first == second == "Pong-v5" and "stack_num" not in other
    assert learnt["episodic_life"] and learnt["reward_clip"] and learnt["noop_max"] == 30 and learnt["frame_skip"] == 4
    assert not whole_game["episodic_life"] and not whole_game["reward_clip"]
    assert envpool_arguments(Machado())["repeat_action_probability"] == 0.25
