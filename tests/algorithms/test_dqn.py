"""DQN: its targets against sums by hand, what moves and what stands still, masks, memory; and that it learns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.algorithms.training import score, start
from tests.algorithms.worlds import Corridor, Recall
from torchward.algorithms import dqn
from torchward.algorithms.dqn import Config, Huber, Learner, Squared, judge, judge_sequences
from torchward.config import ConfigError
from torchward.data.exploration import Boltzmann, EpsilonGreedy
from torchward.data.memory import replay_of
from torchward.data.random import generator
from torchward.data.replay import Prioritised, Replay, Sequences, Transitions
from torchward.envs.task import Control
from torchward.metrics import read_metrics
from torchward.nets.actor_critic import ActorCritic
from torchward.nets.q_network import QNet
from torchward.nets.q_policy import QPolicy
from torchward.nets.spaces import MASK, Box, Dict, Discrete, MultiBinary, SpaceError
from torchward.run import Run

BOX, ACTIONS = Box((3,)), Discrete(4)
MASKED = Dict({MASK: MultiBinary(4), "x": BOX})
SMALL = Config(
    total_timesteps=4_000, train_freq=4, batch_size=32, buffer_size=2_000, learning_starts=200, learning_rate=3e-3,
    target_update_interval=200, gamma=0.9, network=QNet(net_arch=(32,)),
)  # fmt: skip


def learner(config: Config, masked: bool = False) -> Learner:
    """One whose target network is another one than its network."""
    torch.manual_seed(0)
    made = Learner(QPolicy(MASKED if masked else BOX, ACTIONS, config.network), config)
    with torch.no_grad():
        for parameter in [*made.network.parameters(), *made.target.parameters()]:
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return made


def observe(lead: tuple[int, ...], masked: bool) -> Any:
    x = torch.randn(*lead, 3)
    if not masked:
        return x
    mask = (torch.rand(*lead, 4) < 0.5).long()
    mask[..., 1] |= ~mask.any(-1)
    return {MASK: mask, "x": x}


def transitions(n: int, masked: bool = False) -> Transitions:
    torch.manual_seed(1)
    return Transitions(
        observation=observe((n,), masked),
        action=torch.randint(4, (n,)),
        reward=torch.randn(n),
        next_observation=observe((n,), masked),
        discount=torch.where(torch.rand(n) < 0.3, 0.0, 0.9 ** torch.randint(1, 4, (n,))),
        weight=torch.rand(n) + 0.5,
        index=torch.arange(n),
    )


def rows(tree: Any, i: Any) -> Any:
    return {name: leaf[i] for name, leaf in tree.items()} if isinstance(tree, dict) else tree[i]


# The errors


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("double_q", [False, True])
def test_targets_by_hand(double_q: bool, masked: bool) -> None:
    made, batch = learner(replace(SMALL, double_q=double_q, loss=Squared()), masked), transitions(40, masked)
    judged = judge(made, batch)
    assert isinstance(batch.action, Tensor)
    for i in range(40):
        following = rows(batch.next_observation, slice(i, i + 1))
        theirs, ours = (net(following)[0].tolist() for net in (made.target, made.network))
        allowed = [a for a in range(4) if not masked or following[MASK][0, a]]
        if double_q:
            best = theirs[max(allowed, key=lambda a: ours[a])]
        else:
            best = max(theirs[a] for a in allowed)
        goal = float(batch.reward[i]) + float(batch.discount[i]) * best
        value = float(made.network(rows(batch.observation, slice(i, i + 1))).detach()[0, batch.action[i]])
        assert float(judged.value[i]) == pytest.approx(value, abs=1e-5)
        assert float(judged.error[i]) == pytest.approx(abs(goal - value), abs=1e-5)
        assert float(judged.loss[i].detach()) == pytest.approx((goal - value) ** 2, abs=1e-4)


class Spy:
    """A loss that keeps the target that it was given, and does not detach it."""

    def __call__(self, value: Tensor, target: Tensor) -> Tensor:
        self.target = target
        return (value - target).square()


@pytest.mark.parametrize("double_q", [False, True])
def test_no_gradient_reaches_what_is_held_fixed(double_q: bool) -> None:
    spy: Any = Spy()
    made, batch = learner(replace(SMALL, double_q=double_q, loss=spy)), transitions(40)
    judge(made, batch).loss.mean().backward()
    assert not spy.target.requires_grad
    assert not any(p.requires_grad or p.grad is not None for p in made.target.parameters())
    assert bool(made.parameters.value.grad.any())  # type: ignore[union-attr]


def test_what_an_error_costs() -> None:
    batch = transitions(40)
    error = judge(learner(SMALL), batch).error
    assert float(error.max()) > 0.5 > float(error.min())
    for loss, expected in (
        (Squared(), error**2),
        (Huber(), torch.where(error < 1, error**2 / 2, error - 0.5)),
        (Huber(0.5), torch.where(error < 0.5, error**2 / 2, 0.5 * (error - 0.25))),
    ):
        torch.testing.assert_close(judge(learner(replace(SMALL, loss=loss)), batch).loss, expected)


RECURRENT = replace(
    SMALL, burn_in=3, sequence_length=4, n_steps=2,
    network=QNet(net_arch=(8,), recurrent="lstm", lstm_hidden_size=6),
)  # fmt: skip


def sequences(n: int, time: int) -> Sequences:
    """Rows as a replay gives them: behind an episode's end comes the row of its final observation."""
    torch.manual_seed(2)
    ends = torch.rand(n, time) < 0.2
    ends[:, 1:] &= ~ends[:, :-1]
    ends[:, -1] = False
    final = torch.cat([torch.zeros(n, 1, dtype=torch.bool), ends[:, :-1]], 1)
    return Sequences(
        observation=observe((n, time), False), action=torch.randint(4, (n, time)),
        reward=torch.where(final, 0.0, torch.randn(n, time)), terminated=ends & (torch.rand(n, time) < 0.5),
        boundary=ends | final, loss_mask=~final, weight=torch.ones(n), index=torch.arange(n),
    )  # fmt: skip


