"""Spaces: JSON both ways, and the way from a policy's action to the environment's."""

import json
import math

import pytest
import torch

from tests.nets.examples import ACTIONS, OBSERVATIONS, leaf
from torchward.nets.spaces import (
    MASK,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    SpaceError,
    Tree,
    Tuple,
    acted,
    describe,
    env_action,
    event_shape,
    from_json,
    has_mask,
    leaves,
    to_json,
)

SPACES = {**OBSERVATIONS, **{f"action {name}": space for name, space in ACTIONS.items()}}


@pytest.mark.parametrize("name", SPACES)
def test_json_and_back(name: str) -> None:
    space = SPACES[name]
    text = json.dumps(to_json(space), allow_nan=False)  # infinity is no JSON
    assert from_json(json.loads(text)) == space
    assert from_json(to_json(space)) == space


def test_json_keeps_the_order_of_names() -> None:
    space = Dict({"b": Discrete(2), "a": Discrete(3)})
    loaded = from_json(json.loads(json.dumps(to_json(space))))
    assert isinstance(loaded, Dict) and list(loaded.spaces) == ["b", "a"]


@pytest.mark.parametrize("data", [{}, {"type": "Box"}, {"type": "Sphere"}, {"type": "Dict", "spaces": 3}])
def test_what_is_no_space_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(SpaceError, match="expected the JSON of a space"):
        from_json(data)


def test_a_description_is_short_and_says_it_all() -> None:
    assert (
        describe(OBSERVATIONS["nested"]) == "Dict(a: Tuple(Discrete(3), Box(2)), b: Dict(c: MultiBinary(2), d: Box()))"
    )
    assert describe(Box((84, 84, 3), 0.0, 255.0, "uint8")) == "Box(84 x 84 x 3, uint8)"
    assert describe(Box((2,), 0.0, 9.0, "int64")) == "Box(2, int64)"
    assert describe(MultiDiscrete((2, 3))) == "MultiDiscrete(2, 3)"


def test_leaves_are_in_order_and_have_shapes() -> None:
    assert [event_shape(leaf) for leaf in leaves(OBSERVATIONS["nested"])] == [(), (2,), (2,), ()]
    with pytest.raises(SpaceError, match="not a leaf"):
        event_shape(OBSERVATIONS["nested"])


def test_a_policy_acts_in_real_numbers() -> None:
    space = Dict({"a": Tuple((Discrete(3), Box((2,), 0.0, 9.0, "int64"))), "b": Box((1,))})
    assert acted(space) == Dict({"a": Tuple((Discrete(3), Box((2,), 0.0, 9.0))), "b": Box((1,))})


def test_a_mask_is_an_entry_of_a_dict() -> None:
    assert has_mask(Dict({"x": Box((2,)), MASK: MultiBinary(3)}))
    assert not has_mask(Dict({"x": Dict({MASK: MultiBinary(3)})}))
    assert not has_mask(MultiBinary(3))


class TestEnvAction:
    def test_discrete_is_shifted_by_its_start(self) -> None:
        assert leaf(env_action(Discrete(3, start=-1), torch.arange(3))).tolist() == [-1, 0, 1]
        assert leaf(env_action(Discrete(3), torch.arange(3))).tolist() == [0, 1, 2]

    def test_a_bounded_box_is_reached_whole_and_never_left(self) -> None:
        low, high = (-0.1, 2.0), (0.7, 2.5)
        actions = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [-9.0, 9.0], [0.5, -0.5]])
        scaled = env_action(Box((2,), low, high), actions)
        expected = torch.tensor([[-0.1, 2.0], [0.3, 2.25], [0.7, 2.5], [-0.1, 2.5], [0.5, 2.125]])
        torch.testing.assert_close(scaled, expected)

    def test_bounds_are_hit_exactly(self) -> None:
        """An environment that asserts ``action <= high`` must not stumble over a rounding."""
        generator = torch.Generator().manual_seed(0)
        low = 10 * torch.rand(1000, generator=generator)
        high = low + torch.rand(1000, generator=generator)
        box = Box((1000,), tuple(low.tolist()), tuple(high.tolist()))
        assert torch.equal(leaf(env_action(box, torch.ones(1, 1000))), high[None])
        assert torch.equal(leaf(env_action(box, -torch.ones(1, 1000))), low[None])
        inside = env_action(box, torch.randn(1, 1000, generator=generator))
        assert isinstance(inside, torch.Tensor) and ((inside >= low) & (inside <= high)).all()

    def test_an_unbounded_box_passes(self) -> None:
        action = torch.randn(4, 2)
        assert env_action(Box((2,)), action) is action

    @pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
    def test_of_integers_it_is_the_nearest_one(self, dtype: str) -> None:
        out = leaf(env_action(Box((1,), 0.0, 100.0, dtype), torch.tensor([[-7.0], [-1.0], [0.013], [0.017], [1.0]])))
        assert out.dtype == getattr(torch, dtype) and out.flatten().tolist() == [0, 0, 51, 51, 100]

    def test_integers_with_a_single_bound_are_clipped_to_it(self) -> None:
        box = Box((2,), (0.0, -math.inf), (math.inf, math.inf), "int64")
        assert leaf(env_action(box, torch.tensor([[-3.0, -3.6], [7.4, 7.6]]))).tolist() == [[0, -4], [7, 8]]

    def test_the_largest_integers_are_reached(self) -> None:
        box = Box((), -(2.0**31), 2.0**31 - 1.0, "int32")  # in float32 the upper bound is 2^31, which int32 has not
        assert leaf(env_action(box, torch.tensor([-1.0, 0.0, 1.0]))).tolist() == [-(2**31), 0, 2**31 - 1]

    def test_each_element_has_bounds_of_its_own(self) -> None:
        box = Box((3,), (-1.0, -math.inf, 0.0), (3.0, math.inf, math.inf))
        actions = torch.tensor([[-5.0, -5.0, -5.0], [1.0, 1.0, 1.0], [0.0, 7.0, 7.0]])
        expected = torch.tensor([[-1.0, -5.0, 0.0], [3.0, 1.0, 1.0], [1.0, 7.0, 7.0]])
        assert torch.equal(leaf(env_action(box, actions)), expected)

    def test_parts_are_scaled_each_by_its_own_space(self) -> None:
        space: Space = Dict({"a": Tuple((Discrete(2, 5), Box((1,), 0.0, 4.0))), "b": MultiBinary(2)})
        action: Tree = {"a": (torch.tensor([1]), torch.tensor([[0.0]])), "b": torch.tensor([[0, 1]])}
        out = env_action(space, action)
        assert leaf(out, "a", 0).tolist() == [6] and leaf(out, "a", 1).tolist() == [[2.0]]
        assert leaf(out, "b").tolist() == [[0, 1]]
