"""SAC: gradients against autograd and PyTorch's distributions, what each step moves, the exact soft optimum, tasks."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal, TanhTransform, TransformedDistribution
from torch.testing import assert_close

from tests.algorithms.training import score, start
from tests.algorithms.transitions import ROWS, transitions, values, wander
from tests.algorithms.worlds import Aim, Dial, Railing, Serve
from torchward.algorithms import sac
from torchward.config import ConfigError
from torchward.data.memory import replay_of
from torchward.data.replay import Transitions
from torchward.envs.make import EnvOptions
from torchward.envs.task import Control
from torchward.functional.bellman import soft_value_iteration
from torchward.functional.policy_losses import soft_policy_loss, temperature_loss
from torchward.functional.value_losses import squared_error
from torchward.nets.actor_body import ActorNet
from torchward.nets.soft_actor import SoftActor
from torchward.nets.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tree

SMALL = ActorNet(net_arch=(16, 8))
SEEN = Box((3,))
REALS = Box((2,), -2.0, 2.0)
HYBRID = Dict({"what": Discrete(3), "how": REALS})
FIVE = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([0, 1, 1, 0, 1])
CASES: dict[str, tuple[Space, Space, tuple[Tree, Tree] | None]] = {
    "reals": (SEEN, REALS, None),
    "choices": (SEEN, Discrete(4), None),
    "several choices": (SEEN, MultiDiscrete((2, 3)), None),
    "masked choices": (Dict({"action_mask": MultiBinary(5), "x": SEEN}), Discrete(5), FIVE),
    "hybrid": (SEEN, HYBRID, None),
    "masked hybrid": (
        Dict({"action_mask": Dict({"what": MultiBinary(3)}), "x": SEEN}),
        HYBRID,
        ({"what": torch.tensor([1, 1, 0])}, {"what": torch.tensor([0, 1, 1])}),
    ),
    "pixels": (Box((36, 36, 3), 0.0, 255.0, "uint8"), REALS, None),
}


def case(name: str, **changes: Any) -> tuple[sac.Learner, Transitions]:
    observation, action, masks = CASES[name]
    config = sac.Config(network=SMALL, ent_coef=sac.Auto(initial=0.3), **changes)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        policy = SoftActor(observation, action, config.network)
        for parameter in policy.body.perceptron.parameters():
            nn.init.normal_(parameter, std=0.7 / max(parameter.shape) ** 0.5)
    return sac.Learner(policy, config), transitions(observation, action, masks)


class Reference:
    """The same losses, from PyTorch's distributions, one critic after the other, each choice by itself."""

    def __init__(self, learner: sac.Learner, features: Tensor, allowed: Tensor | None, noise: Tensor) -> None:
        policy, parts = learner.policy, learner.parts
        outputs = policy.body.outputs(features)
        mean, log_std = outputs[:, : parts.reals], outputs[:, parts.reals : 2 * parts.reals]
        normal = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
        self.reals = torch.tanh(mean + log_std.exp() * noise)
        self.log_prob = Independent(normal, 1).log_prob(self.reals) if parts.reals else torch.zeros(len(outputs))
        logits = outputs[:, 2 * parts.reals :] if parts.factors else torch.zeros(len(outputs), 1)
        self.choices = Categorical(logits=logits if allowed is None else logits.masked_fill(~allowed, -1e9))
        self.ent_coef = {kind: float(value.exp()) for kind, value in learner.log_ent_coef.items()}

    def value(self, critic: Any, features: Tensor) -> Tensor:
        """The soft value of each state: a sum over all choices, of a return each with its surprise."""
        total = torch.zeros(len(features))
        probs = self.choices.probs
        for choice in range(probs.shape[1]):
            q = critic(features, self.reals)[..., choice]
            lowest = torch.minimum(q[0], q[1])
            surprise = -probs[:, choice].clamp_min(1e-30).log() if probs.shape[1] > 1 else torch.zeros(len(features))
            each = (
                lowest + self.ent_coef.get("choices", 0.0) * surprise - self.ent_coef.get("reals", 0.0) * self.log_prob
            )
            total = total + probs[:, choice] * each
        return total


