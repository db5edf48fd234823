"""Nine tiny models of transformers, with random weights, in directories of their own: each is loaded, held against
transformers, trained for three steps by a reward, saved and loaded by transformers again. Nothing is downloaded.

    python docs/examples/families.py
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import torchward
from torchward.language import hub, pretrained
from torchward.language.documents import Document, Prompt
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.nets.encoder_decoder import EncoderDecoder

SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
WORDS = {"vocab_size": 272, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT = {**WORDS, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
LLAMA = {
    **WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip
BART = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GPT-2": ("AutoModelForCausalLM", "gpt2", GPT),
    "GPT-Neo": (
        "AutoModelForCausalLM",
        "gpt_neo",
        {**WORDS, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
    ),
    "GPT-J": ("AutoModelForCausalLM", "gptj", {**GPT, "rotary_dim": 8}),
    "Llama": ("AutoModelForCausalLM", "llama", LLAMA),
    "Qwen2": ("AutoModelForCausalLM", "qwen2", {**LLAMA, "num_key_value_heads": 1}),
    "T5": (
        "AutoModelForSeq2SeqLM",
        "t5",
        {**WORDS, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    ),
    "BART": (
        "AutoModelForSeq2SeqLM",
        "bart",
        {**WORDS, **BART, "d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 2},
    ),
    "BERT": ("AutoModelForMaskedLM", "bert", LLAMA),
    "RoBERTa": ("AutoModelForMaskedLM", "roberta", {**LLAMA, "pad_token_id": 1, "type_vocab_size": 1}),
}


def build(name: str, directory: Path) -> Any:
    """A model with random weights, and a tokenizer of bytes, as transformers writes them into a directory."""
    loader, model_type, sizes = FAMILIES[name]
    torch.manual_seed(0)
    model = getattr(transformers, loader).from_config(transformers.AutoConfig.for_model(model_type, **sizes)).eval()
    model.save_pretrained(directory)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: token for token, word in enumerate([*SPECIAL.values(), *alphabet])}
    backend = Tokenizer(models.BPE(vocab=words, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL).save_pretrained(directory)
    return model


def shout(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    """The share of capital letters, nearly: a reward for the sake of having one."""
    return [sum(map(str.isupper, text)) / 8 + len(text) / 100 for text in completions]


@torch.no_grad()
def distance(model: Any, body: Any) -> float:
    """How far apart the logits of both are, at most, behind a prompt and four tokens more."""
    prompt, answer = [70, 71, 72], [80, 81, 82, 83]
    if isinstance(body, EncoderDecoder):
        start = body.config.start_id
        source, target = torch.tensor([[*prompt, body.config.end_id]]), torch.tensor([[start, *answer]])
        theirs = model(input_ids=source, decoder_input_ids=target).logits
        ours = body.logits(body.forward(torch.tensor([[*prompt, start, *answer]])))[:, len(prompt) :]
    else:
        tokens = torch.tensor([prompt + answer])
        theirs, ours = model(input_ids=tokens).logits, body.logits(body.forward(tokens))
    return float((theirs - ours).abs().max())


def check(name: str, place: Path) -> tuple[str, str, str, str]:
    """What it becomes, and whether it says what transformers says, before and after it has learnt."""
    loader, kind = getattr(transformers, FAMILIES[name][0]), FAMILIES[name][1]
    model = build(name, place / "model")
    if loader is transformers.AutoModelForMaskedLM:
        body: Any = pretrained.load_encoder(place / "model").body
        hub.save(body, place / "back", model_type=kind)
        learnt = "-"
    else:
        questions = [Document(Prompt(f"Say {word}: "), word) for word in ("yes", "no", "more")]
        task = Text(Problems("shouting", questions, questions, shout, max_completion_length=8))
        run = torchward.train(
            "grpo", task, path=place / "run", init=place / "model", total_timesteps=160, generation_batch_size=8,
            num_generations=4, learning_rate=1e-3, progress=False, tensorboard=False,
        )  # fmt: skip
        policy: Any = torchward.load(run.path, which="last")
        pretrained.save(policy, place / "back")
        learnt = "yes" if distance(model, policy.body) > 1e-3 else "no"
        body = pretrained.load(place / "model").policy.body
    first = distance(model, body)
    after = policy.body if learnt != "-" else body
    last = distance(loader.from_pretrained(place / "back").eval(), after)
    said = ["yes" if each < 1e-4 else "no" for each in (first, last)]
    return type(body).__name__, said[0], learnt, said[1]


def main() -> None:
    """Print a line for each family."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(f"{'family':<8} {'becomes a':<15} {'as transformers':<16} {'has learnt':<11} back in transformers")
    for name in FAMILIES:
        with tempfile.TemporaryDirectory() as place:
            becomes, same, learnt, back = check(name, Path(place))
        print(f"{name:<8} {becomes:<15} {same:<16} {learnt:<11} {back}")


if __name__ == "__main__":
    main()
