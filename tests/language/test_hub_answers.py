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

from torchward.language import hub_tokenizer, pretrained
from torchward.language.checks_of_learning import ends
from torchward.language.documents import Document, Prompt, Words
from torchward.language.generate import stream
from torchward.language.hub_template import OwnTemplate
from torchward.language.hub_tokenizer import HubTokenizer
from torchward.language.play import Line, play
from torchward.language.rewards import exact_match
from torchward.language.source import rollout
from torchward.language.task import Problems
from torchward.nets.language_model import Chosen, LanguageModel
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import gpt2

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[hf]'")
from tests.language.test_hub_tokenizer import CHATML, byte_level, saved  # noqa: E402 - after the line that skips


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    yield


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
