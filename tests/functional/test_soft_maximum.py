"""The soft maximum: against the best of all policies by enumeration, its bounds, its limit, its gradient."""

import math

import pytest
import torch
from torch import Tensor

from tests.functional.compare import assert_exact
from torchward.functional.value_losses import boltzmann_probs, soft_maximum

TEMPERATURES = (0.05, 1.0, 20.0)


def values(*shape: int) -> Tensor:
    return 3.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_it_is_what_the_best_of_all_policies_gets(temperature: float) -> None:
    share = torch.linspace(0.0, 1.0, 100_001, dtype=torch.float64)
    policies = torch.stack([share, 1.0 - share], -1)
    for q in values(5, 2):
        worth = policies @ q + temperature * torch.special.entr(policies).sum(-1)
        assert float(soft_maximum(q, temperature)) == pytest.approx(float(worth.max()), abs=1e-6)
        best = policies[worth.argmax()]
        torch.testing.assert_close(boltzmann_probs(q, temperature), best, atol=2e-4, rtol=0.0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_its_gradient_is_the_policy_that_attains_it(temperature: float) -> None:
    q = values(4, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(soft_maximum(q, temperature).sum(), q)
    assert_exact(gradient, boltzmann_probs(q.detach(), temperature))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_it_lies_above_the_maximum_by_no_more_than_all_the_entropy_there_is(temperature: float) -> None:
    q = values(100, 6)
    above = soft_maximum(q, temperature) - q.amax(-1)
    assert bool((above >= 0).all()) and bool((above <= temperature * math.log(6) + 1e-12).all())
    level = torch.full((1, 6), 2.5, dtype=torch.float64)
    assert float(soft_maximum(level, temperature)) == pytest.approx(2.5 + temperature * math.log(6))


def test_it_becomes_the_maximum_however_large_the_values() -> None:
    for q in (values(20, 4), 1e30 * values(20, 4).float()):
        assert torch.equal(soft_maximum(q, 1e-30), q.amax(-1))


def test_what_is_forbidden_has_no_share() -> None:
    q, forbidden = values(10, 3), torch.full((10, 2), -math.inf, dtype=torch.float64)
    assert_exact(soft_maximum(torch.cat([q, forbidden], -1), 0.7), soft_maximum(q, 0.7))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_is_above_0(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        soft_maximum(values(1, 2), temperature)
