"""The policy that knows nothing: all that is allowed is equally likely, in every space."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Generator

from tests.nets.examples import ACTIONS, DISCRETE_ACTIONS, all_actions, leaf
from torchward.data.protocols import Policy
from torchward.data.tree import tree_leaves
from torchward.nets.spaces import MASK, Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, SpaceError, Tuple
from torchward.nets.uniform import UniformPolicy

BOX = Box((4,))


def flat(action: Any) -> list[tuple[float, ...]]:
    parts = [part.reshape(part.shape[0], -1).double() for part in tree_leaves(action)]
    return [tuple(row) for row in torch.cat(parts, 1).tolist()]


@pytest.mark.parametrize("name", DISCRETE_ACTIONS)
def test_every_action_is_equally_likely(name: str) -> None:
    policy, n = UniformPolicy(BOX, DISCRETE_ACTIONS[name]), 40_000
    assert isinstance(policy, Policy)
    acted = policy.act(torch.zeros(n, 4), (), policy.noise((n,), Generator().manual_seed(0)))
    every, counts = flat(all_actions(policy.action_space)), Counter(flat(acted.action))
    assert set(counts) == set(every)
    for count in counts.values():
        assert abs(count / n - 1 / len(every)) < 4 * math.sqrt(1 / len(every) / n)
    torch.testing.assert_close(acted.log_prob, torch.full((n,), -math.log(len(every))))


def test_real_numbers_fill_their_units() -> None:
    policy = UniformPolicy(BOX, ACTIONS["mixed"])
    acted = policy.act(torch.zeros(20_000, 4), (), policy.noise((20_000,), Generator().manual_seed(0)))
    numbers = leaf(acted.action, 1)
    assert float(numbers.min()) >= -1.0 and float(numbers.max()) <= 1.0
    assert abs(float(numbers.mean())) < 0.02 and float(numbers.var()) == pytest.approx(1 / 3, abs=0.01)
    torch.testing.assert_close(acted.log_prob, torch.full((20_000,), -3 * math.log(2.0)))


@pytest.mark.parametrize(
    ("action", "mask", "allowed"),
    [
        (Discrete(4), torch.tensor([1, 0, 1, 0]), {(0.0,), (2.0,)}),
        (Discrete(3), torch.tensor([0, 0, 0]), {(0.0,), (1.0,), (2.0,)}),
        (MultiDiscrete((2, 3)), torch.tensor([0, 1, 1, 1, 0]), {(1.0, 0.0), (1.0, 1.0)}),
        (MultiBinary(2), torch.tensor([1, 0]), {(0.0, 0.0), (1.0, 0.0)}),
    ],
)
def test_masks_hold(action: Space, mask: torch.Tensor, allowed: set[Any]) -> None:
    seen: Any = {MASK: mask.expand(500, -1), "x": torch.zeros(500, 4)}
    policy = UniformPolicy(Dict({MASK: MultiBinary(len(mask)), "x": BOX}), action)
    acted = policy.act(seen, (), policy.noise((500,), Generator().manual_seed(0)))
    assert set(flat(acted.action)) == allowed
    torch.testing.assert_close(acted.log_prob, torch.full((500,), -math.log(len(allowed))))
    assert set(flat(policy.act(seen, (), None).action)) <= allowed


def test_masks_of_parts() -> None:
    action = Tuple((Discrete(2), Box((1,))))
    seen = Dict({MASK: Dict({"0": MultiBinary(2)}), "x": BOX})
    policy = UniformPolicy(seen, action)
    acted = policy.act(
        {MASK: {"0": torch.tensor([[0, 1]] * 50)}, "x": torch.zeros(50, 4)}, (), policy.noise((50,), Generator())
    )
    assert leaf(acted.action, 0).tolist() == [1] * 50
    with pytest.raises(SpaceError, match="an action_mask"):
        UniformPolicy(Dict({MASK: MultiBinary(3), "x": BOX}), Discrete(2))


def test_it_says_how_likely_steps_were_and_hands_on_anothers_state() -> None:
    policy = UniformPolicy(BOX, Discrete(5), lambda batch: (torch.zeros(batch, 3),))
    state = policy.initial_state(2)
    assert policy.act(torch.zeros(2, 4), state, None).state is state
    boundary = torch.zeros(2, 6, dtype=torch.bool)
    evaluated = policy.evaluate_actions(torch.zeros(2, 6, 4), torch.zeros(2, 6).long(), (), boundary)
    torch.testing.assert_close(evaluated.log_prob, torch.full((2, 6), -math.log(5)))
    torch.testing.assert_close(evaluated.entropy, torch.full((2, 6), math.log(5)))
