"""Value errors and targets by hand, and the identities between greedy, expected and double values."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.functional.compare import assert_exact
from torchward.functional import value_losses


def random_q(seed: int) -> Tensor:
    return torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_errors_by_hand() -> None:
    value, target = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([1.0, 2.5, 1.0])
    assert_close(value_losses.squared_error(value, target), torch.tensor([0.0, 0.25, 16.0]))
    assert_close(value_losses.huber_loss(value, target), torch.tensor([0.0, 0.125, 3.5]))
    assert_close(value_losses.huber_loss(value, target, delta=2.0), torch.tensor([0.0, 0.125, 6.0]))


def test_hubers_derivative_is_the_error_held_within_delta() -> None:
    value = torch.linspace(-5.0, 5.0, 41, requires_grad=True)
    loss = value_losses.huber_loss(value, torch.zeros(41), delta=1.5)
    (gradient,) = torch.autograd.grad(loss.sum(), value)
    assert_close(gradient, value.detach().clamp(-1.5, 1.5))


@pytest.mark.parametrize(
    ("value", "loss", "gradient"),
    [
        (0.5, 90.25, -19.0),  # within the range: the plain error
        (2.0, 81.0, 0.0),  # further than the range towards the target: enough for now
        (-2.0, 144.0, -24.0),  # further than the range away from it: come back
    ],
)
def test_clipped_squared_error_by_hand(value: float, loss: float, gradient: float) -> None:
    x = torch.tensor([value], requires_grad=True)
    for clip_range in (1.0, torch.tensor(1.0)):
        out = value_losses.clipped_squared_error(x, torch.zeros(1), torch.tensor([10.0]), clip_range)
        assert_close(out, torch.tensor([loss]))
        assert_close(torch.autograd.grad(out.sum(), x)[0], torch.tensor([gradient]))


def test_clipped_squared_error_is_the_plain_one_at_the_old_value_and_never_below_it() -> None:
    value, old, target = (random_q(seed) for seed in range(3))
    assert torch.equal(
        value_losses.clipped_squared_error(old, old, target, 0.2), value_losses.squared_error(old, target)
    )
    clipped = value_losses.clipped_squared_error(value, old, target, 0.2)
    assert bool((clipped >= value_losses.squared_error(value, target)).all())


def test_targets_and_old_values_get_no_gradient() -> None:
    value, old, target = (random_q(seed).requires_grad_() for seed in range(3))
    loss = (
        value_losses.squared_error(value, target)
        + value_losses.huber_loss(value, target)
        + value_losses.clipped_squared_error(value, old, target, 0.2)
    )
    gradients = torch.autograd.grad(loss.sum(), (value, old, target), allow_unused=True)
    assert gradients[0] is not None
    assert gradients[1] is None and gradients[2] is None


def test_td_target_bootstraps_a_time_limit_and_not_a_termination() -> None:
    target = value_losses.td_target(
        reward=torch.tensor([1.0, 1.0, 1.0]),
        terminated=torch.tensor([False, True, True]),
        next_value=torch.tensor([10.0, 10.0, torch.nan]),
        gamma=0.5,
    )
    assert torch.equal(target, torch.tensor([6.0, 1.0, 1.0]))


def test_double_q_judges_anothers_choice() -> None:
    select = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 4.0]])
    evaluate = torch.tensor([[7.0, -1.0, 8.0], [0.5, 9.0, 2.0]])
    assert torch.equal(value_losses.double_q_value(select, evaluate), torch.tensor([-1.0, 0.5]))
    q, other = random_q(0), random_q(1)
    assert torch.equal(value_losses.double_q_value(q, q), value_losses.greedy_value(q))
    assert bool((value_losses.double_q_value(other, q) <= value_losses.greedy_value(q)).all())


def test_double_q_is_unbiased_where_the_maximum_is_not() -> None:
    """Noise of mean 0 around equal values: two independent estimates remove what the maximum adds."""
    noise = torch.randn(2, 20_000, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    double = value_losses.double_q_value(noise[0], noise[1])
    assert abs(float(double.mean())) < 4 * float(double.std()) / 20_000**0.5
    assert float(value_losses.greedy_value(noise[0]).mean()) > 1.5


def test_expected_value_joins_greedy_and_uniform() -> None:
    q = random_q(2)
    greedy = value_losses.epsilon_greedy_probs(q, 0.0)
    uniform = value_losses.epsilon_greedy_probs(q, 1.0)
    assert_close(value_losses.expected_value(q, greedy), value_losses.greedy_value(q))
    assert_close(value_losses.expected_value(q, uniform), q.mean(-1))
    assert_close(
        value_losses.expected_value(q, value_losses.epsilon_greedy_probs(q, 0.3)),
        0.7 * q.amax(-1) + 0.3 * q.mean(-1),
    )
    cold, hot = value_losses.boltzmann_probs(q, 1e-4), value_losses.boltzmann_probs(q, 1e6)
    assert_close(value_losses.expected_value(q, cold), value_losses.greedy_value(q))
    assert_exact(hot, uniform, atol=1e-5)
    for probs in (greedy, uniform, cold, hot):
        assert_close(probs.sum(-1), torch.ones(7, 3, dtype=torch.float64))


def test_epsilon_greedy_shares_ties_equally() -> None:
    probs = value_losses.epsilon_greedy_probs(torch.tensor([[2.0, 1.0, 2.0, 0.0]]), 0.2)
    assert_close(probs, torch.tensor([[0.45, 0.05, 0.45, 0.05]]))


@pytest.mark.parametrize("forbidden", [-torch.inf, torch.finfo(torch.float32).min])
def test_forbidden_actions_have_no_part(forbidden: float) -> None:
    q = torch.tensor([[2.0, forbidden, 1.0]], requires_grad=True)
    probs = value_losses.epsilon_greedy_probs(q, 0.5)
    assert_close(probs, torch.tensor([[0.75, 0.0, 0.25]]))
    assert value_losses.boltzmann_probs(q, 0.5)[0, 1].item() == 0.0
    value = value_losses.expected_value(q, probs.detach())
    assert_close(value, torch.tensor([1.75]))
    assert_close(torch.autograd.grad(value.sum(), q)[0], torch.tensor([[0.75, 0.0, 0.25]]))


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_get_one_clear_sentence() -> None:
    x, y = torch.zeros(2, 3), torch.zeros(2, 1)
    with pytest.raises(ValueError, match=r"value \[2, 3\], target \[2, 1\]"):
        value_losses.squared_error(x, y)
    with pytest.raises(ValueError, match=r"value \[2, 3\], target \[2, 1\]"):
        value_losses.huber_loss(x, y)
    with pytest.raises(ValueError, match="delta must be above 0"):
        value_losses.huber_loss(x, x, delta=0.0)
    with pytest.raises(ValueError, match="clip_range must be above 0"):
        value_losses.clipped_squared_error(x, x, x, 0.0)
    with pytest.raises(ValueError, match=r"old_value \[2, 1\]"):
        value_losses.clipped_squared_error(x, y, x, 0.2)
    with pytest.raises(ValueError, match="gamma must lie"):
        value_losses.td_target(x, x.bool(), x, 1.5)
    with pytest.raises(ValueError, match="next_value"):
        value_losses.td_target(x, x.bool(), y, 0.5)
    with pytest.raises(ValueError, match="q_evaluate"):
        value_losses.double_q_value(x, y)
    with pytest.raises(ValueError, match="probs"):
        value_losses.expected_value(x, y)
    with pytest.raises(ValueError, match="epsilon must lie"):
        value_losses.epsilon_greedy_probs(x, 1.5)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        value_losses.boltzmann_probs(x, 0.0)
