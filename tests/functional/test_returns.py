"""Returns, V-trace and Retrace: the golden table, sums by definition, and the identities that tie them together."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.functional import by_definition, golden
from tests.functional.compare import assert_exact
from torchward.functional import returns
from torchward.functional.advantages import gae

TIMES = [1, 2, 3, 8, 13]


def on_golden(rows: list[golden.Row], name: str) -> Tensor:
    r = golden.table(rows)
    ends = (r.terminated, r.boundary, golden.GAMMA)
    if name == "discounted":
        return returns.discounted_returns(r.reward, r.next_value, *ends)
    if name == "two_step":
        return returns.n_step_returns(r.reward, r.next_value, *ends, n=2)
    if name == "lambda_return":
        return returns.lambda_returns(r.reward, r.next_value, *ends, lambda_=golden.LAMBDA)
    if name == "gae":
        return gae(r.reward, r.value, r.next_value, *ends, gae_lambda=golden.LAMBDA)
    if name == "retrace":
        return returns.retrace(r.log_ratio, r.reward, r.value, r.next_value, *ends)
    both = returns.vtrace(r.log_ratio, r.reward, r.value, r.next_value, *ends, rho_bar=golden.RHO_BAR)
    return both.target if name == "vtrace_target" else both.advantage


ESTIMATORS = ["discounted", "two_step", "lambda_return", "gae", "vtrace_target", "vtrace_advantage", "retrace"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("row", golden.ROWS, ids=lambda row: row.name)
def test_golden_row(row: golden.Row, estimator: str) -> None:
    assert_exact(on_golden([row], estimator), torch.tensor([getattr(row, estimator)]), atol=2e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rows_of_a_batch_do_not_meet(estimator: str) -> None:
    together = on_golden(golden.ROWS, estimator)
    alone = torch.cat([on_golden([row], estimator) for row in golden.ROWS])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_equal_to_their_definitions(time: int, gamma: float) -> None:
    world = by_definition.random_world(batch=6, time=time, seed=time)
    ends = (world.terminated, world.boundary, gamma)
    basics = (world.reward, world.next_value, *ends)
    everywhere = by_definition.everywhere
    assert_exact(returns.discounted_returns(*basics), everywhere(world, "discounted", gamma))
    for n in (1, 2, 3, time, time + 5):
        assert_exact(returns.n_step_returns(*basics, n=n), everywhere(world, "n_step", n, gamma))
    weighted = (world.log_ratio, world.reward, world.value, world.next_value, *ends)
    for lambda_ in (0.0, 0.7, 1.0):
        expected = everywhere(world, "lambda_return", gamma, lambda_)
        assert_exact(returns.lambda_returns(*basics, lambda_=lambda_), expected)
        expected = everywhere(world, "gae", gamma, lambda_)
        assert_exact(gae(world.reward, world.value, world.next_value, *ends, gae_lambda=lambda_), expected)
        expected = everywhere(world, "retrace", gamma, lambda_)
        assert_exact(returns.retrace(*weighted, lambda_=lambda_), expected)
        for rho_bar, c_bar in [(1.0, 1.0), (3.0, 0.8), (0.5, 1.2)]:
            traced = returns.vtrace(*weighted, lambda_=lambda_, rho_bar=rho_bar, c_bar=c_bar)
            expected = everywhere(world, "vtrace", gamma, lambda_, rho_bar, c_bar)
            assert_exact(traced.target, expected)


@pytest.mark.parametrize("seed", range(3))
def test_identities(seed: int) -> None:
    world = by_definition.random_world(batch=8, time=17, seed=seed)
    gamma, lambda_ = 0.95, 0.8
    basics = (world.reward, world.next_value, world.terminated, world.boundary, gamma)
    discounted = returns.discounted_returns(*basics)
    one_step = returns.n_step_returns(*basics, n=1)
    two_step = returns.n_step_returns(*basics, n=2)
    mixed = returns.lambda_returns(*basics, lambda_=lambda_)
    assert_exact(returns.lambda_returns(*basics, lambda_=1.0), discounted)
    assert_exact(returns.n_step_returns(*basics, n=17), discounted)
    assert_exact(returns.lambda_returns(*basics, lambda_=0.0), one_step)
    # At an end there is one n-step return, a step before it there are two.
    ends = world.terminated | world.boundary
    ends[:, -1] = True
    assert_exact(mixed[ends], one_step[ends])
    before = ~ends
    before[:, :-1] &= ends[:, 1:]
    assert before.any()
    assert_exact(mixed[before], (1 - lambda_) * one_step[before] + lambda_ * two_step[before])


@pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
def test_on_policy_vtrace_is_the_lambda_return_and_gae(lambda_: float) -> None:
    world = by_definition.random_world(batch=8, time=17, seed=3)
    ends = (world.terminated, world.boundary, 0.95)
    on_policy = torch.zeros_like(world.reward)
    traced = returns.vtrace(on_policy, world.reward, world.value, world.next_value, *ends, lambda_=lambda_)
    assert_exact(traced.target, returns.lambda_returns(world.reward, world.next_value, *ends, lambda_=lambda_))
    advantage = gae(world.reward, world.value, world.next_value, *ends, gae_lambda=lambda_)
    assert_exact(traced.advantage, advantage)


def test_on_policy_retrace_is_value_plus_its_errors() -> None:
    """With the ratio at 1 or above, Retrace cuts nothing: Q plus the lambda-weighted errors of expected Sarsa."""
    world = by_definition.random_world(batch=8, time=17, seed=4)
    ends = (world.terminated, world.boundary, 0.95)
    errors = gae(world.reward, world.value, world.next_value, *ends, gae_lambda=0.6)
    for log_ratio in (torch.zeros_like(world.reward), world.log_ratio.abs()):
        target = returns.retrace(log_ratio, world.reward, world.value, world.next_value, *ends, lambda_=0.6)
        assert_exact(target, world.value + errors)


def test_a_policy_that_would_never_act_so_leaves_the_value_alone() -> None:
    world = by_definition.random_world(batch=4, time=9, seed=5)
    never = torch.full_like(world.reward, -torch.inf)
    ends = (world.terminated, world.boundary, 0.9)
    traced = returns.vtrace(never, world.reward, world.value, world.next_value, *ends)
    assert torch.equal(traced.target, world.value)
    assert torch.equal(traced.advantage, torch.zeros_like(world.value))
    one_step = returns.n_step_returns(world.reward, world.next_value, *ends, n=1)
    assert_exact(returns.retrace(never, world.reward, world.value, world.next_value, *ends), one_step)


def test_nothing_crosses_an_end() -> None:
    """Whatever is changed after an end, and behind a termination, every number before it keeps its bits."""
    world = by_definition.random_world(batch=4, time=12, seed=6)
    terminated, boundary = torch.zeros_like(world.terminated), torch.zeros_like(world.boundary)
    terminated[:2, 5] = True
    boundary[2:, 5] = True
    ends = (terminated, boundary, 0.9)

    def all_of(w: by_definition.World) -> list[Tensor]:
        basics = (w.reward, w.next_value, *ends)
        weighted = (w.log_ratio, w.reward, w.value, w.next_value, *ends)
        return [
            returns.discounted_returns(*basics),
            returns.n_step_returns(*basics, n=4),
            returns.lambda_returns(*basics, lambda_=0.9),
            gae(w.reward, w.value, w.next_value, *ends, gae_lambda=0.9),
            *returns.vtrace(*weighted, lambda_=0.9),
            returns.retrace(*weighted),
        ]

    next_value = world.next_value.clone()
    next_value[:2, 5] = torch.nan
    after = (torch.arange(12) > 5).double().expand(4, 12)
    other = world._replace(
        reward=world.reward + after,
        value=world.value + after,
        next_value=next_value + after,
        log_ratio=world.log_ratio - after,
    )
    for x, y in zip(all_of(world), all_of(other), strict=True):
        assert torch.equal(x[:, :6], y[:, :6])
        assert bool((x[:, 6:] != y[:, 6:]).any())


def test_discounted_returns_read_next_value_only_where_the_data_end() -> None:
    world = by_definition.random_world(batch=4, time=12, seed=7)
    read = world.boundary & ~world.terminated
    read[:, -1] |= ~world.terminated[:, -1]
    sparse = torch.where(read, world.next_value, torch.nan)
    ends = (world.terminated, world.boundary, 0.9)
    assert torch.equal(
        returns.discounted_returns(world.reward, sparse, *ends),
        returns.discounted_returns(world.reward, world.next_value, *ends),
    )


def test_a_completion_cut_by_its_length_limit_is_bootstrapped_and_one_that_ended_is_not() -> None:
    """Token by token with gamma = lambda = 1: the advantage is what is still to come, less what was expected."""
    value = torch.tensor([[0.2, 0.4, 0.6], [0.2, 0.4, 0.6]])
    next_value = torch.tensor([[0.4, 0.6, 0.8], [0.4, 0.6, 0.8]])
    reward = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    terminated = torch.tensor([[False, False, True], [False, False, False]])
    boundary = torch.tensor([[False, False, True], [False, False, True]])
    advantage = gae(reward, value, next_value, terminated, boundary, gamma=1.0, gae_lambda=1.0)
    assert_close(advantage, torch.tensor([[0.8, 0.6, 0.4], [1.6, 1.4, 1.2]]))


@pytest.mark.parametrize("time", [*TIMES, 64, 129])
def test_reverse_scan_undoes_its_difference(time: int) -> None:
    generator = torch.Generator().manual_seed(time)
    y = torch.randn(3, time, generator=generator, dtype=torch.float64)
    decay = torch.rand(3, time, generator=generator, dtype=torch.float64)
    later = torch.cat((y[:, 1:], torch.zeros(3, 1, dtype=torch.float64)), dim=1)
    assert_exact(returns.reverse_scan(y - decay * later, decay), y)


def test_reverse_scan_keeps_float32_over_long_rows() -> None:
    x = torch.rand(2, 5000, generator=torch.Generator().manual_seed(0))
    decay = torch.full_like(x, 0.999)
    exact = returns.reverse_scan(x.double(), decay.double())
    assert_close(returns.reverse_scan(x, decay).double(), exact, rtol=2e-5, atol=0.0)


def test_reverse_scan_gives_new_memory_and_gradients_and_asks_for_none() -> None:
    x = torch.ones(2, 1)
    y = returns.reverse_scan(x, x)
    y.zero_()
    assert torch.equal(x, torch.ones(2, 1))
    assert not returns.reverse_scan(torch.ones(2, 5), torch.ones(2, 5)).requires_grad
    world = by_definition.random_world(batch=2, time=6, seed=8)
    inputs = (world.reward.requires_grad_(), world.value.sigmoid().detach().requires_grad_())
    assert torch.autograd.gradcheck(returns.reverse_scan, inputs)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_get_one_clear_sentence() -> None:
    r = golden.table(golden.ROWS)
    basics = (r.reward, r.next_value, r.terminated, r.boundary)
    weighted = (r.log_ratio, r.reward, r.value, r.next_value, r.terminated, r.boundary)
    for gamma in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\]"):
            returns.discounted_returns(*basics, gamma=gamma)
        with pytest.raises(ValueError, match="gamma must lie"):
            returns.n_step_returns(*basics, gamma=gamma, n=2)
        with pytest.raises(ValueError, match="gamma must lie"):
            returns.vtrace(*weighted, gamma=gamma)
        with pytest.raises(ValueError, match="gamma must lie"):
            returns.retrace(*weighted, gamma=gamma)
    with pytest.raises(ValueError, match="lambda_ must lie"):
        returns.lambda_returns(*basics, gamma=0.9, lambda_=2.0)
    with pytest.raises(ValueError, match="n must be above 0, got 0"):
        returns.n_step_returns(*basics, gamma=0.9, n=0)
    with pytest.raises(ValueError, match="rho_bar must be above 0"):
        returns.vtrace(*weighted, gamma=0.9, rho_bar=0.0)
    with pytest.raises(ValueError, match=r"reward \[7, 4\], next_value \[7, 3\]"):
        returns.discounted_returns(r.reward, r.next_value[:, :3], r.terminated, r.boundary, 0.9)
    empty = (r.reward[:, :0], r.next_value[:, :0], r.terminated[:, :0], r.boundary[:, :0])
    with pytest.raises(ValueError, match=r"time above 0, got reward of shape \[7, 0\]"):
        returns.discounted_returns(*empty, gamma=0.9)
    with pytest.raises(ValueError, match=r"\[batch, time\]"):
        returns.reverse_scan(torch.ones(3), torch.ones(3))
