"""Models that transformers computes: what they say of a text depends on no cache, padding, packing or neighbour."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from torchward.config import ConfigError
from torchward.language import hub, hub_model, pretrained
from torchward.language.chat import Template
from torchward.language.documents import TextError
from torchward.language.generate import generate
from torchward.language.hub_template import OwnTemplate
from torchward.nets import kv_cache, saving
from torchward.nets.hub_model import HubModel
from torchward.nets.language_model import NONE, LanguageModel
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import bert

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[hf]'")
from tests.language.test_hub_tokenizer import CHATML, byte_level, saved  # noqa: E402 - after the line that skips

WORDS, LENGTH = 61, 48
SMALL: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": LENGTH,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
CONFIGS: dict[str, Any] = {
    "GPT-NeoX": transformers.GPTNeoXConfig(**SMALL),
    "GPT-J, a head with a bias": transformers.GPTJConfig(
        vocab_size=WORDS, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=LENGTH
    ),
    "OPT, a narrow head": transformers.OPTConfig(
        **{**SMALL, "pad_token_id": 1}, ffn_dim=40, word_embed_proj_dim=24, dropout=0.3
    ),
    "BLOOM, biases by distance": transformers.BloomConfig(vocab_size=WORDS, hidden_size=32, n_layer=2, n_head=4),
    "Mistral, a window": transformers.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=6),
    "Cohere, scaled logits": transformers.CohereConfig(**SMALL),
}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield


def made(config: Any, seed: int = 0) -> Any:
    """One of transformers' models in which every weight matters."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> HubModel:
    return HubModel(made(CONFIGS[request.param])).eval()


def text(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(WORDS, shape, generator=torch.Generator().manual_seed(seed))


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=2e-5, rtol=0.0)


def alone(model: HubModel, tokens: Tensor) -> Tensor:
    """What transformers itself says of one text ``[T]``."""
    with torch.no_grad():
        logits: Tensor = model.model(input_ids=tokens[None]).logits[0]
    return logits.log_softmax(-1)


def said(model: HubModel, hidden: Tensor) -> Tensor:
    return model.logits(hidden).log_softmax(-1)


# The same of a text, however it comes


@torch.no_grad()
def test_a_cached_decode_is_the_full_pass(model: HubModel) -> None:
    """Ragged prompts, then a ragged turn behind them, then token by token; longer than a window."""
    tokens, first, more = text(4, 20), [3, 9, 1, 6], [2, 0, 4, 3]
    mask = torch.arange(9) >= 9 - torch.tensor(first)[:, None]
    padded = torch.zeros(4, 9, dtype=torch.int64)
    padded[mask] = torch.cat([tokens[row, :n] for row, n in enumerate(first)])
    hidden, cache = model.extend(padded, model.cache(4, 24), mask)
    assert cache.length.tolist() == first
    turn = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1]]).bool()
    behind = torch.zeros(4, 4, dtype=torch.int64)
    behind[turn] = torch.cat([tokens[row, n : n + m] for row, (n, m) in enumerate(zip(first, more, strict=True))])
    second, cache = model.extend(behind, cache, turn, span=10)
    steps = []
    for t in range(5):
        one, cache = model.step(tokens[range(4), cache.length], cache, span=10 + t)
        steps.append(one)
    for row in range(4):
        expected = alone(model, tokens[row, : first[row] + more[row] + 5])
        mine = torch.cat([hidden[row][mask[row]], second[row][turn[row]], *(step[row : row + 1] for step in steps)])
        close(said(model, mine), expected)
    assert second[~turn].eq(0.0).all()


@torch.no_grad()
def test_rows_leave_and_enter(model: HubModel) -> None:
    tokens = text(5, 16)
    _, cache = model.extend(tokens[:3, :5], model.cache(3, 12))
    cache, stood = kv_cache.closed_up(cache, torch.tensor([False, True, True]), 5)
    one, cache = model.step(tokens[stood, 5], cache)
    for row, origin in enumerate(stood.tolist()):
        close(said(model, one[row]), alone(model, tokens[origin, :6])[-1])
    _, new = model.extend(tokens[4:, :8], model.cache(1, 9))
    cache = kv_cache.enter(kv_cache.rows(cache, torch.tensor([0, 0, 1])), torch.tensor([0]), new)
    assert cache.length.tolist() == [8, 6, 6]
    origin = [4, *stood.tolist()]
    one, cache = model.step(tokens[origin, [8, 6, 6]], cache)
    for row, length in enumerate([9, 7, 7]):
        close(said(model, one[row]), alone(model, tokens[origin[row], :length])[-1])


