"""Batches: however they are cut, each step is there exactly once, with everything that belongs to it."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from tests.nets.examples import equal, leaf
from torchward.data.protocols import absorb
from torchward.data.rollout import Batch, Rollout, concatenate
from torchward.data.tree import Tree


def numbered(batch: int, time: int) -> Batch:
    """Every step bears its number in every tensor, every row in its state."""
    step = torch.arange(batch * time).reshape(batch, time)
    return Batch(
        observation={"x": step[..., None].expand(batch, time, 2).float(), "k": (step,)},
        action=step,
        log_prob=step.float(),
        advantage=step.float(),
        target=step.float(),
        boundary=step % 2 == 0,
        loss_mask=step % 3 == 0,
        value=step.float(),
        state=(torch.arange(batch)[:, None].float(),),
    )


def check(batch: Batch) -> list[int]:
    """The steps of a batch, after seeing that all its tensors speak of the same ones."""
    step = batch.action
    assert isinstance(step, Tensor) and isinstance(batch.observation, dict)
    assert equal(batch.observation, {"x": step[..., None].expand(*step.shape, 2).float(), "k": (step,)})
    for same in (batch.log_prob, batch.advantage, batch.target, batch.value):
        assert same is not None and torch.equal(same, step.float())
    assert torch.equal(batch.boundary, step % 2 == 0) and torch.equal(batch.loss_mask, step % 3 == 0)
    assert len(batch) == len(step)
    return step.flatten().tolist()


sizes = st.integers(1, 9)


@settings(max_examples=60)
@given(sizes, sizes, st.integers(1, 100), st.booleans(), st.integers(0, 1000))
def test_minibatches_hold_each_step_once(batch: int, time: int, size: int, history: bool, seed: int) -> None:
    seen: list[int] = []
    whole = numbered(batch, time)
    for minibatch in whole.minibatches(size, Generator().manual_seed(seed), history):
        steps = check(minibatch)
        seen += steps
        if history:
            assert minibatch.log_prob.shape[1] == time
            assert isinstance(minibatch.state, tuple) and isinstance(minibatch.state[0], Tensor)
            assert torch.equal(minibatch.state[0][:, 0], minibatch.log_prob[:, 0] // time)
            assert len(steps) <= max(size, time)
        else:
            assert minibatch.log_prob.shape[1] == 1 and minibatch.state == ()
            assert len(steps) <= size
    assert sorted(seen) == list(range(batch * time))


@settings(max_examples=30)
@given(sizes, sizes, st.one_of(st.none(), st.integers(1, 12)))
def test_microbatches_hold_each_row_once_and_in_order(batch: int, time: int, rows: int | None) -> None:
    pieces = list(numbered(batch, time).microbatches(rows))
    assert [step for piece in pieces for step in check(piece)] == list(range(batch * time))
    assert all(len(piece) <= (rows or batch) for piece in pieces)


@settings(max_examples=30)
@given(sizes, sizes, st.integers(1, 9))
def test_rows_may_be_cut_to_their_first_steps(batch: int, time: int, until: int) -> None:
    cut = numbered(batch, time).until(until)
    kept = min(time, until)
    assert check(cut) == [row * time + t for row in range(batch) for t in range(kept)]
    assert torch.equal(leaf(cut.state, 0), leaf(numbered(batch, time).state, 0)), "the state is that of the beginning"
    assert numbered(2, 3).steps().until(1).state == ()


def test_steps_are_rows_of_their_own() -> None:
    single = numbered(3, 4).steps()
    assert check(single) == list(range(12)) and single.log_prob.shape == (12, 1) and single.state == ()
    picked = numbered(3, 4).rows(torch.tensor([2, 0]))
    assert check(picked) == [8, 9, 10, 11, 0, 1, 2, 3]
    assert torch.equal(leaf(picked.state, 0), torch.tensor([[2.0], [0.0]]))


def test_a_batch_may_lack_values() -> None:
    batch = numbered(3, 4)
    bare = Batch(**{f.name: getattr(batch, f.name) for f in fields(Batch) if f.name not in ("value", "state")})
    assert all(piece.value is None for piece in bare.minibatches(5, Generator().manual_seed(0), False))


def test_the_generator_decides_the_order() -> None:
    def order(generator: Generator) -> list[int]:
        return [s for piece in numbered(4, 8).minibatches(8, generator, False) for s in check(piece)]

    generator = Generator().manual_seed(0)
    first, second = order(generator), order(generator)
    assert first != second and first != sorted(first)
    assert order(Generator().manual_seed(0)) == first


def rollout(batch: int, time: int, start: int = 0) -> Rollout:
    step = torch.arange(start, start + batch * time).reshape(batch, time)
    false = torch.zeros(batch, time, dtype=torch.bool)
    return Rollout(
        observation=(step,),
        action=step,
        log_prob=step.float(),
        reward=step.float(),
        terminated=false,
        boundary=false,
        loss_mask=step % 3 == 0,
        value=step.float(),
        context={"state": (torch.full((batch, 1), float(start)),)},
    )


def test_a_credited_rollout_keeps_what_a_learner_needs() -> None:
    source = rollout(2, 3)
    batch = source.credited(source.reward + 1, source.reward + 2)
    assert torch.equal(batch.advantage, source.reward + 1) and torch.equal(batch.target, source.reward + 2)
    for name in ("observation", "action", "log_prob", "boundary", "loss_mask", "value"):
        assert getattr(batch, name) is getattr(source, name)
    assert batch.state is source.context["state"]
    assert source.steps == 2


def test_rollouts_follow_each_other_in_time() -> None:
    joined = concatenate([rollout(2, 3), rollout(2, 1, 6), rollout(2, 2, 8)])
    assert isinstance(joined.action, Tensor)
    assert joined.action.tolist() == [[0, 1, 2, 6, 8, 9], [3, 4, 5, 7, 10, 11]]
    assert torch.equal(joined.reward, joined.action.float()) and joined.next_value is None
    assert equal(joined.context["state"], (torch.zeros(2, 1),))
    assert concatenate([joined]) is joined


def test_only_a_policy_that_can_absorbs() -> None:
    taken: list[tuple[Tree, Tensor | None]] = []

    class Absorbs:
        def absorb(self, observation: Tree, mask: Tensor | None = None) -> None:
            taken.append((observation, mask))

    source = rollout(2, 3)
    absorb(Absorbs(), source)  # type: ignore[arg-type]
    absorb(object(), source)  # type: ignore[arg-type]
    assert len(taken) == 1 and taken[0][0] is source.observation and taken[0][1] is source.loss_mask


@pytest.mark.parametrize("batch_size", [1, 7, 12, 500])
def test_a_minibatch_of_rows_holds_at_least_one(batch_size: int) -> None:
    pieces = list(numbered(5, 6).minibatches(batch_size, Generator().manual_seed(0), True))
    assert [len(piece) for piece in pieces] == {1: [1] * 5, 7: [1] * 5, 12: [2, 2, 1], 500: [5]}[batch_size]
