"""Checks of what a language model learns from: does the loss count what it should, whatever stands beside it?

Each check gives one finding and leaves the model as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from torchward.data.packing import Rows, Whole, once
from torchward.data.rollout import Batch, Rollout
from torchward.data.sequences import Sequences
from torchward.data.tree import tree_map
from torchward.functional.divergences import k3
from torchward.functional.policy_losses import clipped_surrogate
from torchward.functional.reduction import masked_mean
from torchward.language.finding import WHOLE, Finding, device_of, drawing, gap
from torchward.nets.dropout import without_dropout
from torchward.nets.language_model import NONE, LanguageModel

Cost: TypeAlias = Callable[[LanguageModel, Rows], Tensor]
"""What the learnt tokens of packed rows cost in all: the loss of imitation before its mean is taken."""


@torch.no_grad()
def first_ratio(policy: LanguageModel, rollout: Rollout, seed: int = 0) -> Finding:
    """Whether training computes the log-probabilities that sampling stored: for all rows at once, for each alone, for
    minibatches that are cut to their longest row, and with more padding. The rollout is drawn at temperature 1, among
    all tokens."""
    batch = rollout.credited(rollout.reward, rollout.reward)
    device = batch.log_prob.device
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed)).to(device)
    ends = (batch.loss_mask * torch.arange(1, batch.log_prob.shape[1] + 1, device=device)).amax(1)
    ways = {
        "with all rows at once": [batch],
        "with each row alone, without its padding": [_cut(batch, rows, ends) for rows in order.split(1)],
        "in minibatches, cut to their longest row": [_cut(batch, rows, ends) for rows in order.split(3)],
        "with more padding": [_longer(batch, 4)],
    }
    worst = 0.0
    for way, pieces in ways.items():
        for piece in pieces:
            with drawing(policy, WHOLE), without_dropout(policy):
                said = policy.evaluate_actions(piece.observation, piece.action, (), piece.boundary).log_prob
            size, place = gap(said[piece.loss_mask], piece.log_prob[piece.loss_mask], policy)
            worst = max(worst, size)
            if place is not None:
                row, step = piece.loss_mask.nonzero()[place].tolist()
                stored, now = float(piece.log_prob[row, step]), float(said[row, step])
                return Finding(
                    "first ratio",
                    False,
                    f"Before the first step of the optimiser a ratio of probabilities is not 1, {way}: at step "
                    f"{step + 1} of a row sampling stored {stored:.4f}, and training computes {now:.4f}. Look at "
                    "evaluate_actions, and at how rollouts are put together: a log-probability belongs to the step "
                    "that chose its token, and neither padding nor other rows may matter.",
                )
    count = int(batch.loss_mask.sum())
    return Finding("first ratio", True, f"1 for {count} tokens, with padding and minibatches: {worst:.0g} off at most")


@torch.no_grad()
def same_loss(policy: LanguageModel, sequences: Sequences, pad_id: int, cost: Cost) -> Finding:
    """Whether sequences cost what they cost alone: with padding, packed into rows with others, in another order, and in
    micro-batches."""
    context, device = policy.config.max_position_embeddings, device_of(policy)
    some = _short(sequences, 12, context // 2) or _short(sequences, 12, context)
    if some is None:
        return Finding("same loss", None, "not looked at: no sequence teaches anything within the model's context")
    longest = int(some.steps.max())

    def total(of: Sequences, length: int, rows: int) -> float:
        batches = once(of, max_length=length, batch_size=rows, pad_id=pad_id, packing=Whole())
        return sum(float(cost(policy, batch.to(device))) for batch in batches)

    each = [_picked(some, [i]) for i in range(len(some))]
    backwards = _picked(some, range(len(some) - 1, -1, -1))
    with drawing(policy, WHOLE), without_dropout(policy):
        alone = sum(total(one, int(one.steps[0]), 1) for one in each)
        ways = {
            "with padding behind them": sum(total(one, min(context, longest + 3), 1) for one in each),
            "packed into rows with others": total(some, min(context, 2 * longest), 8),
            "packed in another order": total(backwards, min(context, 2 * longest), 8),
            "in micro-batches of one row": total(some, min(context, 2 * longest), 1),
        }
    limit = 1e-4 + 1e-5 * abs(alone)
    if policy.body.token.weight.dtype not in (torch.float32, torch.float64):
        limit = 0.02 * abs(alone)
    for way, found in ways.items():
        if not abs(found - alone) <= limit:
            return Finding(
                "same loss",
                False,
                f"{len(some)} sequences cost {found:.4f} nats {way}, and {alone:.4f} each alone. Texts in one row must "
                "not see each other, positions count from each one's beginning, padding is never learnt, and the "
                "pieces of a batch are sums that one mean is taken of, over all of its tokens.",
            )
    worst = max(abs(found - alone) for found in ways.values())
    return Finding(
        "same loss", True, f"{len(some)} sequences, padded, packed, split: {worst:.0g} of {alone:.1f} nats off"
    )


def ends(
    sequences: Sequences | None, rollout: Rollout | None, eos_id: int, pad_id: int, others: Sequence[int] = ()
) -> Finding:
    """Whether end-of-text is learnt, padding is not, and they are two tokens: in sequences that are imitated, and in
    rollouts whose completions end with it, or with one of ``others``. None: there are none."""
    if eos_id == pad_id:
        return _ended(
            f"Padding and end-of-text are one token, {eos_id}: who leaves out padding never learns to end. Give "
            "padding a token of its own"
        )
    learnt = 0
    if sequences is not None:
        starts, own = sequences.starts, sequences.own
        teaches = np.logical_or.reduceat(own, starts[:-1])
        place = np.where(own, np.arange(len(own)), -1)
        last = np.maximum.reduceat(place, starts[:-1]).clip(0)  # of what is learnt: a chat may close with other words
        behind = np.minimum(last + 1, starts[1:] - 1)
        ends_here = sequences.tokens[last] == eos_id
        left_out = teaches & ~ends_here & (sequences.tokens[behind] == eos_id)
        faults = {
            "teach nothing: their mask is False throughout": ~teaches,
            "end with an end-of-text that the mask leaves out: stopping is not learnt": left_out,
            f"do not end with end-of-text (token {eos_id}): stopping is not learnt": ~ends_here,
        }
        for what, which in faults.items():
            if which.any():
                return _ended(
                    f"{int(which.sum())} of {len(sequences)} sequences, first number {int(which.argmax()) + 1}, {what}"
                    ". Look at the template that writes them, and at what cuts them"
                )
        if (fault := _padding(_picked(sequences, range(min(200, len(sequences)))), pad_id)) is not None:
            return _ended(fault)
        learnt = len(sequences)
    if rollout is not None:
        assert isinstance(rollout.action, Tensor)
        mask, ended = rollout.loss_mask, rollout.terminated
        by = torch.tensor([eos_id, *others], device=rollout.action.device)
        past = rollout.boundary.cumsum(1) - rollout.boundary.long() > 0
        cases = {
            "leave out the end-of-text that ended them": (ended & ~mask).any(1),
            "have a mask that is False throughout": ~mask.any(1),
            "learn from what stands behind their end": (mask & past).any(1),
            "ended without end-of-text": (ended & ~torch.isin(rollout.action, by)).any(1),
        }
        for what, rows in cases.items():
            if bool(rows.any()):
                return _ended(
                    f"{int(rows.sum())} of {len(rows)} rows of a rollout {what}. Look at what puts rollouts together"
                )
    where = f"{learnt} sequences" + ("" if rollout is None else f" and {len(rollout.reward)} completions")
    return Finding("ends", True, f"in {where} end-of-text ({eos_id}) is learnt, padding ({pad_id}) is not")


def masked_steps(policy: LanguageModel, rollout: Rollout) -> Finding:
    """Whether steps that the policy did not choose count for nothing in losses, entropy and divergence, and in their
    gradient, whatever stands there: infinities too. The rollout is drawn at temperature 1, among all tokens."""
    batch = rollout.credited(rollout.reward, rollout.reward).rows(slice(0, 4))
    mask = batch.loss_mask
    with torch.no_grad(), drawing(policy, WHOLE), without_dropout(policy):
        log_prob, entropy, _ = policy.evaluate_actions(batch.observation, batch.action, (), batch.boundary)
    for what, said in (("log-probability", log_prob), ("entropy", entropy)):
        if bool((said[~mask] != 0.0).any()):
            return Finding(
                "masked steps",
                False,
                f"A step that the policy did not choose has the {what} {float(said[~mask].abs().max()):.3g}, which "
                "enters every sum. evaluate_actions gives 0 where the action is -1.",
            )
    known = _measured(policy, batch, 0.0)
    for filling in (torch.inf, -torch.inf, torch.nan):
        for what, found in _measured(policy, batch, filling).items():
            if not abs(found - known[what]) <= 1e-6 + 1e-5 * abs(known[what]):
                return Finding(
                    "masked steps",
                    False,
                    f"With {filling} at steps that the policy did not choose, the {what} is {found:.4g} in place of "
                    f"{known[what]:.4g}. Replace what stands there before a mean is taken (torch.where, masked_fill): "
                    "infinity times 0 is no number.",
                )
    return Finding("masked steps", True, f"{int((~mask).sum())} of them count for nothing, not as infinities either")


def _measured(policy: LanguageModel, batch: Batch, filling: float) -> dict[str, float]:
    """Means over the steps that were chosen, where the others hold ``filling``; and the size of their gradient."""
    mask = batch.loss_mask
    advantage = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)).to(mask.device)
    advantage, stored = (x.masked_fill(~mask, filling) for x in (advantage, batch.log_prob))
    with torch.enable_grad(), drawing(policy, WHOLE), without_dropout(policy):
        log_prob, entropy, _ = policy.evaluate_actions(batch.observation, batch.action, (), batch.boundary)
        each = {
            "policy loss": clipped_surrogate(log_prob, stored, advantage, 0.2, 0.2).loss,
            "entropy": entropy.masked_fill(~mask, filling),
            "divergence": k3(log_prob, stored - 0.1),
        }
        means = {what: masked_mean(x, mask) for what, x in each.items()}
        learning = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        found = torch.autograd.grad(sum(means.values(), torch.zeros(())), learning, allow_unused=True)
    size = sum(float(gradient.double().square().sum()) for gradient in found if gradient is not None) ** 0.5
    return {**{what: float(mean.detach()) for what, mean in means.items()}, "gradient": size}


def _cut(batch: Batch, rows: Tensor, ends: Tensor) -> Batch:
    """Some rows, cut to the longest."""
    return batch.rows(rows).until(int(ends[rows].max()))


def _longer(batch: Batch, extra: int) -> Batch:
    """The rows with more behind them that is not theirs."""
    time = batch.log_prob.shape[1]

    def longer(x: Tensor) -> Tensor:
        return torch.cat([x, x[:, :extra]], 1)

    named: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
    changed: dict[str, Any] = {name: tree_map(longer, tree) for name, tree in named.items() if tree is not None}
    made = replace(batch, **changed)
    assert isinstance(made.action, Tensor)
    made.action[:, time:], made.loss_mask[:, time:], made.boundary[:, time:] = NONE, False, True
    return made


def _padding(sequences: Sequences, pad_id: int) -> str | None:
    """What is wrong with the padding of packed rows."""
    length, learnt = int(sequences.steps.max()) + 3, 0
    for rows in once(sequences, max_length=length, batch_size=8, pad_id=pad_id, packing=Whole()):
        if bool((rows.loss_mask & (rows.segments < 0)).any()):
            return "Packed rows learn from their padding. Look at what packs them"
        if bool((rows.loss_mask & (rows.targets == pad_id)).any()):
            return (
                f"Sequences have padding (token {pad_id}) among what is learnt. Look at the template that writes them"
            )
        learnt += int(rows.loss_mask.sum())
    if learnt != sequences.learnt:
        return f"Packed rows learn {learnt} tokens of {sequences.learnt}. Look at what packs them"
    return None


def _ended(words: str) -> Finding:
    return Finding("ends", False, f"{words}.")


def _short(sequences: Sequences, count: int, longest: int) -> Sequences | None:
    """The first ``count`` sequences, cut to ``longest`` tokens, that teach something there; None: there is none."""
    begins = sequences.starts[: min(count, len(sequences))]
    spans = [(a, min(b, a + longest)) for a, b in zip(begins, sequences.starts[1:], strict=False)]
    some = [(a, b) for a, b in spans if sequences.own[a:b].any()]
    return _spans(sequences, some) if some else None


def _picked(sequences: Sequences, numbers: Sequence[int]) -> Sequences:
    return _spans(sequences, [(sequences.starts[i], sequences.starts[i + 1]) for i in numbers])


def _spans(sequences: Sequences, spans: Sequence[tuple[Any, Any]]) -> Sequences:
    """Sequences of these tokens."""
    tokens, own = (np.concatenate([x[a:b] for a, b in spans]) for x in (sequences.tokens, sequences.own))
    return Sequences(tokens, own, np.cumsum([0, *[b - a for a, b in spans]]).astype(np.int64))
