"""Weights to and from transformers: the same outputs, the same files, and what is refused."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from torchward.config import ConfigError
from torchward.language import hub
from torchward.launch_policies import policy_of
from torchward.nets.positions import Relative, Sinusoidal, buckets
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig, bert, gpt2, llama, t5

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[hf]'")

WORDS, LENGTH = 61, 40
PLAIN = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
GPT: dict[str, Any] = {"vocab_size": WORDS, "n_embd": 36, "n_layer": 2, "n_head": 3, "n_positions": LENGTH, **PLAIN}
LLAMA: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 48,
    "intermediate_size": 42,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": LENGTH,
    **PLAIN,
}
BERT: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 36,
    "intermediate_size": 42,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": LENGTH,
}
T5: dict[str, Any] = {"vocab_size": WORDS, "d_model": 36, "d_kv": 7, "d_ff": 42, "num_layers": 2, "num_heads": 3}
BART: dict[str, Any] = {
    "vocab_size": WORDS,
    "d_model": 36,
    "max_position_embeddings": LENGTH,
    "encoder_layers": 2,
    "decoder_layers": 3,
    **{f"{side}_attention_heads": 3 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 42 for side in ("encoder", "decoder")},
}
FEW = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 6}

MODELS: dict[str, tuple[str, Any]] = {
    "gpt2": ("GPT2LMHeadModel", transformers.GPT2Config(**GPT)),
    "gpt2, untied, ReLU": (
        "GPT2LMHeadModel",
        transformers.GPT2Config(**GPT, tie_word_embeddings=False, activation_function="relu", n_inner=50),
    ),
    "llama": ("LlamaForCausalLM", transformers.LlamaConfig(**LLAMA)),
    "llama, grouped": ("LlamaForCausalLM", transformers.LlamaConfig(**LLAMA, num_key_value_heads=2)),
    "llama, one group, biases, tied": (
        "LlamaForCausalLM",
        transformers.LlamaConfig(
            **LLAMA,
            num_key_value_heads=1,
            head_dim=10,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        ),
    ),
    "qwen2": ("Qwen2ForCausalLM", transformers.Qwen2Config(**LLAMA, num_key_value_heads=3)),
    "bert": ("BertForMaskedLM", transformers.BertConfig(**BERT)),
    "bert, untied, SiLU": (
        "BertForMaskedLM",
        transformers.BertConfig(**BERT, tie_word_embeddings=False, hidden_act="silu"),
    ),
    "t5": ("T5ForConditionalGeneration", transformers.T5Config(**T5, **FEW, num_decoder_layers=3)),
    "t5, version 1.1": (
        "T5ForConditionalGeneration",
        transformers.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    ),
    "roberta": ("RobertaForMaskedLM", transformers.RobertaConfig(**BERT, type_vocab_size=1)),
    "bart": ("BartForConditionalGeneration", transformers.BartConfig(**BART)),
    "bart, scaled": (
        "BartForConditionalGeneration",
        transformers.BartConfig(**BART, scale_embedding=True, activation_function="relu"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield


@pytest.fixture(params=MODELS)
def theirs(request: pytest.FixtureRequest) -> Any:
    """One of transformers' models in which every weight matters: none is 0 or 1."""
    name, config = MODELS[request.param]
    torch.manual_seed(0)
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for place, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
            if config.model_type in {"roberta", "bart"} and "position" in place:
                parameter[:2] = 0.0  # those of padding, which no text reads
        if config.model_type == "bart":
            model.final_logits_bias.normal_()
    return model