@torch.no_grad()
def test_padding_and_packing_change_nothing(model: HubModel) -> None:
    tokens = text(3, 6)
    for mask in ([0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0, 0]):
        real = torch.tensor([mask] * 3).bool()
        padded = torch.full(real.shape, 5)
        padded[real] = tokens.flatten()
        found = said(model, model(padded, real))[real].view(3, 6, -1)
        for row in range(3):
            close(found[row], alone(model, tokens[row]))
    packed, segments = text(2, 12), torch.tensor([[0] * 4 + [1] * 7 + [-1], [0] + [1] + [2] * 10])
    positions = torch.tensor([[*range(4), *range(7), 0], [0, 0, *range(10)]])
    found = said(model, model(packed, segments, positions))
    for row, begin, end in ((0, 0, 4), (0, 4, 11), (1, 0, 1), (1, 1, 2), (1, 2, 12)):
        close(found[row, begin:end], alone(model, packed[row, begin:end]))
    with pytest.raises(ValueError, match="counted within segments"):
        model(packed, segments, positions + 1)


def test_gradients_reach_every_weight(model: HubModel) -> None:
    """And are the same where layers are computed again."""

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        hidden = model(text(2, 7))
        (model.logits(hidden).log_softmax(-1)[..., 0].mean() + model.value(hidden).square().sum()).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    torch.nn.init.normal_(model.value_head.weight)
    model.train()
    for module in model.modules():  # transformers reads checkpointing in training alone
        for name in ("dropout", "attention_dropout", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    kept = gradients()
    missing = {name for name, _ in model.named_parameters()} - set(kept)
    assert not missing and all(gradient.isfinite().all() for gradient in kept.values())
    assert not model.checkpointing and len(model.blocks) == 2
    model.checkpointing = True
    assert model.checkpointing
    for name, gradient in gradients().items():
        close(gradient, kept[name])
    _, cache = model.extend(text(2, 7), model.cache(2, 8))
    assert cache.length.tolist() == [7, 7] and model.training
    with torch.no_grad():
        close(model.step(text(2), cache)[0], model(torch.cat([text(2, 7), text(2)[:, None]], 1))[:, -1])
    model.checkpointing = False
    assert not model.checkpointing


# As a policy


def policy_of(directory: Path, config: Any, template: str | None = None) -> Any:
    """A model with its tokenizer in a directory, and transformers' own of it."""
    theirs = made(config)
    theirs.save_pretrained(directory)
    saved(directory, byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]), template, eos_token="<|endoftext|>")
    return theirs


@pytest.mark.parametrize("name", ["GPT-NeoX", "BLOOM, biases by distance"])
def test_it_is_a_policy_that_writes_as_transformers_does(tmp_path: Path, name: str) -> None:
    config = type(CONFIGS[name])(**{**CONFIGS[name].to_dict(), "vocab_size": 320})
    theirs = policy_of(tmp_path, config, CHATML)
    policy, tokenizer, template = pretrained.load(tmp_path)
    assert isinstance(template, OwnTemplate) and isinstance(policy.body, HubModel)
    assert policy.config.vocab_size == tokenizer.vocab_size == 320
    prompts = [[5, 17, 200, 44], [31], [9, 9, 250]]
    done = generate(policy, prompts, eos_id=tokenizer.eos_id, max_new_tokens=8, slots=2)
    for row, prompt in enumerate(prompts):
        expected = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=tokenizer.eos_id, pad_token_id=0
        )[0, len(prompt) :]
        assert done.tokens[row, : done.lengths[row]].tolist() == expected.tolist()


