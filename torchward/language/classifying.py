"""What a classifier says of texts, and the probability of a label as a reward."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from torchward.config import ConfigError
from torchward.language.chat import CutEnd, encode
from torchward.language.documents import Document
from torchward.language.tokenizer import described
from torchward.nets.text_classifier import TextClassifier


class Prediction(NamedTuple):
    """What a text is taken for."""

    label: str
    probabilities: Mapping[str, float]
    """Of every label."""


def probabilities(
    classifier: TextClassifier, texts: Sequence[str], batch_size: int = 32, max_length: int | None = None
) -> torch.Tensor:
    """Of each text's labels ``[texts, labels]``, on the CPU. Of a text with more than ``max_length`` tokens, by default
    as many as the model reads, the beginning is judged. Texts of like length are judged together."""
    tokenizer = described(classifier.vocabulary, "the classifier")
    limit = classifier.config.max_position_embeddings
    limit = limit if max_length is None else min(limit, max_length)
    read = list[Sequence[int]]()
    for number, text in enumerate(texts):
        sequence, _ = encode(Document(text, f"text {number}"), tokenizer, max_length=limit, truncation=CutEnd())
        assert sequence is not None  # CutEnd leaves none out
        read.append(sequence.ids)
    found = torch.empty(len(read), len(classifier.labels))
    order = sorted(range(len(read)), key=lambda i: len(read[i]))
    device = classifier.body.token.weight.device
    for begin in range(0, len(order), batch_size):
        which = order[begin : begin + batch_size]
        rows = [torch.tensor(read[i]) for i in which]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        found[which] = classifier.probabilities(ids.to(device), mask.to(device)).cpu()
    return found


def predict(classifier: TextClassifier, texts: Sequence[str], batch_size: int = 32) -> list[Prediction]:
    """The likeliest label of each text, with the probabilities of all."""
    rows = probabilities(classifier, texts, batch_size).tolist()
    each = [dict(zip(classifier.labels, row, strict=True)) for row in rows]
    return [Prediction(max(found, key=found.__getitem__), found) for found in each]


@dataclass(frozen=True)
class LabelReward:
    """What a classifier thinks of an answer, as a reward: the probability that it has ``label``.

    A classifier knows what it was trained on alone, and a policy finds what it was not: watch what is written, not the
    reward alone, and hold the policy near to its reference (``beta``, ``kl_coef``). Its tokenizer has to read whatever
    is written: one of bytes or of byte pairs does, one of characters if it has ``replace_unknown``."""

    classifier: TextClassifier
    label: str
    judges: Literal["completion", "both"] = "completion"
    """The answer alone, or the prompt with the answer behind it."""

    def __post_init__(self) -> None:
        if self.label not in self.classifier.labels:
            known = ", ".join(self.classifier.labels)
            raise ConfigError(f"expected a label of {known}, which the classifier knows, got {self.label!r}")

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """The probability of the label for each answer."""
        asked = prompts if self.judges == "both" else [""] * len(prompts)
        texts = [prompt + completion for prompt, completion in zip(asked, completions, strict=True)]
        place = self.classifier.labels.index(self.label)
        found: list[float] = probabilities(self.classifier, texts)[:, place].tolist()
        return found
