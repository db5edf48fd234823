"""Attention by products: its numbers and its gradient beside PyTorch's operation and finite differences."""

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from torchward.nets import attention, product_attention
from torchward.nets.attention import attend
from torchward.nets.product_attention import attend_by_products, is_quicker
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, gpt2, llama

Kind = Literal["causal", "bias", "none"]
KINDS: tuple[Kind, ...] = ("causal", "bias", "none")
SCALE = 0.3


def inputs(dtype: torch.dtype, time: int = 5, source: int | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (2, 3, time, 4), *[(2, 3, source or time, 4)] * 2
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes]


def mask(kind: Kind, time: int, source: int) -> Tensor | None:
    """A bias: the second row sees two tokens less."""
    if kind != "bias":
        return None
    bias = torch.zeros(2, 1, time, source)
    bias[1, :, :, -2:] = torch.finfo(torch.float32).min
    return bias


@pytest.mark.parametrize("kind", KINDS)
def test_the_mixture_is_that_of_pytorch_and_the_gradient_that_of_finite_differences(kind: Kind) -> None:
    leaves = inputs(torch.float64)
    bias = mask(kind, 5, 5)
    wide = None if bias is None else bias.double()

    def mixture(*of: Tensor) -> Tensor:
        return attend_by_products(of[0], of[1], of[2], bias, kind == "causal", SCALE)

    query, key, value = leaves
    oracle = F.scaled_dot_product_attention(query, key, value, attn_mask=wide, is_causal=kind == "causal", scale=SCALE)
    assert torch.allclose(mixture(*leaves), oracle, rtol=0.0, atol=1e-12)
    assert torch.autograd.gradcheck(mixture, leaves)


def test_a_decoder_looks_at_a_source_of_another_length() -> None:
    leaves = inputs(torch.float64, 3, 7)
    bias = mask("bias", 3, 7)
    assert bias is not None
    query, key, value = leaves
    found = attend_by_products(query, key, value, bias, False, SCALE)
    oracle = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.double(), scale=SCALE)
    assert torch.allclose(found, oracle, rtol=0.0, atol=1e-12)


def test_a_token_that_sees_nobody_gets_something_finite() -> None:
    """Padding does, in a row that is packed; nothing is learnt from it."""
    leaves = inputs(torch.bfloat16)
    bias = torch.zeros(2, 1, 5, 5)
    bias[1, :, 0] = torch.finfo(torch.float32).min
    made = attend_by_products(leaves[0], leaves[1], leaves[2], bias, False, SCALE)
    assert torch.allclose(made[1, :, 0].float(), leaves[2][1].float().mean(1), atol=0.02)
    assert all(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(made.sum(), leaves))


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_it_is_as_near_to_the_truth_as_pytorch(kind: Kind) -> None:
    exact, rounded = inputs(torch.float64, 64), inputs(torch.bfloat16, 64)
    for true, near in zip(exact, rounded, strict=True):
        true.data.copy_(near.data)
    bias = mask(kind, 64, 64)
    upstream = torch.randn(2, 3, 64, 4, dtype=torch.float64).bfloat16()

    def results(leaves: list[Tensor], by_products: bool) -> list[Tensor]:
        query, key, value = leaves
        wide = None if bias is None else bias.to(query.dtype)
        if by_products:
            made = attend_by_products(query, key, value, bias, kind == "causal", SCALE)
        else:
            made = F.scaled_dot_product_attention(
                query, key, value, attn_mask=wide, is_causal=kind == "causal", scale=SCALE
            )
        return [made, *torch.autograd.grad(made, leaves, upstream.to(made.dtype))]

    truth, own, theirs = results(exact, False), results(rounded, True), results(rounded, False)
    for true, mine, other in zip(truth, own, theirs, strict=True):
        assert mine.dtype == torch.bfloat16
        apart, allowed = ((each.double() - true).norm() / true.norm() for each in (mine, other))
        assert apart < 0.01 and apart < 2.0 * allowed + 1e-3


@pytest.mark.parametrize("config", [gpt2(32, 16, 2, 2, 32), llama(32, 16, 2, 2, 2, 48, 32)], ids=["gpt2", "llama"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_transformer_under_autocast_learns_the_same_by_both(
    config: TransformerConfig, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    body = Transformer(config)
    tokens = torch.randint(32, (3, 20))
    segments = (torch.arange(20) // 7).expand(3, 20) if packed else None
    calls = 0

    def counted(*given: object) -> Tensor:
        nonlocal calls
        calls += 1
        return attend_by_products(*given)  # type: ignore[arg-type]

    def gradients() -> tuple[Tensor, list[Tensor]]:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = body.forward(tokens, segments)
        cost = hidden.float().square().mean() + hidden.float()[..., 0].mean()
        found = torch.autograd.grad(cost, list(body.parameters()), allow_unused=True)
        return hidden, [gradient for gradient in found if gradient is not None]

    monkeypatch.setattr(attention, "attend_by_products", counted)
    by_products = gradients()
    assert calls == 2, "a layer each"
    monkeypatch.setattr(attention, "is_quicker", lambda *_: False)
    by_pytorch = gradients()
    assert calls == 2
    assert (by_products[0].float() - by_pytorch[0].float()).norm() < 0.02 * by_pytorch[0].float().norm()
    whole = [torch.cat([g.flatten() for g in of[1]]) for of in (by_products, by_pytorch)]
    assert (whole[0] - whole[1]).norm() < 0.03 * whole[1].norm()


def test_it_is_taken_where_it_is_quicker_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, _ = inputs(torch.bfloat16)
    assert is_quicker(query, key, None) and is_quicker(query, key, torch.zeros(5, 5))
    assert not is_quicker(query, key, torch.zeros(5, 5, requires_grad=True)), "distances are learnt through PyTorch's"
    assert not is_quicker(query, key[:, :1], None), "shared keys"
    assert not is_quicker(query.detach(), key.detach(), None)
    assert not is_quicker(query.float(), key.float(), None), "of float32 nothing is gained"
    with torch.autocast("cpu", torch.bfloat16):
        assert is_quicker(query.float(), key.float(), None)
    with torch.no_grad():
        assert not is_quicker(query, key, None)
    monkeypatch.setattr(product_attention, "MOST", 2 * 3 * 5 * 5 - 1)
    assert not is_quicker(query, key, None), "too many to be kept"


def test_shared_keys_in_bfloat16_go_to_pytorch() -> None:
    query, key, value = inputs(torch.bfloat16)
    shared = attend(query, key[:, :1], value[:, :1], None, True, SCALE)
    copied = attend(query, key[:, :1].expand_as(key), value[:, :1].expand_as(value), None, True, SCALE)
    assert torch.allclose(shared.float(), copied.float(), atol=0.03)