def both_allowed(learner: sac.Learner, batch: Transitions) -> tuple[Tensor | None, Tensor | None]:
    return learner.policy.allowed(batch.observation), learner.policy.allowed(batch.next_observation)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_losses(name: str) -> None:
    learner, batch = case(name)
    learner.step(batch)  # of which nothing may be left over
    wander(learner.target)
    before = copy.deepcopy(learner)
    generator = torch.Generator()
    generator.set_state(learner.generator.get_state())
    noise = torch.randn(2 * ROWS, learner.parts.reals, generator=generator)
    allowed = both_allowed(learner, batch)

    features = before.policy.body.encode(batch.observation)
    following = before.policy.body.encode(batch.next_observation).detach()
    with torch.no_grad():
        after = Reference(before, following, allowed[1], noise[ROWS:])
        goal = batch.reward + batch.discount * after.value(before.target, following)
    reals, choice = learner.parts.split(batch.action)
    q = before.critic(features, reals)
    done = q[:, torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.int64) if choice is None else choice]
    loss = 0.5 * (squared_error(done[0], goal).mean() + squared_error(done[1], goal).mean())
    expected = torch.autograd.grad(loss, [*before.critic.parameters(), *before.policy.body.encoder_parameters()])

    learner.step(batch)
    trained = [*learner.critic.parameters(), *learner.policy.body.encoder_parameters()]
    assert_close([p.grad for p in trained], list(expected), rtol=2e-4, atol=1e-6)

    now = Reference(before, features.detach(), allowed[0], noise[:ROWS])
    moved = learner.critic  # the policy learns from critics that have learnt
    loss = -now.value(moved, features.detach()).mean()
    actor = list(before.policy.body.perceptron.parameters())
    assert_close(
        [p.grad for p in learner.policy.body.perceptron.parameters()],
        list(torch.autograd.grad(loss, actor)),
        rtol=2e-4,
        atol=1e-6,
    )
    for kind, value in before.log_ent_coef.items():
        value.requires_grad_()
        if kind == "reals":
            each = temperature_loss(value, -now.log_prob, -float(learner.parts.reals))
        else:
            most = torch.full((ROWS,), float(learner.parts.choices)) if allowed[0] is None else allowed[0].sum(-1)
            each = temperature_loss(value, now.choices.entropy(), 0.5 * most.log())
        (gradient,) = torch.autograd.grad(each.mean(), value)
        assert_close(learner.log_ent_coef[kind].grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["reals", "masked hybrid", "pixels"])
def test_each_minibatch_moves_what_it_should(name: str) -> None:
    """With policy_delay 2, every second one leaves policy and temperature alone; tau of the way goes the target."""
    learner, batch = case(name, policy_delay=2, tau=0.1)
    own = learner.policy.body
    groups: dict[str, list[Tensor]] = {
        "actor": list(own.perceptron.parameters()),
        "temperature": list(learner.log_ent_coef.values()),
        "critic": list(learner.critic.parameters()),
        "encoder": list(own.encoder_parameters()),
    }
    for moves in (True, False, True):
        before = {group: values(tensors) for group, tensors in groups.items()}
        target = values(learner.target.parameters())
        learner.step(batch)
        for group, tensors in groups.items():
            expected = moves or group in ("critic", "encoder")
            assert all(torch.equal(a, b) != expected for a, b in zip(before[group], tensors, strict=True)), group
        for old, new, critic in zip(target, learner.target.parameters(), learner.critic.parameters(), strict=True):
            assert_close(new, old + 0.1 * (critic.detach() - old), rtol=1e-6, atol=1e-8)
            assert not new.requires_grad


def test_the_target_waits_for_its_interval() -> None:
    learner, batch = case("reals", target_update_interval=3, tau=1.0)
    first = values(learner.target.parameters())
    for update in range(1, 7):
        learner.step(batch)
        same = [
            torch.equal(a, b) for a, b in zip(learner.target.parameters(), learner.critic.parameters(), strict=True)
        ]
        assert all(same) is (update % 3 == 0)
        if update < 3:
            assert all(map(torch.equal, first, learner.target.parameters()))


