"""GAE's identities, exact zeros of group baselines, and statistics that see valid entries only."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.functional import by_definition
from tests.functional.compare import assert_exact
from torchward.functional import advantages
from torchward.functional.returns import discounted_returns, n_step_returns


@pytest.mark.parametrize("seed", range(3))
def test_gae_runs_from_the_td_error_to_the_return_minus_the_value(seed: int) -> None:
    world = by_definition.random_world(batch=8, time=17, seed=seed)
    ends = (world.terminated, world.boundary, 0.97)
    states = (world.reward, world.value, world.next_value)
    error = n_step_returns(world.reward, world.next_value, *ends, n=1) - world.value
    assert_exact(advantages.gae(*states, *ends, gae_lambda=0.0), error)
    whole = discounted_returns(world.reward, world.next_value, *ends) - world.value
    assert_exact(advantages.gae(*states, *ends, gae_lambda=1.0), whole)


@pytest.mark.parametrize("large", [0.1, 1e6, -1e6, 16777217.0, 1e30])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_a_group_of_equal_rewards_gives_exact_zeros_in_float32(large: float, size: int) -> None:
    reward = torch.cat((torch.full((size,), large), torch.tensor([1.0, 2.0])))
    group = torch.cat((torch.full((size,), 5), torch.tensor([2, 2])))
    for advantage in (
        advantages.group_relative(reward, group),
        advantages.group_relative(reward, group, scale=False),
        *([advantages.leave_one_out(reward, group)] if size > 1 else []),
    ):
        assert torch.equal(advantage[:size], torch.zeros(size))
        assert advantage[size] < 0 < advantage[size + 1]


def test_group_relative_by_hand() -> None:
    reward = torch.tensor([1.0, 10.0, 3.0, 30.0, 5.0])
    group = torch.tensor([7, -1, 7, -1, 7])
    scaled = advantages.group_relative(reward, group, epsilon=1e-6)
    assert_exact(scaled, torch.tensor([-1.0, -(2**-0.5), 0.0, 2**-0.5, 1.0]), atol=1e-5)
    plain = advantages.group_relative(reward, group, scale=False)
    assert_close(plain, torch.tensor([-2.0, -10.0, 0.0, 10.0, 2.0]))


def test_leave_one_out_compares_with_the_mean_of_the_others() -> None:
    reward = torch.tensor([1.0, 10.0, 3.0, 30.0, 5.0])
    group = torch.tensor([7, -1, 7, -1, 7])
    expected = torch.tensor([1.0 - 4.0, 10.0 - 30.0, 3.0 - 3.0, 30.0 - 10.0, 5.0 - 2.0])
    assert_close(advantages.leave_one_out(reward, group), expected)


def test_leave_one_out_in_float64() -> None:
    reward = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack([reward[i] - reward[torch.arange(7) != i].mean() for i in range(7)])
    assert_exact(advantages.leave_one_out(reward, torch.zeros(7, dtype=torch.long)), expected)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(0, 3)), min_size=1, max_size=20))
def test_group_advantages_sum_to_zero_follow_their_members_and_ignore_other_groups(
    members: list[tuple[float, int]],
) -> None:
    reward = torch.tensor([r for r, _ in members], dtype=torch.float64)
    group = torch.tensor([g for _, g in members])
    advantage = advantages.group_relative(reward, group)
    for g in group.unique():
        own = group == g
        assert abs(float(advantage[own].sum())) < 1e-8
        assert_exact(advantages.group_relative(reward[own], group[own]), advantage[own])
        assert_exact(advantages.group_relative(reward[own] + 64.0, group[own]), advantage[own], atol=1e-7)
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(0))
    assert_exact(advantages.group_relative(reward[order], group[order]), advantage[order])


def test_a_reward_that_is_not_a_number_stays_in_its_group() -> None:
    reward = torch.tensor([1.0, 2.0, torch.nan, 4.0])
    group = torch.tensor([0, 0, 1, 1])
    for advantage in (advantages.group_relative(reward, group), advantages.leave_one_out(reward, group)):
        assert bool(advantage[:2].isfinite().all())
        assert bool(advantage[2:].isnan().all())


def test_standardise_sees_valid_entries_only() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 5.0 + 3.0 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 9, generator=generator) < 0.6
    poisoned = torch.where(mask, x, torch.tensor(torch.nan, dtype=torch.float64))
    poisoned[~mask & (torch.rand(6, 9, generator=generator) < 0.5)] = torch.inf
    valid = x[mask]
    shifted = advantages.standardise(poisoned, mask)
    assert_close(shifted[mask], (valid - valid.mean()) / valid.std(), rtol=1e-7, atol=1e-12)
    assert torch.equal(shifted[~mask], torch.zeros(int((~mask).sum()), dtype=torch.float64))
    scaled = advantages.standardise(poisoned, mask, shift=False)
    assert_close(scaled[mask], valid / valid.std(), rtol=1e-7, atol=1e-12)
    assert torch.equal(scaled[~mask], torch.zeros(int((~mask).sum()), dtype=torch.float64))


def test_standardise_moves_the_mean_of_advantages_and_only_scales_rewards() -> None:
    x = torch.tensor([1.0, 2.0, 6.0, 9.0], dtype=torch.float64)
    mask = torch.ones(4, dtype=torch.bool)
    shifted, scaled = advantages.standardise(x, mask), advantages.standardise(x, mask, shift=False)
    assert abs(float(shifted.mean())) < 1e-12
    assert_close(scaled / scaled[0], x / x[0])
    assert_close(shifted.std(), torch.ones((), dtype=torch.float64))
    assert_close(scaled.std(), torch.ones((), dtype=torch.float64))
    assert torch.equal(scaled.sign(), x.sign())


@pytest.mark.parametrize("large", [0.1, 1e6, 16777217.0, -3e8])
def test_standardise_of_equal_numbers_is_exactly_zero_in_float32(large: float) -> None:
    mask = torch.ones(3, 37, dtype=torch.bool)
    mask[1, 5:] = False
    assert torch.equal(advantages.standardise(torch.full((3, 37), large), mask), torch.zeros(3, 37))


def test_standardise_of_one_entry_or_none_is_zero() -> None:
    x = torch.tensor([3.0, 4.0])
    assert torch.equal(advantages.standardise(x, torch.tensor([True, False])), torch.zeros(2))
    assert torch.equal(advantages.standardise(x, torch.tensor([False, False])), torch.zeros(2))


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_get_one_clear_sentence() -> None:
    x, ends = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="gae_lambda must lie"):
        advantages.gae(x, x, x, ends, ends, 0.9, -0.1)
    with pytest.raises(ValueError, match="gamma must lie"):
        advantages.gae(x, x, x, ends, ends, 1.1, 0.9)
    with pytest.raises(ValueError, match=r"value \[2, 2\]"):
        advantages.gae(x, x[:, :2], x, ends, ends, 0.9, 0.9)
    reward, group = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4, 4, 9])
    with pytest.raises(ValueError, match="group 9 has one"):
        advantages.leave_one_out(reward, group)
    for function in (advantages.group_relative, advantages.leave_one_out):
        with pytest.raises(ValueError, match="at least one entry"):
            function(reward[:0], group[:0])
        with pytest.raises(ValueError, match=r"reward \[3\], group \[2\]"):
            function(reward, group[:2])
    with pytest.raises(ValueError, match="epsilon must be above 0"):
        advantages.group_relative(reward, group, epsilon=0.0)
    with pytest.raises(ValueError, match=r"x \[2, 3\], mask \[3\]"):
        advantages.standardise(x, ends[0])
    with pytest.raises(ValueError, match="at least one entry"):
        advantages.standardise(x[:0], ends[:0])
