"""The actor-critic: acting and judging agree, for every space and network; what is shared, and what is not."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from tests.nets.examples import ACTIONS, OBSERVATIONS, equal, leaf, observations, row
from torchward.data.tree import replace_rows, stack, tree_leaves
from torchward.nets.actor_critic import ActorCritic, Network
from torchward.nets.spaces import MASK, Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, SpaceError, Tuple

NETWORKS = {
    "mlp": Network(net_arch=(16,)),
    "deep": Network(net_arch=(16, 8), activation_fn="relu", normalize_observation=True),
    "linear": Network(net_arch=()),
    "lstm": Network(net_arch=(16,), recurrent="lstm", lstm_hidden_size=8),
    "gru": Network(net_arch=(), recurrent="gru", lstm_hidden_size=8, normalize_observation=True),
    "impala": Network(net_arch=(8,), encoder="impala"),
}


def lively(observation: Space, action: Space, network: Network, **kwargs: Any) -> ActorCritic:
    """A policy whose probabilities are not nearly equal."""
    torch.manual_seed(0)
    made = ActorCritic(observation, action, network, **kwargs)
    for parameter in made.head.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize(
    ("seen", "done", "network"),
    [
        *((name, "discrete", network) for name in OBSERVATIONS for network in ("mlp", "lstm")),
        *(("vector", name, network) for name in ACTIONS for network in ("deep", "gru")),
        *(("nested", "nested", network) for network in ("linear", "gru")),
        ("image", "bounded", "impala"),
    ],
)
def test_what_is_judged_is_what_was_done(seen: str, done: str, network: str) -> None:
    """evaluate_actions on rows gives the log-probabilities and values that acting step by step gave: the ratio is 1."""
    policy = lively(OBSERVATIONS[seen], ACTIONS[done], NETWORKS[network])
    batch, time = 2, 3
    generator = Generator().manual_seed(0)
    observation = observations(policy.observation_space, (batch, time), generator)
    policy.absorb(observation)
    boundary = torch.tensor([[False, True, False], [False, False, True]])
    with torch.no_grad():
        noise = policy.noise((time, batch), generator)
        start = state = policy.initial_state(batch)
        steps = []
        for t in range(time):
            value = policy.value(row(observation, slice(None), t), state)
            acted = policy.act(row(observation, slice(None), t), state, row(noise, t))
            assert isinstance(value, Tensor) and value.shape == (batch,)
            assert (acted.value is not None) == policy.history
            if acted.value is not None:
                torch.testing.assert_close(acted.value, value)
            steps.append((acted.action, acted.log_prob, value))
            state = replace_rows(acted.state, boundary[:, t], policy.initial_state(batch))
        actions, log_probs, values = zip(*steps, strict=True)
        action = stack(list(actions), 1)
        evaluated = policy.evaluate_actions(observation, action, start, boundary)
    assert float((evaluated.log_prob - torch.stack(log_probs, 1)).abs().max()) < 1e-5
    assert evaluated.value is not None
    torch.testing.assert_close(evaluated.value, torch.stack(values, 1), atol=1e-5, rtol=1e-4)
    assert evaluated.entropy.shape == (batch, time)


def test_without_noise_the_mode() -> None:
    policy = lively(Box((4,)), ACTIONS["mixed"], NETWORKS["mlp"])
    seen = torch.randn(5, 4)
    assert equal(policy.act(seen, (), None).action, policy.act(seen, (), None).action)
    action, params = policy.act(seen, (), None).action, policy.head(policy.towers.one(0, seen), None)
    assert torch.equal(leaf(action, 0), params[0].argmax(-1)) and torch.equal(leaf(action, 1), params[1][0])


def test_actor_and_critic_share_no_hidden_layer() -> None:
    policy = lively(Box((4,)), Discrete(3), NETWORKS["mlp"])
    seen, boundary = torch.randn(5, 1, 4), torch.zeros(5, 1, dtype=torch.bool)
    evaluated = policy.evaluate_actions(seen, torch.zeros(5, 1, dtype=torch.long), (), boundary)
    assert evaluated.value is not None
    towers = list(policy.towers.parameters())
    by_actor = torch.autograd.grad(evaluated.log_prob.sum(), towers, retain_graph=True)
    by_critic = torch.autograd.grad(evaluated.value.sum(), towers)
    for actor, critic in zip(by_actor, by_critic, strict=True):
        assert (actor[0] != 0).any() and not actor[1].any()
        assert (critic[1] != 0).any() and not critic[0].any()


def test_a_policy_begins_nearly_uniform_and_its_critic_is_orthogonal() -> None:
    """The head's gain is 0.01 and the critic's 1 (the 2nd of the 37 details)."""
    policy = ActorCritic(Box((4,)), Discrete(3))
    assert isinstance(policy.critic, nn.Linear)
    torch.testing.assert_close(policy.critic.weight.norm(), torch.tensor(1.0))
    torch.testing.assert_close(policy.head.linear.weight.norm(dim=1), torch.full((3,), 0.01))
    evaluated = policy.evaluate_actions(
        torch.randn(1, 1, 4), torch.zeros(1, 1, dtype=torch.long), (), torch.zeros(1, 1, dtype=torch.bool)
    )
    assert abs(float(evaluated.entropy.detach()) - 1.0986) < 1e-3


@pytest.mark.parametrize("network", ["mlp", "lstm"])
def test_without_a_critic_there_is_no_value(network: str) -> None:
    policy = lively(Box((4,)), Discrete(3), NETWORKS[network], critic=False)
    state, boundary = policy.initial_state(2), torch.zeros(2, 1, dtype=torch.bool)
    assert policy.value(torch.randn(2, 4), state) is None
    assert policy.act(torch.randn(2, 4), state, None).value is None
    assert policy.evaluate_actions(torch.randn(2, 1, 4), torch.zeros(2, 1).long(), state, boundary).value is None
    assert not any("critic" in name for name, _ in policy.named_parameters())


class Sum(nn.Module):
    """A user's encoder, of a Dict of two entries."""

    features = 6

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 6)

    def forward(self, seen: dict[str, Tensor]) -> Tensor:
        assert seen["x"].shape[1:] == (2,) and seen["k"].ndim == 1
        out: Tensor = self.linear(seen["x"]) * seen["k"][:, None]
        return out


