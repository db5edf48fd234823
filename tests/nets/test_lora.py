"""Low-rank adapters: at first the base, then the base plus a matrix of low rank, and the base again without them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import torchward
from torchward.config import ConfigError, from_json, to_json
from torchward.language import hub
from torchward.nets.attention import Linear
from torchward.nets.encoder_decoder import EncoderDecoder
from torchward.nets.language_model import LanguageModel
from torchward.nets.lora import AdaptedLinear, LoRA, adapt, is_adapted, merged, without_adapters
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, llama, t5

CONFIG = TransformerConfig(
    vocab_size=11, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=24,
    value_head=True, initializer_range=0.3,
)  # fmt: skip
ALL = LoRA(r=3, lora_alpha=5.0)
BEFORE = ("query_key_value", "out", "up", "down")
"""All that there was, before cross-attention had adapters into it."""


def model(config: TransformerConfig = CONFIG, seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(Transformer(config), {})


def reader() -> LanguageModel:
    """An encoder-decoder."""
    torch.manual_seed(0)
    config = replace(t5(11, 16, 2, 2, 8, 24, 24), value_head=True, initializer_range=0.3)
    return LanguageModel(EncoderDecoder(Transformer(config), 9, 4), {}).eval()


def moved(policy: LanguageModel, seed: int = 1) -> LanguageModel:
    """With adapters as training might have left them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for product in adapted(policy):
            product.lora_b.normal_(0.0, 0.3, generator=generator)
    return policy


def adapted(policy: LanguageModel) -> Iterator[AdaptedLinear]:
    return (module for module in policy.modules() if isinstance(module, AdaptedLinear))