@pytest.mark.parametrize(
    ("name", "settings", "rises"),
    [
        ("reals", sac.Auto(target_entropy=50.0), True),
        ("reals", sac.Auto(target_entropy=-50.0), False),
        ("choices", sac.Auto(target_entropy_ratio=1.0), True),
        ("choices", sac.Auto(target_entropy_ratio=0.0), False),
        ("masked choices", sac.Auto(target_entropy_ratio=1.0), True),
    ],
)
def test_the_temperature_moves_the_right_way(name: str, settings: sac.Auto, rises: bool) -> None:
    learner, batch = case(name)
    learner = sac.Learner(learner.policy, replace(learner.config, ent_coef=settings))
    (value,) = learner.log_ent_coef.values()
    start = float(value)
    learner.step(batch)
    assert (float(value) > start) is rises and float(value) != start


def test_a_fixed_temperature_stays() -> None:
    learner, batch = case("hybrid")
    learner = sac.Learner(learner.policy, replace(learner.config, ent_coef=sac.Fixed(0.2)))
    for _ in range(3):
        learner.step(batch)
    assert [float(value.exp()) for value in learner.log_ent_coef.values()] == pytest.approx([0.2, 0.2])
    assert case("reals")[0].log_ent_coef.keys() == {"reals"}


def test_a_temperature_of_zero_learns_returns_alone() -> None:
    learner, batch = case("hybrid")
    learner = sac.Learner(learner.policy, replace(learner.config, ent_coef=sac.Fixed(0.0)))
    learner.step(batch)
    assert all(bool(p.isfinite().all()) for p in learner.policy.parameters())


@pytest.mark.parametrize("name", ["masked choices", "masked hybrid"])
def test_what_is_thought_of_a_forbidden_action_does_not_matter(name: str) -> None:
    gradients = []
    for junk in (0.0, 1e6):
        learner, batch = case(name)
        allowed = both_allowed(learner, batch)[1]
        assert allowed is not None
        with torch.no_grad():  # worth a fortune, but forbidden
            learner.target.get_parameter("bias2")[..., ~allowed[0]] += junk
        learner.step(batch)
        gradients.append([p.grad for p in learner.critic.parameters()])
    assert_close(*gradients)


@pytest.mark.parametrize("name", ["reals", "choices"])
def test_nothing_comes_after_a_termination(name: str) -> None:
    gradients = []
    for seed in (1, 2):
        learner, batch = case(name)
        other = transitions(*CASES[name][:2], seed=seed).next_observation
        learner.step(replace(batch, next_observation=other, discount=torch.zeros(ROWS)))
        gradients.append([p.grad for p in learner.critic.parameters()])
    assert_close(*gradients)


def test_of_reals_and_choices_together_value_and_loss_are_the_sum() -> None:
    learner, batch = case("hybrid")
    ent_coef = {"reals": torch.tensor(0.2), "choices": torch.tensor(0.5)}
    features = learner.policy.body.encode(batch.observation)
    noise = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(0))
    drawn = learner.policy.draw(learner.policy.body.outputs(features), None, noise)
    q = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1))
    assert drawn.log_probs is not None
    probs = drawn.log_probs.exp()
    expected = (probs * q).sum(-1) + 0.5 * Categorical(probs=probs).entropy() - 0.2 * drawn.reals.log_prob
    assert_close(learner.soft_value(q, drawn, ent_coef), expected)
    assert_close(learner.policy_loss(q, drawn, ent_coef), -expected)
    plain = case("reals")[0]
    single = drawn._replace(log_probs=None)
    assert_close(plain.policy_loss(q[:, :1], single, ent_coef), soft_policy_loss(drawn.reals.log_prob, q[:, 0], 0.2))