@pytest.mark.parametrize("network", ["mlp", "lstm"])
def test_a_users_encoder_takes_the_place_of_the_features(network: str) -> None:
    space = Dict({"x": Box((2,)), "k": Discrete(3, 1)})
    policy = lively(space, Discrete(2), NETWORKS[network], encoder=Sum())
    seen = observations(space, (2, 3), Generator().manual_seed(0))
    boundary = torch.zeros(2, 3, dtype=torch.bool)
    evaluated = policy.evaluate_actions(seen, torch.zeros(2, 3).long(), policy.initial_state(2), boundary)
    evaluated.log_prob.sum().backward()
    assert policy.encoder is not None
    assert all(p.grad is not None and p.grad.any() for p in policy.encoder.parameters())
    policy.absorb(seen)  # it has no statistics of its own: nothing to do


def test_an_encoder_has_to_say_its_width() -> None:
    with pytest.raises(SpaceError, match=r"integer attribute 'features'.*Linear has none"):
        ActorCritic(Box((2,)), Discrete(2), encoder=nn.Linear(2, 3))


class TestMasks:
    def policy(self, action: Space, mask: Space, network: str = "mlp") -> ActorCritic:
        return lively(Dict({"x": Box((2,)), MASK: mask}), action, NETWORKS[network])

    @pytest.mark.parametrize("network", ["mlp", "lstm"])
    def test_a_mask_in_the_observation_forbids(self, network: str) -> None:
        policy = self.policy(Discrete(3), MultiBinary(3), network)
        mask = torch.tensor([[1, 0, 0], [0, 1, 1]]).repeat(50, 1)
        x = torch.randn(100, 2)
        state = policy.initial_state(100)
        noise = policy.noise((100,), Generator().manual_seed(0))
        action = leaf(policy.act({"x": x, MASK: mask}, state, noise).action)
        assert mask.gather(1, action[:, None]).all()
        assert action.unique().tolist() == [0, 1, 2]
        boundary = torch.zeros(100, 1, dtype=torch.bool)
        evaluated = policy.evaluate_actions(
            {"x": x[:, None], MASK: mask[:, None]},
            torch.ones(100, 1).long(),
            state,
            boundary,
        )
        assert (evaluated.log_prob[0::2].exp() == 0).all() and (evaluated.entropy[0::2] == 0).all()
        assert (evaluated.log_prob[1::2] < 0).all() and (evaluated.entropy[1::2] > 0).all()

    def test_a_mask_may_be_floats_or_bits(self) -> None:
        policy = self.policy(Discrete(2), Box((2,), 0.0, 1.0))
        for dtype in (torch.float32, torch.bool, torch.int8):
            mask = torch.tensor([[0, 1]]).to(dtype)
            assert leaf(policy.act({"x": torch.randn(1, 2), MASK: mask}, (), None).action).tolist() == [1]

    @pytest.mark.parametrize(
        ("action", "mask", "message"),
        [
            (
                Discrete(3),
                MultiBinary(4),
                r"expected an action_mask of 3 entries for Discrete\(3\), got MultiBinary\(4\)",
            ),
            (MultiDiscrete((2, 3)), MultiBinary(2), r"of 5 entries for MultiDiscrete\(2, 3\)"),
            (Discrete(3), Discrete(3), "of 3 entries"),
            (Box((2,)), MultiBinary(2), r"expected discrete actions beside an action_mask, got Box\(2\)"),
            (Tuple((Discrete(2),)), MultiBinary(2), "a Dict with some of the entries 0"),
            (Dict({"a": Discrete(2)}), Dict({"b": MultiBinary(2)}), "a Dict with some of the entries a"),
            (Dict({"a": Discrete(2)}), Dict({"a": MultiBinary(3)}), "of 2 entries"),
        ],
    )
    def test_a_mask_that_does_not_fit_is_refused(self, action: Space, mask: Space, message: str) -> None:
        with pytest.raises(SpaceError, match=message):
            self.policy(action, mask)


def test_no_state_is_shared_between_two_policies() -> None:
    torch.manual_seed(0)
    left = ActorCritic(Box((4,)), Discrete(3), NETWORKS["deep"])
    torch.manual_seed(0)
    right = ActorCritic(Box((4,)), Discrete(3), NETWORKS["deep"])
    assert all(map(torch.equal, left.parameters(), right.parameters()))
    left.absorb(torch.randn(5, 4))
    assert not all(map(torch.equal, left.buffers(), right.buffers()))


def test_states_are_trees_of_rows() -> None:
    assert [leaf.shape for leaf in tree_leaves(lively(Box((4,)), Discrete(3), NETWORKS["lstm"]).initial_state(5))] == [
        (5, 8),
        (5, 8),
    ]
    assert lively(Box((4,)), Discrete(3), NETWORKS["mlp"]).initial_state(5) == ()