@pytest.mark.parametrize("double_q", [False, True])
def test_targets_of_rows_by_hand(double_q: bool) -> None:
    """Step by step: the state begins at zero and ends with the row that shows the final observation; rewards are summed
    up until a boundary; what was only burnt in, looked ahead at or no step has no part in the loss."""
    config = replace(RECURRENT, double_q=double_q, loss=Squared())
    made, n, time = learner(config), 30, dqn.rows_of(config)
    assert time == 3 + 4 + 2
    batch = sequences(n, time)
    judged = judge_sequences(made, batch)
    values: list[list[list[float]]] = [[], []]
    with torch.no_grad():
        for net, found in zip((made.network, made.target), values, strict=True):
            for i in range(n):
                state = net.initial_state(1)
                for t in range(time):
                    q, state = net.step(rows(batch.observation, slice(i, i + 1))[:, t], state)
                    found.append(q[0].tolist())
                    if not batch.loss_mask[i, t]:
                        state = net.initial_state(1)
    errors: list[list[float]] = []
    assert isinstance(batch.action, Tensor)
    for i in range(n):
        errors.append([])
        for t in range(3, 7):
            if not batch.loss_mask[i, t]:
                continue
            goal, power, end = 0.0, 1.0, t
            for end in (t, t + 1):
                goal += power * float(batch.reward[i, end])
                power *= config.gamma
                if batch.boundary[i, end]:
                    break
            ours, theirs = (found[i * time + end + 1] for found in values)
            best = theirs[ours.index(max(ours))] if double_q else max(theirs)
            goal += 0.0 if batch.terminated[i, end] else power * best
            errors[-1].append(goal - values[0][i * time + t][batch.action[i, t]])
    count = sum(map(len, errors))
    assert 60 < count < 4 * n
    assert float(judged.loss.detach().mean()) == pytest.approx(
        sum(e * e for row in errors for e in row) / count, rel=1e-4
    )
    for i, row in enumerate(errors):
        sizes = [abs(e) for e in row] or [0.0]
        assert float(judged.error[i]) == pytest.approx(0.9 * max(sizes) + 0.1 * sum(sizes) / len(sizes), abs=1e-4)


