"""Ten families of models, tiny and with random weights: what transformers says of them they say here, before and after
they have learnt, and nothing is downloaded."""

import io
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import torchward
from tests.algorithms import tiny_text
from tests.algorithms.training import start
from torchward import launch_policies
from torchward.algorithms import grpo, ppo, reward_model, sft
from torchward.cli import main
from torchward.config import ConfigError
from torchward.data.kl import frozen
from torchward.functional.preference_losses import bradley_terry
from torchward.language import hub, pretrained
from torchward.language.chat import encode
from torchward.language.documents import Completion, Document, Message, TextError
from torchward.language.generate import generate
from torchward.language.hub_template import SourceTemplate
from torchward.language.model_judge import Judge
from torchward.language.play import spoken
from torchward.language.text_task import Text
from torchward.language.tokenizer import described
from torchward.nets.encoder_decoder import EncoderDecoder
from torchward.nets.hub_model import HubModel
from torchward.nets.language_model import NONE, LanguageModel
from torchward.nets.lora import LoRA, adapt, is_adapted, merged, without_adapters
from torchward.nets.reward_model import RewardModel
from torchward.nets.text_classifier import TextClassifier

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[hf]'")
from tests.language.test_hub_tokenizer import byte_level, pieces, saved  # noqa: E402 - after the line that skips

WORDS, LENGTH = 320, 40
"""More rows than the tokenizers have tokens: what is added to them finds room."""
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT = {"vocab_size": WORDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": LENGTH, **ENDS}
LLAMA = {
    "vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": LENGTH, **ENDS,
}  # fmt: skip
BART = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
BART |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "d_model": 16, "max_position_embeddings": LENGTH}
CONFIGS: dict[str, Any] = {
    "gpt2": transformers.GPT2Config(**GPT),
    "gpt_neo": transformers.GPTNeoConfig(
        vocab_size=WORDS, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24, window_size=4,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=LENGTH, **ENDS,
    ),
    "gptj": transformers.GPTJConfig(**GPT, rotary_dim=4),
    "gpt_neox": transformers.GPTNeoXConfig(**LLAMA),
    "llama": transformers.LlamaConfig(**LLAMA),
    "qwen2": transformers.Qwen2Config(**LLAMA, num_key_value_heads=1),
    "t5": transformers.T5Config(
        vocab_size=WORDS, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=2, n_positions=LENGTH,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=2,
    ),
    "bart": transformers.BartConfig(
        vocab_size=WORDS, **BART, **ENDS, decoder_start_token_id=2, forced_eos_token_id=None, dropout=0.1
    ),
    "bert": transformers.BertConfig(**LLAMA),
    "roberta": transformers.RobertaConfig(**{**LLAMA, "pad_token_id": 1, "bos_token_id": 0}, type_vocab_size=1),
}  # fmt: skip
BOTH, ENCODERS, WRAPPED = ("t5", "bart"), ("bert", "roberta"), ("gpt_neo", "gptj", "gpt_neox")
WRITERS = [name for name in CONFIGS if name not in ENCODERS]
CLASSES = dict.fromkeys(BOTH, "AutoModelForSeq2SeqLM") | dict.fromkeys(ENCODERS, "AutoModelForMaskedLM")


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """Whoever opens a socket here has reached for a network."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", refused)
        patch.setattr(socket, "create_connection", refused)
        yield


def refused(*_: Any, **__: Any) -> Any:
    raise AssertionError("a socket was opened, and nobody had named a remote model")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory of transformers for each family, with its tokenizer, in which every weight matters."""
    made = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        model = auto(name).from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.15)
        made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(made[name])
        special = SPECIAL if name != "roberta" else {**SPECIAL, "pad_token": "<s>", "bos_token": "<pad>"}
        masks = {"mask_token": "<mask>"} if name in ENCODERS else {}
        saved(made[name], byte_level([*SPECIAL.values(), *masks.values()]), None, **special, **masks)
    return made


