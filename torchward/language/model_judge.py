"""A reward model as a reward: what it says of a prompt with its answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torchward.language.chat import encode
from torchward.language.documents import Completion, Document
from torchward.language.hub_template import template_of
from torchward.language.tokenizer import described, readable
from torchward.nets.body import same_words
from torchward.nets.reward_model import RewardModel

ROWS = 64
"""Texts that are read at a time."""


class Judge:
    """A :class:`~torchward.language.task.Reward`: the members' mean, less ``pessimism`` of their standard deviations.

    ``words`` is the vocabulary of the policy that is judged. Where it is the model's own, the tokens that were sampled
    are read as they are, several turns with their roles too, and an answer that its length cut without its end; else a
    prompt and its answer are read as text, in the model's words."""

    def __init__(self, model: RewardModel, pessimism: float = 0.0, words: Mapping[str, Any] | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.pessimism = pessimism
        self.reads_tokens = words is not None and same_words(words, model.vocabulary)
        self.tokenizer = described(model.vocabulary, "the reward model")
        self.template = template_of(self.tokenizer)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """What each answer is worth behind its prompt. Of what is longer than the model reads, the begin is judged, and
        a character that it does not know is not there: a run is not to end by one answer."""
        texts = []
        for prompt, completion in zip(prompts, completions, strict=True):
            words = Completion(readable(prompt, self.tokenizer), readable(completion, self.tokenizer))
            sequence, _ = encode(Document(words, "what the reward model reads"), self.tokenizer, self.template)
            assert sequence is not None
            texts.append(sequence.ids)
        return self.of_tokens(texts)

    @torch.no_grad()
    def of_tokens(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """What each text is worth, whose tokens are the model's."""
        device, limit = self.model.offset.device, self.model.config.max_position_embeddings
        texts = [ids[:limit] for ids in texts]  # of a longer one its beginning
        found = [0.0] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for begin in range(0, len(order), ROWS):
            some = order[begin : begin + ROWS]
            time = max(len(texts[i]) for i in some)
            rows = [[*texts[i], *[0] * (time - len(texts[i]))] for i in some]
            length = torch.tensor([len(texts[i]) for i in some], device=device)
            said = self.model.score(torch.tensor(rows, device=device), length, self.pessimism)
            for i, reward in zip(some, said.tolist(), strict=True):
                found[i] = reward
        return found