# The update


class Fixed:
    """A replay that always draws the same steps."""

    def __init__(self, batch: Transitions, prioritised: Prioritised | None = None) -> None:
        self.batch, self.prioritised, self.beta = batch, prioritised, 0.0
        self.drawn: list[tuple[Any, ...]] = []
        self.told: list[Tensor] = []

    def sample(self, *asked: Any) -> Transitions:
        self.drawn.append(asked)
        return self.batch

    def update_priorities(self, index: Tensor, priority: Tensor) -> None:
        assert torch.equal(index, self.batch.index)
        self.told.append(priority)


def update(made: Learner, replay: Any) -> None:
    made.update(replay)


@pytest.mark.parametrize(("gradient_steps", "updates"), [(1, 1), (3, 3), (-1, 8)])
def test_as_many_minibatches_as_asked_for(gradient_steps: int, updates: int) -> None:
    config = replace(SMALL, gradient_steps=gradient_steps, n_envs=2, n_steps=3)
    made, replay = learner(config), Fixed(transitions(32))
    update(made, replay)
    assert replay.drawn == [(32, 0.9, 3)] * updates
    found = made.metrics()
    assert found["updates"] == updates
    first = judge(learner(config), replay.batch)  # of ten updates one is measured
    for name, each in zip(("loss", "error", "q"), first, strict=True):
        assert float(found[name]) == pytest.approx(float(each.detach().mean()), rel=1e-5)
    assert "loss" not in made.metrics()


def test_a_step_is_adams_on_the_weighted_mean_with_a_bounded_gradient() -> None:
    config = replace(SMALL, max_grad_norm=0.1)
    made, other = learner(config), learner(config)
    batch = transitions(32)
    replay = Fixed(batch, Prioritised())
    update(made, replay)
    own = list(other.network.parameters())
    loss = (judge(other, batch).loss * batch.weight).mean()
    for parameter, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):
        parameter.grad = gradient
    assert float(torch.nn.utils.clip_grad_norm_(own, 0.1)) > 0.1
    torch.optim.Adam(own, config.learning_rate).step()
    for moved, expected in zip(made.network.parameters(), own, strict=True):
        torch.testing.assert_close(moved, expected)
    assert torch.equal(replay.told[0], judge(learner(config), batch).error)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"double_q": True, "loss": Squared(), "network": QNet(net_arch=(7, 5), activation_fn="tanh")},
        {"loss": Huber(0.3), "network": QNet(net_arch=(), normalize_observation=True), "replay": Prioritised()},
    ],
)
def test_by_hand_and_by_autograd_are_one(changes: dict[str, Any], masked: bool) -> None:
    config = replace(SMALL, **changes)
    made, other = learner(config, masked), learner(config, masked)
    torch.manual_seed(0)
    by_hand = Learner(made.policy, config, judge, dqn.goal)
    by_hand.target.load_state_dict(made.target.state_dict())
    assert by_hand.dense is not None and other.dense is None
    batch = transitions(32, masked)
    weight = batch.weight if isinstance(config.replay, Prioritised) else None
    for _ in range(3):
        judged, expected = by_hand.learn(batch, weight), other.learn(batch, weight)
        assert judged is not None and expected is not None
        for one, two in zip(judged, expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_hand.parameters.value, other.parameters.value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_hand.parameters.value.grad, other.parameters.value.grad, rtol=1e-4, atol=1e-5)


def test_only_a_few_plain_layers_are_differentiated_by_hand() -> None:
    for net in (QNet(dueling=True), QNet(noisy=True), QNet(recurrent="gru"), QNet(activation_fn="silu")):
        config = replace(SMALL, network=net)
        assert Learner(QPolicy(BOX, ACTIONS, net), config, judge, dqn.goal).dense is None
    picture = QPolicy(Box((36, 36, 3), 0.0, 255.0, "uint8"), ACTIONS, SMALL.network)
    assert Learner(picture, SMALL, judge, dqn.goal).dense is None


