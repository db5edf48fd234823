"""A policy as a directory of data: it comes back bit for bit, executes nothing, and says what is wrong with it."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

import torchward
from tests.nets.examples import ACTIONS, OBSERVATIONS, equal, observations
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.nets.saving import PolicyError, load
from torchward.nets.spaces import Box, Discrete, Tree, to_json
from torchward.nets.tabular import TabularPolicy


def acted(policy: Any, seen: Tree) -> Tree:
    with torch.no_grad():
        out = policy.act(seen, policy.initial_state(3), policy.noise((3,), Generator().manual_seed(1)))
        value = policy.value(seen, policy.initial_state(3))
    return out.action, out.log_prob, () if value is None else value, out.state


@pytest.mark.parametrize(
    ("seen", "done", "network", "critic"),
    [
        ("vector", "discrete", Network(), True),
        ("nested", "nested", Network(net_arch=(8,), normalize_observation=True), True),
        ("tuple", "mixed", Network(net_arch=(), encoder="impala"), True),
        ("image", "half bounded", Network(net_arch=(8, 8), activation_fn="silu", log_std_init=-1.0), False),
        ("discrete", "multibinary", Network(recurrent="lstm", lstm_hidden_size=5), True),
        ("vector", "bounded", Network(recurrent="gru", normalize_observation=True), False),
    ],
)
def test_what_is_loaded_acts_as_what_was_saved(
    tmp_path: Path, seen: str, done: str, network: Network, critic: bool
) -> None:
    policy = ActorCritic(OBSERVATIONS[seen], ACTIONS[done], network, critic=critic)
    observation = observations(policy.observation_space, (3,), Generator().manual_seed(0))
    policy.absorb(observation)
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=0.3)
    policy.save(tmp_path / "policy")
    loaded = torchward.load(tmp_path / "policy")
    assert isinstance(loaded, ActorCritic) and loaded.network == network and not loaded.training
    assert (loaded.observation_space, loaded.action_space) == (policy.observation_space, policy.action_space)
    assert equal(acted(loaded, observation), acted(policy, observation))
    assert {path.name for path in (tmp_path / "policy").iterdir()} == {"policy.json", "policy.safetensors"}
    json.loads((tmp_path / "policy" / "policy.json").read_text(), parse_constant=pytest.fail)


def test_a_table_comes_back(tmp_path: Path) -> None:
    generator = Generator().manual_seed(0)
    probs = torch.rand(4, 3, generator=generator, dtype=torch.float64).softmax(-1)
    policy = TabularPolicy(Discrete(4, 2), Discrete(3, 1), probs, torch.randn(4, 3, generator=generator).double())
    policy.save(tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded, TabularPolicy)
    assert torch.equal(loaded.probs, policy.probs) and torch.equal(loaded.q, policy.q)
    assert loaded.predict(3)[0] == policy.predict(3)[0]


class Tied(nn.Module):
    """An encoder of the user's own, two of whose layers are one."""

    features = 4

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out


def test_a_users_encoder_is_handed_in(tmp_path: Path) -> None:
    policy = ActorCritic(Box((4,)), Discrete(2), encoder=Tied())
    policy.save(tmp_path)
    with pytest.raises(PolicyError, match=r"an encoder of your own; pass it: load\(path, encoder=.*Tied\(...\)\)"):
        load(tmp_path)
    seen = torch.randn(3, 4)
    assert equal(acted(load(tmp_path, encoder=Tied()), seen), acted(policy, seen))
    ActorCritic(Box((4,)), Discrete(2)).save(tmp_path / "plain")
    with pytest.raises(PolicyError, match="no encoder of your own; leave it out"):
        load(tmp_path / "plain", encoder=Tied())


def test_the_best_policy_of_a_run_else_the_last(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="it holds no policy yet"):
        load(tmp_path)
    with pytest.raises(PolicyError, match="no such directory"):
        load(tmp_path / "nowhere")
    (tmp_path / "gpt2").mkdir()
    for text, sentence in (("{", "it holds no policy yet"), ('{"model_type": "gpt2"}', "from it with --init .*gpt2")):
        (tmp_path / "gpt2" / "config.json").write_text(text)
        with pytest.raises(PolicyError, match=sentence):
            load(tmp_path / "gpt2")
    for name, width in (("last", 3), ("best", 5)):
        if name == "best":
            assert load(tmp_path).network == Network(net_arch=(3,))
        ActorCritic(Box((4,)), Discrete(2), Network(net_arch=(width,))).save(tmp_path / "policy" / name)
    assert load(tmp_path).network == Network(net_arch=(5,))
    assert load(tmp_path, which="last").network == Network(net_arch=(3,))
    assert load(tmp_path / "policy" / "last").network == Network(net_arch=(3,))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def change(**entries: Any) -> Any:
    def function(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return function


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("policy.safetensors", truncate),
        ("policy.safetensors", Path.unlink),
        ("policy.safetensors", lambda path: path.write_bytes(b"")),
        ("policy.safetensors", lambda path: path.write_bytes(pickle.dumps(Bomb()))),
        ("policy.json", change(observation_space=to_json(Box((5,))))),
        ("policy.json", truncate),
        ("policy.json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
        ("policy.json", lambda path: path.write_text("[1, 2]")),
        ("policy.json", lambda path: path.write_text("{}")),
        ("policy.json", change(format=99)),
        ("policy.json", change(network={"net_arch": [64, 64], "recurrent": "rnn"})),
        ("policy.json", change(network=None)),
        ("policy.json", change(action_space={"type": "Sphere"})),
        ("policy.json", change(action_space=None)),
        ("policy.json", change(policy="TabularPolicy")),
    ],
)  # fmt: skip
def test_damage_is_told_in_one_sentence(tmp_path: Path, file: str, damage: Any) -> None:
    ActorCritic(Box((4,)), Discrete(2)).save(tmp_path)
    damage(tmp_path / file)
    with pytest.raises(
        PolicyError, match=r"cannot be read \(.+\); it is damaged or foreign|expected a policy of format"
    ) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_saving_over_a_policy_replaces_it(tmp_path: Path) -> None:
    for width in (3, 4):
        ActorCritic(Box((4,)), Discrete(2), Network(net_arch=(width,))).save(tmp_path)
    loaded = load(tmp_path)
    assert loaded.predict(np.zeros(4))[0].shape == () and loaded.network == Network(net_arch=(4,))
