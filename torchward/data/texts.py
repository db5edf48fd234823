"""Text to learn from, as tokens: what a task of text hands to an algorithm that imitates, fills gaps or classifies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.protocols import Source, Task
from torchward.data.sequences import Sequences


@dataclass(frozen=True)
class Texts:
    """Sequences to learn from and others to validate on, and the vocabulary that they are written in."""

    train: Sequences
    validation: Sequences
    bytes_of: Tensor
    """``[vocab_size]`` int64: the bytes of text that each token stands for, by which a loss is one per byte."""
    pad_id: int
    vocabulary: Mapping[str, Any]
    """What the tokenizer is made of, as JSON."""
    mask_id: int | None = None
    """The token that stands for what is to be guessed, where the texts are there to be masked."""
    origins: tuple[Sequence[str], Sequence[str]] = ((), ())
    """Where each sequence of the two sides comes from, in words; nothing, where nobody knows."""
    left_out: str = ""
    """In words, which documents say nothing of the kind that is learnt here; empty where all do."""

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.bytes_of)


def check_whole(texts: Texts, max_length: int) -> None:
    """Raises ConfigError for a sequence that no row of ``max_length`` holds as a whole, and says where it stands."""
    for side, origins in zip((texts.train, texts.validation), texts.origins, strict=True):
        longest = int(side.steps.argmax())
        if (size := int(side.steps[longest])) > max_length:
            where = origins[longest] if origins else f"sequence {longest}"
            raise ConfigError(
                f"expected texts of at most {max_length + 1} tokens, a row and one, got {size + 1} in {where}: raise "
                f"max_length to {int(max(texts.train.steps.max(), texts.validation.steps.max()))}, which holds all, or "
                "shorten it"
            )


@runtime_checkable
class GroupTask(Task, Protocol):
    """A task that is learnt from several answers to one prompt."""

    @property
    def max_completion_length(self) -> int:
        """The largest number of tokens of an answer."""
        ...

    def source(self, n_envs: int, seed: int, device: str = "cpu", *, num_generations: int = 1) -> Source:
        """``n_envs`` answers a rollout, ``num_generations`` to each prompt; ``context["group"]`` says to which."""
        ...


@runtime_checkable
class CorpusTask(Task, Protocol):
    """A task with text that can be read from end to end."""

    def corpus(self) -> Texts:
        """Plain text, to pretrain on: all of it is learnt."""
        ...


@runtime_checkable
class TextTask(GroupTask, CorpusTask, Protocol):
    """A task whose words can be learnt by imitation too."""

    def demonstrations(self) -> Texts:
        """Answers behind their prompts, to fine-tune on: the answers are learnt."""
        ...


@dataclass(frozen=True)
class Labelled:
    """Texts with a label each, to learn from and to validate on."""

    train: Sequences
    train_labels: NDArray[np.int64]
    """``[D]``: the place of each text's label among ``labels``."""
    validation: Sequences
    validation_labels: NDArray[np.int64]
    labels: tuple[str, ...]
    pad_id: int
    vocabulary: Mapping[str, Any]
    """What the tokenizer is made of, as JSON."""
    vocab_size: int
    """The number of tokens."""
    cut: int
    """How many of the texts were longer than allowed, of which the beginning is kept."""


@runtime_checkable
class MaskedTask(Task, Protocol):
    """A task with text that can be masked."""

    def masked(self) -> Texts:
        """Plain text in which a token stands for what is masked; every token of it is seen."""
        ...


@runtime_checkable
class LabelledTask(Task, Protocol):
    """A task of texts with labels."""

    def labelled(self, max_length: int, labels: Sequence[str] | None = None) -> Labelled:
        """The texts, each of at most ``max_length`` tokens, and their labels: those given, or all that there are."""
        ...