def test_it_finds_the_soft_optimum_of_an_exact_problem() -> None:
    """Three states, two actions, every step known: values and policy against soft value iteration."""
    generator = torch.Generator().manual_seed(3)
    successor = torch.randint(3, (3, 2), generator=generator)
    reward = torch.randn(3, 2, generator=generator)
    gamma, ent_coef = 0.8, 0.3
    transition = nn.functional.one_hot(successor, 3).double()
    optimum = soft_value_iteration(transition, reward.double(), gamma, ent_coef)
    config = sac.Config(
        learning_rate=3e-3, tau=0.05, ent_coef=sac.Fixed(ent_coef), network=ActorNet(net_arch=(32,)), gamma=gamma
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = SoftActor(Discrete(3), Discrete(2), config.network)
    learner = sac.Learner(policy, config)
    state, action = torch.cartesian_prod(torch.arange(3), torch.arange(2)).unbind(-1)
    every = Transitions(
        state, action, reward.flatten(), successor.flatten(), torch.full((6,), gamma), torch.ones(6), torch.arange(6)
    )
    for _ in range(1500):
        learner.step(every)
    features = policy.body.encode(torch.arange(3))
    q = learner.critic(features, torch.empty(3, 0)).mean(0)
    assert_close(q.double(), optimum.q, rtol=0.0, atol=0.03)
    assert_close(policy.body.outputs(features).softmax(-1).double(), optimum.policy, rtol=0.0, atol=0.02)
    assert optimum.policy.min() < 0.3  # not what it began with


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"n_envs": 0}, "n_envs"),
        ({"gamma": 1.5}, "gamma"),
        ({"tau": -0.1}, "tau"),
        ({"gradient_steps": 0}, "gradient_steps"),
        ({"policy_delay": 0}, "policy_delay"),
        ({"learning_starts": -1}, "learning_starts"),
        ({"n_critics": 0}, "n_critics"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        sac.Config(**wrong)


def test_wrong_temperatures_are_refused() -> None:
    for wrong in (lambda: sac.Auto(initial=0.0), lambda: sac.Auto(target_entropy_ratio=1.2), lambda: sac.Fixed(-1.0)):
        with pytest.raises(ConfigError, match="expected"):
            wrong()


QUICK = sac.Config(
    total_timesteps=2_500, learning_starts=200, n_envs=4, batch_size=64, learning_rate=3e-3, gamma=0.95,
    network=ActorNet(net_arch=(64, 64)),
)  # fmt: skip


@pytest.mark.parametrize(("world", "least"), [(Aim, -0.15), (Dial, -0.15), (Serve, -0.15), (Railing, 0.69)])
def test_small_tasks_are_solved(world: Any, least: float, tmp_path: Path) -> None:
    task = Control(world, EnvOptions(action_mask=world is Railing))
    assert score(tmp_path / "run", sac, QUICK, task) > least


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_what_is_kept_is_what_was_done(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole numbers for the environment, and for the critics the real ones that the policy chose."""
    monkeypatch.setattr(Dial, "done", [])
    task = Control(Dial, EnvOptions(env_kwargs={"dtype": dtype}))
    policy = SoftActor(task.observation_space, task.action_space, SMALL)
    rollout = task.source(1, 0).collect(policy, 50)
    replay = replay_of(replace(QUICK, n_envs=1), task, tmp_path, 100)
    replay.add(rollout)
    assert isinstance(rollout.action, Tensor) and len(Dial.done) == 50
    done = {round(float(action), 6): told for action, told in zip(rollout.action.flatten(), Dial.done, strict=True)}
    batch = replay.sample(200, 1.0)
    assert isinstance(batch.action, Tensor)
    kept = {round(float(action), 6) for action in batch.action}
    assert kept <= done.keys() and len(kept) > 40
    for action in kept:
        assert done[action].dtype == dtype
        assert abs(120.0 * (1.0 + action) - float(done[action][0])) <= (0.5 if dtype != "float32" else 1e-3)


def test_the_policy_that_is_given_is_the_one_that_learns(tmp_path: Path) -> None:
    task = Control(Aim)
    policy = SoftActor(task.observation_space, task.action_space, SMALL)
    config = replace(QUICK, total_timesteps=240)
    assert sac.train(config, task, start(tmp_path / "run", sac, config, task), policy) is policy
    with pytest.raises(ConfigError, match="SoftActor"):
        sac.train(config, task, start(tmp_path / "other", sac, config, task), nn.Identity())  # type: ignore[arg-type]
