"""A replay goes on bit for bit from a checkpoint: in memory and in files, round the ring, and after a kill."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.data.stories import N, Pictures, World, ZeroPictures, begun, same
from tests.data.test_replay import STACKED, padded
from tests.nets.examples import row
from torchward import checkpoint
from torchward.config import ConfigError
from torchward.data.replay import Prioritised, Replay
from torchward.data.rollout import Rollout
from torchward.data.tree import tree_leaves
from torchward.nets.spaces import Box, Discrete, Space

LENGTHS = (4, 7, 1, 9, 3, 5, 6, 2, 8) * 4
EVERY = 4
"""Rollouts between two checkpoints."""
RESERVE = 60
WORLDS: dict[str, type[World]] = {"plain": World, "pictures": Pictures, "mixed": ZeroPictures}


@cache
def happened(name: str) -> tuple[list[Rollout], Space, Space]:
    _, source, policy = begun("same step", WORLDS[name])
    rollouts = [source.collect(policy, length) for length in LENGTHS]
    return rollouts, source.worlds.observation_space, source.worlds.action_space


def replay_of(name: str, directory: Path | None, prioritised: bool, capacity: int = N * 35) -> Replay:
    _, observation, action = happened(name)
    options = {"prioritised": Prioritised() if prioritised else None, "directory": directory, "reserve": RESERVE}
    return Replay(observation, action, N, capacity, **{"seed": 3, **STACKED[WORLDS[name]], **options})


def live(replay: Replay, name: str, begin: int, end: int = len(LENGTHS), saves: bool = True) -> Iterator[list[Tensor]]:
    """What is drawn while rollouts come in, from the ``begin``-th on; checkpoints are taken, and worlds broken off."""
    rollouts, *_ = happened(name)
    for i in range(begin, end):
        if saves and i % EVERY == 0:
            replay.state_dict()
        if i % 7 == 6:
            replay.cut()
        replay.add(rollouts[i])
        replay.beta += 0.01
        batch = replay.sample(16, 0.9, 3)
        replay.update_priorities(batch.index, batch.reward)
        drawn: list[Any] = [batch, replay.sample_sequences(4, 3)]
        yield [leaf.clone() for each in drawn for tree in vars(each).values() for leaf in tree_leaves(tree)]


def equal(left: list[list[Tensor]], right: list[list[Tensor]]) -> bool:
    pairs = zip([x for each in left for x in each], [x for each in right for x in each], strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def saved(replay: Replay, directory: Path) -> tuple[bytes, ...]:
    checkpoint.save_tree(directory, replay.state_dict())
    return tuple((directory / name).read_bytes() for name in (checkpoint.JSON_FILE, checkpoint.TENSOR_FILE))


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("prioritised", [False, True])
@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("stop", [0, 4, 16, 28])
def test_what_was_killed_goes_on_bit_for_bit(
    name: str, prioritised: bool, on_disk: bool, stop: int, tmp_path: Path
) -> None:
    """The first checkpoint is empty, the second comes before the ring is full, and the others after it went round.
    The kill comes just before the next checkpoint, when much was written over that it did not mean to keep."""
    whole = replay_of(name, tmp_path / "whole" if on_disk else None, prioritised)
    list(live(whole, name, 0, stop))
    expected = list(live(whole, name, stop))

    files = tmp_path / "killed" if on_disk else None
    killed = replay_of(name, files, prioritised)
    list(live(killed, name, 0, stop))
    saved(killed, tmp_path / "checkpoint")
    list(live(killed, name, stop, stop + EVERY, saves=False))
    del killed

    again = replay_of(name, files, prioritised)
    again.load_state_dict(checkpoint.load_tree(tmp_path / "checkpoint"))
    assert equal(list(live(again, name, stop)), expected)
    assert len(again) == len(whole)
    assert saved(again, tmp_path / "last") == saved(whole, tmp_path / "last of whole")


@pytest.mark.parametrize("stop", [4, 16])
def test_what_was_seen_last_is_there_before_more_is_added(stop: int, tmp_path: Path) -> None:
    replay, again = (replay_of("pictures", None, False) for _ in range(2))
    list(live(replay, "pictures", 0, stop))
    saved(replay, tmp_path)
    again.load_state_dict(checkpoint.load_tree(tmp_path))
    mine, its = replay.sample(300, 0.9), again.sample(300, 0.9)
    newest = replay.streams.written * N + torch.arange(N).numpy() - N
    assert set(newest.tolist()) & set(mine.index.tolist())
    assert all(torch.equal(a, b) for a, b in zip(vars(mine).values(), vars(its).values(), strict=True))


def test_the_rings_of_these_tests_go_round() -> None:
    replay = replay_of("pictures", None, False)
    list(live(replay, "pictures", 0, 4))
    assert replay.streams.written.max() < 35
    list(live(replay, "pictures", 4, 16))
    assert replay.streams.written.min() > 2 * replay.streams.size


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_checkpoint_of_what_is_half_full_holds_that_half(on_disk: bool, tmp_path: Path) -> None:
    replay = replay_of("pictures", tmp_path / "files" if on_disk else None, False, capacity=300_000)
    list(live(replay, "pictures", 0, 6))
    frames = 0 if on_disk else int((replay.streams.written + 1).max()) * N * 180
    assert frames <= sum(map(len, saved(replay, tmp_path / "checkpoint"))) < frames + 12_000


def test_a_file_of_frames_survives_a_real_kill(tmp_path: Path) -> None:
    """A process of its own, which is killed without warning between two checkpoints."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from tests.data.test_replay_resume import live, replay_of, saved\n"
        "place = Path(sys.argv[1])\nreplay = replay_of('pictures', place / 'files', True)\n"
        "list(live(replay, 'pictures', 0, 16))\nsaved(replay, place / 'checkpoint')\n"
        "list(live(replay, 'pictures', 16, 19, saves=False))\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    whole = replay_of("pictures", tmp_path / "whole", True)
    list(live(whole, "pictures", 0, 16))
    again = replay_of("pictures", tmp_path / "files", True)
    again.load_state_dict(checkpoint.load_tree(tmp_path / "checkpoint"))
    assert equal(list(live(again, "pictures", 16)), list(live(whole, "pictures", 16)))


