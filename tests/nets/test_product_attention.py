"""Attention by products: its numbers and its gradient beside PyTorch's operation and finite differences."""

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from torchward.nets import attention, product_attention
from torchward.nets.attention import attend
from torchward.nets.product_attention import BLOCK, attend_by_products, is_quicker
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, gpt2, llama

Kind = Literal["causal", "packed", "bias", "none"]
KINDS: tuple[Kind, ...] = ("causal", "packed", "bias", "none")
SCALE = 0.3


def inputs(dtype: torch.dtype, time: int = 5, source: int | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (2, 3, time, 4), *[(2, 3, source or time, 4)] * 2
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes]


def mask(kind: Kind, time: int, source: int) -> Tensor | None:
    """A bias: the second row sees two tokens less; or it is packed, two texts in a row, and nobody looks ahead."""
    bias, lowest = torch.zeros(2, 1, time, source), torch.finfo(torch.float32).min
    if kind == "bias":
        bias[1, :, :, -2:] = lowest
    elif kind == "packed":
        bias += torch.full((time, source), lowest).triu_(1)
        bias[1, :, 3:, :3] = lowest
    return bias if kind in {"bias", "packed"} else None


def looks_back(kind: Kind) -> bool:
    return kind in {"causal", "packed"}


@pytest.mark.parametrize("block", [2, 5, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_mixture_is_that_of_pytorch_and_the_gradient_that_of_finite_differences(
    kind: Kind, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_attention, "BLOCK", block)
    leaves = inputs(torch.float64)
    bias = mask(kind, 5, 5)
    wide = None if bias is None else bias.double()

    def mixture(*of: Tensor) -> Tensor:
        return attend_by_products(of[0], of[1], of[2], bias, looks_back(kind), SCALE)

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
@pytest.mark.parametrize("causal", [True, False])
def test_a_source_of_another_length_is_one_part(kind: Kind, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_attention, "BLOCK", 2)
    for time, source in ((3, 7), (7, 3)):
        query, key, value = inputs(torch.float64, time, source)
        bias = mask(kind, time, source)
        forbidden = torch.zeros(time, source).masked_fill(torch.ones(time, source).triu(1).bool(), -1e30)
        if bias is not None and causal:
            bias = bias + forbidden
        found = attend_by_products(query, key, value, bias, causal, SCALE)
        added = bias if bias is not None else forbidden * causal
        oracle = F.scaled_dot_product_attention(query, key, value, attn_mask=added.double(), scale=SCALE)
        assert torch.allclose(found, oracle, rtol=0.0, atol=1e-12)


def test_keys_that_nobody_may_look_at_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four blocks, ten of sixteen parts are kept for the backward pass."""
    monkeypatch.setattr(product_attention, "BLOCK", 4)
    leaves = inputs(torch.float32, 16)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attend_by_products(leaves[0], leaves[1], leaves[2], None, True, SCALE)
    assert sum(each.numel() for each in kept[3:]) == 2 * 3 * 10 * 4 * 4
    assert sum(each.numel() for each in kept[:3]) == sum(each.numel() for each in leaves)


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
            made = attend_by_products(query, key, value, bias, looks_back(kind), SCALE)
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


@pytest.mark.parametrize("config", [gpt2(32, 16, 2, 2, 160), llama(32, 16, 2, 2, 2, 48, 160)], ids=["gpt2", "llama"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_transformer_learns_the_same_by_both(
    config: TransformerConfig, packed: bool, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    body = Transformer(config)
    tokens = torch.randint(32, (3, 150))
    segments = (torch.arange(150) // 40).expand(3, 150) if packed else None
    calls = 0

    def counted(*given: object) -> Tensor:
        nonlocal calls
        calls += 1
        return attend_by_products(*given)  # type: ignore[arg-type]

    def gradients() -> tuple[Tensor, list[Tensor]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
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
    apart = 0.02 if bf16 else 1e-5
    assert (by_products[0].float() - by_pytorch[0].float()).norm() < apart * by_pytorch[0].float().norm()
    whole = [torch.cat([g.flatten() for g in of[1]]) for of in (by_products, by_pytorch)]
    assert (whole[0] - whole[1]).norm() < (0.03 if bf16 else 1e-5) * whole[1].norm()


def test_it_is_taken_where_it_is_quicker_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, _ = inputs(torch.bfloat16)
    assert is_quicker(query, key, None, True) and is_quicker(query, key, torch.zeros(5, 5), False)
    learnt = torch.zeros(5, 5, requires_grad=True)
    assert not is_quicker(query, key, learnt, False), "distances are learnt through PyTorch's"
    assert not is_quicker(query, key[:, :1], None, True), "shared keys"
    assert not is_quicker(query.detach(), key.detach(), None, True)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_quicker(query.float(), key.float(), None, False)
    with torch.no_grad():
        assert not is_quicker(query, key, None, True)
    monkeypatch.setattr(product_attention, "MOST", 2 * 3 * 5 * 5 - 1)
    assert not is_quicker(query, key, None, True), "too many to be kept"


def test_in_float32_it_is_taken_where_blocks_leave_something_out() -> None:
    query, key, _ = inputs(torch.float32, 2 * BLOCK)
    assert is_quicker(query, key, None, True)
    assert not is_quicker(query, key, None, False), "everybody looks at all"
    assert not is_quicker(query, key[:, :, 1:], None, True)
    assert not is_quicker(query[:, :, 1:], key[:, :, 1:], None, True), "too short"
    assert not is_quicker(query.double(), key.double(), None, True), "measured in two types"


def test_shared_keys_in_bfloat16_go_to_pytorch() -> None:
    query, key, value = inputs(torch.bfloat16)
    shared = attend(query, key[:, :1], value[:, :1], None, True, SCALE)
    copied = attend(query, key[:, :1].expand_as(key), value[:, :1].expand_as(value), None, True, SCALE)
    assert torch.allclose(shared.float(), copied.float(), atol=0.03)
