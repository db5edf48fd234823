"""Networks of action values: each part against its own equation, rows against steps, targets against their source."""

import math

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from tests.nets.examples import OBSERVATIONS, equal, observations, row
from torchward.nets.q_network import C51, QR, NoisyLinear, QNet, QNetwork
from torchward.nets.spaces import MASK, Box, Dict, Discrete, MultiBinary, MultiDiscrete, SpaceError
from torchward.nets.target import follow, twin

BOX = Box((4,))


def network(net: QNet, distribution: C51 | QR | None = None, actions: int = 3) -> QNetwork:
    torch.manual_seed(0)
    return QNetwork(BOX, Discrete(actions), net, distribution)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("distribution", [None, C51(5, -1.0, 1.0), QR(4)])
@pytest.mark.parametrize("seen", OBSERVATIONS)
def test_every_observation_has_a_value_for_each_action(seen: str, distribution: C51 | QR | None, dueling: bool) -> None:
    made = QNetwork(OBSERVATIONS[seen], Discrete(3), QNet(net_arch=(8,), dueling=dueling), distribution)
    for lead in ((2,), (2, 5)):
        outputs = made(observations(OBSERVATIONS[seen], lead, Generator().manual_seed(0)))
        assert outputs.shape == (*lead, 3) + (() if distribution is None else (made.size,))
        assert made.values(outputs).shape == (*lead, 3)


def test_a_plain_network_is_its_layers() -> None:
    made, x = network(QNet(net_arch=(16, 8), activation_fn="tanh")), torch.randn(5, 4)
    first, second = made.hidden
    assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear) and isinstance(made.advantage, nn.Linear)
    expected = made.advantage(torch.tanh(second(torch.tanh(first(x)))))
    assert torch.equal(made(x), expected)
    assert torch.equal(network(QNet(net_arch=()))(x), F.linear(x, *network(QNet(net_arch=())).advantage.parameters()))


@pytest.mark.parametrize("net_arch", [(), (16,), (16, 8)])
def test_duelling_streams_are_a_value_and_what_actions_add_to_it(net_arch: tuple[int, ...]) -> None:
    made, x = network(QNet(net_arch=net_arch, dueling=True)), torch.randn(5, 4)
    latent = x
    for layer in made.hidden:
        latent = layer(latent).relu()
    half = made.width
    left, right = (latent[:, :half], latent[:, half:]) if net_arch else (latent, latent)
    assert made.value is not None
    value, advantage = made.value(right), made.advantage(left)
    q = made(x)
    torch.testing.assert_close(q.mean(1, keepdim=True), value)  # the advantages' mean is 0
    torch.testing.assert_close(q - q[:, :1], advantage - advantage[:, :1])
    with torch.no_grad():
        made.advantage.bias.add_(7.0)  # type: ignore[operator]
    torch.testing.assert_close(made(x), q)


@pytest.mark.parametrize("dueling", [False, True])
def test_noisy_weights_are_weights_with_factorised_noise(dueling: bool) -> None:
    """Against the matrices W + S * f(e_out) f(e_in)^T, written out for each row."""
    made, x = network(QNet(net_arch=(6,), noisy=True, dueling=dueling)), torch.randn(3, 4)
    noise = made.noise((3,), Generator().manual_seed(1))
    out = made(x, noise)
    for i in range(3):
        parts = list(noise[i].split(made.noises))

        def apply(layer: nn.Module, z: Tensor, parts: list[Tensor] = parts) -> Tensor:
            assert isinstance(layer, NoisyLinear)
            e_in, e_out = parts.pop(0), parts.pop(0)
            weight = layer.weight + layer.weight_std * torch.outer(e_out, e_in)
            return weight @ z + layer.bias + layer.bias_std * e_out

        latent = apply(made.hidden[0], x[i]).relu()
        advantage = apply(made.advantage, latent[:6])
        if dueling:
            assert made.value is not None
            advantage = apply(made.value, latent[6:]) + advantage - advantage.mean()
        torch.testing.assert_close(out[i], advantage)
    torch.testing.assert_close(made(x, torch.zeros_like(noise)), made(x))
    assert not torch.allclose(out, made(x))
    torch.autograd.grad(out.sum(), [p for n, p in made.named_parameters() if "std" in n])  # all of them are reached


def test_noise_is_the_signed_root_of_a_normal() -> None:
    """f(e)^2 = |e|: the mean is sqrt(2 / pi), and the signs are even."""
    noise = network(QNet(noisy=True)).noise((2_000,), Generator().manual_seed(0)).flatten()
    assert float(noise.square().mean()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.005)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.005)
    layer = NoisyLinear(16, 5, 0.5)
    assert torch.equal(layer.weight_std, torch.full((5, 16), 0.125)) and float(layer.weight.detach().abs().max()) < 0.25


def test_values_are_the_means_of_distributions() -> None:
    x = torch.randn(5, 4)
    atoms = network(QNet(), C51(7, -3.0, 3.0))
    expected = sum(p * z for p, z in zip(atoms(x).softmax(-1).unbind(-1), range(-3, 4), strict=True))
    torch.testing.assert_close(atoms.values(atoms(x)), expected)
    quantiles = network(QNet(dueling=True), QR(7))
    torch.testing.assert_close(quantiles.values(quantiles(x)), quantiles(x).sum(-1) / 7)


