"""Actions as reals and one choice: taken apart and put together again, with masks against enumeration."""

from typing import Any

import pytest
import torch
from torch import Generator

from tests.nets.examples import DISCRETE_ACTIONS, all_actions, equal, leaf, row
from torchward.data.tree import tree_leaves, tree_map
from torchward.nets.action_parts import ActionParts
from torchward.nets.heads import head
from torchward.nets.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, SpaceError, Tuple

SPACES: dict[str, tuple[Space, int, int]] = {
    **{name: (space, 0, n) for (name, space), n in zip(DISCRETE_ACTIONS.items(), (5, 24, 16, 48), strict=True)},
    "vector": (Box((3,), -2.0, 2.0), 3, 1),
    "scalar": (Box((), -1.0, 1.0), 1, 1),
    "matrix": (Box((2, 3), -1.0, 1.0), 6, 1),
    "hybrid": (
        Tuple((Discrete(2, 1), Box((2, 2), 0.0, 1.0), Dict({"a": MultiBinary(2), "b": Box((), 0.0, 1.0)}))),
        5,
        8,
    ),
}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("lead", [(7,), (3, 5)])
def test_what_is_put_together_comes_apart_as_it_was(name: str, lead: tuple[int, ...]) -> None:
    space, reals, choices = SPACES[name]
    parts = ActionParts(space)
    assert (parts.reals, parts.choices) == (reals, choices)
    generator = Generator().manual_seed(0)
    numbers = torch.rand(*lead, reals, generator=generator)
    choice = torch.randint(choices, lead, generator=generator) if parts.factors else None
    action = parts.join(numbers, choice)
    assert all(part.shape[: len(lead)] == lead for part in tree_leaves(action))
    again, chosen = parts.split(action)
    assert torch.equal(again, numbers)
    assert (chosen is None) if choice is None else torch.equal(chosen, choice)  # type: ignore[arg-type]
    assert equal(parts.join(again, chosen), action)


@pytest.mark.parametrize("name", DISCRETE_ACTIONS)
def test_each_choice_is_another_action(name: str) -> None:
    space = DISCRETE_ACTIONS[name]
    parts, every = ActionParts(space), all_actions(space)
    joined = parts.join(torch.empty(parts.choices, 0), torch.arange(parts.choices))
    assert equal(joined, every)  # in the order of an odometer, the last wheel fastest


@pytest.mark.parametrize("name", DISCRETE_ACTIONS)
def test_a_mask_allows_what_the_heads_would_give_a_probability(name: str) -> None:
    space = DISCRETE_ACTIONS[name]
    parts, generator = ActionParts(space), Generator().manual_seed(1)
    mask = {
        "discrete": torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0]]),
        "multidiscrete": torch.tensor([[1, 0, 1, 1, 0, 1, 1, 0, 1], [1, 1, 0, 0, 1, 1, 1, 1, 1]]),
        "multibinary": torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0]]),
        "nested": {"a": torch.tensor([[1, 0, 1], [0, 1, 1]]), "b": {"1": torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1]])}},
    }[name]
    allowed = parts.allowed(mask)  # type: ignore[arg-type]
    assert allowed is not None and allowed.shape == (2, parts.choices)
    made: Any = head(3, space)
    params = made(torch.randn(2, 3, generator=generator), mask)
    every = all_actions(space)
    for k in range(parts.choices):
        action = row(every, slice(k, k + 1))
        both = tree_map(lambda part: part.expand(2, *part.shape[1:]), action)
        assert torch.equal(made.log_prob(params, both).exp() > 0, allowed[:, k])


def test_a_mask_that_forbids_everything_is_none() -> None:
    parts = ActionParts(Discrete(3))
    assert parts.allowed(None) is None
    allowed = parts.allowed(torch.tensor([[0, 0, 0], [0, 1, 0]]))
    assert allowed is not None and allowed.tolist() == [[True, True, True], [False, True, False]]


def test_a_hybrid_mask_is_about_its_choices() -> None:
    parts = ActionParts(Dict({"how": Box((2,), -1.0, 1.0), "what": Discrete(3)}))
    allowed = parts.allowed({"what": torch.tensor([[0, 1, 1]])})
    assert allowed is not None and allowed.tolist() == [[False, True, True]]
    assert leaf(parts.join(torch.zeros(1, 2), torch.tensor([2])), "what").tolist() == [2]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Box((2,)), "bounds"),
        (Dict({"a": Discrete(2), "b": Box((1,), 0.0)}), "bounds"),
        (MultiDiscrete((17, 17, 17)), "4096 combinations"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(space: Space, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        ActionParts(space)
