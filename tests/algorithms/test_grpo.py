"""GRPO and its kin: against the papers' sums in float64, however a step is split, and what must not count."""

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tests.algorithms import tiny_text
from tests.algorithms.training import start
from tests.language.letters import policy, problems, source, talking
from tests.language.models import GPT, model, within
from torchward.algorithms import grpo
from torchward.algorithms.grpo import (
    ConstantMean,
    GroupRelative,
    Learner,
    LeaveOneOut,
    SequenceClip,
    SequenceMean,
    TokenClip,
    TokenMean,
    WholeBatch,
)
from torchward.config import ConfigError
from torchward.data.kl import KLToReference, frozen
from torchward.data.rollout import Batch, Rollout
from torchward.metrics import read_metrics
from torchward.nets.language_model import LanguageModel, parts
from torchward.nets.sampling import Sampling, among, packed

LENGTH = 6
SIZES: dict[str, Any] = {"num_generations": 3, "generation_batch_size": 12, "max_grad_norm": 1e9, "learning_rate": 0.0}
NORMALISATIONS: list[grpo.Normalisation] = [SequenceMean(), TokenMean(), ConstantMean()]
CLIPS: list[grpo.Clip] = [TokenClip(0.05, 0.1), SequenceClip(0.004, 0.008)]


def only(tensor: Any) -> Tensor:
    assert isinstance(tensor, Tensor)
    return tensor


def written(of: LanguageModel, in_turns: bool = False) -> Rollout:
    """Twelve answers, some of which the length cut, and an advantage that is none of their rewards'."""
    asked = talking(max_completion_length=LENGTH) if in_turns else problems()
    rollout = source(asked, n=12).collect(of, None)
    truncated = ~rollout.terminated.any(1)
    assert in_turns or (truncated.any() and not truncated.all())
    return rollout


ADVANTAGE = torch.randn(12, generator=Generator().manual_seed(5))
ADVANTAGE[[1, 6]] = 0.0  # as good as their like: they count, and have no gradient


def moved(of: LanguageModel, by: float = 0.03, seed: int = 3) -> LanguageModel:
    """A copy a little way off."""
    generator = Generator().manual_seed(seed)
    other = copy.deepcopy(of)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return other


def gradient(of: LanguageModel) -> Tensor:
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in of.parameters()])


def learnt(config: grpo.Config, of: LanguageModel, rollout: Rollout, advantage: Tensor, reference: Any = None) -> Any:
    """The gradient and the metrics of an update whose step size is 0."""
    learner = Learner(of, config)
    learner.reference = reference
    metrics = learner.update(rollout, advantage, LENGTH)
    return gradient(of), {name: float(value) for name, value in metrics.items()}


# The papers' sums


def judged(of: LanguageModel, rollout: Rollout, row: int) -> Tensor:
    """``[T, vocab]`` in float64: what is likely at each token of a text that is read alone."""
    tokens, support = parts(rollout.observation)
    last = int(rollout.loss_mask[row].nonzero().max())
    hidden = of.body.forward(tokens[row : row + 1, : last + 1])
    logits = of.body.logits(hidden)[0] / of.sampling.temperature
    return within(logits.log_softmax(1), None if support is None else support[row, : last + 1])


