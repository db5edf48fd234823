"""Rewards by settings, for text of the user's own: a sum of weighted parts, a function of theirs among them."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Literal

from torch import nn

from torchward.config import ConfigError
from torchward.language.reward_sum import Sum, Weighted
from torchward.language.rewards import column, exact_match
from torchward.language.rewards_by_answer import Contains, Exact, Numeric
from torchward.language.rewards_by_form import Distinct, JSONObject, Length, Matches
from torchward.language.rewards_by_overlap import BLEU, ROUGE, ChrF
from torchward.language.similarity import BodyEncoder, Similarity
from torchward.language.task import Reward


@dataclass(frozen=True)
class RewardOptions:
    """What an answer earns: the sum of all parts with a weight. With none: 1 for the column answer, to the letter."""

    reward_function: str | None = None
    """A function of your own, ./rewards.py:name: reward(prompts, completions, **columns) gives a number for each."""
    reward_weight: float = 1.0
    """Weight of that function."""
    reference_column: str | None = None
    """The column of the references; none: the first of reference, answer, completion (numbers: answer)."""
    exact_weight: float = 0.0
    """Weight of 1 for the reference itself, but for white space around it."""
    numeric_weight: float = 0.0
    """Weight of 1 for the number of the reference: it is the last one in an answer."""
    numeric_tolerance: float = 0.0
    """How far from it, as a part of it; 0: as far as 1e-9."""
    contains_weight: float = 0.0
    """Weight of 1 for an answer in which the reference stands."""
    bleu_weight: float = 0.0
    """Weight of sentence BLEU."""
    chrf_weight: float = 0.0
    """Weight of chrF."""
    rouge_weight: float = 0.0
    """Weight of ROUGE."""
    rouge_kind: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """Words, pairs of words, or the longest common subsequence."""
    similarity_weight: float = 0.0
    """Weight of the F1 of BERTScore, by the hidden states of a model."""
    similarity_model: str | None = None
    """The run, policy, or local directory of transformers whose model that is, or hub:owner/name."""
    similarity_baseline: float = 0.0
    """The score of unrelated texts, which earns 0."""
    distinct_weight: float = 0.0
    """Weight of distinct-n within an answer."""
    distinct_n: int = 2
    """The words of its runs."""
    length_weight: float = 0.0
    """Weight of a length within a band."""
    length_least: int = 0
    """Characters of the shortest answer in the band."""
    length_most: int | None = None
    """Characters of the longest answer in the band."""
    length_margin: int = 0
    """Characters outside the band at which nothing is left."""
    pattern_weight: float = 1.0
    """Weight of 1 for an answer that matches the pattern, if there is one."""
    pattern: str | None = None
    """A regular expression that an answer has to match as a whole."""
    json_weight: float = 0.0
    """Weight of 1 for an answer that is one JSON object."""
    json_keys: tuple[str, ...] = ()
    """The keys that it has to have."""

    def __post_init__(self) -> None:
        if self.similarity_weight and self.similarity_model is None:
            raise ConfigError("expected similarity_model, whose hidden states compare texts, beside similarity_weight")
        if self.length_weight and self.length_most is None and not self.length_least:
            raise ConfigError("expected length_most or length_least, the band of lengths, beside length_weight")

    def lasting(self) -> "RewardOptions":
        """The same wherever a run is resumed from: with whole paths."""
        from torchward.language.hub import is_remote

        named, model = self.reward_function, self.similarity_model
        if named is not None:
            file, colon, name = named.partition(".py:")
            named = f"{_whole(file)}{colon}{name}" if colon else _whole(named)
        if model is not None and not is_remote(model):
            model = _whole(model)
        return replace(self, reward_function=named, similarity_model=model)

    def build(self) -> Reward:
        """The reward. Raises ConfigError as its parts do, and LaunchError where the user's own file has none."""
        terms = [Weighted(name, make(), weight) for name, weight, make in self._parts() if weight]
        if terms:
            return Sum(tuple(terms))
        return Exact(self.reference_column) if self.reference_column else exact_match

    def _parts(self) -> list[tuple[str, float, Callable[[], Reward]]]:
        column, named, pattern = self.reference_column, self.reward_function, self.pattern
        parts: list[tuple[str, float, Callable[[], Reward]]] = [
            ("exact", self.exact_weight, lambda: Exact(column)),
            ("numeric", self.numeric_weight, self._numeric),
            ("contains", self.contains_weight, lambda: Contains(column)),
            ("bleu", self.bleu_weight, lambda: BLEU(column)),
            ("chrf", self.chrf_weight, lambda: ChrF(column)),
            ("rouge", self.rouge_weight, lambda: ROUGE(self.rouge_kind, column)),
            ("similarity", self.similarity_weight, self._similarity),
            ("distinct", self.distinct_weight, lambda: Distinct(self.distinct_n)),
            ("length", self.length_weight, self._length),
            ("json", self.json_weight, lambda: JSONObject(self.json_keys)),
        ]
        if pattern is not None:
            parts.append(("pattern", self.pattern_weight, lambda: Matches(pattern)))
        if named is not None:
            parts.append(("own", self.reward_weight, lambda: own_reward(named)))
        return parts

    def _numeric(self) -> Reward:
        return Numeric(self.reference_column or "answer", relative=self.numeric_tolerance, last=True)

    def _length(self) -> Reward:
        return Length(self.length_least, self.length_most, self.length_margin)

    def _similarity(self) -> Reward:
        from torchward.language import hub, pretrained, pretrained_encoder
        from torchward.language.tokenizer import described
        from torchward.nets import saving
        from torchward.nets.language_model import LanguageModel
        from torchward.nets.masked_language_model import MaskedLanguageModel

        assert self.similarity_model is not None
        place = hub.local(self.similarity_model)
        if pretrained_encoder.is_encoder(place):  # its tokenizer needs no token for gaps here
            read = pretrained.load_encoder(place)
            encoder = BodyEncoder(read.body, read.tokenizer)
        else:
            policy: Any = pretrained.load(place).policy if pretrained.lies_in(place) else saving.load(place)
            if not isinstance(policy, LanguageModel | MaskedLanguageModel):
                raise ConfigError(
                    f"expected a language model at {self.similarity_model}, to embed texts, got a "
                    f"{type(policy).__name__}"
                )
            assert isinstance(policy.body, nn.Module)
            encoder = BodyEncoder(policy.body, described(policy.vocabulary, str(place)))
        return Similarity(encoder, column=self.reference_column, baseline=self.similarity_baseline)


