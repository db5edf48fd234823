"""The policy of action values: it acts as often as it says, never by what is forbidden, and comes back from a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

import torchward
from tests.nets.examples import equal, leaf, observations, row
from torchward.data.protocols import Policy
from torchward.data.tree import replace_rows, stack
from torchward.functional.value_losses import boltzmann_probs, epsilon_greedy_probs
from torchward.nets.q_network import C51, QR, QNet
from torchward.nets.q_policy import QPolicy
from torchward.nets.spaces import MASK, Box, Dict, Discrete, MultiBinary, Space

BOX = Box((4,))
MASKED = Dict({MASK: MultiBinary(4), "x": BOX})
ACTIONS = Discrete(4, start=2)


def policy(observation: Space = BOX, net: QNet | None = None, distribution: C51 | QR | None = None) -> QPolicy:
    torch.manual_seed(0)
    made = QPolicy(observation, ACTIONS, net or QNet(net_arch=(16,)), distribution)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def test_it_is_a_policy() -> None:
    assert isinstance(policy(), Policy)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("epsilon", "temperature"), [(0.3, 0.0), (1.0, 0.0), (0.0, 0.0), (0.0, 0.7)])
def test_actions_are_as_frequent_as_it_says(epsilon: float, temperature: float, masked: bool) -> None:
    made, n = policy(MASKED if masked else BOX), 40_000
    made.epsilon, made.temperature = epsilon, temperature
    x = torch.randn(1, 4).expand(n, 4)
    mask = torch.tensor([[1, 0, 1, 1]]).expand(n, 4)
    seen: Any = {MASK: mask, "x": x} if masked else x
    with torch.no_grad():
        acted = made.act(seen, (), made.noise((n,), Generator().manual_seed(0)))
        q = made.q_values(seen)[:1]
    expected = boltzmann_probs(q, temperature) if temperature else epsilon_greedy_probs(q, epsilon)
    action = leaf(acted.action)
    frequency = action.bincount(minlength=4) / n
    torch.testing.assert_close(frequency, expected[0], atol=0.01, rtol=0.0)
    torch.testing.assert_close(acted.log_prob.exp(), expected[0][action])
    assert not masked or frequency[1] == 0.0
    boundary = torch.zeros(4, 1, dtype=torch.bool)
    rows: Any = {MASK: mask[:4, None], "x": x[:4, None]} if masked else x[:4, None]
    with torch.no_grad():
        evaluated = made.evaluate_actions(rows, torch.arange(4)[:, None], (), boundary)
    torch.testing.assert_close(evaluated.log_prob.exp().flatten(), expected[0])
    assert float(evaluated.entropy[0]) == pytest.approx(float(torch.special.entr(expected).sum()), abs=1e-5)


@pytest.mark.parametrize("exploring", [(0.5, 0.0), (0.0, 2.0)])
def test_what_a_mask_forbids_is_never_done(exploring: tuple[float, float]) -> None:
    made, n = policy(MASKED), 5_000
    made.epsilon, made.temperature = exploring
    generator = Generator().manual_seed(0)
    mask = (torch.rand(n, 4, generator=generator) < 0.5).long()
    mask[~mask.any(1), 2] = 1
    seen: Any = {MASK: mask, "x": torch.randn(n, 4, generator=generator)}
    for noise in (made.noise((n,), generator), None):
        acted = made.act(seen, (), noise)
        assert mask.gather(1, leaf(acted.action)[:, None]).all()
        assert acted.log_prob.isfinite().all()


def test_without_noise_it_is_greedy() -> None:
    made, seen = policy(net=QNet(noisy=True, dueling=True), distribution=C51(5, -2.0, 2.0)), torch.randn(50, 4)
    made.epsilon = 1.0
    action = leaf(made.act(seen, (), None).action)
    assert torch.equal(action, made.q_values(seen).argmax(-1)) and len(action.unique()) > 1
    assert made.value(seen, ()) is None


def test_noisy_weights_explore_and_each_row_has_its_own() -> None:
    made = policy(net=QNet(noisy=True))
    seen = torch.randn(1, 4).expand(200, 4)
    noise = made.noise((200,), Generator().manual_seed(0))
    assert len(leaf(made.act(seen, (), noise).action).unique()) > 1
    quiet: Any = (*noise[:-1], torch.zeros_like(noise[-1]))  # type: ignore[index, arg-type]
    assert len(leaf(made.act(seen, (), quiet).action).unique()) == 1


@pytest.mark.parametrize(
    "net", [QNet(net_arch=(8,)), QNet(recurrent="lstm", lstm_hidden_size=5), QNet(recurrent="gru")]
)
def test_what_is_judged_is_what_was_done(net: QNet) -> None:
    made = policy(net=net)
    made.epsilon = 0.4
    generator = Generator().manual_seed(0)
    seen = observations(BOX, (2, 5), generator)
    boundary = torch.tensor([[False, True, False, False, False], [False, False, True, True, False]])
    with torch.no_grad():
        start = state = made.initial_state(2)
        noise, steps = made.noise((5, 2), generator), []
        for t in range(5):
            acted = made.act(row(seen, slice(None), t), state, row(noise, t))
            steps.append((acted.action, acted.log_prob))
            state = replace_rows(acted.state, boundary[:, t], made.initial_state(2))
        actions, log_probs = zip(*steps, strict=True)
        evaluated = made.evaluate_actions(seen, stack(list(actions), 1), start, boundary)
    torch.testing.assert_close(evaluated.log_prob, torch.stack(log_probs, 1))
    assert len(evaluated.log_prob.unique()) > 1 and evaluated.value is None


class Encoder(nn.Module):
    """A user's own."""

    features = 6

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x).tanh()
        return out