def by_hand(
    config: grpo.Config, of: LanguageModel, rollout: Rollout, advantage: Tensor, reference: LanguageModel | None
) -> Tensor:
    """The loss, token by token."""
    sums, tokens, rows = [], 0, 0
    low, high = config.clip.epsilon, config.clip.epsilon_high or config.clip.epsilon
    for row in range(len(advantage)):
        own = rollout.loss_mask[row].nonzero().flatten().tolist()
        if config.mask_truncated_completions and not rollout.terminated[row].any():
            continue
        now, action, better = judged(of, rollout, row), only(rollout.action)[row], advantage[row].double()
        likely = [now[t, action[t]] for t in own]
        change = [one - rollout.log_prob[row, t].double() for one, t in zip(likely, own, strict=True)]
        ratios = [x.exp() for x in change]
        if isinstance(config.clip, SequenceClip):
            product = torch.stack(ratios).prod() ** (1.0 / len(own))
            used = [product] * len(own)
        else:
            used = ratios
        total = torch.zeros((), dtype=torch.float64)
        for ratio, one, weight, t in zip(used, likely, ratios, own, strict=True):
            total = total - torch.minimum(ratio * better, ratio.clamp(1.0 - low, 1.0 + high) * better)
            if reference is not None:
                odds = (judged(reference, rollout, row)[t, action[t]].detach() - one).exp()
                total = total + config.beta * weight * (odds - odds.log() - 1.0)
            total = total + config.entropy_coef * (now[t].exp() * now[t].clamp_min(-1e300)).sum()
        sums.append(total / (len(own) if isinstance(config.normalisation, SequenceMean) else 1))
        tokens, rows = tokens + len(own), rows + 1
    divisor = {SequenceMean: rows, TokenMean: tokens, ConstantMean: rows * LENGTH}[type(config.normalisation)]
    return torch.stack(sums).sum() / divisor


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(
    ("sampling", "in_turns", "masked", "beta"),
    [(Sampling(0.8), False, False, 0.3), (Sampling(1.2, 6), True, True, 0.3), (Sampling(1.2), True, False, 0.0)],
)
def test_the_loss_is_that_of_the_papers(
    normalisation: Any, clip: Any, sampling: Sampling, in_turns: bool, masked: bool, beta: float
) -> None:
    """Off policy, with active clips, temperature, supports, several turns, entropy, with and without a reference."""
    sampler = policy(sampling, ends=1.7 if in_turns else 1.0)
    rollout, of, reference = written(sampler, in_turns), moved(sampler, 0.05), moved(sampler, 0.1, seed=4)
    config = grpo.Config(
        **SIZES, normalisation=normalisation, clip=clip, beta=beta, entropy_coef=0.2, mask_truncated_completions=masked,
        per_device_train_batch_size=5,
    )  # fmt: skip
    found, metrics = learnt(config, of, rollout, ADVANTAGE, frozen(reference) if beta else None)
    assert 0.1 < metrics["clip_fraction"] < 0.9 and metrics["mismatch"] > 0.05
    assert metrics["kl"] > 0.01 if beta else "kl" not in metrics
    double = copy.deepcopy(of).double()
    double.zero_grad()
    loss = by_hand(config, double, rollout, ADVANTAGE, reference.double() if beta else None)
    loss.backward()
    assert metrics["policy_loss"] == pytest.approx(loss.item(), abs=1e-5)
    expected = gradient(double)
    assert (found - expected).norm() / expected.norm() < 1e-4
    assert metrics["grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-4)


# However a step is split


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("clip", CLIPS)
def test_pieces_order_and_padding_change_nothing(normalisation: Any, clip: Any) -> None:
    sampler = policy(Sampling(1.2, 6))
    rollout, of, reference = written(sampler), moved(sampler), frozen(moved(sampler, 0.1, seed=4))
    config = grpo.Config(**SIZES, normalisation=normalisation, clip=clip, beta=0.3, per_device_train_batch_size=100)
    whole, expected = learnt(config, of, rollout, ADVANTAGE, reference)
    for size in (1, 5):
        found, metrics = learnt(replace(config, per_device_train_batch_size=size), of, rollout, ADVANTAGE, reference)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
        assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)
    order = torch.randperm(12, generator=Generator().manual_seed(1))
    found, metrics = learnt(config, of, changed(rollout, lambda x: x[order]), ADVANTAGE[order], reference)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
    assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)
    padded = changed(rollout, lambda x: torch.cat([x, torch.zeros_like(x[:, :4])], 1))
    padded = replace(padded, action=torch.cat([only(rollout.action), torch.full((12, 4), -1)], 1))
    found, metrics = learnt(config, of, padded, ADVANTAGE, reference)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-7)
    assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-7)


def changed(rollout: Rollout, function: Any) -> Rollout:
    """Each tensor ``[B, T, ...]`` of a rollout, changed."""
    tokens, support = parts(rollout.observation)
    observation: Any = function(tokens)
    if support is not None:
        observation = {"token": observation, "support": function(support)}
    names = ("action", "log_prob", "reward", "terminated", "boundary", "loss_mask", "value", "next_value")
    return replace(rollout, observation=observation, **{name: function(getattr(rollout, name)) for name in names})


