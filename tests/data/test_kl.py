"""What staying close costs: against exact enumeration on a softmax policy, and the weight that follows a target."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from torchward.config import ConfigError
from torchward.data.kl import KLToReference, frozen
from torchward.data.protocols import Policy, Shaping
from torchward.data.rollout import Rollout
from torchward.data.tree import Tree
from torchward.functional.divergences import categorical_kl
from torchward.nets.outputs import Acted, Evaluated
from torchward.nets.q_network import QNet
from torchward.nets.q_policy import QPolicy
from torchward.nets.spaces import Box, Discrete

ACTIONS, TIME = 3, 2


class Table(nn.Module):
    """A softmax policy whose logits depend on the action before alone, and on the state of its row."""

    history = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(ACTIONS + 1, ACTIONS, generator=Generator().manual_seed(seed)))

    def initial_state(self, batch: int) -> Tree:
        return torch.zeros(batch)

    def noise(self, batch: tuple[int, ...], generator: Generator) -> Tree:
        raise NotImplementedError

    def act(self, observation: Tree, state: Tree, noise: Tree | None) -> Acted:
        raise NotImplementedError

    def value(self, observation: Tree, state: Tree) -> Tensor | None:
        return None

    def evaluate_actions(self, observation: Tree, action: Tree, state: Tree, boundary: Tensor) -> Evaluated:
        assert isinstance(observation, Tensor) and isinstance(action, Tensor)
        bend = state if isinstance(state, Tensor) else torch.zeros(len(action))
        logits = self.logits[observation] * (1.0 + bend[:, None, None])
        log_prob = logits.log_softmax(-1).gather(-1, action.clamp_min(0)[..., None]).squeeze(-1)
        return Evaluated(log_prob, torch.zeros_like(log_prob), None)


def every(policy: Table, state: Tensor | None = None) -> tuple[Rollout, Tensor]:
    """Each sequence of two actions as a row, behind a step that was not chosen; and the probability of each."""
    action = torch.tensor(list(product(range(ACTIONS), repeat=TIME)))
    rows = len(action)
    action = torch.cat([torch.full((rows, 1), -1), action], 1)
    seen = torch.cat([torch.zeros(rows, 1), torch.full((rows, 1), ACTIONS), action[:, 1:2]], 1).long()
    no = torch.zeros(rows, TIME + 1, dtype=torch.bool)
    given: Tree = () if state is None else state.expand(rows)
    with torch.no_grad():
        log_prob = policy.evaluate_actions(seen, action, given, no).log_prob
    log_prob[:, 0] = torch.nan  # nothing was chosen there: nothing of it may count
    mask = torch.tensor([False, True, True]).expand(rows, 3)
    reward = torch.arange(rows * 3.0).reshape(rows, 3)
    context: dict[str, Tree] = {} if state is None else {"state": given}
    rollout = Rollout(seen, action, log_prob, reward, no, no, mask, context=context)
    return rollout, log_prob[:, 1:].sum(1).exp()


def exact(policy: Table, reference: Table, bend: float = 0.0) -> Tensor:
    """``[2]``: the divergence at each step, over all that may have come before."""
    one, other = (policy.logits * (1.0 + bend)).detach(), (reference.logits * (1.0 + bend)).detach()
    each = categorical_kl(one, other)
    return torch.stack([each[ACTIONS], one[ACTIONS].softmax(0) @ each[:ACTIONS]])


def test_what_is_paid_is_the_divergence_in_expectation() -> None:
    policy, reference = Table(0), Table(1)
    assert isinstance(policy, Policy)
    for bend in (None, 0.5):
        state = None if bend is None else torch.tensor([bend])
        rollout, weight = every(policy, state)
        shaping = KLToReference(reference, 0.3)
        assert isinstance(shaping, Shaping) and weight.sum() == pytest.approx(1.0)
        shaped, metrics = shaping.shape(rollout)
        paid = (rollout.reward - shaped.reward) / 0.3
        assert not paid[:, 0].any(), "where nothing was chosen nothing is paid"
        torch.testing.assert_close(weight @ paid[:, 1:], exact(policy, reference, bend or 0.0), atol=1e-5, rtol=0.0)
        # Of the rows as they are, each once, the metrics are the plain means.
        torch.testing.assert_close(metrics["kl_row"], paid.sum(1).mean())
        torch.testing.assert_close(metrics["kl"], paid[:, 1:].mean())
        assert metrics["beta"] == 0.3 and torch.equal(shaped.action, rollout.action)  # type: ignore[arg-type]
        given: Tree = () if state is None else state.expand(9)
        theirs = reference.evaluate_actions(rollout.observation, rollout.action, given, rollout.boundary).log_prob
        assert shaped.reference_log_prob is not None
        torch.testing.assert_close(shaped.reference_log_prob, theirs.detach())
        assert not shaped.reward.requires_grad and not shaped.reference_log_prob.requires_grad


def test_what_the_reference_never_does_is_not_learnt_from() -> None:
    """Of nine rows three hold a first action that is impossible for it, and three the second one."""
    policy, reference = Table(0), Table(1)
    rollout, _ = every(policy)
    with torch.no_grad():
        reference.logits[:, 2] = -torch.inf
    with pytest.raises(ConfigError, match="some probability, got 6 of 18 steps whose log-probability"):
        KLToReference(reference, 0.1).shape(rollout)
    with torch.no_grad():
        reference.logits[:, 2] = -60.0
    shaped, _ = KLToReference(reference, 0.1).shape(rollout)
    assert shaped.reward.isfinite().all(), "far away is not impossible"


def test_a_recurrent_reference_reads_rows_without_a_state_from_zero() -> None:
    """A uniform policy that warms up a replay keeps no state for it."""
    space, network = Box((2,)), QNet(recurrent="lstm", net_arch=(4,), lstm_hidden_size=3)
    reference = QPolicy(space, Discrete(3), network)
    reference.epsilon = 0.3
    generator, no = Generator().manual_seed(0), torch.zeros(2, 5, dtype=torch.bool)
    seen, action = torch.randn(2, 5, 2, generator=generator), torch.randint(3, (2, 5), generator=generator)
    rollout = Rollout(seen, action, torch.full((2, 5), 1 / 3).log(), torch.zeros(2, 5), no, no, ~no)
    shaped, _ = KLToReference(reference, 1.0).shape(rollout)
    state = reference.initial_state(2)
    for step in range(5):  # one by one, as it acts: the greedy one has 0.7 + 0.3 / 3, the others 0.3 / 3
        best = reference.q_values(seen[:, step], state).argmax(-1)
        state = reference.act(seen[:, step], state, None).state
        chance = torch.where(action[:, step] == best, 0.8, 0.1)
        torch.testing.assert_close(shaped.reward[:, step], (chance * 3.0).log())


def test_the_same_policy_pays_nothing() -> None:
    policy = Table(0)
    rollout, _ = every(policy)
    shaped, metrics = KLToReference(frozen(policy), 9.0).shape(rollout)
    assert torch.equal(shaped.reward, rollout.reward) and metrics["kl"] == 0.0


def test_the_reference_goes_where_the_policy_has_gone() -> None:
    class Moved(Table):
        def to(self, *args: Any, **kwargs: Any) -> Any:
            went.append(args[0])
            return super().to(*args, **kwargs)

    went: list[torch.device] = []
    rollout, _ = every(Table(0))
    KLToReference(Moved(0), 9.0).shape(rollout)
    assert went == [rollout.reward.device]


def test_beta_follows_its_target() -> None:
    """By at most a fifth of the rows' share of the horizon: up above the target, down below."""
    policy, reference = Table(1), Table(0)
    rollout, _ = every(policy)
    plain, metrics = KLToReference(reference, 1.0).shape(rollout)
    divergence = float(metrics["kl_row"])
    assert divergence > 0.1
    for target, error in ((0.1 * divergence, 0.2), (divergence / 1.1, 0.1), (10.0 * divergence, -0.2)):
        shaping = KLToReference(reference, 1.0, target, horizon=90)
        shaped, metrics = shaping.shape(rollout)
        assert torch.equal(shaped.reward, plain.reward), "what is paid now is at the weight of before"
        assert metrics["beta"] == 1.0 and shaping.beta == pytest.approx(1.0 + error * 9 / 90, abs=1e-6)


def test_beta_is_kept() -> None:
    rollout, _ = every(Table(0))
    first = KLToReference(Table(1), 1.0, 0.01, 50)
    first.shape(rollout)
    second = KLToReference(Table(1), 1.0, 0.01, 50)
    second.load_state_dict(first.state_dict())
    assert second.beta == first.beta != 1.0
    fixed = KLToReference(Table(1), 1.0)
    fixed.shape(rollout)
    assert fixed.beta == 1.0


@pytest.mark.parametrize("wrong", [{"beta": -0.1}, {"target": 0.0}, {"target": -1.0}, {"horizon": 0}])
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected beta of at least 0, a target above 0 and a horizon of at least 1"):
        KLToReference(Table(0), **{"beta": 0.1, **wrong})


def test_a_frozen_copy_stays_where_it_was() -> None:
    policy = Table(0).train()
    copy = frozen(policy)
    assert not copy.training and policy.training and not copy.logits.requires_grad and policy.logits.requires_grad
    before = copy.logits.clone()
    with torch.no_grad():
        policy.logits.add_(1.0)
    assert torch.equal(copy.logits, before)
