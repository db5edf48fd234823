"""Distributions over actions: enumeration, integration and sampling as oracles; masks that forbid exactly."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from tests.nets.examples import ACTIONS, DISCRETE_ACTIONS, all_actions, equal, row
from torchward.data.tree import tree_leaves, tree_map
from torchward.nets.heads import DiagonalGaussian, gumbel, head
from torchward.nets.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tree, Tuple

FEATURES = 3


def lively(space: Space, seed: int = 0, scale: float = 1.0) -> Any:
    """A head whose probabilities are far from equal."""
    made = head(FEATURES, space)
    generator = Generator().manual_seed(seed)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=scale, generator=generator)
    return made


def latent(*lead: int, seed: int = 1) -> Tensor:
    return torch.randn(*lead, FEATURES, generator=Generator().manual_seed(seed))


def spread(made: Any, x: Tensor, actions: Tree, mask: Tree | None = None) -> Tensor:
    """Log-probabilities ``[K, N]`` of each of K actions at each of N latents ``[N, F]``."""
    params = made(x, mask)
    count = len(next(tree_leaves(actions)))
    each = [tree_map(lambda leaf: leaf[k].expand(len(x), *leaf.shape[1:]), actions) for k in range(count)]  # noqa: B023
    return torch.stack([made.log_prob(params, action) for action in each])


@pytest.mark.parametrize("name", DISCRETE_ACTIONS)
def test_probabilities_sum_to_one_and_the_entropy_is_theirs(name: str) -> None:
    space = DISCRETE_ACTIONS[name]
    made, x = lively(space), latent(7)
    log_prob = spread(made, x, all_actions(space))
    torch.testing.assert_close(log_prob.exp().sum(0), torch.ones(7))
    torch.testing.assert_close(made.entropy(made(x, None)), -(log_prob.exp() * log_prob).sum(0))
    assert log_prob.exp().max() - log_prob.exp().min() > 0.2  # a distribution that could fail


@pytest.mark.parametrize("name", DISCRETE_ACTIONS)
def test_the_mode_is_the_likeliest_action(name: str) -> None:
    space = DISCRETE_ACTIONS[name]
    made, x = lively(space), latent(7)
    actions = all_actions(space)
    best = spread(made, x, actions).argmax(0)
    assert equal(made.sample(made(x, None), None), row(actions, best))


@pytest.mark.parametrize("name", DISCRETE_ACTIONS)
def test_samples_are_as_frequent_as_their_probabilities(name: str) -> None:
    """Pearson's statistic is chi-squared with K - 1 degrees of freedom: mean K - 1, variance 2 (K - 1)."""
    space, count = DISCRETE_ACTIONS[name], 40_000
    made, x = lively(space, seed=2, scale=0.5), latent(1, seed=4)
    actions = all_actions(space)
    expected = spread(made, x, actions)[:, 0].exp() * count
    noise = made.noise((count, 1), Generator().manual_seed(3))
    sampled = flat(made.sample(made(x.expand(count, 1, FEATURES), None), noise))
    observed = torch.stack([(sampled == action).all(-1).sum() for action in flat(actions)])
    assert observed.sum() == count
    free = len(expected) - 1
    assert ((observed - expected).square() / expected).sum() < free + 5 * math.sqrt(2 * free)