def test_a_rollout_in_several_steps_is_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps' gradients of a sum (constant mean, of equally many rows) are together that of one step."""
    sampler = policy()
    rollout, of = written(sampler), moved(sampler)
    config = grpo.Config(**SIZES, normalisation=ConstantMean())
    whole, _ = learnt(config, of, rollout, ADVANTAGE)
    learner, seen = Learner(of, replace(config, steps_per_generation=3, num_iterations=2)), list[Tensor]()
    step = learner.step

    def watched(*given: Any) -> Any:
        made = step(*given)
        seen.append(gradient(of))
        return made

    monkeypatch.setattr(learner, "step", watched)
    learner.update(rollout, ADVANTAGE, LENGTH)
    assert len(seen) == 6
    for once in (seen[:3], seen[3:]):
        torch.testing.assert_close(torch.stack(once).mean(0), whole, rtol=1e-4, atol=1e-6)
    assert not torch.equal(seen[0], seen[3]), "in another order"


def test_pieces_are_each_row_once_cut_to_the_longest() -> None:
    rollout = written(policy())
    mask = rollout.loss_mask.clone()
    mask[[2, 7]] = False
    batch = replace(rollout.credited(rollout.reward, rollout.reward), loss_mask=mask)
    for size in (1, 4, 50):
        found = grpo.pieces(batch, size)
        rows = [row for _, which in found for row in which.tolist()]
        assert sorted(rows) == [row for row in range(12) if row not in (2, 7)]
        for piece, which in found:
            time = piece.loss_mask.shape[1]
            assert len(piece) == len(which) <= size and piece.loss_mask[:, -1].any()
            assert torch.equal(piece.loss_mask, mask[which, :time]) and not mask[which, time:].any()
            assert torch.equal(only(piece.action), only(batch.action)[which, :time])
    assert grpo.pieces(replace(batch, loss_mask=torch.zeros_like(mask)), 4) == []


# What must not count


@pytest.mark.parametrize("clip", CLIPS)
def test_what_the_policy_did_not_choose_never_counts(clip: Any) -> None:
    """Prompts, what a partner said, and padding: NaN in all that is told of them changes no bit."""
    sampler = policy(Sampling(1.2, 6), ends=2.0)
    rollout, of, reference = written(sampler, in_turns=True), moved(sampler), frozen(moved(sampler, 0.1, seed=4))
    config = grpo.Config(**SIZES, clip=clip, beta=0.3)
    expected = learnt(config, of, rollout, ADVANTAGE, reference)
    outside = ~rollout.loss_mask
    tokens, support = parts(rollout.observation)
    assert support is not None and (outside & (rollout.loss_mask.cumsum(1) > 0) & ~rollout.boundary).any()
    behind = outside & (rollout.loss_mask.flip(1).cumsum(1).flip(1) == 0)
    junk = torch.randint(9, tokens.shape, generator=Generator().manual_seed(0))
    dirty = replace(
        rollout,
        observation={"token": torch.where(behind, junk, tokens), "support": support.masked_fill(outside[..., None], 0)},
        log_prob=rollout.log_prob.masked_fill(outside, torch.nan),
        reward=rollout.reward.masked_fill(outside, torch.nan),
        value=None,
        next_value=None,
    )
    found = learnt(config, of, dirty, ADVANTAGE, reference)
    assert torch.equal(found[0], expected[0]) and found[1] == expected[1]
    for credit in (GroupRelative(), LeaveOneOut(), WholeBatch()):
        assert torch.equal(grpo.advantages(dirty, credit), grpo.advantages(rollout, credit))
    assert grpo.rewards(dirty) == grpo.rewards(rollout)


