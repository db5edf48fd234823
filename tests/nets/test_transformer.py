"""The transformer: with a cache and without, padded, packed, alone; what it may see, and what reaches its weights."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from torchward import config as configs
from torchward.data.tree import tree_map
from torchward.nets import kv_cache
from torchward.nets.attention import HAS_BAGS, attend, attend_once, bags
from torchward.nets.kv_cache import Cache
from torchward.nets.positions import Relative, Rotary, Sinusoidal
from torchward.nets.transformer import Memory, Transformer
from torchward.nets.transformer_config import TransformerConfig, bert, gpt2, llama, t5

WORDS, LENGTH = 37, 40
GPT = gpt2(WORDS, 24, 2, 3, LENGTH)
LLAMA = llama(WORDS, 24, 2, 6, 2, 20, LENGTH)
DECODERS = {
    "gpt2": GPT,
    "llama": LLAMA,
    "one head of keys": replace(LLAMA, num_key_value_heads=1, head_dim=6),
    "sinusoidal, post-norm": replace(GPT, positions=Sinusoidal(), norm_place="post", embedding_scale=24**0.5),
    "relative": replace(GPT, positions=Relative(8, 12), num_key_value_heads=1),
    "no positions": replace(GPT, positions=None, embedding_norm=True, attention_bias="qkv", mlp_bias=False),
    "a scale, a value": replace(GPT, attention_scale=1.0, value_head=True, tie_word_embeddings=False),
}
T5 = replace(t5(WORDS, 24, 2, 3, 6, 20, LENGTH), positions=Relative(8, 12))


def made(config: TransformerConfig, seed: int = 0) -> Transformer:
    """A model whose every weight matters: also those that begin as 0 or 1 are random."""
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def text(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(WORDS, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> Transformer:
    return made(DECODERS[request.param])


def close(one: Tensor, other: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(one, other, atol=atol, rtol=0.0)


# Attention


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_a_weighted_mean_of_values(heads: int, groups: int, causal: bool) -> None:
    """Against loops over numbers in double precision."""
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2, heads, 5, 3, generator=generator)
    key, value = torch.randn(2, 2, groups, 5, 3, generator=generator)
    found = attend(query, key, value, None, causal, 0.7)
    for b, h, t in itertools.product(range(2), range(heads), range(5)):
        g = h * groups // heads
        seen = range(t + 1 if causal else 5)
        weights = [math.exp(0.7 * sum((query[b, h, t] * key[b, g, s]).tolist())) for s in seen]
        mean = [sum(w * value[b, g, s, d].item() for w, s in zip(weights, seen, strict=True)) for d in range(3)]
        close(found[b, h, t], torch.tensor(mean) / sum(weights), 1e-6)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("biased", ["shared", "by head"])
def test_one_query_alone_sees_what_it_sees_among_others(heads: int, groups: int, biased: str) -> None:
    generator = torch.Generator().manual_seed(2)
    query, slots = torch.randn(3, heads, 5, generator=generator), torch.randn(2, 3, groups, 9, 5, generator=generator)
    rest = heads // groups if biased == "by head" else 1
    bias = torch.randn(3 * groups, rest, 7, generator=generator)
    wide = bias.view(3, groups, rest, 1, 7).expand(3, groups, heads // groups, 1, 7).flatten(1, 2)
    key, value = slots[:, :, :, :7]
    expected = attend(query[:, :, None], key, value, wide, False, 0.3)
    close(attend_once(query, slots[0], slots[1], bias, 0.3), expected.flatten(1), 1e-6)
    where = bags(slots[1], heads, 7)
    assert (where is not None) == (HAS_BAGS and heads == groups)
    close(attend_once(query, slots[0], slots[1], bias, 0.3, where), expected.flatten(1), 1e-6)


def test_bags_are_for_float32_alone() -> None:
    """In other types, and where autocast has rounded the scores, values are mixed by a product."""
    assert bags(torch.zeros(2, 4, 3, 5, dtype=torch.bfloat16), 4, 3) is None
    assert bags(torch.zeros(2, 4, 3, 5, device="meta"), 4, 3) is None
    query, slots = torch.randn(3, 4, 5), torch.randn(2, 3, 4, 6, 5)
    bias = torch.zeros(12, 1, 6)
    exact = attend_once(query, slots[0], slots[1], bias, 0.3, bags(slots[1], 4, 6))
    with torch.autocast("cpu", torch.bfloat16):
        near = attend_once(query, slots[0], slots[1], bias, 0.3, bags(slots[1], 4, 6))
    assert near.dtype == torch.bfloat16 and 0.0 < (near.float() - exact).abs().max() < 0.05


def test_grouped_queries_are_heads_with_equal_keys_and_values() -> None:
    few, many = made(LLAMA), made(replace(LLAMA, num_key_value_heads=None))
    weights = few.state_dict()
    for name, weight in weights.items():
        if "query_key_value" in name:
            query, key, value = weight.split((24, 8, 8))
            key, value = (part.view(2, 4, -1).repeat_interleave(3, 0).flatten(0, 1) for part in (key, value))
            weights[name] = torch.cat((query, key, value))
    many.load_state_dict(weights)
    close(many(text(2, 9)), few(text(2, 9)))


# With a cache


def test_a_cached_decode_is_the_full_pass(decoder: Transformer) -> None:
    """Prompts of unequal lengths, padded at the left; each row against itself alone."""
    tokens, lengths, prompt = text(4, 20), [3, 9, 1, 6], 9
    mask = torch.arange(prompt) >= prompt - torch.tensor(lengths)[:, None]
    padded = torch.zeros(4, prompt, dtype=torch.int64)
    for row, length in enumerate(lengths):
        padded[row, prompt - length :] = tokens[row, :length]
    hidden, cache = decoder.extend(padded, decoder.cache(4, 24), mask)
    found = [hidden[:, -1]]
    for t in range(10):
        token = torch.stack([tokens[row, length + t] for row, length in enumerate(lengths)])
        one, cache = decoder.step(token, cache)
        found.append(one)
    assert cache.length.tolist() == [length + 10 for length in lengths]
    for row, length in enumerate(lengths):
        alone = decoder(tokens[row : row + 1, : length + 10])[0]
        close(torch.stack(found, 1)[row], alone[length - 1 :])
        close(hidden[row, prompt - length :], alone[:length])


def test_a_cache_is_read_on_by_one_or_by_many(decoder: Transformer) -> None:
    """Several turns, padded at the right and in the middle, and a bound that is known."""
    tokens = text(2, 12)
    whole = decoder(tokens)
    first, cache = decoder.extend(tokens[:, :4], decoder.cache(2, 14))
    close(first, whole[:, :4])
    gaps = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 0, 1, 0]]).bool()
    middle = torch.zeros(2, 5, dtype=torch.int64)
    middle[gaps] = tokens[:, 4:7].flatten()
    second, cache = decoder.extend(middle, cache, gaps, span=8)
    close(second[gaps], whole[:, 4:7].flatten(0, 1))
    close(decoder.step(tokens[:, 7], cache, span=8)[0], whole[:, 7])
    last, cache = decoder.extend(tokens[:, 7:], cache)
    close(last, whole[:, 7:])


def test_rows_leave_and_enter(decoder: Transformer) -> None:
    tokens = text(5, 16)
    _, cache = decoder.extend(tokens[:3, :5], decoder.cache(3, 12))
    cache = kv_cache.rows(cache, torch.tensor([0, 2]))
    one, cache = decoder.step(tokens[[0, 2], 5], cache)
    close(one, decoder(tokens[[0, 2], :6])[:, -1])
    _, new = decoder.extend(tokens[4:, :8], decoder.cache(1, 9))
    cache = kv_cache.enter(cache, torch.tensor([0]), new)
    assert cache.length.tolist() == [8, 6]
    for t in range(4):
        one, cache = decoder.step(torch.stack([tokens[4, 8 + t], tokens[2, 6 + t]]), cache)
        close(one[0], decoder(tokens[4:, : 9 + t])[0, -1])
        close(one[1], decoder(tokens[2:3, : 7 + t])[0, -1])


def test_a_cache_may_grow(decoder: Transformer) -> None:
    """Rows go on in more slots, the new ones of which hold nothing, and what was read before stands as it was."""
    tokens = text(3, 9)
    _, small = decoder.extend(tokens[:, :5], decoder.cache(3, 5))
    cache = kv_cache.grown(small, 8)
    assert cache.size == 8 and torch.equal(cache.length, small.length)
    for new, old in zip((*cache.keys, *cache.values), (*small.keys, *small.values), strict=True):
        assert torch.equal(new[:, :, :5], old) and not new[:, :, 5:].any() and new.is_contiguous()
    found, cache = decoder.extend(tokens[:, 5:8], cache)
    close(found, decoder(tokens[:, :8])[:, 5:])
    found, _ = decoder.step(tokens[:, 8], kv_cache.grown(cache, 9))
    close(found, decoder(tokens)[:, 8])


def test_gaps_are_closed_by_the_last_rows(decoder: Transformer) -> None:
    tokens = text(5, 9)
    mask = torch.arange(6) < torch.tensor([[6], [2], [5], [1], [4]])
    _, whole = decoder.extend(tokens[:, :6], decoder.cache(5, 8), mask)
    cache, stood = kv_cache.closed_up(whole, torch.tensor([False, True, False, True, True]), 6)
    assert sorted(stood.tolist()) == [1, 3, 4] and stood[1] == 1, "who stands well stays"
    assert cache.keys[0].data_ptr() == whole.keys[0].data_ptr()
    one, _ = decoder.step(tokens[stood, 6], cache)
    for row, origin in enumerate(stood.tolist()):
        alone = torch.cat([tokens[origin, :6][mask[origin]], tokens[origin, 6:7]])
        close(one[row], decoder(alone[None])[0, -1])
    none, stood = kv_cache.closed_up(cache, torch.zeros(3, dtype=torch.bool), 6)
    assert none.length.shape == stood.shape == (0,)


def test_one_prompt_goes_on_in_several_ways(decoder: Transformer) -> None:
    prompt, ways = text(1, 6), text(4, 5, seed=1)
    _, cache = decoder.extend(prompt, decoder.cache(1, 12))
    found, _ = decoder.extend(ways, kv_cache.rows(cache, torch.zeros(4, dtype=torch.int64)))
    close(found, decoder(torch.cat([prompt.expand(4, 6), ways], 1))[:, 6:])


def test_a_step_can_be_taken_again() -> None:
    """The cache before a step is still that cache: what acts on it is a function."""
    decoder = made(GPT)
    _, cache = decoder.extend(text(2, 4), decoder.cache(2, 8))
    expected, _ = decoder.step(text(2, seed=1), cache)
    decoder.step(text(2, seed=2), cache)
    again, _ = decoder.step(text(2, seed=1), cache)
    assert torch.equal(again, expected)


def test_a_cache_is_a_tree() -> None:
    decoder = made(GPT)
    _, cache = decoder.extend(text(2, 4), decoder.cache(2, 8))
    copy = tree_map(lambda leaf: leaf.clone(), cache)
    assert isinstance(copy, tuple)
    expected, _ = decoder.step(text(2), cache)
    assert torch.equal(decoder.step(text(2), Cache(*copy))[0], expected)  # type: ignore[arg-type]


def test_a_decoder_of_an_encoder_steps_as_it_reads() -> None:
    model = made(T5)
    source, mask = text(3, 7), torch.arange(7) < torch.tensor([[7], [3], [5]])
    tokens = text(3, 9, seed=1)
    memory = model.encode(source, mask)
    whole = model(tokens, memory=memory)
    hidden, cache = model.extend(tokens[:, :3], model.cache(3, 12, memory))
    close(hidden, whole[:, :3])
    other = model.encode(text(1, 4, seed=2))
    swapped = kv_cache.enter(
        kv_cache.rows(cache, torch.arange(3)),
        torch.tensor([1]),
        model.extend(tokens[:1, :2], model.cache(1, 12, other))[1],
    )
    for t in range(3, 9):
        one, cache = model.step(tokens[:, t], cache)
        close(one, whole[:, t])
    one, _ = model.step(tokens[:, 2], swapped)
    close(one[1], model(torch.stack([tokens[0, 0], tokens[0, 1], tokens[1, 2]])[None], memory=other)[0, -1])


# What is seen


def test_a_later_token_changes_nothing_earlier(decoder: Transformer) -> None:
    tokens = text(2, 12)
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % WORDS
    before, after = decoder(tokens), decoder(changed)
    close(after[:, :7], before[:, :7], 1e-6)
    assert (after[:, 7:] - before[:, 7:]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("positions", [Relative(8, 12), None])
def test_without_a_table_of_positions_no_length_is_too_long(positions: Relative | None) -> None:
    model, tokens = made(replace(GPT, positions=positions)), text(1, LENGTH + 3)
    whole = model(tokens)
    hidden, cache = model.extend(tokens[:, :-1], model.cache(1, LENGTH + 3))
    close(hidden, whole[:, :-1])
    close(model.step(tokens[:, -1], cache)[0], whole[:, -1])


def test_an_encoder_sees_everything() -> None:
    model = made(bert(WORDS, 24, 2, 3, LENGTH))
    tokens = text(2, 12)
    changed = tokens.clone()
    changed[:, 11] = (changed[:, 11] + 1) % WORDS
    assert (model(changed) - model(tokens)).abs().amax(-1).min() > 1e-3


ALL = {**DECODERS, "bert": bert(WORDS, 24, 2, 3, LENGTH), "bert, relative": replace(T5, kind="encoder")}


@pytest.mark.parametrize("config", ALL.values(), ids=ALL.keys())
def test_padding_changes_nothing(config: TransformerConfig) -> None:
    """At the left, at the right and in the middle."""
    model, tokens = made(config), text(3, 6)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 1, 1, 0, 1]]).bool()
    alone = model(tokens)
    for filler in (0, 5):
        padded = torch.full(mask.shape, filler)
        padded[mask] = tokens.flatten()
        found = model(padded, mask)
        close(found[mask], alone.flatten(0, 1))
        assert found.isfinite().all()


@pytest.mark.parametrize("config", ALL.values(), ids=ALL.keys())
def test_packed_sequences_do_not_see_each_other(config: TransformerConfig) -> None:
    model, lengths = made(config), [4, 1, 7, 3]
    tokens, segments = text(1, 15), torch.tensor([[0] * 4 + [1] + [2] * 7 + [-1] * 3])
    found = model(tokens, segments)
    for start, length in zip([0, 4, 5, 12], lengths, strict=True):
        close(found[:, start : start + length], model(tokens[:, start : start + length]))
    positions = torch.tensor([[*range(4), 0, *range(7), *range(3)]])
    assert torch.equal(model(tokens, segments, positions), found)


def test_a_source_of_padding_alone_gives_nothing_infinite() -> None:
    model = made(T5)
    mask = torch.tensor([[True] * 4, [False] * 4])
    memory = model.encode(text(2, 4), mask)
    assert model(text(2, 3), memory=memory).isfinite().all()
    _, cache = model.extend(text(2, 3), model.cache(2, 6, memory))
    assert model.step(text(2), cache)[0].isfinite().all()


# Heads, gradients and what else there is


def test_logits_of_a_few_are_those_of_all(decoder: Transformer) -> None:
    hidden = decoder(text(3, 8))
    few = torch.rand(3, 8, generator=torch.Generator().manual_seed(0)) < 0.4
    close(decoder.logits(hidden[few]), decoder.logits(hidden)[few])


def test_a_tied_head_is_the_embedding() -> None:
    tied, own = made(GPT), made(replace(GPT, tie_word_embeddings=False))
    assert sum(p.numel() for p in own.parameters()) - sum(p.numel() for p in tied.parameters()) == WORDS * 24
    logits = tied.logits(torch.eye(24))
    close(logits, tied.token.weight.T)


def test_a_new_model_knows_nothing_and_its_stream_does_not_grow_with_its_layers() -> None:
    torch.manual_seed(0)
    model = Transformer(gpt2(WORDS, 64, 8, 4, LENGTH))
    targets = text(8, 30, seed=1)
    loss = torch.nn.functional.cross_entropy(model.logits(model(text(8, 30))).flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(math.log(WORDS), abs=0.25)
    for name, weight in model.stack.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            assert weight.std().item() == pytest.approx(model.config.initial_std / 4.0, rel=0.05), name
        elif name.endswith(("query_key_value.weight", "up.weight", "place.weight")):
            assert weight.std().item() == pytest.approx(model.config.initial_std, rel=0.05), name
        elif name.endswith("bias"):
            assert weight.eq(0.0).all(), name


def test_values_begin_at_zero_and_learn() -> None:
    torch.manual_seed(0)
    model = Transformer(replace(GPT, value_head=True))
    value = model.value(model(text(2, 5)))
    assert value.shape == (2, 5) and value.eq(0.0).all()
    value.sum().backward()
    assert model.value_head is not None and model.value_head.weight.grad is not None
    assert model.value_head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("config", [*ALL.values(), T5], ids=[*ALL, "t5"])
def test_gradients_are_finite_and_reach_every_weight(config: TransformerConfig) -> None:
    """With padding, and the same whether activations are kept or computed again."""
    model = made(replace(config, value_head=True))
    tokens, mask = text(3, 9), torch.arange(9) >= torch.tensor([[0], [4], [8]])

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        if model.encoder is None:
            hidden = model(tokens, mask, token_types=tokens % 2 if config.type_vocab_size else None)
        else:
            hidden = model(tokens, mask, memory=model.encode(tokens, mask))
        loss = model.logits(hidden).log_softmax(-1)[mask].square().mean() + model.value(hidden)[mask].square().mean()
        loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    kept = gradients()
    assert set(kept) == {name for name, _ in model.named_parameters()}
    for name, gradient in kept.items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name
    model.checkpointing = True
    assert model.checkpointing and all(stack.checkpointing for stack in model.stacks)
    for name, gradient in gradients().items():
        close(gradient, kept[name], 1e-5)


def test_dropout_is_off_unless_training() -> None:
    plain, thinned = made(GPT), made(replace(GPT, dropout=0.5))
    close(thinned(text(2, 9)), plain(text(2, 9)), 0.0)
    thinned.train()
    assert not torch.equal(thinned(text(2, 9)), thinned(text(2, 9)))
    _, cache = thinned.eval().extend(text(2, 4), thinned.cache(2))
    assert torch.equal(thinned.step(text(2), cache)[0], thinned.step(text(2), cache)[0])


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_near(decoder: Transformer, autocast: bool) -> None:
    """Weights in half precision, or products alone: the mean distance is that of its three digits."""
    tokens, mask = text(3, 9), torch.arange(8) >= torch.tensor([[0], [3], [7]])
    exact, last = decoder(tokens[:, :8], mask), decoder(tokens, torch.nn.functional.pad(mask, (0, 1), value=True))[:, 8]
    if not autocast:
        decoder.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        whole = decoder(tokens[:, :8], mask)
        near, cache = decoder.extend(tokens[:, :8], decoder.cache(3, 9), mask)
        after, cache = decoder.step(tokens[:, 8], cache)
    assert near.dtype == whole.dtype == (torch.float32 if autocast else torch.bfloat16)
    for found, expected in ((whole[mask], exact[mask]), (near[mask], exact[mask]), (after, last)):
        distance = (found.float() - expected).abs()
        assert 0.0 < distance.mean() < 0.02 and distance.max() < 0.2


@pytest.mark.parametrize("config", [*DECODERS.values(), T5, bert()])
def test_a_config_goes_through_json(config: TransformerConfig) -> None:
    assert configs.from_json(TransformerConfig, configs.to_json(config)) == config


@pytest.mark.parametrize(
    ("config", "count"), [(gpt2(), 124_439_808), (bert(), 109_514_298), (t5(), 60_506_624), (llama(), 1_100_048_384)]
)
def test_presets_are_as_large_as_what_they_are_like(config: TransformerConfig, count: int) -> None:
    """Published numbers of parameters: GPT-2 124M, BERT base with its head 110M, T5 small 60M, TinyLlama 1.1B."""
    with torch.device("meta"):
        assert sum(p.numel() for p in Transformer(config).parameters()) == count


# What is refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_attention_heads": 5}, "hidden_size=24 and num_attention_heads=5"),
        ({"num_key_value_heads": 2}, "got 3 and 2"),
        ({"positions": Rotary(), "head_dim": 5}, "even head_dim"),
        ({"num_hidden_layers": 0}, "num_hidden_layers of at least 1"),
        ({"dropout": 1.0}, "dropout within"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(GPT, **change)  # type: ignore[arg-type]


def test_calls_that_cannot_be_are_refused() -> None:
    decoder, encoder, both = made(GPT), made(bert(WORDS, 24, 2, 3, LENGTH)), made(T5)
    with pytest.raises(ValueError, match=f"max_position_embeddings={LENGTH} tokens, got 41"):
        decoder(text(1, 41))
    with pytest.raises(ValueError, match="at most 4 slots to enter a cache, got 5"):
        kv_cache.enter(decoder.cache(2, 4), torch.tensor([0]), decoder.cache(1, 5))
    with pytest.raises(ValueError, match="at least 5 slots, got 4"):
        decoder.extend(text(1, 5), decoder.cache(1, 4))
    with pytest.raises(ValueError, match="expected memory"):
        both(text(1, 3))
    with pytest.raises(ValueError, match="expected no memory"):
        decoder.cache(1, 4, Memory(torch.zeros(1, 2, 24), torch.ones(1, 2, dtype=torch.bool)))
    with pytest.raises(ValueError, match="expected a decoder to make a cache for"):
        encoder.cache(1)
    with pytest.raises(ValueError, match="expected no memory"):
        decoder(text(1, 3), memory=both.encode(text(1, 3)))
    with pytest.raises(ValueError, match="kind 'decoder'"):
        decoder.encode(text(1, 3))
    with pytest.raises(ValueError, match="value_head"):
        decoder.value(torch.zeros(1, 24))


@pytest.mark.parametrize("width", [64, 256])
def test_a_narrow_model_begins_as_loud_as_gpt2(width: int) -> None:
    """What a product of the first layer gives has the deviation that it has in GPT-2: 0.02 sqrt(768)."""
    config = gpt2(64, width, 2, 4, 16)
    torch.manual_seed(0)
    body = Transformer(config)
    normal = torch.randn(4000, width, generator=torch.Generator().manual_seed(1))
    given = normal @ body.blocks[0].get_parameter("feed_forward.up.weight").T
    assert given.std().item() == pytest.approx(0.02 * 768**0.5, rel=0.05)
    assert gpt2().initial_std == 0.02
    assert replace(config, initializer_range=0.3).initial_std == 0.3