def auto(name: str) -> Any:
    return getattr(transformers, CLASSES.get(name, "AutoModelForCausalLM"))


def theirs(name: str, place: Path) -> Any:
    return auto(name).from_pretrained(place).eval()


def row(policy: LanguageModel) -> tuple[list[int], list[int]]:
    """What is prompted, and what is said behind it."""
    start = [policy.body.config.start_id] if isinstance(policy.body, EncoderDecoder) else []
    return [5, 17, 200, 44, *start], [31, 9, 250, 12, 77]


@torch.no_grad()
def expected(model: Any, prompt: list[int], said: list[int]) -> Tensor:
    """The log-probabilities ``[len(said), vocab]`` by transformers' own forward pass."""
    if model.config.is_encoder_decoder:
        given = {
            "input_ids": torch.tensor([[*prompt[:-1], 2]]),
            "decoder_input_ids": torch.tensor([[prompt[-1], *said]]),
        }
        logits: Tensor = model(**given).logits[0, :-1]
    else:
        logits = model(input_ids=torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)


@torch.no_grad()
def found(policy: LanguageModel, prompt: list[int], said: list[int]) -> Tensor:
    hidden = policy.body.forward(torch.tensor([[*prompt, *said]]))[0, len(prompt) - 1 : -1]
    return policy.body.logits(hidden).log_softmax(-1)


def task_of(policy: LanguageModel) -> Text:
    """Pairs of letters, and a reward that differs between any two answers."""
    return Text(replace(tiny_text.task().problems, reward=varied)).using(policy)


def varied(prompts: Sequence[str], completions: Sequence[str], **_: Sequence[Any]) -> list[float]:
    return [sum(text.encode()) % 97 / 97 for text in completions]


def close(one: Tensor, other: Tensor, off: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, atol=off, rtol=0.0)


@pytest.mark.parametrize("name", WRITERS)
def test_what_it_says_of_a_text_is_what_transformers_says(name: str, places: dict[str, Path]) -> None:
    policy = pretrained.load(places[name]).policy
    assert isinstance(policy.body, HubModel) == (name in WRAPPED)
    assert isinstance(policy.body, EncoderDecoder) == (name in BOTH)
    prompt, said = row(policy)
    whole = expected(theirs(name, places[name]), prompt, said)
    assert whole.std() > 0.1
    close(found(policy, prompt, said), whole)
    tokens = torch.tensor([[*prompt, *said]])
    action = torch.tensor([[*[NONE] * (len(prompt) - 1), *said]])
    scores = policy.evaluate_actions(tokens[:, :-1], action, (), torch.zeros_like(action, dtype=torch.bool))
    close(scores.log_prob[0, len(prompt) - 1 :], whole.gather(1, torch.tensor(said)[:, None])[:, 0])


@pytest.mark.parametrize("name", WRITERS)
def test_it_writes_what_transformers_writes(name: str, places: dict[str, Path]) -> None:
    """The likeliest tokens, of ragged prompts in two slots."""
    policy, tokenizer, _ = pretrained.load(places[name])
    model = theirs(name, places[name])
    start = row(policy)[0][4:]
    prompts = [[5, 17, 200, 44], [31], [9, 9, 250]]
    done = generate(
        policy, [[*prompt, *start] for prompt in prompts], eos_id=tokenizer.eos_id, max_new_tokens=7, slots=2
    )
    for i, prompt in enumerate(prompts):
        given = torch.tensor([[*prompt, 2]] if start else [prompt])
        said = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=7, do_sample=False)
        said = said[0, 1:] if start else said[0, len(prompt) :]
        assert done.tokens[i, : done.lengths[i]].tolist() == said.tolist()