def test_answers_that_were_cut_teach_nothing_where_they_are_masked() -> None:
    sampler = policy()
    rollout, of = written(sampler), moved(sampler)
    cut = ~rollout.terminated.any(1)
    config = grpo.Config(**SIZES, mask_truncated_completions=True)
    expected = learnt(config, of, rollout, ADVANTAGE)
    found = learnt(config, of, rollout, torch.where(cut, 1e3, ADVANTAGE))
    assert torch.equal(found[0], expected[0])
    assert not torch.equal(
        learnt(replace(config, mask_truncated_completions=False), of, rollout, ADVANTAGE)[0], found[0]
    )
    all_cut = replace(rollout, terminated=torch.zeros_like(rollout.terminated))
    before = gradient(of)
    learner = Learner(of, replace(config, learning_rate=1.0, weight_decay=0.1))
    metrics = learner.update(all_cut, ADVANTAGE, LENGTH)
    assert metrics["grad_norm"] == 0.0 and torch.equal(gradient(of), before), "then there is no step"


@pytest.mark.parametrize("credit", [GroupRelative(), GroupRelative(False), LeaveOneOut(), WholeBatch()])
@pytest.mark.parametrize("reward", [0.1, 1e6 + 0.3])
def test_equal_rewards_teach_nothing(credit: Any, reward: float) -> None:
    sampler = policy()
    rollout = written(sampler)
    last = rollout.boundary & rollout.loss_mask
    rollout = replace(rollout, reward=torch.where(last, reward, 0.0))
    advantage = grpo.advantages(rollout, credit)
    assert not advantage.any()
    for clip in CLIPS:
        of = moved(sampler)
        config = replace(grpo.Config(**SIZES, credit=credit, clip=clip), learning_rate=0.1, weight_decay=0.1)
        learner = Learner(of, config)
        spread = advantage[:, None].expand_as(rollout.reward)
        batch = rollout.credited(spread, spread)
        learner.loss(batch, None, LENGTH, learner.total(batch.loss_mask))[0].backward()
        assert not gradient(of).any(), "none of its answers has a gradient"
        learner.update(rollout, ADVANTAGE, LENGTH)  # Adam remembers this
        before = [parameter.clone() for parameter in of.parameters()]
        metrics = learner.update(rollout, advantage, LENGTH)
        assert metrics["grad_norm"] == 0.0
        assert all(map(torch.equal, before, of.parameters())), "and there is no step"
    assert grpo.rewards(rollout)["uniform_groups"] == 1.0


def test_groups_that_teach_nothing_are_counted() -> None:
    rollout = written(policy())
    last = rollout.boundary & rollout.loss_mask
    given = torch.tensor([0.0, 0.5, 1.0, 2.0, 2.0, 2.0, 0.0, 0.0, 1.0, 7.0, 7.0, 7.0])
    told = grpo.rewards(replace(rollout, reward=torch.where(last, given[:, None], 0.0)))
    assert told["uniform_groups"] == 0.5, "the middle one of three is not of them"
    assert float(told["reward"]) == pytest.approx(float(given.mean()))
    assert float(told["truncated"]) == pytest.approx(1.0 - float(rollout.terminated.any(1).float().mean()))


def test_each_credit_compares_with_its_own() -> None:
    rollout = written(policy())
    last = rollout.boundary & rollout.loss_mask
    given = torch.tensor([1.0, 2.0, 6.0] * 4) + torch.arange(4.0).repeat_interleave(3) * 10.0
    rollout = replace(rollout, reward=torch.where(last, given[:, None], 0.0))
    credits = {type(c).__name__: grpo.advantages(rollout, c) for c in (GroupRelative(), LeaveOneOut(), WholeBatch())}
    plain = grpo.advantages(rollout, GroupRelative(False))
    assert plain[:3].tolist() == [-2.0, -1.0, 3.0]
    torch.testing.assert_close(credits["GroupRelative"][:3], plain[:3] / 7.0**0.5, atol=1e-3, rtol=0.0)
    assert credits["LeaveOneOut"][:3].tolist() == [-3.0, -1.5, 4.5]
    assert credits["WholeBatch"].mean().abs() < 1e-6 and credits["WholeBatch"].std() == pytest.approx(1.0)


