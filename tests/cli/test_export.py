"""The ONNX file acts as the policy does, with its state, normaliser and scaling, on each kind of space."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import torchward
from tests.cli.conftest import Command
from torchward.cli.export import ExportError, compare, export, leaves, sample
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.nets.q_network import C51, QNet
from torchward.nets.q_policy import QPolicy
from torchward.nets.spaces import MASK, Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

CASES: dict[str, tuple[Space, Space, Network | QNet]] = {
    "LSTM, normaliser, Discrete with a start": (
        Box((3,)),
        Discrete(4, start=2),
        Network(net_arch=(8,), recurrent="lstm", lstm_hidden_size=6, normalize_observation=True),
    ),
    "GRU, Tuple, bounded Box": (
        Tuple((Box((2, 2)), Discrete(3, start=1))),
        Box((2,), low=-2.0, high=(3.0, 5.0)),
        Network(net_arch=(8,), recurrent="gru", lstm_hidden_size=6),
    ),
    "Dict with an image and a mask, MultiDiscrete": (
        Dict({"camera": Box((12, 14, 3), 0.0, 255.0, "uint8"), "arm": Box((2,)), MASK: MultiBinary(5)}),
        MultiDiscrete((2, 3)),
        Network(net_arch=(8,), encoder="impala", normalize_observation=True),
    ),
    "action values, duelling, a mask": (
        Dict({"x": Box((3,)), MASK: MultiBinary(4)}),
        Discrete(4, start=2),
        QNet(net_arch=(8,), dueling=True, normalize_observation=True),
    ),
    "action values of noisy weights, GRU": (
        Box((3,)),
        Discrete(4, start=2),
        QNet(net_arch=(8,), noisy=True, recurrent="gru", lstm_hidden_size=6),
    ),
}


def policy_of(observation: Space, action: Space, network: Network | QNet) -> ActorCritic | QPolicy:
    """One with statistics of its own and actions that differ."""
    torch.manual_seed(0)
    policy: ActorCritic | QPolicy
    if isinstance(network, QNet):
        policy = QPolicy(observation, action, network, C51(7, -2.0, 2.0) if network.dueling else None)
        policy.epsilon = 0.5  # greedy in the file
    else:
        policy = ActorCritic(observation, action, network)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    policy.absorb(sample(observation, 50, 3))
    return policy


@pytest.mark.parametrize("case", CASES)
def test_the_file_acts_as_the_policy_does(tmp_path: Path, case: str) -> None:
    policy, path = policy_of(*CASES[case]), tmp_path / "out" / "policy.onnx"
    inputs, outputs = export(policy, path)
    assert [file.name for file in path.parent.iterdir()] == ["policy.onnx"]
    session = onnxruntime.InferenceSession(str(path))
    assert [given.name for given in session.get_inputs()] == inputs
    assert [given.name for given in session.get_outputs()] == outputs

    # Three steps, each of several rows, as a program without torchward would make them.
    for rows in (1, 7):
        state: Any = None
        fed: dict[str, Any] = {
            given.name: np.zeros((rows, *given.shape[1:]), np.float32)
            for given in session.get_inputs()
            if given.name.startswith("state.")
        }
        for step in range(3):
            observation = sample(policy.observation_space, rows, step)
            fed |= {name: tensor.numpy() for name, tensor in leaves("observation", observation)}
            answer = dict(zip(outputs, session.run(None, fed), strict=True))
            action, state = policy.predict(_numpy(observation), state, deterministic=True)
            np.testing.assert_allclose(answer["action"], action, rtol=1e-4, atol=1e-4)
            assert answer["action"].dtype == action.dtype
            for name, tensor in leaves("state", state):
                np.testing.assert_allclose(answer[f"next_{name}"], tensor, rtol=1e-4, atol=1e-4)
                fed[name] = answer[f"next_{name}"]
            if isinstance(policy.action_space, Discrete):
                assert set(answer["action"].tolist()) <= {2, 3, 4, 5}

    # What checks the file finds a fault in it.
    compare(policy, path)
    with torch.no_grad():
        linear: Any = policy.q.advantage if isinstance(policy, QPolicy) else policy.head.linear
        linear.weight.neg_()
    with pytest.raises(ExportError, match=r"what was exported (differs|chooses otherwise)"):
        compare(policy, path)


def _numpy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _numpy(branch) for name, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map(_numpy, tree))
    return tree.numpy()


def test_export_of_a_run(command: Command, trained: Path, place: Path) -> None:
    code, out, _ = command("export", trained, "--out", "deep/agent.onnx")
    assert code == 0
    assert out == "deep/agent.onnx: observation -> action (checked against the policy on 65 observations)\n"
    model = onnx.load(place / "deep" / "agent.onnx")
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["torchward"] == torchward.__version__
    assert json.loads(about["action_space"]) == {"type": "Discrete", "n": 2, "start": 0}
    assert not any("critic" in tensor.name for tensor in model.graph.initializer)
    code, _, err = command("export", trained, "--out", "deep")
    assert (code, err.count("\n")) == (2, 1) and "expected a file to write at deep, got a directory" in err


def test_a_file_that_acts_otherwise_replaces_none(
    command: Command, trained: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(policy: Any, path: Path) -> int:
        assert path.read_text() == "new"
        raise ExportError("what was exported differs from the policy by 1")

    monkeypatch.setattr("torchward.cli.export.export", lambda policy, path: (["x"], [path.write_text("new")]))
    monkeypatch.setattr("torchward.cli.export.compare", fail)
    out = place / "files" / "agent.onnx"
    out.parent.mkdir()
    out.write_text("old")
    code, _, err = command("export", trained, "--out", out)
    assert code == 1 and err.endswith(f"differs from the policy by 1: nothing is written to {out}\n")
    assert out.read_text() == "old" and [*out.parent.iterdir()] == [out]


def test_an_export_without_its_packages_names_the_extra(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = command("export", trained)
    assert code == 2
    assert err == "torchward: an export needs onnx and onnxscript: pip install 'torchward[export]'\n"
