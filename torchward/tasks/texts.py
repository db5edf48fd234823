"""Text of the user's own: a file, a folder, JSON lines or feedback, to pretrain, fine-tune or be rewarded on."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from torchward.config import ConfigError
from torchward.language.bpe import BPE
from torchward.language.corpus import FeedbackFile, Folder, JSONLines, TextFile
from torchward.language.documents import Document, Split
from torchward.language.task import Problems, TokenizerChoice
from torchward.tasks.reward_options import RewardOptions


@dataclass(frozen=True)
class Options:
    """How text of one's own is read."""

    tokenizer: TokenizerChoice = field(default_factory=BPE)
    """The tokenizer of a model that is made for it; one that is fine-tuned has its own."""
    separator: str | None = None
    """What stands between the documents of a text file, such as a blank line; without it, a file is cut into pieces.
    In a folder each file is a document."""
    validation: float = 0.1
    """The part of the documents that validates, and is held out from learning by reward."""
    answer_length: int = 64
    """The largest number of tokens of an answer."""
    rewards: RewardOptions = field(default_factory=RewardOptions)
    """What an answer earns."""

    def __post_init__(self) -> None:
        if self.separator == "":
            raise ConfigError("expected a separator of a character or more, got ''; leave it out, or say what it is")
        if not 0.0 < self.validation < 1.0:
            raise ConfigError(
                f"expected validation above 0 and below 1, got {self.validation}: by what is held out a run "
                "knows which policy was the best, and when to stop; of a large text 0.01 will do"
            )

    @property
    def split(self) -> Split:
        """Which documents validate."""
        return Split(self.validation)

    def lasting(self) -> "Options":
        """The same wherever a run is resumed from."""
        return replace(self, rewards=self.rewards.lasting())


PIECES, LONGEST = 40, 2_000
"""Into about how many pieces at least a text is cut that says nothing of its documents, so that some can validate; and
how many characters a piece has at most, but for the rest of its last line."""


def read(options: Options, path: Path) -> Problems:
    """The documents at ``path``. Answers are judged by ``options.rewards``: by default by the column ``answer``, to the
    letter, where there is one.

    Raises TextError for what cannot be read, and ConfigError for a path that is none, and a separator where none is
    looked for."""
    if options.separator is not None and (path.is_dir() or path.suffix in (".jsonl", ".db")):
        raise ConfigError(
            f"expected no separator for {path}, whose documents are its {'files' if path.is_dir() else 'rows'}, got "
            f"{options.separator!r}; leave it out"
        )
    if path.is_dir():
        documents = list(Folder(path).documents())
    elif path.suffix == ".jsonl":
        documents = list(JSONLines(path).documents())
    elif path.suffix == ".db":
        documents = list(FeedbackFile(path).documents())
    elif path.is_file():
        documents = list(TextFile(path, options.separator).documents())
    else:
        raise ConfigError(f"expected a file or a folder of text at {path}, got nothing")
    if len(documents) == 1 and isinstance(documents[0].content, str):
        documents = _pieces(documents[0])
    asking = [each for each in documents if not isinstance(each.content, str)]
    train, test = options.split(asking) if asking else (documents, asking)
    mixed = asking and len(asking) < len(documents)
    return Problems(
        name=path.stem,
        train=train,
        test=test,
        reward=options.rewards.build(),
        shown=[*train, *(each for each in documents if isinstance(each.content, str))] if mixed else None,
        tokenizer=options.tokenizer,
        max_completion_length=options.answer_length,
        corpus=documents,
        split=options.split,
    )


def _pieces(document: Document) -> list[Document]:
    """A text in pieces, cut at ends of lines."""
    made: list[Document] = []
    lines: list[str] = []
    size, enough = 0, min(LONGEST, len(document.text) // PIECES)
    for line in [*document.text.splitlines(keepends=True), None]:
        if line is not None:
            lines.append(line)
            size += len(line)
        if lines and (line is None or size >= enough):
            made.append(Document("".join(lines), f"{document.origin}, piece {len(made) + 1}"))
            lines, size = [], 0
    return made