# Before the first step, and the divergence


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.6), Sampling(1.3, 5, 0.9)])
def test_before_the_first_step_the_ratio_is_one(sampling: Sampling) -> None:
    """In pieces of all sizes, in several turns, and of a policy with dropout that is still in training."""
    of = model(GPT, sampling, vocab_size=17, max_position_embeddings=60, ends=1.5, dropout=0.4).train()
    config = grpo.Config(**SIZES, per_device_train_batch_size=5, beta=0.1)
    for in_turns in (False, True):
        rollout = written(of, in_turns)
        _, metrics = learnt(config, of, rollout, ADVANTAGE, frozen(of))
        assert metrics["mismatch"] < 1e-4 and abs(metrics["kl"]) < 1e-6 and abs(metrics["approx_kl"]) < 1e-8
        assert metrics["clip_fraction"] == 0.0 and metrics["entropy"] > 0.5
    # It is measured before the first step alone: later ones are off policy, and that is no mismatch.
    _, metrics = learnt(replace(config, num_iterations=3, learning_rate=1e-2), of, rollout, ADVANTAGE, frozen(of))
    assert metrics["mismatch"] < 1e-4 and metrics["approx_kl"] > 1e-5


def test_the_divergences_gradient_is_exact_in_expectation() -> None:
    """Every answer of two tokens that a sampler may draw, weighted by its probability: value and gradient are those of
    KL(pi || reference) at the states that the sampler visits, although the policy is no longer the sampler."""
    sampling = Sampling(0.8, top_k=3)
    sampler = model(GPT, sampling)
    of, reference = moved(sampler, 0.1), moved(sampler, 0.2, seed=8)
    prompt, batches, weights = [1, 4], list[Batch](), list[Tensor]()

    def logits(ids: list[int], whose: LanguageModel) -> Tensor:
        made: Tensor = whose.body.logits(whose.body.forward(torch.tensor([ids])))[:, -1] / sampling.temperature
        return made

    def seen(ids: list[int]) -> Tensor:
        return among(logits(ids, sampler).float(), sampling)

    nothing = packed(torch.ones(1, 13, dtype=torch.bool))
    states: list[tuple[list[int], Tensor]] = [(prompt, torch.ones(()))]
    with torch.no_grad():
        for first in seen(prompt)[0].nonzero().flatten().tolist():
            one = logits(prompt, sampler).masked_fill(~seen(prompt), -torch.inf).log_softmax(1)[0, first]
            states.append(([*prompt, first], one.exp()))
            after = logits([*prompt, first], sampler).masked_fill(~seen([*prompt, first]), -torch.inf).log_softmax(1)[0]
            for second in seen([*prompt, first])[0].nonzero().flatten().tolist():
                support = torch.stack([nothing, packed(seen(prompt)), packed(seen([*prompt, first]))], 1)
                zero, no = torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool)
                batches.append(
                    Batch(
                        observation={"token": torch.tensor([[*prompt, first]]), "support": support},
                        action=torch.tensor([[-1, first, second]]),
                        log_prob=torch.stack([torch.zeros(()), one, after[second]])[None],
                        advantage=zero,
                        target=zero,
                        boundary=no,
                        loss_mask=torch.tensor([[False, True, True]]),
                    )
                )
                weights.append((one + after[second]).exp())
    assert len(batches) == 9 and float(torch.stack(weights).sum()) == pytest.approx(1.0)
    config = grpo.Config(**SIZES, beta=0.7, normalisation=ConstantMean())
    learner = Learner(of, config)
    found = torch.zeros(())
    for batch, weight in zip(batches, weights, strict=True):
        known = reference.log_probs(batch.observation, batch.action)
        found = found + weight * learner.loss(batch, known.detach(), 2, torch.ones(()))[0]
    found.backward()
    double, other = copy.deepcopy(of).double(), reference.double()
    double.zero_grad()
    exact = torch.zeros((), dtype=torch.float64)
    for ids, weight in states:
        mask = seen(ids)[0]
        now, then = (logits(ids, whose)[0, mask].log_softmax(0) for whose in (double, other))
        exact = exact + weight.double() * torch.sum(now.exp() * (now - then.detach()))
    (0.7 / 2.0 * exact).backward()
    assert found.item() == pytest.approx(0.35 * exact.item(), rel=1e-4) and exact.item() > 0.01
    expected = gradient(double)
    assert (gradient(of) - expected).norm() / expected.norm() < 1e-3


