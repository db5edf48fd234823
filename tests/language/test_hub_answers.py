"""Answers by other people's templates: what ends them, and what of them was said."""

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from torchward.cli import chat
from torchward.language import hub_tokenizer, pretrained
from torchward.language.checks_of_learning import ends
from torchward.language.documents import Document, Message, Prompt, TextError, Words
from torchward.language.generate import stream
from torchward.language.hub_template import OwnTemplate
from torchward.language.hub_tokenizer import HubTokenizer
from torchward.language.play import Line, play, spoken
from torchward.language.rewards import exact_match
from torchward.language.source import rollout
from torchward.language.task import Problems
from torchward.nets.language_model import Chosen, LanguageModel
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import gpt2
from torchward.serve import talk

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[hf]'")
from tests.language.test_hub_tokenizer import CHATML, INST, byte_level, pieces, saved  # noqa: E402 - after the line that skips


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    yield


LLAMA2 = INST.replace("| trim + eos", "| trim + ' ' + eos")
"""With a space on both sides of an answer, as the models of that name have it."""
QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HARMONY = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m['content'] }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% else %}"
    "{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)


def loaded(directory: Path, name: str) -> HubTokenizer:
    """A tokenizer whose template writes something around an answer."""
    match name:
        case "Llama 2":
            saved(directory, pieces(), LLAMA2, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
        case "Qwen3":
            backend = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
            backend.add_tokens(["<think>", "</think>"])
            saved(directory, backend, QWEN3, eos_token="<|im_end|>")
        case "Harmony":
            special = ["<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|end|>"]
            saved(directory, byte_level(special), HARMONY, eos_token="<|return|>")
    return hub_tokenizer.load(directory)


ASKED = (Message("user", "4 and 6?"),)


class Parrot(LanguageModel):
    """Says the tokens that it was told, and the last one for ever, whatever is asked."""

    says: Iterator[int] = iter(())

    def told(self, ids: Sequence[int]) -> "Parrot":
        self.says = chain(ids, repeat(ids[-1]))
        return self

    def choose(self, hidden: Tensor, noise: Tensor | None) -> Chosen:
        nothing = torch.zeros(1)
        return Chosen(torch.tensor([next(self.says)]), nothing, nothing, None)


def parrot(tokenizer: HubTokenizer) -> Parrot:
    config = replace(gpt2(tokenizer.vocab_size, 16, 1, 2, 100), value_head=True)
    return Parrot(Transformer(config), tokenizer.description())


def answered(policy: Parrot, ours: HubTokenizer, words: Words) -> Line:
    """What it says to ``words``, which is right if it is 46, as a line and to the letter."""
    documents = [Document(Prompt(words), "here", {"answer": "46"})]
    problems = Problems("digits", documents, documents, exact_match)
    (line,) = play(policy, problems, documents, ours, OwnTemplate(), max_completion_length=40)
    return line


def drained(answer: Generator[str, None, bool]) -> tuple[str, bool]:
    """What was streamed, and whether it came to its end."""
    pieces = []
    while True:
        try:
            pieces.append(next(answer))
        except StopIteration as end:
            return "".join(pieces), end.value


# What ends them


def test_a_model_ends_by_its_own_end_of_text_too(tmp_path: Path) -> None:
    """As Qwen's base models, which never saw their chat template: plain prompts, a stream, and what is exported."""
    saved(tmp_path, byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]), CHATML, eos_token="<|endoftext|>")
    ours = hub_tokenizer.load(tmp_path)
    own, other, by_template = ours.read("<|endoftext|><|im_start|><|im_end|>")[0]
    assert ours.eos_id == by_template and set(ours.end_ids) == {own, by_template}
    policy = parrot(ours)
    for end in (own, by_template, other):
        policy.told([*ours.encode("46"), end, *ours.encode("more")])
        line = answered(policy, ours, "4 and 6: ")
        assert line.ended == (end != other) and sum(line.rewards) == line.ended
        found = ends(None, rollout([line], 1, torch.device("cpu"), ours.pad_id), ours.eos_id, ours.pad_id, ours.end_ids)
        assert found.ok
        policy.told([*ours.encode("46"), end, *ours.encode("more")])
        said, ended = drained(stream(policy, ours, ours.encode("4"), max_new_tokens=9))
        assert ended == (end != other) and (said == "46") == ended
    pretrained.save(policy, tmp_path / "again")
    assert set(json.loads((tmp_path / "again" / "config.json").read_text())["eos_token_id"]) == {own, by_template}


def test_the_end_of_an_answer_stands_behind_what_it_says(tmp_path: Path) -> None:
    """And not before it, where a template names the channel of what follows."""
    ours = loaded(tmp_path, "Harmony")
    turn = OwnTemplate().turns((*ASKED, Message("assistant", "46")), ours)[-1]
    own = [id_ for id_, mine in zip(*turn, strict=True) if mine]
    assert ours.end == "<|return|>" and ours.end_ids == (own[-1],)
    assert ours.to_transformers.decode(own) == "<|channel|>final<|message|>46<|return|>"
    again = (Message("assistant", "46"), Message("user", "46"))
    with pytest.raises(TextError, match=r"and <\|return\|> behind the answer"):
        OwnTemplate().turns((*ASKED, *again, Message("assistant", "46")), ours)


# What was said


@pytest.mark.parametrize("name", ["Llama 2", "Qwen3", "Harmony"])
def test_what_a_template_writes_around_an_answer_is_learnt_and_not_said(tmp_path: Path, name: str) -> None:
    """A policy that answers as it was shown is right, and is quoted without it: by who judges, in chats, and served."""
    ours = loaded(tmp_path, name)
    turn = OwnTemplate().turns((*ASKED, Message("assistant", "46")), ours)[-1]
    shown = [id_ for id_, mine in zip(*turn, strict=True) if mine]
    policy = parrot(ours).told(shown)
    line = answered(policy, ours, ASKED)
    assert line.said == ["46"] and sum(line.rewards) == 1.0 and line.ended
    assert line.ids[-len(shown) :] == shown and all(line.own[-len(shown) :])
    plainly = answered(policy.told(shown), ours, "4 and 6: ")
    assert plainly.said == [spoken(ours, shown)] != ["46"], "the template has no part in a plain prompt"
    terminal = chat.Speaker(policy.told(shown), ours, chat.Chat(temperature=0.0), True)
    assert "".join(terminal.answer("4 and 6?")) == terminal.messages[-1].content == "46"
    server = talk.Speaker(policy.told(shown), ours, converses=True, max_new_tokens=40, drawn=False)
    asked = server.asked(talk.Session("one", 0), "4 and 6?")
    assert "".join(piece for _, piece in server.answers(asked, 1, 0, 0) if isinstance(piece, str)) == "46"