def flat(actions: Tree) -> Tensor:
    """Each action as one row of numbers."""
    leaves = list(tree_leaves(actions))
    return torch.cat([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)


@pytest.mark.parametrize("name", ACTIONS)
def test_leading_axes_change_nothing(name: str) -> None:
    made, x = lively(ACTIONS[name]), latent(2, 3)
    noise = made.noise((2, 3), Generator().manual_seed(0))
    params = made(x, None)
    action = made.sample(params, noise)
    log_prob, entropy = made.log_prob(params, action), made.entropy(params)
    assert log_prob.shape == entropy.shape == (2, 3)
    assert log_prob.dtype == entropy.dtype == torch.float32
    for i, j in product(range(2), range(3)):
        alone = made(x[i, j][None], None)
        chosen = made.sample(alone, row(noise, slice(i, i + 1), j))
        for left, right in zip(tree_leaves(chosen), tree_leaves(row(action, slice(i, i + 1), j)), strict=True):
            torch.testing.assert_close(left, right)
        torch.testing.assert_close(made.log_prob(alone, chosen)[0], log_prob[i, j])
        torch.testing.assert_close(made.entropy(alone)[0], entropy[i, j])


@pytest.mark.parametrize("name", ACTIONS)
def test_all_randomness_is_in_the_noise(name: str) -> None:
    made = lively(ACTIONS[name], scale=0.1)
    params = made(latent(50), None)
    first, again, other = (made.noise((50,), Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert equal(first, again)
    assert equal(made.sample(params, first), made.sample(params, again))
    assert not equal(made.sample(params, first), made.sample(params, other))
    assert equal(made.sample(params, None), made.sample(params, None))


def test_gumbel_noise_has_its_mean_and_variance() -> None:
    count = 200_000
    noise = gumbel((count,), Generator().manual_seed(0)).double()
    variance = math.pi**2 / 6
    assert abs(float(noise.mean()) - 0.5772156649) < 4 * math.sqrt(variance / count)
    fourth = 3 * variance**2 * (1 + 12 / 5 / 3)  # the excess kurtosis is 12/5
    assert abs(float(noise.var()) - variance) < 4 * math.sqrt((fourth - variance**2) / count)
    assert noise.isfinite().all()


class TestGaussian:
    def grid(self) -> tuple[Any, Any, Tensor, float]:
        made = lively(Box((2,)), scale=0.5)
        params: Any = tree_map(Tensor.detach, made(latent(1), None))
        mean, std = params[0][0], params[1][0].exp()
        axes = [torch.linspace(float(m - 8 * s), float(m + 8 * s), 401) for m, s in zip(mean, std, strict=True)]
        cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
        return made, params, torch.cartesian_prod(*axes), cell

    def test_the_density_integrates_to_one_and_to_the_entropy(self) -> None:
        made, params, actions, cell = self.grid()
        log_prob = made.log_prob(tree_map(lambda leaf: leaf.expand(len(actions), 2), params), actions).double()
        assert abs(float(log_prob.exp().sum()) * cell - 1.0) < 1e-5
        entropy = -float((log_prob.exp() * log_prob).sum()) * cell
        assert abs(float(made.entropy(params)) - entropy) < 1e-4

    def test_the_mode_is_where_the_density_is_highest(self) -> None:
        made, params, actions, _ = self.grid()
        log_prob = made.log_prob(tree_map(lambda leaf: leaf.expand(len(actions), 2), params), actions)
        mode = made.sample(params, None)
        torch.testing.assert_close(mode[0], actions[log_prob.argmax()], atol=1e-3, rtol=0)

    def test_samples_have_the_density(self) -> None:
        """The mean of -log p over samples is the entropy; mean and variance are those integrated."""
        made, params, actions, cell = self.grid()
        weight: Tensor = (
            made.log_prob(tree_map(lambda leaf: leaf.expand(len(actions), 2), params), actions).exp() * cell
        )
        mean = weight @ actions
        variance = weight @ (actions - mean).square()
        count = 40_000
        many = tree_map(lambda leaf: leaf.expand(count, 2), params)
        samples = made.sample(many, made.noise((count,), Generator().manual_seed(0)))
        assert ((samples.mean(0) - mean).abs() < 4 * (variance / count).sqrt()).all()
        assert ((samples.var(0) - variance).abs() < 4 * variance * math.sqrt(2 / count)).all()
        surprise = -made.log_prob(many, samples)
        assert abs(float(surprise.mean() - made.entropy(params))) < 4 * float(surprise.std()) / math.sqrt(count)

    def test_the_deviation_begins_where_it_is_told(self) -> None:
        made = DiagonalGaussian(FEATURES, (2, 2), -1.5)
        torch.testing.assert_close(made(latent(3), None)[1].exp(), torch.full((3, 4), math.exp(-1.5)))
        assert made.sample(made(latent(3), None), None).shape == (3, 2, 2)


def masks(n: int) -> list[tuple[int, ...]]:
    """Every mask of n choices that allows at least one."""
    return [bits for bits in product((0, 1), repeat=n) if any(bits)]


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_a_categorical_forbids_exactly(scale: float) -> None:
    """Probability 0 where forbidden, elsewhere as the unmasked, rescaled; the entropy that of the allowed alone."""
    made = lively(Discrete(4), scale=scale)
    x, actions = latent(1), torch.arange(4)
    free = spread(made, x, actions)[:, 0].double().exp()
    for bits in masks(4):
        mask = torch.tensor([bits])
        allowed = mask[0].bool()
        log_prob = spread(made, x, actions, mask)[:, 0]
        probs = log_prob.exp()
        assert (probs[~allowed] == 0).all() and log_prob.isfinite().all()
        expected = torch.where(allowed, free, 0.0) / free[allowed].sum()
        if free[allowed].sum() > 1e-30:
            torch.testing.assert_close(probs.double(), expected, rtol=1e-4, atol=1e-6)
        entropy = made.entropy(made(x, mask))
        torch.testing.assert_close(entropy[0], -(probs * log_prob)[allowed].sum())
        if sum(bits) == 1:
            assert entropy.tolist() == [0.0] and log_prob[allowed].tolist() == [0.0]
        made.zero_grad()
        (made.log_prob(made(x, mask), actions[allowed][:1]).sum() + 3 * made.entropy(made(x, mask)).sum()).backward()
        gradient = torch.cat([made.linear.weight.grad, made.linear.bias.grad[:, None]], 1)
        assert gradient.isfinite().all()
        assert (gradient[~allowed] == 0).all()
        if sum(bits) > 1 and scale == 1.0:
            assert (gradient[allowed] != 0).any()


def test_a_final_observation_may_allow_nothing() -> None:
    """No action follows it, but its row passes through the network with all others: it must not become NaN there."""
    made = lively(Discrete(4))
    params = made(latent(1), torch.zeros(1, 4))
    torch.testing.assert_close(params.exp(), torch.full((1, 4), 0.25))
    made.entropy(params).sum().backward()
    assert not made.linear.weight.grad.any()


def test_a_multi_categorical_forbids_exactly() -> None:
    made = lively(MultiDiscrete((2, 3)))
    x, actions = latent(1), all_actions(MultiDiscrete((2, 3)))
    assert isinstance(actions, Tensor)
    for left, right in product(masks(2), masks(3)):
        mask = torch.tensor([left + right])
        allowed = mask[0, actions + torch.tensor([0, 2])].bool()  # [K, 2]: each part of each action
        log_prob = spread(made, x, actions, mask)[:, 0]
        assert (log_prob.exp()[~allowed.all(1)] == 0).all()
        torch.testing.assert_close(log_prob.exp().sum(), torch.tensor(1.0))
        torch.testing.assert_close(made.entropy(made(x, mask))[0], -(log_prob.exp() * log_prob)[allowed.all(1)].sum())
        made.zero_grad()
        made.entropy(made(x, mask)).sum().backward()
        forbidden = ~mask[0].bool()
        assert (made.linear.weight.grad[forbidden] == 0).all() and made.linear.weight.grad.isfinite().all()


def test_a_bit_that_is_forbidden_stays_zero() -> None:
    made = lively(MultiBinary(3))
    x, actions = latent(1), all_actions(MultiBinary(3))
    assert isinstance(actions, Tensor)
    for bits in product((0, 1), repeat=3):
        mask = torch.tensor([bits])
        log_prob = spread(made, x, actions, mask)[:, 0]
        possible = (actions <= mask).all(1)
        assert (log_prob.exp()[~possible] == 0).all()
        torch.testing.assert_close(log_prob.exp().sum(), torch.tensor(1.0))
        torch.testing.assert_close(made.entropy(made(x, mask))[0], -(log_prob.exp() * log_prob)[possible].sum())
        made.zero_grad()
        (made.entropy(made(x, mask)) + made.log_prob(made(x, mask), actions[possible][:1])).sum().backward()
        assert (made.linear.weight.grad[~mask[0].bool()] == 0).all() and made.linear.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("space", "mask"),
    [
        (Discrete(4), [0, 1, 0, 1]),
        (MultiDiscrete((2, 3)), [1, 0, 0, 1, 1]),
        (MultiBinary(3), [0, 1, 0]),
    ],
)
def test_a_forbidden_action_is_never_sampled(space: Space, mask: list[int]) -> None:
    made = lively(space, scale=3.0)
    params = made(latent(1), torch.tensor([mask]))
    sampled = made.sample(params, made.noise((20_000,), Generator().manual_seed(0)))
    flattened = sampled.reshape(20_000, -1)
    if isinstance(space, MultiBinary):
        assert (flattened <= torch.tensor(mask)).all()
    else:
        starts = torch.tensor([0, 2][: flattened.shape[1]])
        assert torch.tensor(mask)[flattened + starts].all()
    assert len(flattened.unique(dim=0)) > 1


def test_a_mask_of_some_parts_leaves_the_others_free() -> None:
    space = Dict({"a": Discrete(3), "b": Tuple((Discrete(2), Box((1,))))})
    made, x = lively(space), latent(5)
    mask: Tree = {"b": {"0": torch.tensor([[0, 1]]).expand(5, 2)}}
    action = made.sample(made(x, mask), made.noise((5,), Generator().manual_seed(0)))
    assert (action["b"][0] == 1).all()
    free, bound = made(x, None), made(x, mask)
    torch.testing.assert_close(bound["a"], free["a"])
    torch.testing.assert_close(bound["b"][1][0], free["b"][1][0])
    # Only the entropy of the bound choice is gone.
    lost = made.entropy(free) - made.entropy(bound)
    torch.testing.assert_close(lost, made.heads[1].heads[0].entropy(free["b"][0]))


def test_composite_log_probabilities_and_entropies_add_up() -> None:
    space = Tuple((Discrete(2), Box((2,))))
    made, x = lively(space), latent(4)
    params = made(x, None)
    action = made.sample(params, made.noise((4,), Generator().manual_seed(0)))
    parts = [(h, p, a) for h, p, a in zip(made.heads, params, action, strict=True)]
    torch.testing.assert_close(made.log_prob(params, action), sum(h.log_prob(p, a) for h, p, a in parts))
    torch.testing.assert_close(made.entropy(params), sum(h.entropy(p) for h, p, _ in parts))


@pytest.mark.parametrize("name", ACTIONS)
def test_log_probabilities_are_float32_whatever_the_network_computes_in(name: str) -> None:
    made = lively(ACTIONS[name]).to(torch.bfloat16)
    params = made(latent(3).to(torch.bfloat16), None)
    action = made.sample(params, None)
    assert made.log_prob(params, action).dtype == made.entropy(params).dtype == torch.float32