def tokens(rows: int = 3, time: int = 12) -> Tensor:
    return torch.randint(0, 11, (rows, time), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def logits(policy: LanguageModel) -> Tensor:
    return policy.body.logits(policy.body.forward(tokens()))


def test_at_first_it_is_its_base() -> None:
    base = logits(model())
    assert torch.equal(logits(adapt(model(), ALL)), base)
    assert not torch.allclose(logits(moved(adapt(model(), ALL))), base, atol=1e-2)


def test_what_is_added_has_the_rank_and_the_scale() -> None:
    """Against the singular values of the matrix that one product has become."""
    torch.manual_seed(0)
    base = Linear(7, 6)
    product = AdaptedLinear(base, LoRA(r=2, lora_alpha=8.0))
    torch.nn.init.normal_(product.lora_b)
    with torch.no_grad():
        whole = product(torch.eye(7)).T - base.bias[:, None] - base.weight
        torch.testing.assert_close(whole, 4.0 * product.lora_b @ product.lora_a)
    assert int((torch.linalg.svdvals(whole) > 1e-5).sum()) == 2


@pytest.mark.parametrize(
    ("targets", "count"),
    [(("query_key_value", "out", "up", "down"), 8), (("query_key_value",), 2), (("up", "down"), 4)],
)
def test_the_products_that_are_named_get_one(targets: Any, count: int) -> None:
    policy = adapt(model(), LoRA(target_modules=targets))
    names = [name.rpartition(".")[2] for name, module in policy.named_modules() if isinstance(module, AdaptedLinear)]
    assert len(names) == count and set(names) == set(targets)


@pytest.mark.parametrize(
    ("targets", "count"), [(LoRA().target_modules, 22), (BEFORE, 18), (("cross_query_key_value",), 4)]
)
def test_an_encoder_decoder_has_adapters_into_its_cross_attention(targets: Any, count: int, tmp_path: Path) -> None:
    """By default, and by their name; what was saved when they had none is read without them."""
    policy = moved(adapt(reader(), LoRA(target_modules=targets))).eval()
    names = [name for name, module in policy.named_modules() if isinstance(module, AdaptedLinear)]
    into = [name for name in names if name.endswith((".cross.query", ".cross.key_value"))]
    assert len(names) == count and len(into) == (0 if targets == BEFORE else 4)
    policy.save(tmp_path)
    again = torchward.load(tmp_path)
    assert isinstance(again, LanguageModel) and torch.equal(logits(again), logits(policy))
    assert again.state_dict().keys() == policy.state_dict().keys()
    torch.testing.assert_close(logits(merged(policy)), logits(policy), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(policy), logits(reader()), atol=1e-2)
    with torch.no_grad():
        cache, steps = policy.body.cache(3, 16), []
        for token in tokens().T:
            hidden, cache = policy.body.step(token, cache)
            steps.append(hidden)
        torch.testing.assert_close(torch.stack(steps, 1), policy.body.forward(tokens()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", [CONFIG, llama(11, 16, 2, 4, 2, 24, 24)], ids=["gpt2", "llama"])
def test_merged_equals_unmerged(config: TransformerConfig) -> None:
    policy = moved(adapt(model(replace(config, value_head=True, initializer_range=0.3)), ALL))
    plain = merged(policy)
    assert not is_adapted(plain) and is_adapted(policy)
    assert plain.state_dict().keys() == model(plain.body.config).state_dict().keys()  # type: ignore[arg-type]
    assert all(parameter.requires_grad for parameter in plain.parameters())
    torch.testing.assert_close(logits(plain), logits(policy), atol=1e-5, rtol=1e-5)
    with without_adapters(policy):
        assert not torch.allclose(logits(plain), logits(policy), atol=1e-2)
    assert merged(plain) is plain


def test_the_decoding_step_reads_with_adapters() -> None:
    """One token at a time through the cache, against all at once."""
    policy = moved(adapt(model(), ALL))
    ids = tokens()
    with torch.no_grad():
        cache, steps = policy.body.cache(3, 12), []
        for time in range(12):
            hidden, cache = policy.body.step(ids[:, time], cache)
            steps.append(hidden)
        torch.testing.assert_close(torch.stack(steps, 1), policy.body.forward(ids), atol=1e-5, rtol=1e-4)


def test_without_adapters_it_is_its_base_again() -> None:
    base = logits(model())
    policy = moved(adapt(model(), ALL))
    before = logits(policy)
    with without_adapters(policy) as reference:
        assert reference is policy and torch.equal(logits(policy), base)
        assert not torch.is_grad_enabled()
        with without_adapters(policy):
            pass
        assert torch.equal(logits(policy), base)
    assert torch.equal(logits(policy), before) and torch.is_grad_enabled()
    with pytest.raises(KeyError), without_adapters(policy):
        raise KeyError
    assert torch.equal(logits(policy), before)


def test_adapters_and_the_value_head_alone_get_a_gradient() -> None:
    policy = adapt(model(), LoRA(r=2, target_modules=("out", "up")))
    _, _, value = policy.evaluate_actions(tokens(), tokens(), (), torch.zeros(3, 12, dtype=torch.bool))
    assert value is not None
    hidden = policy.body.forward(tokens())
    (policy.scores(hidden, tokens()).log_prob.sum() + policy.body.value(hidden).sum()).backward()
    learning = {name for name, parameter in policy.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, _ in policy.named_parameters() if "lora_" in name or "value_head" in name}
    assert len(learning) == 2 * 2 * 2 + 2


def test_dropout_is_for_training_alone() -> None:
    policy = moved(adapt(model(), LoRA(lora_dropout=0.5)))
    first = logits(policy)
    assert not torch.equal(first, logits(policy))
    policy.eval()
    assert torch.equal(logits(policy), logits(policy))
    policy.train()
    scores = [policy.log_probs(tokens(), tokens()) for _ in range(2)]
    assert torch.equal(*scores), "what is compared is compared without dropout"


def test_a_base_in_bfloat16_has_adapters_in_float32() -> None:
    policy = moved(adapt(model().bfloat16(), ALL))
    assert {product.lora_a.dtype for product in adapted(policy)} == {torch.float32}
    assert logits(policy).dtype == torch.bfloat16
    plain = merged(policy)
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(logits(plain).float(), logits(policy).float(), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("lora", [ALL, LoRA(r=1, lora_dropout=0.1, target_modules=("down", "out"))])
def test_a_saved_policy_comes_back_with_its_adapters(lora: LoRA, tmp_path: Path) -> None:
    policy = moved(adapt(model(), lora)).eval()
    policy.save(tmp_path)
    again = torchward.load(tmp_path)
    assert isinstance(again, LanguageModel) and again.description() == policy.description()
    assert {module.lora for module in adapted(again)} == {lora}
    assert torch.equal(logits(again), logits(policy))
    trained, same = ({n for n, p in each.named_parameters() if p.requires_grad} for each in (policy, again))
    assert trained == same != set()
    with without_adapters(again):
        assert torch.equal(logits(again), logits(model()))


def test_what_is_written_for_transformers_is_merged(tmp_path: Path) -> None:
    policy = moved(adapt(model(replace(CONFIG, activation="gelu_tanh")), ALL)).eval()
    body = policy.body
    assert isinstance(body, Transformer)
    hub.save(body, tmp_path)
    again = hub.load(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again.logits(again.forward(tokens())), logits(policy), atol=1e-5, rtol=1e-5)


def test_a_setting_survives_json() -> None:
    lora = LoRA(4, 8.0, 0.1, ("down",))
    assert from_json(LoRA, to_json(lora)) == lora
    with pytest.raises(ConfigError, match="target_modules"):
        from_json(LoRA, {"target_modules": ["q_proj"]})


@pytest.mark.parametrize(
    "settings", [{"r": 0}, {"lora_alpha": 0.0}, {"lora_dropout": 1.0}, {"target_modules": ()}], ids=str
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LoRA(**settings)


def test_models_that_cannot_be_adapted_are_refused() -> None:
    with pytest.raises(ConfigError, match="merge them"):
        adapt(adapt(model(), ALL), ALL)
    with pytest.raises(ConfigError, match="none in ReLU"):
        adapt(torch.nn.ReLU(), ALL)
