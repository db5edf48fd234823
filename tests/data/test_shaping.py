"""The reward scale: NumPy's deviation of all discounted returns so far, and a mean that does not move."""

from dataclasses import replace

import numpy as np
import torch
from torch import Generator, Tensor

from tests.nets.examples import equal
from torchward.data.rollout import Rollout
from torchward.data.shaping import RewardScale

GAMMA = 0.9


def rollout(seed: int, batch: int = 3, time: int = 20, scale: float = 5.0) -> Rollout:
    generator = Generator().manual_seed(seed)
    reward = scale * torch.randn(batch, time, generator=generator) + 2.0
    reward[:, ::4] = 0.0
    boundary = torch.rand(batch, time, generator=generator) < 0.2
    chosen = torch.rand(batch, time, generator=generator) < 0.8
    zeros = torch.zeros(batch, time)
    return Rollout(zeros, zeros, zeros, reward, boundary, boundary, chosen)


def returns_of_the_past(rollouts: list[Rollout]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Of each chosen step, the sum of the rewards since its episode began, discounted by their age."""
    reward, boundary, chosen = (
        torch.cat([getattr(r, name) for r in rollouts], 1).numpy() for name in ("reward", "boundary", "loss_mask")
    )
    values = []
    for b in range(len(reward)):
        begin = 0
        for t in range(reward.shape[1]):
            age = np.arange(t - begin, -1, -1)
            if chosen[b, t]:
                values.append(float((GAMMA**age * reward[b, begin : t + 1].astype(np.float64)).sum()))
            if boundary[b, t]:
                begin = t + 1
    return np.array(values)


def test_the_scale_is_the_deviation_of_all_returns_so_far() -> None:
    shaping, seen = RewardScale(GAMMA), []
    for seed in range(4):
        seen.append(rollout(seed))
        shaped, metrics = shaping.shape(seen[-1])
        expected = returns_of_the_past(seen).std()
        np.testing.assert_allclose(float(metrics["reward_scale"]), expected, rtol=1e-6)
        np.testing.assert_allclose(shaped.reward.numpy(), seen[-1].reward.numpy() / expected, rtol=1e-5)
        assert shaped.reward.dtype == torch.float32


def test_signs_and_zeros_stay_and_so_does_the_sign_of_the_mean() -> None:
    source = rollout(0)
    shaped, _ = RewardScale(GAMMA).shape(source)
    assert torch.equal(shaped.reward.sign(), source.reward.sign()) and (shaped.reward == 0).any()
    ratio = (shaped.reward / source.reward)[source.reward != 0]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    always_good = replace(source, reward=source.reward.abs() + 1)
    assert (RewardScale(GAMMA).shape(always_good)[0].reward > 0).all()


def test_nothing_but_the_reward_changes() -> None:
    source = rollout(0)
    shaped, _ = RewardScale(GAMMA).shape(source)
    assert replace(shaped, reward=source.reward) == source


def test_a_rollout_that_was_begun_anew_has_no_past() -> None:
    first, second = rollout(0), replace(rollout(1), begun_anew=True)
    going, alone = RewardScale(GAMMA), RewardScale(GAMMA)
    for each in (first, second):
        going.shape(each)
    alone.shape(second)
    assert going.past is not None and alone.past is not None and torch.equal(going.past, alone.past)
    again = RewardScale(GAMMA)
    for each in (first, replace(second, begun_anew=False)):
        _, metrics = again.shape(each)
    _, anew = going.shape(second)
    assert anew["reward_scale"] != metrics["reward_scale"]


def test_what_is_scaled_is_clipped() -> None:
    source = rollout(0, time=50)
    rare = replace(source, reward=torch.zeros(3, 50))
    rare.reward[0, 0] = -100.0
    shaped, _ = RewardScale(0.0, clip=3.0).shape(rare)
    assert float(shaped.reward.min()) == -3.0 and float(shaped.reward.max()) == 0.0


def test_no_reward_at_all_stays_none() -> None:
    shaped, _ = RewardScale(GAMMA).shape(replace(rollout(0), reward=torch.zeros(3, 20)))
    assert not shaped.reward.any()


def test_its_state_goes_on_bit_for_bit() -> None:
    one, other = RewardScale(GAMMA), RewardScale(GAMMA)
    other.load_state_dict(one.state_dict())  # also before the first rollout
    one.shape(rollout(0))
    other.load_state_dict(one.state_dict())
    for seed in (1, 2):
        left, right = one.shape(rollout(seed)), other.shape(rollout(seed))
        assert torch.equal(left[0].reward, right[0].reward) and left[1] == right[1]
    past = one.state_dict()["past"]
    assert isinstance(past, Tensor) and equal(past, other.state_dict()["past"])
