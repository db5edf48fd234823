"""Rewards by what an answer has in common with a reference: BLEU, chrF and ROUGE, each within [0, 1].

They are those of sacrebleu and rouge-score, which the extra ``rewards`` brings, for one sentence each. An overlap is a
proxy: it pays for the reference's words, not for what they say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torchward.config import ConfigError
from torchward.language.rewards import references


@dataclass(frozen=True)
class BLEU:
    """Sentence BLEU (Papineni et al. 2002) of sacrebleu (Post 2018), over 100: the geometric mean of the precisions of
    the runs of 1 to ``max_ngram_order`` words, of those orders that the answer has, times a penalty for being short."""

    column: str | None = None
    """The column of the reference; None: reference, answer or completion, the first that there is."""
    max_ngram_order: int = 4
    """The longest runs of words."""
    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """What words are: those of mteval-v13a, of any script, with each Chinese character by itself, characters, or what
    white space leaves."""
    lowercase: bool = False
    """Upper and lower case are the same."""

    def __post_init__(self) -> None:
        _at_least_one("max_ngram_order", self.max_ngram_order)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """Raises TextError without references, and ImportError without sacrebleu."""
        metric = _sacrebleu("BLEU")(
            max_ngram_order=self.max_ngram_order,
            tokenize=self.tokenize,
            lowercase=self.lowercase,
            effective_order=True,  # else an answer of three words has no run of four, and earns nothing
        )
        known = references(columns, self.column)
        return [
            metric.sentence_score(said, right).score / 100.0 for said, right in zip(completions, known, strict=True)
        ]


@dataclass(frozen=True)
class ChrF:
    """chrF (Popovic 2015) of sacrebleu, over 100: the F score of the runs of 1 to ``char_order`` characters without
    white space, and, with a ``word_order``, of words (chrF++, 2). With several references that of the best."""

    column: str | None = None
    """The column of the reference; None: reference, answer or completion, the first that there is."""
    char_order: int = 6
    """The longest runs of characters."""
    word_order: int = 0
    """The longest runs of words; 0: none."""
    beta: int = 2
    """How many times as much recall counts as precision."""

    def __post_init__(self) -> None:
        _at_least_one("char_order", self.char_order)
        _at_least_one("beta", self.beta)
        if self.word_order < 0:
            raise ConfigError(f"expected word_order of at least 0, got {self.word_order}")

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """Raises TextError without references, and ImportError without sacrebleu."""
        metric = _sacrebleu("CHRF")(char_order=self.char_order, word_order=self.word_order, beta=self.beta)
        known = references(columns, self.column)
        return [
            metric.sentence_score(said, right).score / 100.0 for said, right in zip(completions, known, strict=True)
        ]


@dataclass(frozen=True)
class ROUGE:
    """The F score of ROUGE (Lin 2004) as rouge-score computes it: of single words (rouge1), of pairs (rouge2), or of
    the longest common subsequence (rougeL). With several references that of the best.

    Words are runs of a to z and 0 to 9 in lower case: of a text in another script nothing is left but with
    ``characters``."""

    kind: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """What is compared."""
    column: str | None = None
    """The column of the reference; None: reference, answer or completion, the first that there is."""
    use_stemmer: bool = False
    """Take the endings of English words off."""
    characters: bool = False
    """Every character but white space is a word of its own."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """Raises TextError without references, and ImportError without rouge-score."""
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError as error:
            raise ImportError(
                "expected rouge-score, which computes ROUGE; install it: pip install 'torchward[rewards]'"
            ) from error
        scorer = RougeScorer([self.kind], self.use_stemmer, tokenizer=_Characters() if self.characters else None)
        known = references(columns, self.column)
        return [
            max(float(scorer.score(each, said)[self.kind].fmeasure) for each in right)
            for said, right in zip(completions, known, strict=True)
        ]


class _Characters:
    """What rouge-score asks for words."""

    def tokenize(self, text: str) -> list[str]:
        return [each for each in text if not each.isspace()]


def _sacrebleu(name: str) -> Callable[..., Any]:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise ImportError(
            f"expected sacrebleu, which computes {name}; install it: pip install 'torchward[rewards]'"
        ) from error
    metric: Callable[..., Any] = getattr(metrics, name)
    return metric


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"expected {name} of at least 1, got {value}")