def logits(model: Any, ours: Transformer) -> tuple[Tensor, Tensor]:
    """What both say of ragged rows, padded at both sides; where there is padding, 0."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(WORDS, (3, 11), generator=generator)
    mask = torch.ones(3, 11, dtype=torch.int64)
    mask[0, 7:] = 0
    if model.config.model_type != "bart":  # which counts what pads at the left as text
        mask[2, :4] = 0
    with torch.no_grad():
        if ours.encoder is not None:
            answer = torch.randint(WORDS, (3, 9), generator=generator)
            expected = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=answer).logits
            return expected, ours.logits(ours(answer, memory=ours.encode(tokens, mask.bool())))
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        kinds = ours.config.type_vocab_size
        types = {"token_type_ids": tokens % kinds} if kinds else {}
        if model.config.model_type == "roberta":
            positions = positions + 2
        expected = model(input_ids=tokens, attention_mask=mask, position_ids=positions, **types).logits
        found = ours.logits(ours(tokens, mask.bool(), token_types=types.get("token_type_ids")))
        return expected * mask[..., None], found * mask[..., None]


def test_outputs_are_those_of_transformers(theirs: Any) -> None:
    expected, found = logits(theirs, hub.from_transformers(theirs))
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0.0)


def test_what_they_wrote_is_read(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    torch.testing.assert_close(*logits(theirs, hub.load(tmp_path)), atol=1e-4, rtol=0.0)


def test_what_is_written_they_read(theirs: Any, tmp_path: Path) -> None:
    """And every weight is theirs again, bit for bit; and so it is without files."""
    ours = hub.from_transformers(theirs)
    kind = theirs.config.model_type
    hub.save(ours, tmp_path, model_type=kind, eos_token_id=7)
    again = type(theirs).from_pretrained(tmp_path).eval()
    assert again.config.eos_token_id == 7
    for other in (again, hub.to_transformers(ours, model_type=kind)):
        tensors, expected = other.state_dict(), theirs.state_dict()
        if not theirs.config.tie_word_embeddings and "cls.predictions.bias" in expected:
            # Untied, their BERT has the head's bias twice, and never reads the first: it becomes the one that counts.
            expected["cls.predictions.bias"] = expected["cls.predictions.decoder.bias"]
        for name, tensor in expected.items():
            assert torch.equal(tensors[name], tensor), name
        torch.testing.assert_close(*logits(other, ours), atol=1e-4, rtol=0.0)
    assert hub.load(tmp_path).config == ours.config


PRESETS: dict[str, TransformerConfig] = {
    "gpt2": gpt2(WORDS, 24, 2, 3, LENGTH),
    "llama": llama(WORDS, 24, 2, 6, 2, None, LENGTH),
    "qwen2": replace(llama(WORDS, 24, 2, 6, 2, None, LENGTH), attention_bias="qkv", tie_word_embeddings=True),
    "bert": bert(WORDS, 24, 2, 3, LENGTH),
    "bert without its head": replace(bert(WORDS, 24, 2, 3, LENGTH), head_transform=False, head_bias=False),
    "t5": t5(WORDS, 24, 2, 3, 6, 20, LENGTH),
    "t5, untied": replace(t5(WORDS, 24, 2, 3, 6, 20, LENGTH), tie_word_embeddings=False, head_scale=1.0),
}


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS.keys())
def test_an_own_model_comes_back(config: TransformerConfig, tmp_path: Path) -> None:
    """Through a directory and through one of their models; its critic stays behind, and a new one may be asked for."""
    torch.manual_seed(0)
    model = Transformer(replace(config, value_head=True, dropout=0.1)).eval()
    hub.save(model, tmp_path)
    tokens = torch.arange(12).view(2, 6)
    for again in (hub.load(tmp_path), hub.from_transformers(hub.to_transformers(model))):
        assert again.value_head is None and again.config.dropout == 0.0
        memories = [None if m.encoder is None else m.encode(tokens) for m in (model, again)]
        pair = [m.logits(m(tokens, memory=memory)) for m, memory in zip((model, again), memories, strict=True)]
        torch.testing.assert_close(*pair, atol=1e-6, rtol=0.0)
    assert hub.load(tmp_path, value_head=True, dtype=torch.bfloat16).value_head is not None


def test_a_model_without_its_head_and_with_old_names_is_read(tmp_path: Path) -> None:
    """As the first BERTs were written: gamma and beta."""
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    for cls, config in (
        (transformers.GPT2Model, transformers.GPT2Config(**GPT)),
        (transformers.BertModel, transformers.BertConfig(**BERT)),
    ):
        model = cls(config).eval()
        model.save_pretrained(tmp_path)
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in load_file(tmp_path / "model.safetensors").items()
        }
        save_file(old, tmp_path / "model.safetensors")
        tokens = torch.arange(12).view(2, 6)
        with torch.no_grad():
            expected = model(input_ids=tokens).last_hidden_state
            torch.testing.assert_close(hub.load(tmp_path)(tokens), expected, atol=1e-4, rtol=0.0)


def test_a_bart_without_its_head_is_read(tmp_path: Path) -> None:
    """The bias of its head is then 0, as in transformers."""
    torch.manual_seed(0)
    transformers.BartModel(transformers.BartConfig(**BART)).save_pretrained(tmp_path)
    theirs = transformers.BartForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert not theirs.final_logits_bias.any()
    torch.testing.assert_close(*logits(theirs, hub.load(tmp_path)), atol=1e-4, rtol=0.0)


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).eval()
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    torch.testing.assert_close(*logits(model, hub.load(tmp_path)), atol=1e-4, rtol=0.0)


def test_one_file_goes_before_the_parts_of_an_older_model(tmp_path: Path) -> None:
    """As in transformers; and who writes leaves no parts of another model behind."""
    config = transformers.LlamaConfig(**LLAMA)
    old, new = (transformers.LlamaForCausalLM(config).eval() for _ in range(2))
    new.save_pretrained(tmp_path / "new")
    old.save_pretrained(tmp_path / "old", max_shard_size="50KB")
    (tmp_path / "old" / "notes.txt").write_text("mine")
    (tmp_path / "old" / "model.safetensors").write_bytes((tmp_path / "new" / "model.safetensors").read_bytes())
    assert (tmp_path / "old" / "model.safetensors.index.json").is_file()
    torch.testing.assert_close(*logits(new, hub.load(tmp_path / "old")), atol=1e-4, rtol=0.0)
    (tmp_path / "old" / "model.safetensors").unlink()
    torch.testing.assert_close(*logits(old, hub.load(tmp_path / "old")), atol=1e-4, rtol=0.0)
    hub.save(hub.from_transformers(new), tmp_path / "old")
    names = {place.name for place in (tmp_path / "old").iterdir()} - {"generation_config.json"}
    assert names == {"config.json", "model.safetensors", "notes.txt"}
    torch.testing.assert_close(*logits(new, hub.load(tmp_path / "old")), atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("relative", [Relative(), Relative(8, 6), Relative(16, 100)])
def test_buckets_are_those_of_transformers(causal: bool, relative: Relative) -> None:
    attention = transformers.models.t5.modeling_t5.T5Attention
    distance = torch.arange(-700, 700)
    expected = attention._relative_position_bucket(distance, not causal, relative.num_buckets, relative.max_distance)
    assert torch.equal(buckets(distance, relative, causal), expected)


# What is refused


def test_a_model_that_transformers_has_not_is_refused() -> None:
    for change in ({"positions": Sinusoidal()}, {"norm_place": "post"}, {"embedding_scale": 2.0}, {"gated": True}):
        with pytest.raises(ConfigError, match="one of gpt2, llama, qwen2, bert, roberta, t5, bart"):
            hub.to_transformers(Transformer(replace(PRESETS["gpt2"], **change)))


@pytest.mark.parametrize(
    ("model_type", "change", "sentence"),
    [
        ("mamba", {}, "expected a model of gpt2, llama, qwen2, bert, roberta, t5, bart"),
        ("gpt2", {"activation_function": "tanh"}, "expected an activation of gelu"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "without scale_attn_by_inverse_layer_idx=True"),
        ("gpt2", {"scale_attn_weights": False}, "without scale_attn_weights=False"),
        ("gpt2", {"n_head": 5}, "num_attention_heads=5"),
        ("gpt2", {"n_head": None}, "config of .* is that of no gpt2"),
        ("gpt2", {"n_embd": 48}, "does not fit its config"),
        ("gpt2", {"n_layer": 3}, "expected a weight transformer.h.2"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type 'default', got 'yarn'"),
        ("llama", {"rope_scaling": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ("bert", {"position_embedding_type": "relative_key"}, "absolute positions"),
    ],
)
def test_a_directory_that_does_not_fit_is_refused(
    tmp_path: Path, model_type: str, change: dict[str, Any], sentence: str
) -> None:
    preset = PRESETS.get(model_type, PRESETS["gpt2"])
    hub.save(Transformer(preset), tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    data = {**data, "model_type": model_type, "rope_parameters": None, **change}
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=sentence):
        hub.load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    """By what the config says, and by what they are; numbers beside them that nobody reads may be of any type."""
    from safetensors.torch import load_file, save_file

    hub.save(Transformer(PRESETS["llama"]), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "model.layers.0.flags": torch.ones(2, dtype=dtype)}, tmp_path / "model.safetensors")
    assert hub.load(tmp_path).config == PRESETS["llama"]
    for name in ("model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight", "lm_head.weight"):
        save_file({**tensors, name: tensors[name].to(dtype)}, tmp_path / "model.safetensors")
        with pytest.raises(ConfigError, match=rf"expected weights of float32, .* in .*, got {name} of {dtype}"):
            hub.load(tmp_path)
    config = transformers.LlamaConfig(**LLAMA, quantization_config={"quant_method": "compressed-tensors"})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(ConfigError, match=r"expected plain weights in .*, got quantised ones \(compressed-tensors\)"):
        hub.load(tmp_path)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).to(torch.bfloat16)
    assert hub.from_transformers(model).config.num_hidden_layers == 2
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ConfigError, match=r"in LlamaForCausalLM, got quantised ones \(bitsandbytes\)"):
        hub.from_transformers(model)


def test_a_file_is_not_written_over_by_a_directory(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    for place in (tmp_path / "notes", tmp_path / "notes" / "model"):
        with pytest.raises(ConfigError, match=r"expected a directory at .*notes.*, got a file"):
            hub.save(Transformer(PRESETS["gpt2"]), place)
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected config.json and model.safetensors in .*, got no such files"):
        hub.load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="a pickle, which is not read"):
        hub.load(tmp_path)
    hub.save(Transformer(PRESETS["gpt2"]), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"12345678901234567890")
    with pytest.raises(ConfigError, match="damaged or foreign"):
        hub.load(tmp_path)
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="damaged or foreign"):
        hub.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"), [("{", r"expected JSON in .*config\.json"), ("[1, 2]", r"expected an object in .*got a list")]
)
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        policy_of(tmp_path)


def test_what_a_file_lacks_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    hub.save(Transformer(PRESETS["gpt2"]), tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({name: data[name] for name in data if name != "n_layer"}))
    with pytest.raises(ConfigError, match="expected n_layer in the config of"):
        hub.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(data))
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["transformer.wte.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"expected a weight transformer.wte.weight of gpt2"):
        hub.load(tmp_path)


def test_files_outside_of_the_directory_are_not_read(tmp_path: Path) -> None:
    hub.save(Transformer(PRESETS["gpt2"]), tmp_path / "other")
    hub.save(Transformer(PRESETS["gpt2"]), tmp_path / "model")
    index = {"weight_map": {"transformer.wte.weight": "../other/model.safetensors"}}
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="no such files"):
        hub.load(tmp_path / "model")


def test_without_transformers_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files are still read and written."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    model = Transformer(PRESETS["gpt2"])
    with pytest.raises(ImportError, match=r"torchward\[hf\]"):
        hub.to_transformers(model)
    hub.save(model, tmp_path)
    assert hub.load(tmp_path).config == model.config