def own_reward(named: str) -> Reward:
    """A function of the user's own: ./rewards.py:name, or ./rewards.py, where it is called reward. One without
    ``**columns`` is given the columns that it names. Raises LaunchError where there is none, and ConfigError for what
    is no such function."""
    from torchward.tasks.find import part_of_file

    found = part_of_file(named, "reward", "a reward")
    if (other := _unlike(found)) is not None:
        raise ConfigError(f"expected a function reward(prompts, completions, **columns) as {named}, got {other}")
    return _of_some_columns(found)


def _unlike(found: Any) -> str | None:
    """What it is, where it cannot be asked as a reward is; None where it can."""
    if not callable(found) or inspect.isclass(found):
        return f"{found!r:.80}"
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # not known of some that are written in C
        return None
    parameters = [*signature.parameters.values()]
    try:
        signature.bind([], [], **{each.name: [] for each in _named(parameters)})
    except TypeError as error:
        return f"{_called(found)}{signature} ({error})"
    swapped = parameters[0].name == "completions"
    return f"{_called(found)}{signature}: the prompts come first" if swapped else None


def _named(parameters: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    """Those behind prompts and completions that are given by name."""
    behind = [each for each in parameters[2:] if each.kind is each.POSITIONAL_OR_KEYWORD]
    return behind + [each for each in parameters if each.kind is each.KEYWORD_ONLY]


def _of_some_columns(function: Callable[..., list[float]]) -> Reward:
    """A function that takes any columns: itself, or one that hands on those that it names."""
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return function
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return function
    named = _named(parameters)
    needed = [each.name for each in named if each.default is each.empty]

    @wraps(function)
    def reward(prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        for name in needed:
            column(columns, name)
        given = {each.name: columns[each.name] for each in named if each.name in columns}
        return function(prompts, completions, **given)

    return reward


def _called(found: Any) -> str:
    return str(getattr(found, "__name__", type(found).__name__))


def _whole(path: str) -> str:
    return str(Path(path).expanduser().resolve())
