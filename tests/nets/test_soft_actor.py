"""The policies of SAC and TD3: probabilities, masks, modes, saving, what they refuse."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.testing import assert_close

from tests.nets.examples import OBSERVATIONS, all_actions, equal, observations
from torchward.cli import export
from torchward.data.protocols import Policy
from torchward.data.tree import tree_leaves, tree_map
from torchward.nets import saving
from torchward.nets.action_parts import ActionParts
from torchward.nets.actor_body import ActorNet
from torchward.nets.deterministic_actor import DeterministicActor
from torchward.nets.q_function import q_function, value_of
from torchward.nets.soft_actor import SoftActor
from torchward.nets.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, SpaceError, Tree, Tuple

SMALL = ActorNet(net_arch=(8,))
SEEN = Box((3,))
REALS = Box((2,), (-2.0, 0.0), (2.0, 10.0))
ACTIONS: dict[str, Space] = {
    "box": REALS,
    "discrete": Discrete(4, start=1),
    "multidiscrete": MultiDiscrete((2, 3)),
    "hybrid": Dict({"which": Discrete(3), "how": Box((2, 1), -1.0, 1.0), "bits": MultiBinary(2)}),
    "tuple": Tuple((Box((), 0.0, 1.0), Discrete(2))),
}


def lively(action: Space, observation: Space = SEEN, scale: float = 0.7) -> SoftActor:
    """One whose choices are far from equal."""
    made = SoftActor(observation, action, SMALL)
    generator = Generator().manual_seed(0)
    for parameter in made.body.perceptron.parameters():
        nn.init.normal_(parameter, std=scale, generator=generator)
    return made


def seen(*lead: int) -> Tensor:
    return torch.randn(*lead, 3, generator=Generator().manual_seed(1))


def act(policy: Any, observation: Tree, rows: int, seed: int = 2) -> Any:
    return policy.act(observation, (), policy.noise((rows,), Generator().manual_seed(seed)))


@pytest.mark.parametrize("name", ACTIONS)
def test_it_is_a_policy_that_judges_its_own_actions(name: str) -> None:
    policy = lively(ACTIONS[name], scale=0.3)  # where tanh is nearly 1, rounding leaves less of what was done
    assert isinstance(policy, Policy)
    acted = act(policy, seen(40), 40)
    judged = policy.evaluate_actions(seen(40), acted.action, (), torch.zeros(40, dtype=torch.bool))
    assert_close(judged.log_prob, acted.log_prob, rtol=1e-3, atol=1e-3)
    assert judged.value is None and policy.value(seen(40), ()) is None
    rows = tree_map(lambda leaf: leaf.reshape(8, 5, *leaf.shape[1:]), acted.action)
    table = policy.evaluate_actions(seen(40).view(8, 5, 3), rows, (), torch.zeros(8, 5, dtype=torch.bool))
    assert_close(table.log_prob.flatten(), judged.log_prob)
    assert_close(table.entropy.flatten(), judged.entropy)


@pytest.mark.parametrize("name", ["discrete", "multidiscrete"])
def test_choices_are_drawn_as_often_as_is_said(name: str) -> None:
    policy, x = lively(ACTIONS[name]), seen(1)
    count, choices = 50_000, policy.parts.choices
    number = policy.parts.split(act(policy, x.expand(count, 3), count).action)[1]
    assert number is not None
    every = all_actions(ACTIONS[name])
    log_prob = policy.evaluate_actions(x.expand(choices, 3), every, (), torch.zeros(choices, dtype=torch.bool)).log_prob
    share = torch.bincount(number, minlength=choices) / count
    assert_close(log_prob.exp().sum(), torch.ones(()))
    error = (log_prob.exp() * (1.0 - log_prob.exp()) / count).sqrt()
    assert ((share - log_prob.exp()).abs() < 4.5 * error).all()
    assert log_prob.exp().max() > 1.5 / choices


def test_the_entropy_of_a_hybrid_is_the_sum_of_its_parts() -> None:
    policy = lively(ACTIONS["hybrid"])
    count = 100_000
    x = seen(1).expand(count, 3)
    acted = act(policy, x, count)
    entropy = policy.evaluate_actions(x[:1], tree_map(lambda leaf: leaf[:1], acted.action), (), torch.zeros(1)).entropy
    error = acted.log_prob.std() / math.sqrt(count)
    assert bool((acted.log_prob.mean() + entropy).abs() < 4.0 * error)


def test_without_noise_it_takes_the_median_and_the_likeliest() -> None:
    policy = lively(ACTIONS["hybrid"])
    mode = policy.act(seen(6), (), None)
    outputs = policy.body.outputs(policy.body.encode(seen(6)))
    reals, choice = policy.parts.split(mode.action)
    assert choice is not None
    assert_close(reals, outputs[:, :2].tanh())
    assert torch.equal(choice, outputs[:, 4:].argmax(-1))


def test_what_a_mask_forbids_is_never_done_and_has_no_gradient() -> None:
    space = Dict({"action_mask": MultiBinary(4), "x": SEEN})
    policy = lively(Discrete(4), space)
    mask = torch.tensor([1, 0, 1, 0])
    observation: Tree = {"action_mask": mask.expand(5000, 4), "x": seen(1).expand(5000, 3)}
    acted = act(policy, observation, 5000)
    assert set(acted.action.tolist()) == {0, 2}
    row: Tree = {"action_mask": mask.expand(4, 4), "x": seen(1).expand(4, 3)}
    judged = policy.evaluate_actions(row, torch.arange(4), (), torch.zeros(4, dtype=torch.bool))
    probs = judged.log_prob.exp()
    assert probs[1] == probs[3] == 0.0 and float(probs.detach().sum()) == pytest.approx(1.0)
    assert_close(judged.entropy[0], -(probs[[0, 2]] * probs[[0, 2]].log()).sum())
    (by_bias,) = torch.autograd.grad((probs * torch.arange(4.0)).sum() + judged.entropy.sum(),
                                     policy.body.perceptron.get_parameter("bias1"))  # fmt: skip
    assert by_bias[0, 0, 1] == by_bias[0, 0, 3] == 0.0 and by_bias[0, 0, 0] != 0.0


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_every_observation_is_understood_saved_and_exported(name: str, tmp_path: Path) -> None:
    policy = SoftActor(OBSERVATIONS[name], ACTIONS["tuple"], SMALL)
    observation = observations(OBSERVATIONS[name], (3,), Generator().manual_seed(3))
    policy.save(tmp_path / "policy")
    again = saving.load(tmp_path / "policy")
    assert isinstance(again, SoftActor)
    assert equal(again.act(observation, (), None).action, policy.act(observation, (), None).action)
    if name == "nested":
        export.export(again, tmp_path / "policy.onnx")
        assert export.compare(again, tmp_path / "policy.onnx") > 0


@pytest.mark.parametrize("name", ACTIONS)
def test_predicted_actions_lie_in_the_space(name: str) -> None:
    policy = lively(ACTIONS[name], scale=5.0)
    for deterministic in (True, False):
        action, _ = policy.predict(seen(9).numpy(), deterministic=deterministic, seed=0)
        first = [torch.as_tensor(leaf) for leaf in tree_leaves(tree_map_numpy(action))]
        assert all(len(leaf) == 9 for leaf in first)
    if name == "box":
        low, high = REALS.bounds()
        assert ((first[0] >= low) & (first[0] <= high)).all() and first[0].max() > 5.0


def tree_map_numpy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: tree_map_numpy(branch) for key, branch in tree.items()}
    return tuple(map(tree_map_numpy, tree)) if isinstance(tree, tuple) else torch.as_tensor(tree)


class Mine(nn.Module):
    features = 5

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x)
        return found


@pytest.mark.parametrize("cls", [SoftActor, DeterministicActor])
def test_an_encoder_of_ones_own_is_handed_in_again(cls: Any, tmp_path: Path) -> None:
    policy = cls(SEEN, REALS, SMALL, encoder=Mine())
    assert len(policy.body.encoder_parameters()) == 2
    policy.save(tmp_path)
    again: Any = saving.load(tmp_path, encoder=Mine())
    assert equal(again.act(seen(4), (), None).action, policy.act(seen(4), (), None).action)
    with pytest.raises(saving.PolicyError, match="encoder of your own"):
        saving.load(tmp_path)


def test_the_normaliser_takes_in_what_was_seen() -> None:
    policy = SoftActor(SEEN, REALS, ActorNet(net_arch=(8,), normalize_observation=True))
    x = 5.0 + 3.0 * seen(4, 100)
    policy.absorb(x, torch.ones(4, 100, dtype=torch.bool))
    assert_close(policy.body.encode(x).mean((0, 1)), torch.zeros(3), rtol=0.0, atol=1e-5)


def test_the_deterministic_actor_explores_around_its_mode_and_is_clipped() -> None:
    policy = DeterministicActor(SEEN, REALS, SMALL)
    mode = policy.act(seen(1), (), None).action
    assert isinstance(mode, Tensor)
    assert equal(act(policy, seen(1), 1).action, mode)  # nobody told it to explore
    policy.noise_std = 0.4
    x = seen(1).expand(20_000, 3)
    acted = act(policy, x, 20_000)
    assert acted.action.abs().max() == 1.0
    inside = (acted.action - mode)[(acted.action.abs() < 1.0).all(-1)]
    assert float(inside.detach().std()) == pytest.approx(0.4, abs=0.08)
    normal = torch.distributions.Normal(mode, 0.4)
    assert_close(acted.log_prob, normal.log_prob(acted.action).sum(-1))
    judged = policy.evaluate_actions(x, acted.action, (), torch.zeros(20_000, dtype=torch.bool))
    assert_close(judged.log_prob, acted.log_prob)
    assert_close(judged.entropy[0], normal.entropy().sum())


def test_a_deterministic_actor_is_saved_with_its_noise(tmp_path: Path) -> None:
    policy = DeterministicActor(SEEN, Tuple((Box((), 0.0, 1.0), REALS)), SMALL)
    policy.noise_std = 0.3
    policy.save(tmp_path)
    again = saving.load(tmp_path)
    assert isinstance(again, DeterministicActor) and again.noise_std == 0.3
    assert equal(act(again, seen(5), 5).action, act(policy, seen(5), 5).action)


def test_a_critic_has_a_value_for_each_choice_given_the_reals() -> None:
    parts = ActionParts(ACTIONS["hybrid"])
    critic = q_function(3, parts, SMALL, 2)
    reals, choice = torch.rand(6, 2), torch.randint(12, (6,))
    q = critic(seen(6), reals)
    assert q.shape == (2, 6, 12)
    chosen = value_of(q, choice)
    assert torch.equal(chosen, torch.stack([q[:, i, choice[i]] for i in range(6)], 1))
    plain = q_function(3, ActionParts(REALS), SMALL, 3)(seen(6), reals)
    assert torch.equal(value_of(plain, None), plain[..., 0]) and plain.shape == (3, 6, 1)


@pytest.mark.parametrize(
    ("cls", "observation", "action", "words"),
    [
        (SoftActor, SEEN, Box((2,)), "bounds"),
        (SoftActor, Dict({"action_mask": MultiBinary(3), "x": SEEN}), Discrete(4), "4 entries"),
        (SoftActor, Dict({"action_mask": MultiBinary(3), "x": SEEN}), REALS, "discrete actions"),
        (DeterministicActor, SEEN, Discrete(4), "sac takes any"),
        (DeterministicActor, SEEN, ACTIONS["hybrid"], "sac takes any"),
        (DeterministicActor, SEEN, Box((2,), 0.0), "bounds"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(cls: Any, observation: Space, action: Space, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        cls(observation, action, SMALL)
