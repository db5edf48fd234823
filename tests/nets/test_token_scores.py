"""Scores of tokens from hidden states, in pieces: against autograd through the full logits in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from torchward.functional.divergences import categorical_entropy
from torchward.nets.sampling import packed
from torchward.nets.token_scores import Head, TokenScores, rows_of, token_scores

TOKENS, WIDTH, VOCAB = 13, 6, 11


@dataclass
class Case:
    """What scores are taken of, and how."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    temperature: float
    seen: Tensor | None

    def leaves(self) -> list[Tensor]:
        return [x for x in (self.hidden, self.weight, self.bias) if x is not None]

    def scores(self, piece: int) -> TokenScores:
        support = None if self.seen is None else packed(self.seen)
        return token_scores(
            self.hidden, Head(self.weight, self.bias), self.target, self.temperature, support, piece=piece
        )

    def expected(self) -> tuple[TokenScores, list[Tensor]]:
        """By autograd in float64, and the leaves that its gradients are of."""
        leaves = [x.detach().double().requires_grad_() for x in self.leaves()]
        logits = leaves[0] @ leaves[1].T
        if self.bias is not None:
            logits = logits + leaves[2]
        logits = logits / self.temperature
        if self.seen is not None:
            logits = logits.masked_fill(~self.seen, torch.finfo(torch.float64).min)
        log_prob = torch.distributions.Categorical(logits=logits).log_prob(self.target)
        return TokenScores(log_prob, categorical_entropy(logits)), leaves


def case(temperature: float = 1.0, bias: bool = False, support: bool = False, tokens: int = TOKENS) -> Case:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(VOCAB, (tokens,), generator=generator)
    seen = torch.rand(tokens, VOCAB, generator=generator) < 0.4
    seen[torch.arange(tokens), target] = True
    return Case(
        hidden=torch.randn(tokens, WIDTH, generator=generator).requires_grad_(),
        weight=torch.randn(VOCAB, WIDTH, generator=generator).requires_grad_(),
        bias=torch.randn(VOCAB, generator=generator).requires_grad_() if bias else None,
        target=target,
        temperature=temperature,
        seen=seen if support else None,
    )