def test_importance_weights_are_annealed_to_their_whole_size() -> None:
    made, replay = learner(SMALL), Fixed(transitions(32), Prioritised(beta=0.4))
    for progress, beta in ((0.0, 0.4), (0.5, 0.7), (1.0, 1.0)):
        made.anneal(progress)
        update(made, replay)
        assert replay.beta == pytest.approx(beta)


def test_schedules() -> None:
    made = learner(replace(SMALL, exploration=EpsilonGreedy(0.9, 0.1, 0.4), learning_rate_schedule="linear"))
    for progress, epsilon in ((0.0, 0.9), (0.1, 0.7), (0.2, 0.5), (0.4, 0.1), (1.0, 0.1)):
        made.anneal(progress)
        assert made.policy.epsilon == pytest.approx(epsilon) and made.policy.temperature == 0.0
        assert made.optimizer.lr == pytest.approx(3e-3 * (1 - progress))
    made = learner(replace(SMALL, exploration=Boltzmann(2.0, 0.5, 1.0)))
    made.anneal(0.5)
    assert made.policy.temperature == pytest.approx(1.25) and made.policy.epsilon == 0.0
    assert made.optimizer.lr == 3e-3


@pytest.mark.parametrize("tau", [0.02, 1.0])
def test_the_target_moves_by_tau_when_asked_and_not_before(tau: float) -> None:
    made = learner(replace(SMALL, tau=tau))
    before = [p.clone() for p in made.target.parameters()]
    update(made, Fixed(transitions(32)))
    assert all(map(torch.equal, made.target.parameters(), before))
    made.follow()
    for moved, was, to in zip(made.target.parameters(), before, made.network.parameters(), strict=True):
        torch.testing.assert_close(moved, (1 - tau) * was + tau * to.detach())


# The loop


class Watch(Run):
    """A run that looks at the learner at every iteration."""

    def track(self, **objects: Any) -> None:
        super().track(**objects)
        self.learner: Learner = objects["learner"]
        self.seen: list[tuple[int, float, int, Tensor, Tensor]] = []

    def advance(self, steps: int, episodes: Any = ()) -> None:
        super().advance(steps, episodes)
        learner = self.learner
        vectors = learner.copies.value.clone(), learner.parameters.value.clone()
        self.seen.append((self.step, learner.policy.epsilon, learner.updates, *vectors))


def watched(path: Path, config: Config, task: Control) -> Watch:
    made = start(path, dqn, config, task)
    made.__class__ = Watch
    dqn.train(config, task, made)
    assert isinstance(made, Watch)
    return made


