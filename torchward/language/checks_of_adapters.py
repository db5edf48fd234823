"""A check of low-rank adapters: do they begin as nothing, and is what is left without them the base?"""

import torch
from torch import Tensor

from torchward.language.checks_of_sampling import written
from torchward.language.finding import WHOLE, Finding, Texts, drawing, gap, plain
from torchward.nets.dropout import without_dropout
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import AdaptedLinear, is_adapted, merged, without_adapters


def adapters(policy: LanguageModel, texts: Texts, start: LanguageModel | None = None) -> Finding:
    """Whether low-rank adapters begin as nothing, merge into an equal model, leave the base as it was, and are used in
    sampling after an update. ``start`` is what the base was, where that is known: the reference."""
    products = [module for module in policy.modules() if isinstance(module, AdaptedLinear)]
    if not is_adapted(policy):
        return Finding("adapters", None, "the policy has none")
    kept = [product.lora_b.detach().clone() for product in products]
    try:
        with torch.no_grad(), drawing(policy, WHOLE), without_dropout(policy):
            fault = _adapted(policy, products, kept, texts, start)
    finally:
        _put(products, kept)
    learning = [n for n, p in policy.named_parameters() if p.requires_grad and not ("lora_" in n or "value_head" in n)]
    if fault is None and learning:
        fault = f"Beside the adapters {learning[0]} would learn, and the reference with it. Freeze the base."
    told = f"{len(products)}, equal to the base at first and when merged; the reference is the base"
    return Finding("adapters", fault is None, fault or told)


def _adapted(
    policy: LanguageModel,
    products: list[AdaptedLinear],
    kept: list[Tensor],
    texts: Texts,
    start: LanguageModel | None,
) -> str | None:
    """What is wrong with adapters; changes them."""
    now = _said(policy, texts)
    if (off := gap(_said(merged(policy), texts), now, policy)).place is not None:
        return (
            f"Merged, the policy is another one: its log-probabilities are {off.size:.3g} off. "
            "W + (lora_alpha / r) B A takes the place of W."
        )
    with without_adapters(policy):
        base = _said(policy, texts)
    if start is not None and (off := gap(base, _said(start, texts), policy)).place is not None:
        return (
            "Without its adapters the policy is not what the run began with, so that the reference is another model: "
            f"{off.size:.3g} off. Freeze the base, and leave out all adapters for the reference."
        )
    _put(products, [torch.zeros_like(b) for b in kept])
    if (off := gap(_said(policy, texts), base, policy)).place is not None:
        return (
            f"With B at 0, where adapters begin, the policy is not its base: {off.size:.3g} off. What is added is "
            "(lora_alpha / r) B A x, and without_adapters leaves it out."
        )
    _put(products, kept)
    if not _is_stale(policy, texts):  # else the cache is wrong in any case
        generator = torch.Generator().manual_seed(0)
        _put(products, [b + 0.1 * torch.randn(b.shape, generator=generator).to(b) for b in kept])
        if _is_stale(policy, texts):
            return (
                "After an update of the adapters completions are still written with the old ones. Sample with the "
                "model that learns, or merge it anew after every update."
            )
    return None


def _put(products: list[AdaptedLinear], values: list[Tensor]) -> None:
    with torch.no_grad():
        for product, value in zip(products, values, strict=True):
            product.lora_b.copy_(value)


def _said(policy: LanguageModel, texts: Texts) -> Tensor:
    """The log-probabilities of texts, each read alone."""
    with without_dropout(policy):
        read = [plain(policy, text) for text in texts]
    return torch.cat([one.logits.log_softmax(1).gather(1, one.action[:, None]).squeeze(1) for one in read])


def _is_stale(policy: LanguageModel, texts: Texts) -> bool:
    """Whether completions of a prompt alone are written with other probabilities than those of a plain pass."""
    prompts = [text[: max(1, len(text) // 2)] for text in texts[:2]]
    rows = [row for prompt in prompts for row in written(policy, [prompt], 1, 8, copies=1)]
    return any(gap(row.stored, row.known, policy).place is not None for row in rows)