@pytest.mark.parametrize(
    ("net", "distribution"),
    [
        (QNet(net_arch=(8, 4), activation_fn="silu", normalize_observation=True), None),
        (QNet(net_arch=(), noisy=True, dueling=True), C51(7, -1.0, 2.5)),
        (QNet(recurrent="gru", lstm_hidden_size=5), QR(6)),
    ],
)
def test_what_is_loaded_acts_as_what_was_saved(tmp_path: Path, net: QNet, distribution: C51 | QR | None) -> None:
    made, seen = policy(net=net, distribution=distribution), torch.randn(30, 4)
    made.absorb(seen)
    made.epsilon = 0.25
    made.save(tmp_path)
    loaded = torchward.load(tmp_path)
    assert isinstance(loaded, QPolicy) and not loaded.training
    assert (loaded.network, loaded.distribution, loaded.epsilon) == (net, distribution, 0.25)
    with torch.no_grad():
        for noise in (None, made.noise((30,), Generator().manual_seed(0))):
            ours, theirs = (p.act(seen, p.initial_state(30), noise) for p in (made, loaded))
            assert equal(leaf(ours.action), leaf(theirs.action)) and equal(ours.log_prob, theirs.log_prob)
    action, _ = loaded.predict(seen.numpy())
    assert (action == leaf(made.act(seen, made.initial_state(30), None).action).numpy() + 2).all()


def test_a_users_encoder_is_handed_in(tmp_path: Path) -> None:
    made, seen = QPolicy(BOX, ACTIONS, encoder=Encoder()), torch.randn(3, 4)
    made.save(tmp_path)
    loaded = torchward.load(tmp_path, encoder=Encoder())
    assert isinstance(loaded, QPolicy) and equal(loaded.q_values(seen), made.q_values(seen))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("net_arch", [(), (7,), (7, 5)])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_acting_in_arrays_is_acting(net_arch: tuple[int, ...], activation: Any, epsilon: float) -> None:
    made = policy(net=QNet(net_arch=net_arch, activation_fn=activation))
    made.epsilon = epsilon
    seen, noise = torch.randn(20, 30, 4), made.noise((20, 30), Generator().manual_seed(0))
    for _ in range(2):
        choose = made.in_arrays(noise, 30)
        for t in range(20):
            with torch.no_grad():
                acted = made.act(seen[t], (), row(noise, t))
            action, log_prob = choose(t, seen[t].numpy())
            assert leaf(acted.action).tolist() == action.tolist()
            torch.testing.assert_close(torch.from_numpy(np.broadcast_to(log_prob, 30).copy()), acted.log_prob)
        with torch.no_grad():  # what is learnt is seen
            for parameter in made.parameters():
                parameter.neg_()


def test_only_what_is_small_and_plain_acts_in_arrays() -> None:
    other: list[Any] = [QNet(dueling=True), QNet(noisy=True), QNet(recurrent="gru"), QNet(activation_fn="silu")]
    made = [policy(net=net) for net in [*other, QNet(normalize_observation=True)]]
    for one in [*made, policy(MASKED), policy(distribution=QR(3))]:
        assert one.in_arrays(one.noise((5, 2), Generator()), 2) is None
    plain = policy(net=QNet(net_arch=(512, 256)))
    noise = plain.noise((5, 2), Generator())
    assert plain.in_arrays(noise, 1) is not None and plain.in_arrays(noise, 2) is None
    plain.temperature = 1.0
    assert plain.in_arrays(plain.noise((5, 1), Generator()), 1) is None


def test_the_last_number_below_epsilon_is_an_action() -> None:
    """Rounded up, uniform / epsilon * actions would be an action too many."""
    made = policy()
    made.epsilon = 0.104
    last = torch.nextafter(torch.tensor(0.104), torch.tensor(0.0))
    assert last < 0.104 and int(last * (4 / 0.104)) == 4
    noise = (last.expand(1, 3),)
    assert leaf(made.act(torch.randn(3, 4), (), row(noise, 0)).action).tolist() == [3, 3, 3]
    assert made.in_arrays(noise, 3)(0, np.zeros((3, 4), np.float32))[0].tolist() == [3, 3, 3]
