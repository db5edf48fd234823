"""Acting while learning, in the algorithms that offer it: their policy is one update old, and nothing else differs."""

from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.algorithms.training import start
from tests.algorithms.worlds import Aim, Corridor
from torchward import random_state
from torchward.algorithms import dqn, rainbow, sac, soft_q, td3
from torchward.data.ahead import Ahead
from torchward.data.exploration import EpsilonGreedy
from torchward.data.protocols import Policy
from torchward.data.rollout import Rollout
from torchward.envs.collect import EnvSource
from torchward.envs.faults import WorldError
from torchward.envs.task import Control
from torchward.nets.actor_body import ActorNet
from torchward.nets.uniform import UniformPolicy

SHORT: dict[str, Any] = {"total_timesteps": 160, "batch_size": 16, "overlap": True, "learning_starts": 40}
EVERY: dict[str, tuple[ModuleType, Any, Any]] = {
    "dqn": (dqn, dqn.Config(**SHORT), Corridor),
    "rainbow": (rainbow, rainbow.Config(**SHORT), Corridor),
    "soft_q": (soft_q, soft_q.Config(**SHORT), Corridor),
    "sac": (sac, sac.Config(**SHORT, network=ActorNet(net_arch=(16,))), Aim),
    "td3": (td3, td3.Config(**SHORT, network=ActorNet(net_arch=(16,))), Aim),
}
Seen = list[tuple[Rollout, Policy, dict[str, torch.Tensor]]]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Each rollout that the worlds gave, with the policy that acted and what it was made of then."""
    seen: Seen = []
    collect = EnvSource.collect

    def watch(self: EnvSource, policy: Policy, horizon: int | None) -> Rollout:
        state = policy.state_dict() if isinstance(policy, torch.nn.Module) else {}
        state = {name: tensor.clone() for name, tensor in state.items()}
        seen.append((collect(self, policy, horizon), policy, state))
        return seen[-1][0]

    monkeypatch.setattr(EnvSource, "collect", watch)
    return seen


def train(path: Path, module: ModuleType, config: Any, task: Any) -> Any:
    return module.train(config, Control(task), start(path, module, config, Control(task)))


@pytest.mark.parametrize("name", EVERY)
def test_the_policy_that_acts_is_one_update_old(name: str, tmp_path: Path, watched: Seen) -> None:
    """The learner is asked what its policy was before each of its updates."""
    module, config, task = EVERY[name]
    before: list[dict[str, torch.Tensor]] = []
    update = module.Learner.update

    def note(self: Any, replay: Any) -> None:
        before.append({name: tensor.clone() for name, tensor in self.policy.state_dict().items()})
        update(self, replay)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Learner, "update", note)
        final = train(tmp_path / "run", module, config, task)
    warm = [state for _, policy, state in watched if isinstance(policy, UniformPolicy)]
    acted = [(policy, state) for _, policy, state in watched if not isinstance(policy, UniformPolicy)]
    rollouts = config.total_timesteps // config.train_freq
    assert len(warm) == config.learning_starts // config.train_freq + 1
    assert len(watched) == rollouts + 1  # the last one was not asked for any more
    assert len(acted) == len(before) == rollouts - config.learning_starts // config.train_freq
    for (policy, state), learnt in zip(acted, before, strict=True):
        assert policy is not final and all(torch.equal(state[key], learnt[key]) for key in learnt)
    assert any(not torch.equal(before[0][key], before[-1][key]) for key in before[0])


@pytest.mark.parametrize("name", EVERY)
def test_without_a_change_of_the_policy_nothing_differs(name: str, tmp_path: Path, watched: Seen) -> None:
    module, config, task = EVERY[name]
    still: dict[str, Any] = {"learning_rate": 0.0, "learning_starts": 0}
    if name == "dqn":
        still["exploration"] = EpsilonGreedy(0.3, 0.3)
    policies = [train(tmp_path / str(on), module, replace(config, **still, overlap=on), task) for on in (False, True)]
    once, twice = (policy.state_dict() for policy in policies)
    assert all(torch.equal(once[key], twice[key]) for key in once)
    half = len(watched) // 2
    for (plain, _, _), (ahead, _, _) in zip(watched[:half], watched[half:-1], strict=True):
        for field in ("observation", "action", "log_prob", "reward", "boundary", "last"):
            assert torch.equal(getattr(plain, field), getattr(ahead, field))


@pytest.mark.parametrize("name", EVERY)
def test_neither_acting_nor_learning_draws_from_what_all_share(name: str, tmp_path: Path) -> None:
    module, config, task = EVERY[name]
    torch.manual_seed(0)
    collected = Ahead.collect
    states: list[Any] = []

    def note(self: Ahead, policy: Policy, horizon: int | None) -> Rollout:
        states.append(random_state.capture_global())
        return collected(self, policy, horizon)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ahead, "collect", note)
        train(tmp_path / "run", module, config, task)
    first, last = states[0], states[-1]
    assert len(states) == 160 // config.train_freq
    assert torch.equal(first["torch"], last["torch"])  # from Python's own, what checks shapes in tests draws
    assert (first["numpy"]["state"]["key"] == last["numpy"]["state"]["key"]).all()
    assert first["numpy"]["state"]["pos"] == last["numpy"]["state"]["pos"]


class Faulty(Corridor):
    """Raises at its hundredth step."""

    total = 0

    def step(self, action: Any) -> Any:
        self.total += 1
        if self.total == 100:
            raise ValueError("worn out")
        return super().step(action)


def test_an_error_of_the_worlds_ends_the_run(tmp_path: Path) -> None:
    config = replace(EVERY["dqn"][1], train_freq=5)
    control = Control(Faulty)
    run = start(tmp_path / "run", dqn, config, control)
    with pytest.raises(WorldError, match=r"Faulty raised ValueError in world 0: worn out \(at step 99\)"):
        dqn.train(config, control, run)
    assert run.step == 95  # all steps that there are were learnt from
    report = (tmp_path / "run" / "failed" / "error.txt").read_text()
    assert "step 95" in report and "worn out" in report


def test_an_evaluation_has_the_process_to_itself(tmp_path: Path) -> None:
    """As have checkpoints: what the worlds draw from generators that all share then comes in a fixed order."""
    stepping: list[bool] = []
    made: list[Ahead] = []
    init, evaluate = Ahead.__init__, Control.evaluate

    def keep(self: Ahead, source: Any) -> None:
        init(self, source)
        made.append(self)

    def look(self: Control, *args: Any, **kwargs: Any) -> Any:
        pending = made[-1].pending
        stepping.append(pending is None or not pending.done())
        return evaluate(self, *args, **kwargs)

    class Slow(Corridor):
        def step(self, action: Any) -> Any:
            np.linalg.svd(np.ones((60, 60)))
            return super().step(action)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ahead, "__init__", keep)
        patch.setattr(Control, "evaluate", look)
        config = EVERY["dqn"][1]
        run = start(tmp_path / "run", dqn, config, Control(Slow), eval_freq=20, n_eval_episodes=1)
        dqn.train(config, Control(Slow), run)
    assert stepping and not any(stepping)
    assert not made[-1].thread.is_alive()


def test_it_is_off_unless_asked_for() -> None:
    for module, _, _ in EVERY.values():
        assert module.Config().overlap is False
        assert {field.name for field in fields(module.Config)} >= {"overlap"}