def test_what_it_says_of_its_words_is_what_it_said_when_it_wrote_them(tmp_path: Path) -> None:
    config = type(CONFIGS["GPT-NeoX"])(**{**CONFIGS["GPT-NeoX"].to_dict(), "vocab_size": 320})
    policy_of(tmp_path, config, CHATML)
    policy = pretrained.load(tmp_path).policy
    torch.nn.init.normal_(policy.body.value_head.weight)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    prompts = [[5, 17, 200, 44], [31], [9, 9, 250], [1, 2]]
    noise = policy.noise((10, 8), generator)
    done = generate(policy, prompts, eos_id=2, max_new_tokens=10, num_generations=2, noise=noise, slots=4)
    for row in range(8):
        prompt, n = prompts[row // 2], int(done.lengths[row])
        whole = torch.tensor([[*prompt, *done.tokens[row, :n].tolist()]])
        action = torch.cat([torch.full((1, len(prompt) - 1), NONE), whole[:, len(prompt) :]], 1)
        judged = policy.evaluate_actions(whole[:, :-1], action, (), torch.zeros_like(action, dtype=torch.bool))
        chosen = action[0] != NONE
        close(done.log_probs[row, :n], judged.log_prob[0, chosen])
        assert judged.value is not None
        close(done.values[row, :n], judged.value[0, chosen])


def test_a_policy_is_saved_and_read_with_its_body(tmp_path: Path) -> None:
    config = type(CONFIGS["GPT-NeoX"])(**{**CONFIGS["GPT-NeoX"].to_dict(), "vocab_size": 320})
    policy_of(tmp_path / "theirs", config)
    policy, tokenizer, template = pretrained.load(tmp_path / "theirs")
    assert type(template) is Template and isinstance(policy.body, HubModel)
    assert tokenizer.role_id("tool") < 320, "a row to spare"
    policy.save(tmp_path / "policy")
    again = saving.load(tmp_path / "policy")
    assert isinstance(again, LanguageModel) and again.vocabulary == policy.vocabulary
    tokens = text(2, 9)
    assert torch.equal(again.body.logits(again.body.forward(tokens)), policy.body.logits(policy.body.forward(tokens)))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "policy" / "model")
    with torch.no_grad():
        close(theirs(input_ids=tokens).logits, policy.body.logits(policy.body.forward(tokens)))
    (tmp_path / "policy" / "model" / "model.safetensors").unlink()
    with pytest.raises(saving.PolicyError, match="cannot be read"):
        saving.load(tmp_path / "policy")


def test_what_our_converters_know_becomes_our_transformer(tmp_path: Path) -> None:
    """With as many rows as its tokenizer has tokens, of which the new ones are the mean of the old."""
    config = transformers.GPT2Config(vocab_size=290, n_embd=32, n_layer=2, n_head=4, n_positions=LENGTH)
    theirs = policy_of(tmp_path, config)
    policy, tokenizer, template = pretrained.load(tmp_path, dtype=torch.float32)
    assert isinstance(policy.body, Transformer) and type(template) is Template
    assert policy.config.vocab_size == tokenizer.vocab_size > 290
    tokens = text(2, 9)
    with torch.no_grad():
        close(policy.body.logits(policy.body.forward(tokens))[..., :290], theirs(input_ids=tokens).logits)
    weight = policy.body.token.weight
    close(weight[290:], weight[:290].mean(0).expand_as(weight[290:]))
    large = HubModel(made(CONFIGS["GPT-NeoX"]))
    large.model.save_pretrained(tmp_path / "b")
    grown = hub_model.load(tmp_path / "b", vocab_size=WORDS + 4)
    assert isinstance(grown, HubModel) and grown.config.vocab_size == WORDS + 4
    close(grown.logits(grown(tokens))[..., :WORDS], large.logits(large(tokens)))
    close(grown.token.weight[-1], large.token.weight.mean(0))
    _, head = grown.before_head(torch.zeros(1, 32))
    close(head.weight[-1], head.weight[:WORDS].mean(0))


