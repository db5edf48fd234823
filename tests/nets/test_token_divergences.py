"""A student's tokens held against a teacher's, in pieces: against autograd through all of both in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.nets.test_token_scores import Saved
from torchward.functional.distillation import divergence
from torchward.nets.token_divergences import Against, TokenDivergences, token_divergences
from torchward.nets.token_scores import Head

TOKENS, WIDTH, WIDER, VOCAB = 13, 6, 9, 11
PIECES = (10**6, VOCAB * TOKENS, 4 * VOCAB, VOCAB, 1)
WEIGHT = torch.linspace(-1.0, 2.0, TOKENS, dtype=torch.float64)


class Case:
    """Hidden states and heads of both, and the tokens that came."""

    def __init__(self, dtype: torch.dtype = torch.float64, bias: bool = True, tokens: int = TOKENS) -> None:
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.target = torch.randint(VOCAB, (tokens,), generator=generator)
        self.leaves = [drawn(tokens, WIDTH), drawn(VOCAB, WIDTH), *([drawn(VOCAB)] if bias else [])]
        for leaf in self.leaves:
            leaf.requires_grad_()
        self.teacher = Against(drawn(tokens, WIDER), Head(drawn(VOCAB, WIDER), drawn(VOCAB) if bias else None))

    def found(self, beta: float, temperature: float, piece: int) -> TokenDivergences:
        hidden, *head = self.leaves
        return token_divergences(hidden, Head(*head), self.teacher, self.target, beta, temperature, piece)

    def expected(self, beta: float, temperature: float) -> TokenDivergences:
        """All at once, in float64."""
        hidden, weight, *bias = (leaf.double() for leaf in self.leaves)
        student = hidden @ weight.T + (bias[0] if bias else 0.0)
        known, head = self.teacher
        teacher = known.double() @ head.weight.double().T + (0.0 if head.bias is None else head.bias.double())
        log_p, log_q = (torch.log_softmax(logits / temperature, 1) for logits in (teacher, student))
        log_prob = torch.stack([log_q[i, token] for i, token in enumerate(self.target.tolist())])
        return TokenDivergences(divergence(log_p, log_q, beta), log_prob)


def loss(scores: TokenDivergences) -> Tensor:
    weight = WEIGHT.to(scores.log_prob)
    return scores.divergence @ weight + (scores.log_prob.exp() * scores.divergence).sum() - scores.log_prob @ weight


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("temperature", "bias"), [(1.0, False), (0.6, True)])
def test_in_pieces_as_at_once(beta: float, temperature: float, bias: bool) -> None:
    case, single = Case(bias=bias), Case(torch.float32, bias)
    expected = case.expected(beta, temperature)
    gradients = torch.autograd.grad(loss(expected), case.leaves)
    for piece in PIECES:
        for given, atol in ((case, 1e-12), (single, 1e-4)):
            found = given.found(beta, temperature, piece)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one.double(), other.detach(), atol=atol, rtol=atol)
            for one, other in zip(torch.autograd.grad(loss(found), given.leaves), gradients, strict=True):
                torch.testing.assert_close(one.double(), other, atol=atol, rtol=atol)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_finite_differences(beta: float) -> None:
    case = Case()

    def function(*leaves: Tensor) -> Any:
        return token_divergences(leaves[0], Head(*leaves[1:]), case.teacher, case.target, beta, 0.7, 4 * VOCAB)

    assert torch.autograd.gradcheck(function, case.leaves)


def test_either_of_the_two_may_be_left_out() -> None:
    for which in (0, 1):
        case = Case()
        expected = torch.autograd.grad(case.expected(0.3, 1.0)[which].sum(), case.leaves)
        for one, other in zip(
            torch.autograd.grad(case.found(0.3, 1.0, VOCAB)[which].sum(), case.leaves), expected, strict=True
        ):
            torch.testing.assert_close(one, other)


def test_the_teacher_is_told_nothing() -> None:
    case = Case()
    leaves = [case.teacher.hidden, case.teacher.head.weight]
    for leaf in leaves:
        leaf.requires_grad_()
    loss(case.found(0.5, 1.0, VOCAB)).backward()
    assert all(leaf.grad is None for leaf in leaves)


def test_the_distributions_of_all_are_never_kept_nor_made(monkeypatch: pytest.MonkeyPatch) -> None:
    case, sizes, original = Case(), list[int](), torch.Tensor.log_softmax

    def watched(x: Tensor, dim: int) -> Tensor:
        sizes.append(x.numel())
        return original(x, dim)

    monkeypatch.setattr(torch.Tensor, "log_softmax", watched)
    with Saved() as saved:
        case.found(0.5, 1.0, 4 * VOCAB).divergence.sum().backward()
    assert max(saved.sizes) == TOKENS * WIDTH < TOKENS * VOCAB and max(sizes) == 4 * VOCAB
    with Saved() as saved:
        case.found(0.5, 1.0, 10**6)
    assert max(saved.sizes) == TOKENS * VOCAB, "one piece is kept: the planted case that the check above would find"


def test_no_tokens() -> None:
    case = Case(tokens=0)
    found = case.found(0.5, 1.0, VOCAB)
    assert found.divergence.shape == (0,)
    found.divergence.sum().backward()
    assert all(leaf.grad is not None and not leaf.grad.any() for leaf in case.leaves)


def test_half_precision_rounds_products_alone() -> None:
    case = Case(torch.float32)
    expected = case.expected(0.5, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = case.found(0.5, 1.0, 4 * VOCAB)
    assert found.divergence.dtype == torch.float32
    torch.testing.assert_close(found.divergence.double(), expected.divergence.detach(), atol=0.05, rtol=0.05)
    gradients = zip(
        torch.autograd.grad(loss(found), case.leaves), torch.autograd.grad(loss(expected), case.leaves), strict=True
    )
    assert all((one - other).norm() < 0.05 * other.norm() for one, other in gradients)


def test_another_vocabulary_is_refused() -> None:
    case = Case()
    hidden, weight, bias = case.leaves
    with pytest.raises(ValueError, match="student's over 10 tokens and the teacher's over 11"):
        token_divergences(hidden, Head(weight[:10], bias[:10]), case.teacher, case.target, 0.5)