PIECES = (10**6, VOCAB * TOKENS, 4 * VOCAB, VOCAB, 1)
WEIGHT = torch.linspace(-1.0, 2.0, TOKENS)
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log-probability": lambda log_prob, entropy: log_prob @ WEIGHT.to(log_prob),
    "entropy": lambda log_prob, entropy: 50.0 * (entropy @ WEIGHT.to(entropy)),
    "both": lambda log_prob, entropy: (log_prob.exp() * entropy) @ WEIGHT.to(entropy) - 3.0 * log_prob.square().sum(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("support", [False, True])
@pytest.mark.parametrize(("temperature", "bias"), [(1.0, False), (0.6, True), (3.0, False)])
def test_scores_and_gradients(
    temperature: float, bias: bool, support: bool, loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    given = case(temperature, bias, support)
    expected, leaves = given.expected()
    gradients = torch.autograd.grad(loss(*expected), leaves)
    for piece in PIECES:
        found = given.scores(piece)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one.double(), other.detach(), atol=2e-6, rtol=1e-5)
        for one, other in zip(torch.autograd.grad(loss(*found), given.leaves()), gradients, strict=True):
            torch.testing.assert_close(one.double(), other, atol=3e-5, rtol=2e-5)


def test_pieces_are_larger_where_there_is_no_cpu() -> None:
    head = Head(torch.zeros(50_000, 2))
    other = Head(torch.zeros(50_000, 2, device="meta"))
    assert rows_of(None, head) == 83 and rows_of(None, other) == 1342
    assert rows_of(7, head) == rows_of(7, other) == 1 and rows_of(150_000, other) == 3


def test_what_lies_outside_the_support_gets_nothing() -> None:
    """Nor does its size matter: the logits there may be anything."""
    given = case(support=True)
    assert given.seen is not None
    outside = ~given.seen.any(0)
    given.seen[:, 0] = given.target == 0  # few may say the first token
    scores = given.scores(VOCAB)
    (scores.log_prob.sum() + 100.0 * scores.entropy.sum()).backward()
    assert given.weight.grad is not None and given.hidden.grad is not None
    assert torch.isfinite(given.hidden.grad).all() and not given.weight.grad[outside].any()
    wild = case(support=True)
    assert wild.seen is not None
    wild.seen[:] = False
    wild.seen[torch.arange(TOKENS), wild.target] = True
    alone = wild.scores(VOCAB)
    assert not alone.log_prob.any() and not alone.entropy.any(), "one token alone is certain"


class Saved:
    """The sizes of all that autograd keeps."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __enter__(self) -> "Saved":
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda x: x)
        self.hooks.__enter__()
        return self

    def _pack(self, x: Tensor) -> Tensor:
        self.sizes.append(x.numel())
        return x

    def __exit__(self, *raised: Any) -> None:
        self.hooks.__exit__(*raised)


def test_the_logits_of_all_are_never_kept() -> None:
    """Nor made: the largest tensor that is ever computed is a piece."""
    given, sizes = case(), list[int]()
    original = torch.Tensor.log_softmax

    def watched(x: Tensor, dim: int) -> Tensor:
        sizes.append(x.numel())
        return original(x, dim)

    with pytest.MonkeyPatch.context() as patch, Saved() as saved:
        patch.setattr(torch.Tensor, "log_softmax", watched)
        scores = given.scores(4 * VOCAB)
        (scores.log_prob + scores.entropy).sum().backward()
    assert max(saved.sizes) == TOKENS * WIDTH < TOKENS * VOCAB
    assert sizes == 2 * [4 * VOCAB, 4 * VOCAB, 4 * VOCAB, VOCAB], "the backward pass makes them again"
    with Saved() as saved:
        given.scores(10**6)
    assert max(saved.sizes) == TOKENS * VOCAB, "one piece is kept: the planted case that the check above would find"


def test_no_tokens() -> None:
    given = case(0.5, bias=True, support=True, tokens=0)
    scores = given.scores(VOCAB)
    assert scores.log_prob.shape == scores.entropy.shape == (0,)
    (scores.log_prob.sum() + scores.entropy.sum()).backward()
    for leaf in given.leaves():
        assert leaf.grad is not None and leaf.grad.shape == leaf.shape and not leaf.grad.any()


def test_half_precision() -> None:
    """bf16 hidden states, parameters in float32: only products are rounded, and gradients are as exact as that."""
    given = case(0.7, bias=True)
    expected, leaves = given.expected()
    gradients = torch.autograd.grad(LOSSES["both"](*expected), leaves)
    hidden = given.hidden.detach().bfloat16().requires_grad_()
    half = Case(hidden, given.weight, given.bias, given.target, 0.7, None)
    assert given.bias is not None
    logits = torch.nn.functional.linear(hidden, given.weight.bfloat16(), given.bias.bfloat16()).double() / 0.7
    rounded = logits.log_softmax(1).gather(1, given.target[:, None]).squeeze(1)
    for piece in (10**6, 2 * VOCAB):
        found = half.scores(piece)
        assert found.log_prob.dtype == found.entropy.dtype == torch.float32
        torch.testing.assert_close(found.log_prob.double(), rounded, atol=1e-5, rtol=0.0)
        for leaf, one, other in zip(
            half.leaves(), torch.autograd.grad(LOSSES["both"](*found), half.leaves()), gradients, strict=True
        ):
            assert one.dtype == leaf.dtype
            assert float((one.double() - other).norm() / other.norm()) < 0.02


def test_autocast_holds_in_the_backward_pass_too() -> None:
    """The gradient is that of the scores that were given, also when backward is called outside."""
    given = case()
    with torch.autocast("cpu", torch.bfloat16):
        scores = given.scores(2 * VOCAB)
    loss = LOSSES["both"](*scores)
    assert scores.log_prob.dtype == torch.float32
    gradients = torch.autograd.grad(loss, given.leaves())
    half = [given.hidden.detach().bfloat16().requires_grad_(), given.weight]
    alone = Case(half[0], half[1], None, given.target, 1.0, None).scores(2 * VOCAB)
    assert torch.equal(alone.log_prob, scores.log_prob)
    for one, other in zip(gradients, torch.autograd.grad(LOSSES["both"](*alone), half), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other.float())


def test_without_its_entropy_a_token_is_as_likely() -> None:
    given = case(0.6, bias=True, support=True)
    support = packed(given.seen) if given.seen is not None else None
    whole = given.scores(2 * VOCAB).log_prob
    expected = torch.autograd.grad(whole @ WEIGHT, given.leaves())
    head = Head(given.weight, given.bias)
    scores = token_scores(given.hidden, head, given.target, 0.6, support, 2 * VOCAB, with_entropy=False)
    assert torch.equal(scores.log_prob, whole) and not scores.entropy.any() and not scores.entropy.requires_grad
    for one, other in zip(torch.autograd.grad(scores.log_prob @ WEIGHT, given.leaves()), expected, strict=True):
        assert torch.equal(one, other)


def test_there_is_no_second_derivative() -> None:
    given = case()
    (first,) = torch.autograd.grad(given.scores(VOCAB).log_prob.square().sum(), given.hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