@pytest.mark.parametrize("name", WRITERS)
def test_it_learns_by_reward_and_goes_back(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    """What was sampled is what is trained on; a run's policy is loaded as it was left, and transformers reads it."""
    policy = pretrained.load(places[name]).policy
    before = {key: tensor.clone() for key, tensor in policy.state_dict().items()}
    task = task_of(policy)
    rollout = task.source(8, 0, num_generations=4).collect(policy, None)
    with torch.no_grad():
        judged = policy.evaluate_actions(rollout.observation, rollout.action, (), rollout.boundary)
    assert rollout.value is not None and judged.value is not None
    close(judged.log_prob[rollout.loss_mask], rollout.log_prob[rollout.loss_mask], 1e-4)
    close(judged.value[rollout.loss_mask], rollout.value[rollout.loss_mask], 1e-4)
    module, config = grpo, grpo.Config(
        total_timesteps=24, num_generations=4, generation_batch_size=8, learning_rate=1e-2, beta=0.1
    )  # fmt: skip
    module.train(config, task, start(tmp_path / "run", module, config, task), policy)
    assert all(not torch.equal(before[key], tensor) for key, tensor in policy.state_dict().items() if "mlp" in key)
    again = torchward.load(tmp_path / "run", which="last")
    assert isinstance(again, LanguageModel) and again.description() == policy.description()
    prompt, said = row(policy)
    learnt = found(policy, prompt, said)
    close(found(again, prompt, said), learnt)
    assert not torch.allclose(learnt, expected(theirs(name, places[name]), prompt, said), atol=1e-2)
    pretrained.save(again, tmp_path / "back")
    close(expected(theirs(name, tmp_path / "back"), prompt, said), learnt)
    close(found(pretrained.load(tmp_path / "back").policy, prompt, said), learnt)


@pytest.mark.parametrize("name", ["gpt_neo", "bart"])
def test_ppo_trains_it_too(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    policy = pretrained.load(places[name]).policy
    task = task_of(policy)
    config = ppo.Config(
        total_timesteps=48, n_envs=8, n_steps=3, batch_size=12, n_epochs=1, learning_rate=1e-2, gamma=1.0
    )  # fmt: skip
    was = frozen(policy)
    ppo.train(config, task, start(tmp_path / "run", ppo, config, task), policy)
    prompt, said = row(policy)
    assert not torch.allclose(found(policy, prompt, said), found(was, prompt, said), atol=1e-3)
    assert policy.get_parameter(next(n for n, _ in policy.named_parameters() if "value_head" in n)).any()


@pytest.mark.parametrize("name", BOTH)
def test_an_encoder_decoder_reads_rows_however_they_come(name: str, places: dict[str, Path]) -> None:
    """Packed, padded at the left, or token by token; ragged, and with rows that begin later than others."""
    policy = pretrained.load(places[name]).policy
    body, start = policy.body, row(policy)[0][-1]
    texts = [[9, 40, 7, start, 11, 12, 13], [start, 8, 21], [30, 31, 32, 33, 34, start], [50, start, 60, 61]]
    with torch.no_grad():
        alone = [body.forward(torch.tensor([text]))[0] for text in texts]
        assert all(not hidden[: text.index(start)].any() for hidden, text in zip(alone, texts, strict=True))
        padded = torch.tensor([[8] * (7 - len(text)) + text for text in texts])
        mask = torch.arange(7) >= 7 - torch.tensor([len(text) for text in texts])[:, None]
        for hidden, text, expect in zip(body.forward(padded, mask), texts, alone, strict=True):
            close(hidden[7 - len(text) :], expect)
        packed, segments = torch.tensor([[*texts[0], *texts[1], *texts[3], 0]]), torch.zeros(1, 15, dtype=torch.int64)
        segments[0, 7:10], segments[0, 10:14], segments[0, 14] = 1, 2, -1
        close(body.forward(packed, segments)[0, :14], torch.cat([alone[0], alone[1], alone[3]]))
        hidden, cache = body.extend(padded[:, :5], body.cache(4, 10), mask[:, :5])
        steps = [*hidden.unbind(1)]
        for time in (5, 6):
            one, cache = body.step(padded[:, time], cache)
            steps.append(one)
        for i, expect in enumerate(alone):
            close(torch.stack(steps, 1)[i][mask[i]], expect)
        with pytest.raises(ValueError, match="expected the start token"):
            body.forward(torch.tensor([[5, 6, 7]]))


@pytest.mark.parametrize("name", BOTH)
def test_an_encoder_decoder_learns_from_demonstrations(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    """And its loss is that of transformers on the same prompt and answer."""
    policy, tokenizer, template = pretrained.load(places[name])
    assert isinstance(template, SourceTemplate)
    ids = template.prompt("ab=", tokenizer)
    assert ids == [*tokenizer.encode("ab="), *row(policy)[0][4:]]
    assert template.prompt((Message("user", "ab"), Message("user", "=")), tokenizer) == template.prompt(
        "ab\n=", tokenizer
    )
    with pytest.raises(TextError, match="got messages"):
        template.turns((Message("user", "a"), Message("assistant", "b")), tokenizer)
    sequence, _ = encode(Document(Completion("ab=", "ba"), "one"), tokenizer, template)
    assert sequence is not None
    answer = [*tokenizer.encode("ba"), tokenizer.eos_id]
    assert [id_ for id_, own in zip(sequence.ids, sequence.own, strict=True) if own] == answer
    labels = torch.tensor([answer])
    given = torch.tensor([[*ids[:-1], 2]])
    with torch.no_grad():
        loss = theirs(name, places[name])(input_ids=given, labels=labels).loss
    action = torch.tensor([[*[NONE] * (len(ids) - 1), *answer]])
    close(-policy.log_probs(torch.tensor([sequence.ids[:-1]]), action).sum() / len(answer), loss)
    task, config = task_of(policy), sft.Config(
        total_timesteps=512, max_length=16, per_device_train_batch_size=4, learning_rate=1e-2
    )  # fmt: skip
    run = start(tmp_path / "run", sft, config, task)
    sft.train(config, task, run, policy)
    losses = [line["loss"] for line in run.rows() if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]


def test_texts_of_an_encoder_decoder_begin_as_its_own_tokenizer_begins_them(tmp_path: Path) -> None:
    """With a space that they do not say; and behind BART's first token comes the one that it is made to write."""
    theirs_ = saved(tmp_path, pieces(), **{name: word for name, word in SPECIAL.items() if name != "pad_token"})
    config = transformers.BartConfig(vocab_size=400, **BART, **ENDS, decoder_start_token_id=2, forced_eos_token_id=None)
    torch.manual_seed(0)
    model = transformers.BartForConditionalGeneration(config)
    model.generation_config.forced_bos_token_id = 1
    model.save_pretrained(tmp_path)
    policy, tokenizer, template = pretrained.load(tmp_path)
    for text in ("one two", " one", "the world\nfour", ""):
        assert tokenizer.encode(text) == theirs_(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(tokenizer.encode(text)) == text == spoken(tokenizer, tokenizer.encode(text))
    assert template.prompt("one two", tokenizer)[-2:] == [2, 1]
    pretrained.save(policy, tmp_path / "back")
    again = pretrained.load(tmp_path / "back")
    assert again.tokenizer.decoder_start == [2, 1] and again.tokenizer.encode("one") == tokenizer.encode("one")
    assert theirs("bart", tmp_path / "back").generation_config.forced_bos_token_id == 1


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_read_with_its_tokenizer(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    body, tokenizer = pretrained.load_encoder(places[name])
    assert body.config.kind == "encoder" and tokenizer.kind == "encoder"
    tokens = torch.tensor([[5, 17, 200, 44, 9], [31, 8, 77, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])

    @torch.no_grad()
    def said(model: Any) -> Tensor:
        positions = (mask.cumsum(1) - 1).clamp_min(0) + (2 if name == "roberta" else 0)
        read = model(input_ids=tokens, attention_mask=mask, position_ids=positions, output_hidden_states=True)
        return torch.cat([read.hidden_states[-1], read.logits], -1) * mask[..., None]

    with torch.no_grad():
        hidden = body.forward(tokens, mask.bool())
        found = torch.cat([hidden, body.logits(hidden)], -1) * mask[..., None]
    close(found, said(theirs(name, places[name])))
    hub.save(body, tmp_path, model_type=name)
    close(said(theirs(name, tmp_path)), found)
    with pytest.raises(ConfigError, match="load_encoder reads it"):
        pretrained.load(places[name])
    with pytest.raises(ConfigError, match="expected an encoder in"):
        pretrained.load_encoder(places["gpt2"])


@pytest.mark.parametrize("name", ["bert", "roberta", "llama", "gpt_neo", "t5"])
def test_a_reward_model_stands_on_it(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    """A step of Bradley and Terry's loss makes it prefer what was preferred; it is saved with its body, and read."""
    if name in ENCODERS:
        body, tokenizer = pretrained.load_encoder(places[name])
    else:
        policy, tokenizer, _ = pretrained.load(places[name])
        body = policy.body  # type: ignore[assignment]
    torch.manual_seed(0)
    model = RewardModel.of(body, tokenizer.description())
    start: list[int] = [body.config.start_id] if isinstance(body, EncoderDecoder) else []
    asked = [5, 17, 200, *start]
    tokens = torch.tensor([[*asked, 44, 9, 31], [*asked, 60, 12, 0], [*asked, 61, 2, 0], [*asked, 70, 71, 72]])
    length = torch.tensor([6, 5, 5, 6]) + len(start)
    optimizer, losses = torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(8):
        chosen, rejected = model.raw(tokens, length, 0).chunk(2)
        losses.append(bradley_terry(chosen, rejected, torch.zeros(2)).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        said = model(tokens, length)
        close(model(tokens[1:2, :-1], length[1:2]), said[:, 1:2])  # what pads it is nothing to it
        model.save(tmp_path)
        again = torchward.load(tmp_path)
        assert isinstance(again, RewardModel) and torch.equal(again(tokens, length), said)


def test_word_pieces_are_read_between_a_beginning_and_an_end(tmp_path: Path) -> None:
    """As BERT's own tokenizer does it: without case, and with a token for what it does not know."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "play", "##ing", "##s", "!"]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer, backend.decoder = normalizers.BertNormalizer(), decoders.WordPiece()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    saved(tmp_path, backend, **special)
    torch.manual_seed(0)
    transformers.BertForMaskedLM(transformers.BertConfig(**{**LLAMA, "vocab_size": 10})).save_pretrained(tmp_path)
    body, tokenizer = pretrained.load_encoder(tmp_path)
    assert tokenizer.encode_source("The playing plays!") == [2, 5, 6, 7, 6, 8, 9, 3]
    assert tokenizer.encode_source("unheard [SEP]")[1:] == [1, 1, 1, 1, 3], "a text is no special token"
    assert tokenizer.decode([5, 6, 7, 9]) == " the playing !"
    assert (tokenizer.start_id, tokenizer.eos_id, tokenizer.pad_id, body.config.vocab_size) == (2, 3, 0, 10)
    assert described(tokenizer.description()).vocab_size == 10


# Adapters


def logits(policy: LanguageModel) -> Tensor:
    with torch.no_grad():
        return policy.body.logits(policy.body.forward(torch.tensor([[5, 17, 200, 44, 31]])))


def moved(policy: LanguageModel) -> LanguageModel:
    with torch.no_grad():
        for key, parameter in policy.named_parameters():
            if "lora_B" in key:
                parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(len(key)))
    return policy


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("name", WRAPPED)
def test_adapters_of_a_model_that_transformers_computes(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    """At first the base; merged as unmerged; without them the base; and back from a directory, here and with peft."""
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install -e '.[hf]'")
    base = logits(pretrained.load(places[name]).policy)
    policy = adapt(pretrained.load(places[name]).policy, LoRA(r=2, lora_alpha=4.0))
    assert is_adapted(policy) and torch.equal(logits(policy), base)
    learning = {key for key, parameter in policy.named_parameters() if parameter.requires_grad}
    assert all("lora_" in key or "value_head" in key for key in learning)
    kinds = 4 if name == "gpt_neox" else 6
    assert sum("lora_A" in key for key in learning) == 2 * kinds
    after = logits(moved(policy))
    assert not torch.allclose(after, base, atol=1e-2)
    with without_adapters(policy):
        assert torch.equal(logits(policy), base)
    assert torch.equal(logits(policy), after)
    assert {key for key, parameter in policy.named_parameters() if parameter.requires_grad} == learning
    plain = merged(policy)
    assert not is_adapted(plain) and is_adapted(policy) and torch.equal(logits(policy), after)
    assert plain.state_dict().keys() == pretrained.load(places[name]).policy.state_dict().keys()
    close(logits(plain), after)
    policy.save(tmp_path)
    again = torchward.load(tmp_path)
    assert isinstance(again, LanguageModel) and again.description() == policy.description()
    assert torch.equal(logits(again), after)
    assert {key for key, parameter in again.named_parameters() if parameter.requires_grad} == learning
    known = peft.PeftModel.from_pretrained(theirs(name, tmp_path / "model"), tmp_path / "adapter")
    with torch.no_grad():
        close(known(input_ids=torch.tensor([[5, 17, 200, 44, 31]])).logits, after)
    with pytest.raises(ConfigError, match="merge them"):
        adapt(policy, LoRA())


def test_adapters_are_of_the_products_that_are_named(places: dict[str, Path]) -> None:
    policy = adapt(pretrained.load(places["gptj"]).policy, LoRA(target_modules=("query_key_value", "down")))
    names = {key.split(".lora_A")[0].rpartition(".")[2] for key, _ in policy.named_parameters() if "lora_A" in key}
    assert names == {"q_proj", "k_proj", "v_proj", "fc_out"}


def test_a_run_tunes_adapters_alone_and_goes_on(places: dict[str, Path], tmp_path: Path) -> None:
    """With the base as its reference; a run that was stopped half way ends as one that was not."""
    pytest.importorskip("peft", reason="peft is not installed: pip install -e '.[hf]'")
    config = grpo.Config(
        total_timesteps=72, num_generations=4, generation_batch_size=8, learning_rate=3e-2, beta=0.1,
        lora=LoRA(r=2, lora_dropout=0.1),
    )  # fmt: skip

    def learn(path: Path, stop: int | None, resume: bool) -> LanguageModel:
        policy = pretrained.load(places["gpt_neo"]).policy
        task = task_of(policy)
        run = start(path, grpo, config, task, resume, checkpoint_freq=24)
        run.total = config.total_timesteps if stop is None else stop
        made = grpo.train(config, task, run, policy)
        assert isinstance(made, LanguageModel)
        return made

    whole = learn(tmp_path / "whole", None, False)
    learn(tmp_path / "halves", 24, False)
    again = learn(tmp_path / "halves", None, True)
    base = pretrained.load(places["gpt_neo"]).policy
    assert not torch.allclose(logits(whole), logits(base), atol=1e-2)
    assert all(torch.equal(one, again.state_dict()[key]) for key, one in whole.state_dict().items())
    with without_adapters(whole):
        assert torch.equal(logits(whole), logits(base))
    kept = torchward.load(tmp_path / "whole", which="last")
    assert isinstance(kept, LanguageModel) and torch.equal(logits(kept), logits(whole))


def test_without_peft_one_sentence_names_the_extra(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"expected peft, .* pip install 'torchward\[hf\]'"):
        adapt(pretrained.load(places["gptj"]).policy, LoRA())


# What is downloaded


def test_a_model_is_downloaded_where_its_name_says_so(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where it does not, a directory that is missing is missing."""
    import huggingface_hub

    asked: list[Any] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options["allow_patterns"]))
        return str(places["gpt_neo"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert torch.equal(
        logits(pretrained.load("hub:someone/model").policy), logits(pretrained.load(places["gpt_neo"]).policy)
    )
    assert [name for name, _ in asked] == ["someone/model"] and not any("bin" in each for each in asked[0][1])
    for place in ("someone/model", tmp_path / "none"):
        with pytest.raises((ConfigError, TextError), match="expected"):
            pretrained.load(place)
    assert len(asked) == 1


def test_a_download_that_fails_is_told_in_a_sentence() -> None:
    """The guard of this file refuses the socket."""
    with pytest.raises(ConfigError, match=r"hub:someone/model cannot be downloaded .* a local directory needs none"):
        pretrained.load("hub:someone/model")


# From the command line


@pytest.mark.parametrize("name", ["gpt_neo", "t5"])
def test_a_run_begins_from_a_directory_and_is_used(
    name: str,
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("1+2=\n\n"))
    settings = {"total-timesteps": 40, "generation-batch-size": 8, "num-generations": 4, "learning-rate": 0.01}
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    begun = ["train", "grpo", "addition", "--init", str(places[name]), "--name", "one", "--no-progress", *words]
    assert main([*begun, "--no-tensorboard"]) == 0
    assert main(["resume", "runs/one"]) == 0
    assert main(["evaluate", "runs/one", "--episodes", "2"]) == 0
    assert main(["chat", "runs/one", "--max-new-tokens", "3"]) == 0
    assert main(["export", "runs/one", "--out", "out"]) == 0
    kind = "EncoderDecoder" if name == "t5" else "HubModel"
    assert f"out: a {kind} as transformers loads it, without its value head" in capsys.readouterr().out
    policy = torchward.load("runs/one")
    assert isinstance(policy, LanguageModel)
    prompt, said = row(policy)
    close(expected(theirs(name, Path("out")), prompt, said), found(policy, prompt, said))


# What judges


@pytest.mark.parametrize("name", CONFIGS)
def test_it_learns_to_judge_and_is_read_again(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    """A step of a reward model on pairs in the model's own words; what is saved says what was trained."""
    begun: Any = launch_policies.policy_of(places[name])
    on = tiny_text.preferred().using(begun)
    config = reward_model.Config(total_timesteps=54, per_device_train_batch_size=27, learning_rate=1e-2, num_members=2)
    net = reward_model.train(config, on, start(tmp_path / "run", reward_model, config, on), begun)
    before = RewardModel.of(begun.body, begun.vocabulary)
    assert any(
        not torch.equal(one, other)
        for one, other in zip(net.bodies[0].parameters(), before.bodies[0].parameters(), strict=True)
    )
    again: Any = torchward.load(tmp_path / "run")
    ids = [list(on.preferences().train.chosen[i].ids) for i in range(5)]
    expected = Judge(net, 0.5).of_tokens(ids)
    assert Judge(again, 0.5).of_tokens(ids) == pytest.approx(expected, abs=1e-6) and len(set(expected)) == 5
    assert on.evaluate(again, 5, 0).returns == on.evaluate(net, 5, 0).returns


@pytest.mark.parametrize("name", sorted(WRAPPED))
def test_a_classifier_on_it_is_read_again(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    begun: Any = launch_policies.policy_of(places[name])
    made = TextClassifier(begun.body, begun.vocabulary, ("a", "b", "c"), "last")
    with torch.no_grad():
        made.score.weight.normal_()
    made.save(tmp_path / "policy")
    again: Any = torchward.load(tmp_path / "policy")
    tokens = torch.arange(1, 9).view(2, 4)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    torch.testing.assert_close(again.probabilities(tokens, mask), made.probabilities(tokens, mask))
