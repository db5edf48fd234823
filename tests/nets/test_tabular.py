"""A table as a policy: it samples its probabilities, and its entropy and value are theirs."""

import math

import pytest
import torch
from torch import Generator, Tensor

from torchward.nets.spaces import Box, Discrete, SpaceError
from torchward.nets.tabular import TabularPolicy

PROBS = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], dtype=torch.float64)
Q = torch.tensor([[4.0, 8.0, 0.0], [9.0, -1.0, 9.0]], dtype=torch.float64)


def table() -> TabularPolicy:
    return TabularPolicy(Discrete(2, start=5), Discrete(3), PROBS, Q)


def test_samples_are_as_frequent_as_the_table_says() -> None:
    policy, count = table(), 20_000
    seen = torch.tensor([5, 6]).repeat(count)
    acted = policy.act(seen, (), policy.noise((2 * count,), Generator().manual_seed(0)))
    assert isinstance(acted.action, Tensor)
    frequency = torch.stack([(acted.action.reshape(count, 2) == a).double().mean(0) for a in range(3)], 1)
    assert ((frequency - PROBS).abs() <= 4 * (PROBS * (1 - PROBS) / count).sqrt()).all()
    torch.testing.assert_close(acted.log_prob.double().exp(), PROBS[seen - 5, acted.action])


def test_the_mode_is_the_likeliest() -> None:
    acted = table().act(torch.tensor([5, 6]), (), None)
    assert isinstance(acted.action, Tensor) and acted.action.tolist() == [0, 1]


def test_judging_is_exact() -> None:
    seen = torch.tensor([[5, 6], [5, 5]])
    evaluated = table().evaluate_actions(seen, torch.tensor([[0, 1], [1, 2]]), (), torch.zeros(2, 2).bool())
    torch.testing.assert_close(evaluated.log_prob, torch.tensor([[0.5, 1.0], [0.25, 0.25]]).log())
    entropy = 1.5 * math.log(2)
    torch.testing.assert_close(evaluated.entropy, torch.tensor([[entropy, 0.0], [entropy, entropy]]))
    assert evaluated.value is not None
    torch.testing.assert_close(evaluated.value, torch.tensor([[4.0, -1.0], [4.0, 4.0]]))
    assert evaluated.log_prob.dtype == evaluated.entropy.dtype == evaluated.value.dtype == torch.float32


def test_actions_and_observations_begin_where_their_spaces_do() -> None:
    policy = TabularPolicy(Discrete(2, start=5), Discrete(3, start=-1), PROBS, Q)
    assert [int(policy.predict(s)[0]) for s in (5, 6)] == [-1, 0]


def test_an_empty_table_is_uniform() -> None:
    policy = TabularPolicy.empty(Discrete(4), Discrete(5))
    torch.testing.assert_close(policy.probs, torch.full((4, 5), 0.2, dtype=torch.float64))
    assert not policy.q.any() and not list(policy.parameters())


def test_a_table_needs_numbers_for_states_and_actions() -> None:
    with pytest.raises(SpaceError, match="Discrete observations and Discrete actions"):
        TabularPolicy.empty(Box((2,)), Discrete(2))
    with pytest.raises(SpaceError, match="Discrete observations and Discrete actions"):
        TabularPolicy(Discrete(2), Box((2,)), PROBS, Q)