def test_half_precision_is_read_and_dropout_is_left_out(tmp_path: Path) -> None:
    exact = HubModel(made(CONFIGS["OPT, a narrow head"])).eval()
    exact.model.save_pretrained(tmp_path)
    near = hub_model.load(tmp_path, dtype=torch.bfloat16)
    near.train()
    tokens = text(2, 9)
    once = near(tokens)
    assert once.dtype == near.value(once).dtype == torch.bfloat16
    assert torch.equal(near(tokens), once), "dropout would draw anew"
    assert (near.logits(once).float() - exact.logits(exact(tokens))).abs().max() < 0.2


# What is refused


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (transformers.MambaConfig(vocab_size=WORDS, hidden_size=32, num_hidden_layers=2), "keeps keys and values"),
        (transformers.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8), "which caps them at 30"),
        (
            transformers.BartConfig(vocab_size=WORDS, d_model=32, decoder_layers=2, decoder_attention_heads=4),
            "a padded row as it reads it alone, got BartForCausalLM",
        ),
    ],
)
def test_a_model_that_would_be_learnt_from_wrongly_is_refused(config: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        HubModel(made(config))


def test_a_cap_is_found_where_it_does_not_show() -> None:
    """Logits of small weights are as good as uncapped ones."""
    torch.manual_seed(0)
    config = transformers.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8)
    with pytest.raises(ConfigError, match=r"got Gemma2ForCausalLM, which caps them at 30\.0; take a model without"):
        HubModel(transformers.AutoModelForCausalLM.from_config(config))
    config.final_logit_softcapping = None
    assert HubModel(transformers.AutoModelForCausalLM.from_config(config)).head_scale == 1.0
    unnamed = made(CONFIGS["GPT-NeoX"])
    unnamed.register_forward_hook(lambda model, given, read: type(read)(logits=read.logits.tanh()))
    with pytest.raises(ConfigError, match="got GPTNeoXForCausalLM: are they capped"):
        HubModel(unnamed)


def stretched(rope_type: str) -> Any:
    """A model whose positions are turned by other frequencies where texts are long."""
    factors: dict[str, Any] = {"short_factor": [1.0] * 4, "long_factor": [4.0, 3.0, 2.0, 1.5]}
    if rope_type == "longrope":
        rope = {"rope_type": rope_type, "rope_theta": 1e4, **factors}
        return transformers.Phi3Config(**SMALL, original_max_position_embeddings=16, rope_parameters=rope)
    rope = {"rope_type": rope_type, "rope_theta": 1e4, "factor": 4.0}
    return transformers.LlamaConfig(**SMALL, rope_parameters=rope)


@torch.no_grad()
@pytest.mark.parametrize(("rope_type", "most"), [("longrope", 16), ("dynamic", LENGTH)])
def test_frequencies_that_depend_on_the_longest_row_are_not_reached(rope_type: str, most: int) -> None:
    """What is said of a short text is what is said of it beside the longest one that may be."""
    model = HubModel(made(stretched(rope_type))).eval()
    assert model.config.max_position_embeddings == most
    tokens = text(2, most)
    mask = torch.ones(2, most, dtype=torch.bool)
    mask[1, 5:] = False
    close(said(model, model(tokens, mask)[1, :5]), alone(model, tokens[1, :5]))
    hidden, cache = model.extend(tokens[:, : most - 1], model.cache(2), mask[:, :-1])
    steps, _ = model.step(tokens[:, most - 1], cache)
    close(said(model, hidden[1, :5]), alone(model, tokens[1, :5]))
    close(said(model, steps[1]), alone(model, tokens[1, [*range(5), most - 1]])[-1])
    for longer in (lambda: model(text(1, most + 1)), lambda: model.cache(1, most + 1)):
        with pytest.raises(ValueError, match=f"max_position_embeddings={most} tokens, got {most + 1}"):
            longer()


def test_a_directory_without_a_causal_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such files"):
        hub_model.load(tmp_path)
    with pytest.raises(TextError, match=r"expected tokenizer\.json"):
        pretrained.load(tmp_path)
    hub.save(Transformer(bert(WORDS, 24, 2, 3, LENGTH)), tmp_path / "bert")
    with pytest.raises(ConfigError, match=r"expected a causal model in .* got one of kind 'encoder'"):
        hub_model.load(tmp_path / "bert")
    made(CONFIGS["GPT-NeoX"]).save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"12345678901234567890")
    with pytest.raises(ConfigError, match=r"the model in .* cannot be read: "):
        hub_model.load(tmp_path / "a")
    model = HubModel(made(CONFIGS["GPT-NeoX"]))
    with pytest.raises(ValueError, match="at least 5 slots, got 4"):
        model.extend(text(1, 5), model.cache(1, 4))
    with pytest.raises(ValueError, match=f"max_position_embeddings={LENGTH} tokens, got {LENGTH + 1}"):
        model(text(1, LENGTH + 1))


