"""NumPy in, NumPy out: single observations and batches, states, and sentences for what does not fit."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator

from tests.nets.examples import ACTIONS, OBSERVATIONS, equal, observations, row
from torchward.data.tree import tree_map
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.nets.spaces import Box, Dict, Discrete, MultiDiscrete, Space, SpaceError, Tree, Tuple, env_action
from torchward.nets.tabular import TabularPolicy


def policy(observation: Space, action: Space, recurrent: Any = "none") -> ActorCritic:
    torch.manual_seed(0)
    made = ActorCritic(observation, action, Network(net_arch=(16,), recurrent=recurrent, lstm_hidden_size=8))
    for parameter in made.head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def arrays(tree: Tree) -> Any:
    if isinstance(tree, dict):
        return {name: arrays(branch) for name, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map(arrays, tree))
    return tree.numpy()


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    assert isinstance(left, np.ndarray | np.generic) and isinstance(right, np.ndarray | np.generic)
    return left.shape == right.shape and left.dtype == right.dtype and np.allclose(left, right, atol=1e-5)


def pick(tree: Any, i: int) -> Any:
    if isinstance(tree, dict):
        return {name: pick(branch, i) for name, branch in tree.items()}
    return tuple(pick(branch, i) for branch in tree) if isinstance(tree, tuple) else tree[i]


@pytest.mark.parametrize("action", ["discrete", "mixed"])
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_a_batch_is_its_rows(name: str, action: str) -> None:
    made = policy(OBSERVATIONS[name], ACTIONS[action])
    seen = observations(made.observation_space, (3,), Generator().manual_seed(0))
    together, state = made.predict(arrays(seen))
    assert state == ()
    with torch.no_grad():
        assert same(together, arrays(env_action(made.action_space, made.act(seen, (), None).action)))
    for i in range(3):
        alone, _ = made.predict(arrays(row(seen, i)))
        assert same(alone, pick(together, i))


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_are_the_environments(name: str) -> None:
    import gymnasium as gym

    box = gym.spaces.Box
    theirs: dict[str, gym.Space[Any]] = {
        "discrete": gym.spaces.Discrete(5, start=3),
        "multidiscrete": gym.spaces.MultiDiscrete([2, 3, 4]),
        "multibinary": gym.spaces.MultiBinary(4),
        "nested": gym.spaces.Dict(
            a=gym.spaces.Discrete(3),
            b=gym.spaces.Tuple((gym.spaces.MultiBinary(2), gym.spaces.MultiDiscrete([2, 2]))),
        ),
        "bounded": box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)),
        "unbounded": box(-np.inf, np.inf, (1,)),
        "half bounded": box(np.array([[0.0], [-1.0]], np.float32), np.array([[np.inf], [1.0]], np.float32)),
        "mixed": gym.spaces.Tuple((gym.spaces.Discrete(2, start=1), box(0.0, 1.0, (2,)))),
    }
    made = policy(OBSERVATIONS["vector"], ACTIONS[name])
    for seed in range(20):
        action, _ = made.predict(np.random.default_rng(seed).normal(size=4), deterministic=False, seed=seed)
        assert _contains(theirs[name], action)


def _contains(space: Any, action: Any) -> bool:
    """MultiBinary wants int8, where torchward gives int64; environments take both."""
    if isinstance(action, dict):
        return all(_contains(space[name], part) for name, part in action.items())
    if isinstance(action, tuple):
        return all(map(_contains, space, action))
    return bool(space.contains(action.astype(space.dtype)))


def test_whatever_numpy_can_read_is_an_observation() -> None:
    made = policy(Box((4,)), Discrete(2))
    plain = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
    expected, _ = made.predict(plain)
    frozen = plain.copy()
    frozen.setflags(write=False)
    strided = np.repeat(plain, 2)[::2]
    for seen in (plain.astype(np.float64), plain.tolist(), tuple(plain), frozen, strided, plain[::-1][::-1]):
        action, _ = made.predict(seen)
        assert action.shape == () and action == expected
    whole = np.array([1, 0, -2, 3])
    assert same(made.predict(whole)[0], made.predict(whole.astype(np.float32))[0])


@pytest.mark.parametrize("index", [2, np.int64(2), np.array(2), np.int32(2)])
def test_an_index_is_an_observation(index: Any) -> None:
    for made in (policy(Discrete(3), Discrete(2)), TabularPolicy.empty(Discrete(3), Discrete(2))):
        action, _ = made.predict(index)
        assert isinstance(action, np.integer)  # a number, as an environment that looks it up in a table expects
        assert made.predict([0, 1, 2])[0].shape == (3,)


def test_the_observation_is_left_as_it_was() -> None:
    seen = np.zeros((2, 4), np.float32)
    policy(Box((4,)), Box((4,), -1.0, 1.0)).predict(seen, deterministic=False)
    assert not seen.any()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_state_is_handed_on(cell: str) -> None:
    made = policy(Box((4,)), Box((2,)), cell)
    seen = torch.randn(2, 5, 4, generator=Generator().manual_seed(0))
    state: Tree | None = None
    actions = []
    for t in range(5):
        action, state = made.predict(seen[:, t].numpy(), state)
        actions.append(action)
    with torch.no_grad():
        assert made.core is not None
        latent = made.core.unroll(seen, made.core.initial_state(2), torch.zeros(2, 5, dtype=torch.bool))
        mode = made.head.sample(made.head(made.towers.one(0, latent.reshape(10, -1)), None), None)
    np.testing.assert_allclose(np.stack(actions, 1).reshape(10, 2), mode.numpy(), atol=1e-5)
    alone: Tree | None = None
    for t in range(5):
        action, alone = made.predict(seen[1, t].numpy(), alone)
        np.testing.assert_allclose(action, actions[t][1], atol=1e-5)


def test_a_seed_decides_a_sample() -> None:
    made, seen = policy(Box((4,)), Box((2,))), np.zeros(4)
    first, again, other = (made.predict(seen, deterministic=False, seed=seed)[0] for seed in (0, 0, 1))
    assert same(first, again) and not same(first, other)
    torch.manual_seed(5)
    unseeded = [made.predict(seen, deterministic=False)[0] for _ in range(2)]
    assert not same(*unseeded)
    torch.manual_seed(5)
    assert same(made.predict(seen, deterministic=False)[0], unseeded[0])
    assert same(made.predict(seen)[0], made.predict(seen)[0])


DICT = Dict({"a": Box((2,)), "b": Discrete(3)})


@pytest.mark.parametrize(
    ("space", "seen", "message"),
    [
        (Box((4,)), np.zeros(3), r"expected one observation of shape \(4,\) or a batch of shape \(n, 4\), got \(3,\)"),
        (Box((4,)), np.zeros((2, 5)), r"a batch of shape \(n, 4\), got \(2, 5\)"),
        (Box((4,)), np.zeros((2, 2, 4)), r"got \(2, 2, 4\)"),
        (Box((4,)), 1.0, r"got \(\)"),
        (Box(()), np.zeros((2, 2)), r"of shape \(\) or a batch of shape \(n\), got \(2, 2\)"),
        (Box((2,)), [[1.0], [1.0, 2.0]], r"expected numbers for Box\(2\), got list"),
        (Box((2,)), ["left", "right"], r"expected numbers for Box\(2\), got list"),
        (Box((2,)), {"x": 1}, r"expected numbers for Box\(2\), got dict"),
        (Box((2,)), None, r"expected numbers for Box\(2\), got NoneType|got \(\)"),
        (MultiDiscrete((2, 2)), np.zeros(3, int), r"of shape \(2,\)"),
        (DICT, {"a": np.zeros(2)}, r"a dictionary with the entries \['a', 'b'\], got \['a'\]"),
        (DICT, np.zeros(3), r"a dictionary with the entries \['a', 'b'\], got ndarray"),
        (DICT, {"a": np.zeros((2, 2)), "b": 1}, r"batches of one size; got sizes \[2, None\]"),
        (DICT, {"a": np.zeros((2, 2)), "b": [1, 1, 1]}, r"got sizes \[2, 3\]"),
        (Tuple((Box((2,)), Box((2,)))), (np.zeros(2),), "a tuple of 2 observations"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(space: Space, seen: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        policy(space, Discrete(2)).predict(seen)


def test_states_are_not_changed_in_place() -> None:
    made = policy(Box((4,)), Discrete(2), "lstm")
    _, state = made.predict(np.ones(4))
    kept = tree_map(torch.clone, state)
    made.predict(np.ones(4), state)
    assert equal(state, kept)
