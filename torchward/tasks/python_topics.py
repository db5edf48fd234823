"""English that every Python carries: what its `help()` says of the language, to pretrain on."""

from dataclasses import dataclass, field

from torchward.language.bpe import BPE
from torchward.language.corpus import PythonTopics
from torchward.language.documents import Split
from torchward.language.rewards import exact_match
from torchward.language.shingles import distinct
from torchward.language.task import Problems, TokenizerChoice


@dataclass(frozen=True)
class Options:
    """How the text is cut into tokens, and how much of it validates."""

    tokenizer: TokenizerChoice = field(default_factory=BPE)
    """The tokenizer of a model that is made for it."""
    validation: float = 0.2
    """The part of the texts that validates."""


def make(options: Options) -> Problems:
    """Some 57 texts, three eighths of a megabyte. Nothing is asked in them: they are there to be imitated.

    One in four of Python's texts is half or more a part of a longer one (`if` of `compound`). Those are left out: else
    most of what validates would stand in what is learnt."""
    return Problems(
        name="python_topics",
        train=distinct(list(PythonTopics().documents())),
        test=[],
        reward=exact_match,
        tokenizer=options.tokenizer,
        split=Split(options.validation),
    )
