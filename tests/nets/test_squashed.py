"""The tanh-Gaussian against numerical integration, PyTorch's distributions and autograd; at the edges too."""

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution
from torch.testing import assert_close

from torchward.nets.squashed import squash, squashed_entropy, squashed_log_prob

MEANS = (-3.0, -0.4, 0.0, 1.5)
LOG_STDS = (-3.0, -1.0, 0.0, 0.8)  # wider ones have mass where tanh is 1 in float64 as well
EACH = [(mean, log_std) for mean in MEANS for log_std in LOG_STDS]


def outputs(mean: float, log_std: float) -> Tensor:
    return torch.tensor([mean, log_std], dtype=torch.float64)


def random_outputs(n: int, reals: int) -> Tensor:
    return 0.6 * torch.randn(n, 2 * reals, generator=Generator().manual_seed(0), dtype=torch.float64)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("mean", "log_std"), EACH)
def test_the_density_integrates_to_one_and_to_the_entropy(mean: float, log_std: float) -> None:
    """Over (-1, 1), on points that crowd towards the edges: at a = tanh(x), da = (1 - a^2) dx."""
    x = torch.linspace(-17.0, 17.0, 200_001, dtype=torch.float64)
    action = x.tanh()
    log_prob = squashed_log_prob(outputs(mean, log_std).expand(len(x), 2), action.unsqueeze(-1))
    width = (x[1] - x[0]) * (1.0 - action.square())
    density = log_prob.exp()
    assert_close((density * width).sum(), torch.ones((), dtype=torch.float64), rtol=0.0, atol=2e-6)
    assert_close((-density * log_prob * width).sum(), squashed_entropy(outputs(mean, log_std)), rtol=0.0, atol=1e-4)


def test_it_is_pytorchs_transformed_distribution() -> None:
    made = random_outputs(50, 3)
    mean, log_std = made.chunk(2, -1)
    theirs = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    action = torch.rand(50, 3, generator=Generator().manual_seed(2), dtype=torch.float64) * 1.98 - 0.99
    assert_close(squashed_log_prob(made, action), theirs.log_prob(action).sum(-1))
    sample = squash(made, noise(50, 3))
    assert_close(sample.action, torch.tanh(mean + log_std.exp() * noise(50, 3)))
    inside = sample.action.abs().amax(-1) < 0.9999
    assert inside.sum() > 20
    assert_close(sample.log_prob[inside], theirs.log_prob(sample.action).sum(-1)[inside], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("u", [0.0, 2.0, 8.0, 12.0, 40.0, 90.0, -90.0])
def test_a_saturated_sample_has_the_log_density_that_it_would_have_in_exact_arithmetic(u: float) -> None:
    """log(1 - tanh(u)^2) tends to 2 log 2 - 2 |u|: float32 has lost 1 - tanh long before."""
    sample = squash(torch.tensor([u - 0.5, 0.0]), torch.tensor([0.5]))
    squeezed = math.log(4.0) - 2.0 * abs(u) - 2.0 * math.log1p(math.exp(-2.0 * abs(u)))
    expected = -0.5 * 0.5**2 - 0.5 * math.log(2.0 * math.pi) - squeezed
    assert float(sample.log_prob) == pytest.approx(expected, rel=1e-6)
    assert float(sample.action) == pytest.approx(math.tanh(u), abs=1e-7)


@pytest.mark.parametrize("action", [-1.0, 1.0, 1.0 - 2.0**-24])
def test_an_action_at_the_edge_has_a_finite_density(action: float) -> None:
    made = torch.tensor([0.3, -0.5])
    judged = squashed_log_prob(made, torch.tensor([action]))
    last = squashed_log_prob(made.double(), torch.tensor([action * (1.0 - 2.0**-24)], dtype=torch.float64))
    assert torch.isfinite(judged)
    assert_close(judged.double(), last, rtol=0.1, atol=0.0)


def test_the_log_std_is_held() -> None:
    for log_std, held in ((9.0, 2.0), (-50.0, -20.0)):
        sample, same = (squash(outputs(0.1, x), noise(1)) for x in (log_std, held))
        assert torch.equal(sample.action, same.action) and torch.equal(sample.log_prob, same.log_prob)
        by_outputs = sample.by_outputs(torch.ones(1, dtype=torch.float64), 1.0)
        assert float(by_outputs[1]) == 0.0 and float(by_outputs[0]) != 0.0


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_gradient_by_hand_is_autograds(weight: float) -> None:
    made = random_outputs(20, 3).requires_grad_()
    by_action = noise(20, 3, seed=5)
    sample = squash(made, noise(20, 3))
    loss = (sample.action * by_action).sum() + weight * sample.log_prob.sum()
    (expected,) = torch.autograd.grad(loss, made)
    assert_close(sample.by_outputs(by_action, weight), expected)
    rows = sample.rows(slice(5, 9))
    assert_close(rows.by_outputs(by_action[5:9], weight), expected[5:9])


def test_a_saturated_sample_has_a_finite_gradient() -> None:
    sample = squash(torch.tensor([60.0, 1.0]), torch.tensor([1.0]))
    by_outputs = sample.by_outputs(torch.tensor([1.0]), 1.0)
    assert_close(by_outputs, torch.tensor([2.0, 2.0 * math.e - 1.0]))  # of the action 0; of the density 2 a


def test_the_mean_of_log_probs_of_samples_is_minus_the_entropy() -> None:
    made = outputs(0.4, -0.2).expand(200_000, 2)
    sample = squash(made, noise(200_000, 1))
    error = sample.log_prob.std() / math.sqrt(len(made))
    assert float((sample.log_prob.mean() + squashed_entropy(made[0])).abs()) < 4.0 * float(error)
