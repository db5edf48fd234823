"""The memory that a replay takes: told before it is made, and where there is not as much."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from torchward.algorithms import dqn
from torchward.config import ConfigError
from torchward.data.memory import bytes_of, replay_of
from torchward.data.replay import Prioritised, Replay, Uniform
from torchward.nets.spaces import Box, Discrete


@pytest.mark.parametrize("replay", [Uniform(), Prioritised()])
def test_its_bytes_are_told_before_it_is_made(replay: Any, tmp_path: Path) -> None:
    """Of a power of two of rows, as a tree of priorities has them: a ring has one more, for what comes next."""
    task: Any = SimpleNamespace(observation_space=Box((3,)), action_space=Discrete(4))
    config = dqn.Config(buffer_size=2**12 - 1, replay=replay)
    made = replay_of(config, task, tmp_path, 100)
    assert isinstance(made, Replay) and bytes_of(config, task) == pytest.approx(made.nbytes, rel=0.01)


def test_where_there_is_not_as_much_it_is_one_sentence(tmp_path: Path) -> None:
    task: Any = SimpleNamespace(observation_space=Box((84, 84, 4), 0.0, 255.0, "uint8"), action_space=Discrete(4))
    config, row = dqn.Config(buffer_size=10**11), 84 * 84 * 4 + 8 + 4 + 3
    told = rf"buffer_size = {10**11} steps, which takes {row // 10:,},\d+,\d+,\d+,\d+ bytes"
    with pytest.raises(ConfigError, match=f"{told}, got none on cpu; set a smaller --buffer-size.* --buffer-on-disk"):
        replay_of(config, task, tmp_path, 100)