def test_the_loop_warms_up_explores_and_copies_when_it_should(tmp_path: Path) -> None:
    config = replace(
        SMALL, total_timesteps=1_200, train_freq=10, learning_starts=100, target_update_interval=150,
        exploration=EpsilonGreedy(1.0, 0.2, 0.5),
    )  # fmt: skip
    run = watched(tmp_path / "run", config, Control(Corridor))
    copies, latest = 0, run.seen[0][3]
    for step, epsilon, updates, target, _ in run.seen:
        assert epsilon == pytest.approx(max(0.2, 1.0 - 0.8 * (step - 10) / 600))  # as it was when it acted
        assert updates == max(0, (step - 100) // 10)
        if not torch.equal(target, latest):
            copies += 1
            assert (step - 10) % 150 == 0  # the loop copies behind what is seen here
            (network,) = (row[4] for row in run.seen if row[0] == step - 10)
            assert torch.equal(target, network)
            latest = target
    assert copies == 1_200 // 150 - 1
    lines = [row for row in read_metrics(run.path) if "loss" in row]
    assert [row["step"] for row in lines] == [500, 1000, 1200]  # the last one ends the run


def test_a_line_of_metrics_as_often_as_the_options_say(tmp_path: Path) -> None:
    run = start(tmp_path / "run", dqn, replace(SMALL, total_timesteps=1_000), Control(Corridor), log_freq=100)
    dqn.train(replace(SMALL, total_timesteps=1_000), Control(Corridor), run)
    rows = [row for row in read_metrics(run.path) if "epsilon" in row]
    assert [row["step"] for row in rows] == list(range(100, 1001, 100))
    assert all("loss" in row for row in rows[2:])


class Trap(gym.Env[Any, Any]):
    """Four actions, of which the mask allows two at random; what it forbids would pay 100, and raises here."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Dict(
            {MASK: gym.spaces.MultiBinary(4), "x": gym.spaces.Box(-1.0, 1.0, (2,), np.float32)}
        )
        self.action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.mask[action], "a forbidden action"
        self.time += 1
        best = action == np.flatnonzero(self.mask)[-1]
        return self._see(), float(best), self.time == 5, False, {}

    def _see(self) -> Any:
        self.mask = np.zeros(4, np.int8)
        self.mask[self.np_random.choice(4, 2, replace=False)] = 1
        return {MASK: self.mask, "x": np.full(2, self.time / 5, np.float32)}


@pytest.mark.parametrize("exploration", [EpsilonGreedy(1.0, 0.1, 0.5), Boltzmann(1.0, 0.05, 0.5)])
def test_no_forbidden_action_is_ever_tried(tmp_path: Path, exploration: EpsilonGreedy | Boltzmann) -> None:
    """The best of what is allowed is always the last of it; after training that is chosen."""
    config = replace(SMALL, exploration=exploration, double_q=True)
    assert score(tmp_path / "run", dqn, config, Control(Trap)) > 4.8


# What it learns


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"double_q": True, "network": QNet(net_arch=(32,), dueling=True), "n_steps": 3, "replay": Prioritised()},
        {"n_envs": 4, "train_freq": 1, "tau": 0.05, "target_update_interval": 1, "loss": Squared()},
        {"exploration": EpsilonGreedy(0.0, 0.0), "network": QNet(net_arch=(32,), noisy=True)},
    ],
)
def test_learns_a_corridor(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = replace(SMALL, **{"exploration": EpsilonGreedy(1.0, 0.1, 0.5), **changes})
    assert score(tmp_path / "run", dqn, config, Control(Corridor)) == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(("recurrent", "least", "most"), [("lstm", 0.95, 1.0), ("gru", 0.95, 1.0), ("none", 0.3, 0.7)])
def test_only_memory_recalls(tmp_path: Path, recurrent: Any, least: float, most: float) -> None:
    config = replace(
        SMALL, total_timesteps=6_000, n_envs=4, burn_in=2, sequence_length=12, exploration=EpsilonGreedy(1.0, 0.1, 0.5),
        network=QNet(net_arch=(32,), recurrent=recurrent, lstm_hidden_size=16),
    )  # fmt: skip
    assert least <= score(tmp_path / "run", dqn, config, Control(Recall)) <= most


# What is refused


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"train_freq": 0}, "train_freq of at least 1, got 0"),
        ({"gradient_steps": 0}, "gradient_steps of at least 1, or -1, got 0"),
        ({"tau": 1.5}, r"tau within \(0, 1\], got 1.5"),
        ({"tau": 0.0}, r"tau within \(0, 1\], got 0.0; with 0 the target would never move"),
        ({"buffer_size": 15, "n_envs": 2}, r"2 \* n_envs \* train_freq = 16, got 15 with n_envs=2 and train_freq=4"),
        ({"learning_starts": -1}, "learning_starts of at least 0"),
        ({"burn_in": -1}, "burn_in of at least 0"),
        ({"sequence_length": 0}, "sequence_length of at least 1"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Config(**wrong)


def test_a_huber_loss_without_a_quadratic_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="delta of Huber above 0"):
        Huber(0.0)


def test_what_cannot_be_learnt_is_refused_before_it_begins(tmp_path: Path) -> None:
    dqn.check(SMALL, Control(Corridor))
    with pytest.raises(SpaceError, match="one for each of Discrete actions"):
        dqn.check(SMALL, Control("Pendulum-v1"))
    with pytest.raises(SpaceError, match="frame_stack"):
        dqn.check(replace(SMALL, frame_stack=4), Control(Corridor))
    task = Control(Corridor)
    given = QPolicy(task.observation_space, task.action_space, RECURRENT.network)
    for policy in (None, given):
        dqn.check(replace(RECURRENT, buffer_size=10), task, policy)
        with pytest.raises(ConfigError, match=r"buffer_size of at least n_envs \* .* = 10, got 9"):
            dqn.check(replace(RECURRENT, buffer_size=9), task, policy)
        with pytest.raises(SpaceError, match="frame_stack"):
            dqn.check(replace(SMALL, frame_stack=4), task, policy)
    other = ActorCritic(task.observation_space, task.action_space)
    with pytest.raises(ConfigError, match="a QPolicy with no distribution, got a ActorCritic"):
        dqn.train(SMALL, task, start(tmp_path / "run", dqn, SMALL, task), other)


class Blinks(Corridor):
    """Each step ends an episode: as many rows as there can be."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, _, _, info = super().step(action)
        return seen, reward, True, False, info


@pytest.mark.parametrize("world", [Corridor, Blinks])
@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL, n_envs=2, buffer_size=16, learning_starts=0),
        replace(SMALL, n_envs=2, buffer_size=16, learning_starts=0, replay=Prioritised()),
        replace(RECURRENT, n_envs=2, buffer_size=20, learning_starts=0),
    ],
    ids=["steps", "prioritised", "sequences"],
)
def test_the_smallest_replay_that_is_taken_does_to_the_end(world: Any, config: Config, tmp_path: Path) -> None:
    task, config = Control(world), replace(config, total_timesteps=400)
    dqn.check(config, task)
    run = start(tmp_path / "run", dqn, config, task, checkpoint_freq=40)
    dqn.train(config, task, run)
    assert run.step == 400