@pytest.mark.parametrize("ends", [0.0, 0.1])
@pytest.mark.parametrize("rows", [3, 15, 40, 200])
def test_files_refuse_to_write_over_what_a_checkpoint_may_sample(rows: int, ends: float, tmp_path: Path) -> None:
    """Steps come one by one until the reserve is used up, and not a row earlier. All that could be drawn at the
    checkpoint can then still be, as it was."""
    story, source, policy = begun("same step", Pictures, ends)
    spaces = source.worlds.observation_space, source.worlds.action_space

    def opened() -> Replay:
        options: dict[str, Any] = {**STACKED[Pictures], "directory": tmp_path, "reserve": 20}
        return Replay(*spaces, N, N * 30, seed=0, **options)

    replay = opened()
    for _ in range(rows):
        if int(replay.streams.written.max() - replay.streams.saved.min()) > 15:
            replay.state_dict()
        replay.add(source.collect(policy, 1))
    state, kept = replay.state_dict(), story.kept(30)
    begin = replay.streams.written
    with pytest.raises(RuntimeError, match="keep what the last checkpoint may sample, with 20 rows more"):
        for _ in range(100):
            before = replay.streams.written
            replay.add(source.collect(policy, 1))
    room = 20 + max(30 + 3 - int(begin.max()), 0)  # where the ring was not full yet, there is more of it
    assert room - (2 if ends else 0) <= int((before - begin).max()) <= room
    again = opened()
    again.load_state_dict(state)
    found = set()
    for _ in range(20):
        batch = again.sample(20, 1.0)
        for i in range(20):
            world, number = story.find(row(batch.observation, i))
            found.add((world, number))
            assert same(row(batch.observation, i), story.worlds[world][number].seen)
            assert same(row(batch.next_observation, i), story.worlds[world][number].following)
    assert found <= kept and len(found) > 0.8 * len(kept)
    source.resumable = False
    assert source.cut()
    again.cut()
    with pytest.raises(RuntimeError, match="keep what the last checkpoint may sample"):
        for _ in range(100):
            again.add(source.collect(policy, 1))
    again.state_dict()
    assert source.cut()
    again.cut()
    again.add(source.collect(policy, 1))


def test_a_checkpoint_forces_the_files_onto_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, forced = replay_of("mixed", tmp_path, False), list[str]()
    monkeypatch.setattr(np.memmap, "flush", lambda file: forced.append(Path(file.filename).name))
    replay.state_dict()
    assert sorted(forced) == sorted(path.name for path in tmp_path.iterdir()) and len(forced) == 6


def test_a_checkpoint_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    """Every run begins with one."""
    replay = replay_of("plain", tmp_path, False)
    replay.state_dict()
    list(live(replay, "plain", 0, 24, saves=False))
    assert replay.streams.written.min() > replay.streams.size


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    def opened(capacity: int) -> Replay:
        return Replay(Box((1,)), Discrete(2), 1, capacity, seed=0, directory=tmp_path, reserve=10)

    replay = opened(40)
    replay.add(padded(1, 20, list(range(19))))
    state = replay.state_dict()
    with pytest.raises(ConfigError, match=r"expected a replay of 244 bytes in .*, or none, got one of 204"):
        opened(50)
    with pytest.raises(ValueError, match=r"= \(1, 61, 1\), got one of \(1, 51, 1\)"):
        Replay(Box((1,)), Discrete(2), 1, 60, seed=0).load_state_dict(state)
    del replay
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="expected the files of the replay that the checkpoint speaks of"):
        opened(40).load_state_dict(state)