def test_what_a_mask_forbids_is_worth_minus_infinity() -> None:
    made = QNetwork(Dict({MASK: MultiBinary(3), "x": BOX}), Discrete(3))
    mask = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]])
    values = torch.arange(9.0).reshape(3, 3)
    allowed = made.allowed(values, {MASK: mask, "x": torch.zeros(3, 4)})
    assert allowed.tolist() == [[0.0, -math.inf, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]
    assert network(QNet()).allowed(values, torch.zeros(3, 4)) is values


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rows_are_their_steps(cell: str) -> None:
    made = network(QNet(net_arch=(8,), recurrent=cell, lstm_hidden_size=5, dueling=True))  # type: ignore[arg-type]
    x = torch.randn(2, 6, 4)
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[0, 1] = reset[1, 3] = True
    state, steps = made.initial_state(2), []
    for t in range(6):
        if t == 4:
            torch.testing.assert_close(made.burn_in(x[:, :4], reset[:, :4]), state)
            rest = made.unroll(x[:, 4:], state, reset[:, 4:])
            torch.testing.assert_close(rest, made.unroll(x, made.initial_state(2), reset)[:, 4:])
        q, state = made.step(x[:, t], state)
        steps.append(q)
        state = tuple(part.masked_fill(reset[:, t, None], 0.0) for part in state)  # type: ignore[union-attr]
    torch.testing.assert_close(torch.stack(steps, 1), made.unroll(x, made.initial_state(2), reset))


@pytest.mark.parametrize("space", [BOX, Box((36, 36, 1), 0.0, 255.0, "uint8")])
def test_without_burning_in_rows_begin_with_zeros(space: Box) -> None:
    made = QNetwork(space, Discrete(3), QNet(recurrent="lstm", lstm_hidden_size=5))
    nothing = torch.zeros(2, 0, *space.shape, dtype=torch.float32 if space is BOX else torch.uint8)
    state = made.burn_in(nothing, torch.zeros(2, 0, dtype=torch.bool))
    assert equal(state, made.initial_state(2))


def test_burning_in_leaves_no_gradient() -> None:
    made = network(QNet(recurrent="lstm"))
    x = torch.randn(2, 6, 4, requires_grad=True)
    reset = torch.zeros(2, 6, dtype=torch.bool)
    state = made.burn_in(x[:, :4], reset[:, :4])
    assert not any(part.requires_grad for part in state)  # type: ignore[union-attr]
    (gradient,) = torch.autograd.grad(made.unroll(x[:, 4:], state, reset[:, 4:]).sum(), x)
    assert not gradient[:, :4].any() and gradient[:, 4:].any()


def test_actions_have_to_be_discrete() -> None:
    for space in (MultiDiscrete((2, 2)), Box((1,))):
        with pytest.raises(SpaceError, match=r"one for each of Discrete actions, got (Multi|Box)"):
            QNetwork(BOX, space)
    with pytest.raises(SpaceError, match="an action_mask of 3 entries"):
        QNetwork(Dict({MASK: MultiBinary(2), "x": BOX}), Discrete(3))


NETS = {
    "plain": QNet(normalize_observation=True),
    "noisy": QNet(noisy=True, dueling=True),
    "lstm": QNet(recurrent="lstm", normalize_observation=True),
}


@pytest.mark.parametrize("name", NETS)
def test_a_twin_stands_still(name: str) -> None:
    source = network(NETS[name])
    x = torch.randn(5, 4)
    state = source.initial_state(5)
    target = twin(source)
    before = target.step(x, state)[0]
    assert equal(before, source.step(x, state)[0].detach()) and not before.requires_grad
    assert all(p.requires_grad for p in source.parameters())
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.1)
    assert equal(target.step(x, state)[0], before)
    follow(list(target.parameters()), list(source.parameters()), 1.0)
    assert equal(target.step(x, state)[0], source.step(x, state)[0].detach())


def test_a_twin_sees_the_world_as_its_source_does() -> None:
    source = network(NETS["plain"])
    target = twin(source)
    assert source.features is not None
    source.features.absorb(5.0 + 3.0 * torch.randn(50, 4))
    x = torch.randn(5, 4)
    assert equal(target(x), source(x).detach())


@pytest.mark.parametrize("tau", [0.005, 0.3, 0.7, 1.0])
def test_a_target_moves_by_tau(tau: float) -> None:
    generator = Generator().manual_seed(0)
    target, source = ([torch.randn(s, generator=generator) for s in ((3, 4), (5,), ())] for _ in range(2))
    expected = [(1 - tau) * t.double() + tau * s.double() for t, s in zip(target, source, strict=True)]
    kept = [s.clone() for s in source]
    follow(target, source, tau)
    for moved, right, s, k in zip(target, expected, source, kept, strict=True):
        torch.testing.assert_close(moved.double(), right, rtol=1e-6, atol=1e-6)
        assert torch.equal(s, k) and (tau < 1.0 or torch.equal(moved, s))


def test_rows_of_observations_are_alike_in_any_shape() -> None:
    made, seen = network(QNet()), torch.randn(2, 5, 4)
    torch.testing.assert_close(made(seen)[:, 3], made(row(seen, slice(None), 3)))