def test_a_run_that_ends_before_it_learns_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, config = Control(Corridor), replace(SMALL, total_timesteps=40)
    for starts, said in ((40, True), (39, False)):
        quick = replace(config, learning_starts=starts)
        dqn.train(quick, task, start(tmp_path / str(starts), dqn, quick, task, progress=True))
        assert ("nothing will be learnt: updates begin after 40 steps" in capsys.readouterr().err) == said


def test_a_policy_may_be_begun_from(tmp_path: Path) -> None:
    task, config = Control(Corridor), replace(SMALL, total_timesteps=100, learning_starts=200)
    torch.manual_seed(5)
    policy = QPolicy(task.observation_space, task.action_space, config.network)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    assert dqn.train(config, task, start(tmp_path / "run", dqn, config, task), policy) is policy
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())


def test_a_replay_is_what_its_settings_say(tmp_path: Path) -> None:
    task = Control(Corridor)
    config = replace(SMALL, n_envs=2, replay=Prioritised(0.5, 0.3), buffer_on_disk=True, total_timesteps=400)
    run = start(tmp_path / "run", dqn, config, task, checkpoint_freq=0)
    dqn.train(config, task, run)
    assert any((tmp_path / "run" / "replay").iterdir())
    memory = replay_of(config, task, tmp_path / "run" / "replay", run.checkpoint_period)
    assert isinstance(memory, Replay)
    assert memory.prioritised == Prioritised(0.5, 0.3) and memory.n_envs == 2


def test_a_generator_of_its_own_for_noisy_weights() -> None:
    made = learner(replace(SMALL, network=QNet(noisy=True)))
    first, second = made.noise(), made.noise()
    assert first is not None and second is not None and not torch.equal(first, second)
    assert torch.equal(first, made.network.noise((1,), generator(0, "noisy weights")))
    assert learner(SMALL).noise() is None
