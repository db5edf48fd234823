"""Which of Python's topics a passage is from: text with labels, to classify, that every Python carries."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torchward.config import ConfigError
from torchward.language.bpe import BPE
from torchward.language.corpus import PythonTopics
from torchward.language.documents import Document, Split, hash64
from torchward.language.rewards import exact_match
from torchward.language.shingles import distinct
from torchward.language.task import Problems, TokenizerChoice


@dataclass(frozen=True)
class Options:
    """How the text is cut, and how much of it is labelled."""

    topics: int = 8
    """How many topics there are to tell apart: the longest ones."""
    size: int = 200
    """Characters of a passage, but for the rest of its last line."""
    labelled: int = 400
    """Passages whose label is learnt; all others, but for those held out, are there to be pretrained on alone."""
    validation: float = 0.2
    """The part of the passages that is held out, from pretraining too."""
    tokenizer: TokenizerChoice = field(default_factory=BPE)
    """The tokenizer of a model that is made for it."""

    def __post_init__(self) -> None:
        if self.topics < 2 or self.size < 1 or self.labelled < 1:
            raise ConfigError(
                f"expected topics of at least 2, size and labelled of at least 1, got {self.topics}, {self.size} and "
                f"{self.labelled}"
            )


def make(options: Options) -> Problems:
    """Passages of the longest topics, each labelled by the topic that it is from; a passage's own words are all that
    tells. Those that are held out are nowhere in what is pretrained on, which is the rest of Python's topics too.

    Raises ConfigError for more topics than there are."""
    texts = distinct(list(PythonTopics().documents()))
    longest = sorted(texts, key=lambda each: (-len(each.text), each.origin))[: options.topics]
    if len(longest) < options.topics:
        raise ConfigError(f"expected topics of at most {len(longest)}, as many as there are, got {options.topics}")
    chosen = {each.origin for each in longest}
    split = Split(options.validation, salt="passages")
    train, test = split(distinct([passage for each in longest for passage in passages(each, options.size)]))
    train.sort(key=lambda each: hash64(each.text))
    return Problems(
        name="python_passages",
        train=train[: options.labelled],
        test=test,
        reward=exact_match,
        tokenizer=options.tokenizer,
        corpus=[each for each in texts if each.origin not in chosen] + train,
        split=split,
    )


def passages(document: Document, size: int) -> Iterator[Document]:
    """The document in pieces that end with a line, each with its topic as ``label``."""
    topic = document.origin.rpartition(" ")[2]
    lines: list[str] = []
    for line in [*document.text.splitlines(keepends=True), ""]:
        lines.append(line)
        if (text := "".join(lines)).strip() and (len(text) >= size or not line):
            yield Document(text, f"{document.origin}: {text.strip()[:20]}", {"label": topic})
            lines = []