def test_a_reference_in_the_rewards_judges_at_the_same_temperature(tmp_path: Path) -> None:
    """Before the first step nothing is paid for staying where one is."""
    task = tiny_text.task()
    config = grpo.Config(
        total_timesteps=100, num_generations=4, generation_batch_size=16, temperature=0.5, top_k=4, learning_rate=1e-2
    )
    of = tiny_text.policy(task)
    run = start(tmp_path / "run", grpo, config, task)
    grpo.train(config, task, run, policy=of, shaping=[KLToReference(frozen(of), 0.5)])
    rows = read_metrics(tmp_path / "run")
    assert rows[1]["kl"] > 1e-3, "it has learnt, and is no longer where it began"
    ratio = rows[1]["kl_row"] / rows[1]["kl"]
    assert 1.0 <= ratio <= 3.0 + 1e-5, "of a token and of a row: what shaping measured stands"
    assert abs(rows[0]["kl_row"]) < 1e-5 and rows[0]["mismatch"] < 1e-4 and rows[0]["beta"] == 0.5


# Settings


def test_the_kin_differ_in_three_places() -> None:
    config = grpo.Config(beta=0.1, temperature=0.9)
    made = [f(config) for f in (grpo.dr_grpo, grpo.dapo, grpo.rloo, grpo.reinforce_plus_plus, grpo.gspo)]
    places = [(c.credit, c.clip, c.normalisation, c.beta, c.mask_truncated_completions) for c in made]
    token = TokenClip()
    assert places == [
        (GroupRelative(False), token, ConstantMean(), 0.1, False),
        (GroupRelative(), TokenClip(0.2, 0.28), TokenMean(), 0.0, True),
        (LeaveOneOut(), token, ConstantMean(), 0.1, False),
        (WholeBatch(), token, TokenMean(), 0.1, False),
        (GroupRelative(), SequenceClip(3e-4, 4e-4), SequenceMean(), 0.1, False),
    ]
    assert all(c.sampling == Sampling(0.9) for c in made)


def test_the_step_size_moves_as_it_is_told() -> None:
    config = grpo.Config(learning_rate=0.8, warmup_ratio=0.5, lr_scheduler_type="linear")
    learner = Learner(policy(), config)
    found = []
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
        learner.anneal(progress)
        found.append(learner.optimizer.lr)
    assert found == pytest.approx([0.0, 0.4, 0.8, 0.4, 0.0])
    learner.config = replace(config, lr_scheduler_type="constant", warmup_ratio=0.0)
    learner.anneal(0.9)
    assert learner.optimizer.lr == 0.8


ALONE = {"num_generations": 1}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"generation_batch_size": 60}, "generation_batch_size a multiple of num_generations=8, got 60"),
        ({"generation_batch_size": 0}, "generation_batch_size of at least 1, got 0"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size of at least 1"),
        ({"max_completion_length": 0}, "max_completion_length of at least 1"),
        (ALONE, "num_generations of at least 2"),
        ({**ALONE, "credit": LeaveOneOut()}, "num_generations of at least 2"),
        ({**ALONE, "generation_batch_size": 1, "credit": WholeBatch()}, "generation_batch_size of at least 2"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"top_p": 2.0}, "top_p"),
        ({"steps_per_generation": 65}, "steps_per_generation of at most generation_batch_size=64, .*, got 65"),
        ({"beta": -1.0}, "beta of at least 0"),
        ({"entropy_coef": -0.1}, "entropy_coef of at least 0"),
        ({"warmup_ratio": 2.0}, r"warmup_ratio within \[0, 1\]"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        grpo.Config(**wrong)


def test_a_group_of_one_may_be_compared_with_the_batch() -> None:
    grpo.Config(num_generations=1, credit=WholeBatch())
    for clip, low, high in itertools.product((TokenClip, SequenceClip), (-0.1, 1.5), (None, 0.1)):
        with pytest.raises(ConfigError, match=r"expected epsilon within \[0, 1\]"):
            clip(low, high)
    with pytest.raises(ConfigError, match="epsilon_high of at least 0"):
        TokenClip(0.2, -0.1)


def test_without_a_policy_there_is_nothing_to_improve(tmp_path: Path) -> None:
    task = tiny_text.task()
    with pytest.raises(ConfigError, match="expected a policy that can write"):
        grpo.train(grpo.Config(), task, start(tmp_path / "run", grpo, grpo.Config(), task))
