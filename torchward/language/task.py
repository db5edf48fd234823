"""A task of text: prompts to learn from and others to be judged on, and what answers to them earn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from torchward.language.bpe import BPE
from torchward.language.documents import Document, Prompt, Split
from torchward.language.tokenizer import Bytes, Characters

TokenizerChoice: TypeAlias = Bytes | Characters | BPE


class Reward(Protocol):
    """What answers earn: one number for each. Columns are what the documents of the prompts hold beside them."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]: ...


@runtime_checkable
class ReadsTokens(Protocol):
    """A reward that can judge tokens as they were sampled, which text need not become again when it is read anew."""

    @property
    def reads_tokens(self) -> bool:
        """Whether it can: its words are the policy's."""
        ...

    def of_tokens(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """What prompts with their answers earn, one number for each."""
        ...


@runtime_checkable
class InParts(Reward, Protocol):
    """A reward that can say what it is made of. A run then logs the mean of each part as ``reward/NAME``."""

    def parts(
        self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]
    ) -> Mapping[str, list[float]]:
        """What each part says of each completion, without its weight."""
        ...

    def total(self, parts: Mapping[str, list[float]]) -> list[float]:
        """What is earned for them."""
        ...


class Reply(NamedTuple):
    """What an environment answers in text, and what the turn before it has earned."""

    text: str | None
    """None: the conversation is over."""
    reward: float = 0.0


class Partner(Protocol):
    """An environment that speaks: a pure function of what was said, so that a conversation is resumed by its words."""

    def __call__(self, said: Sequence[str], columns: Mapping[str, Any]) -> Reply:
        """The answer to the assistant's last words. ``said`` is what the assistant said, turn by turn."""
        ...


@dataclass(frozen=True)
class Problems:
    """What a task file makes: its documents, and how answers are judged.

    A document that is learnt from by reward holds a Prompt, or a Completion or a Dialogue, of which all that stands
    before the assistant's first words is the prompt; what the assistant says there is for supervised fine-tuning."""

    name: str
    train: Sequence[Document]
    test: Sequence[Document]
    """Held out: none of its prompts is among those of ``train``."""
    reward: Reward
    metric: Reward | None = None
    """What a policy is judged by; None: the reward."""
    partner: Partner | None = None
    """Who answers, in a task of several turns; the rewards are then the sum of its own and of ``reward``'s."""
    turns: int = 1
    """The largest number of times that the assistant speaks."""
    tokenizer: TokenizerChoice = field(default_factory=Bytes)
    """The tokenizer of a model that is made for this task."""
    max_completion_length: int = 64
    """The largest number of tokens of an answer, or of one turn."""
    bootstrap_cut: bool = False
    """Whether an answer that its length cut is worth what the policy expects behind it. Its reward is paid where it was
    cut, and nothing comes later: a policy that were promised more would learn never to end."""
    shown: Sequence[Document] | None = None
    """What is imitated, where others are learnt from by reward; None: those of ``train`` that hold an answer."""
    corpus: Sequence[Document] | None = None
    """What a model for this task is pretrained on; None: what is imitated."""
    split: Split = field(default_factory=Split)
    """Which of the texts that are imitated validate, where none are held out."""

    @property
    def imitated(self) -> Sequence[Document]:
        """What supervised fine-tuning learns from, prompts without an answer among it."""
        return self.train if self.shown is None else self.shown

    @property
    def demonstrations(self) -> list[Document]:
        """Those of it that hold an answer."""
        return [document for document in self.imitated if not isinstance(document.content, Prompt)]