@pytest.mark.parametrize("name", ["gpt_neox.layers.1.mlp.dense_h_to_4h.weight", "transformer.h.1.mlp.c_fc.weight"])
def test_a_weight_that_is_missing_is_not_made_up(tmp_path: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    neox = name.startswith("gpt_neox")
    config = CONFIGS["GPT-NeoX"] if neox else transformers.GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=2, n_head=4)
    made(config).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=f"expected a weight {name}"):
        hub_model.load(tmp_path)


def test_what_our_transformer_has_not_is_left_to_transformers(tmp_path: Path) -> None:
    """A Llama whose positions are stretched."""
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    theirs = made(transformers.LlamaConfig(**SMALL, rope_parameters=rope))
    theirs.save_pretrained(tmp_path)
    model = hub_model.load(tmp_path)
    assert isinstance(model, HubModel)
    with torch.no_grad():
        close(model.logits(model(text(2, 9))), theirs(input_ids=text(2, 9)).logits)


def test_code_of_a_models_own_is_not_run(tmp_path: Path) -> None:
    made(CONFIGS["GPT-NeoX"]).save_pretrained(tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    data |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(data))
    (tmp_path / "mine.py").write_text("import sys\nsys.was_run = True\nclass Mine: pass\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        hub_model.load(tmp_path)
    assert not hasattr(sys, "was_run")


def test_without_transformers_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What our converters know is still read."""
    made(CONFIGS["GPT-NeoX"]).save_pretrained(tmp_path / "a")
    made(transformers.GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=2, n_head=4)).save_pretrained(tmp_path / "b")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"torchward\[hf\]"):
        hub_model.load(tmp_path / "a")
    assert isinstance(hub_model.load(tmp_path / "b"), Transformer)


def test_a_run_begins_from_a_directory_of_transformers(tmp_path: Path) -> None:
    """And goes on from what it has kept, when the directory has gone; whoever computes the model."""
    from torchward import launch

    config = transformers.GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=LENGTH)
    theirs = policy_of(tmp_path / "gpt2", config)
    lines = [json.dumps({"prompt": f"{n} ", "completion": f"{n}"}) for n in range(40)]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    given: dict[str, Any] = {
        "max_length": 32,
        "per_device_train_batch_size": 4,
        "total_timesteps": 512,
        "progress": False,
    }
    given |= {"tensorboard": False, "learning_rate": 1e-9, "warmup_ratio": 0.0}
    run = launch.train("sft", tmp_path / "answers.jsonl", path=tmp_path / "run", init=tmp_path / "gpt2", **given)
    learnt = saving.load(run.path, which="last")
    assert isinstance(learnt, LanguageModel) and isinstance(learnt.body, Transformer)
    tokens = text(2, 9)
    with torch.no_grad():
        close(learnt.body.logits(learnt.body.forward(tokens))[..., :320], theirs(input_ids=tokens).logits)
    (tmp_path / "gpt2").rename(tmp_path / "gone")
    (run.path / launch.RESULT).unlink()
    assert launch.resume(run.path).step == run.step
    policy_of(tmp_path / "neox", type(CONFIGS["GPT-NeoX"])(**{**CONFIGS["GPT-NeoX"].to_dict(), "vocab_size": 320}))
    other = launch.train("sft", tmp_path / "answers.jsonl", path=tmp_path / "other", init=tmp_path / "neox", **given)
    (tmp_path / "neox").rename(tmp_path / "gone too")
    (other.path / launch.RESULT).unlink()
    assert launch.resume(other.path).step == other.step
    again = saving.load(other.path, which="last")
    assert isinstance(again, LanguageModel) and isinstance(again.body, HubModel)
