"""Problems of text as a task: to be imitated, to be learnt by reward, and judged on what was held out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from torchward.data.preferences import Judgements, Pairs, Preferences, Rated
from torchward.data.protocols import Evaluation, Policy
from torchward.data.random import derive
from torchward.data.sequences import Sequences
from torchward.data.texts import Labelled, Texts
from torchward.language import encoder_texts
from torchward.language.chat import Template, encode_all, encode_pair
from torchward.language.documents import (
    Completion,
    Dialogue,
    Document,
    Preference,
    Prompt,
    Split,
    TextError,
    imitated,
    shared,
)
from torchward.language.generate import SLOTS
from torchward.language.hub_template import template_of
from torchward.language.model_judge import Judge
from torchward.language.play import judged, play
from torchward.language.rewards import exact_match
from torchward.language.source import TextSource
from torchward.language.task import Problems
from torchward.language.tokenizer import Tokenizer, byte_counts, described
from torchward.nets.body import Worded
from torchward.nets.language_model import LanguageModel
from torchward.nets.reward_model import RewardModel
from torchward.nets.spaces import Discrete, Space


class Text:
    """A :class:`~torchward.data.texts.TextTask`. Its tokenizer is that of the policy that is handed to :meth:`using`;
    without one, it is made of the problems' own text."""

    def __init__(
        self,
        problems: Problems,
        tokenizer: Tokenizer | None = None,
        template: Template | None = None,
    ) -> None:
        self.problems = problems
        self._template = template
        self.name = problems.name
        self._tokenizer = tokenizer

    def using(self, policy: Worded) -> "Text":
        """The same problems in the words of ``policy``, whatever it makes of them."""
        return Text(self.problems, described(policy.vocabulary, "the policy"), self._template)

    @cached_property
    def template(self) -> Template:
        """What its chats are written by; by default the tokenizer's own."""
        return self._template or template_of(self.tokenizer)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What its text is written in."""
        if self._tokenizer is not None:
            return self._tokenizer
        return self.problems.tokenizer.build(document.text for document in self._corpus)

    @property
    def split(self) -> Split:
        """Which of the texts that are imitated validate, where none are held out."""
        return self.problems.split

    @property
    def _corpus(self) -> Sequence[Document]:
        if self.problems.corpus is not None:
            return self.problems.corpus
        return self.problems.demonstrations  # a question is half a text

    @property
    def _given(self) -> Sequence[Document]:
        """What is learnt from and held out, and plain texts that stood beside it."""
        problems = self.problems
        beside = [] if problems.shown is None else [each for each in problems.shown if isinstance(each.content, str)]
        return [*problems.train, *problems.test, *beside]

    @property
    def observation_space(self) -> Space:
        """A token."""
        return Discrete(self.tokenizer.vocab_size)

    @property
    def action_space(self) -> Space:
        """A token."""
        return Discrete(self.tokenizer.vocab_size)

    @property
    def max_completion_length(self) -> int:
        """The largest number of tokens of an answer."""
        return self.problems.max_completion_length

    def sides(self) -> tuple[Sequence[Document], Sequence[Document]]:
        """What is learnt from, and what is held out: the problems' test or, where there is none, a part of its text."""
        return (self.problems.train, self.problems.test) if self.problems.test else self.split(self._corpus)

    def corpus_sides(self) -> tuple[list[Document], list[Document]]:
        """All of its text, what is asked and what is answered as one, and the part of it that validates; documents
        that say nothing are left out. Documents are split by what they ask: a question that is held out is not among
        what is read, with its answer, either."""
        train, validation = (
            [Document(each.text, each.origin) for each in side if each.text.strip()]
            for side in self.split(self._corpus)
        )
        return train, validation

    def corpus(self) -> Texts:
        """All of its text, to pretrain on; a part, by the split, validates."""
        return self._texts(*self.corpus_sides())

    def imitated_sides(self) -> tuple[list[Document], list[Document]]:
        """Those of its documents that hold an answer; of two answers the better one, and none that is labelled False.
        Those held out validate, where they hold answers too, else a part of the others, by the split. Raises TextError
        where there is none."""
        answered, held_out = (
            [shown for each in documents if (shown := imitated(each)) is not None]
            for documents in (self.problems.imitated, self.problems.test)
        )
        if not answered:
            asks = any(isinstance(each.content, Prompt) for each in self.problems.imitated)
            wrong = any(each.columns.get("label") is False for each in self.problems.imitated)
            what = "prompts alone: train it by reward" if asks else "texts that ask nothing: pretrain on it"
            what = "answers that are all labelled False: none is to be imitated" if wrong and not asks else what
            raise TextError(
                f"expected answers to learn from in {self.name}, got {what}, or give documents with completion or "
                "messages"
            )
        return (answered, held_out) if held_out else self._parted(answered)

    def demonstrations(self) -> Texts:
        """What :meth:`imitated_sides` has, as tokens, and what it passes over. Raises TextError where there is none."""
        texts = self._texts(*self.imitated_sides())
        given = [*self.problems.imitated, *self.problems.test]
        others = [each for each in given if imitated(each) is None and not isinstance(each.content, Prompt)]
        return replace(texts, left_out=_left_out(others, given, "have no answer to imitate"))

    def preference_sides(self) -> tuple[list[Document], list[Document]]:
        """Its pairs of answers of which one is better. Those held out validate, where there are such, else a part of
        the others, by the split. Raises TextError without any."""
        train, test = (
            [each for each in documents if isinstance(each.content, Preference)]
            for documents in (self.problems.train, self.problems.test)
        )
        if not train:
            raise TextError(
                f"expected pairs of answers in {self.name}, got none: give lines with chosen and rejected, or "
                "the file of what people picked"
            )
        return (train, test) if test else self._parted(train)

    def preferences(self) -> Preferences:
        """What :meth:`preference_sides` has, as tokens, with the column ``margin`` where there is one, and what it
        passes over. Raises TextError where there is none."""
        train, test = self.preference_sides()
        given = self._given
        others = [each for each in given if not isinstance(each.content, Preference | Prompt)]
        left_out = _left_out(others, given, "are no pairs")
        words = self.tokenizer.description()
        return Preferences(self._pairs(train), self._pairs(test), self.tokenizer.pad_id, words, left_out)

    def rated_sides(self) -> tuple[list[Document], list[Document]]:
        """Its answers that were judged alone, those with the column ``label``, true or false; and of its pairs, the
        better answer as a good one and the worse as a bad one. Those held out validate, where there are such, else a
        part of the others, by the split. Raises TextError without any of either kind."""
        train, test = rated(self.problems.train), rated(self.problems.test)
        if train and not test:
            told = [each for each in self.problems.train if rated([each])]
            train, test = (rated(side) for side in self._parted(told))  # a pair stays together
        for good in (True, False):
            if not any(each.columns[LABEL] is good for each in train):
                raise TextError(
                    f"expected answers that were judged {'good' if good else 'bad'} in {self.name}, got none: give "
                    "lines with prompt, completion and label, true or false, or pairs with chosen and rejected"
                )
        return train, test

    def judgements(self) -> Judgements:
        """What :meth:`rated_sides` has, as tokens, and what it passes over. Raises TextError without answers of either
        kind."""
        train, test = self.rated_sides()
        given = self._given
        others = [each for each in given if not isinstance(each.content, Prompt) and not rated([each])]
        left_out = _left_out(others, given, "have no label")
        words = self.tokenizer.description()
        return Judgements(self._rated(train), self._rated(test), self.tokenizer.pad_id, words, left_out)

    @property
    def knows_answers(self) -> bool:
        """Whether it can say what an answer is worth: by a metric, a reward, or the column ``answer``."""
        problems = self.problems
        documents = problems.test or problems.train
        told = problems.reward is not exact_match or any("answer" in each.columns for each in documents)
        return told or problems.metric is not None

    def judged_by(self, model: RewardModel, pessimism: float = 0.0) -> "Text":
        """The same problems, whose answers earn what a reward model says of them. They are evaluated as before, where
        that can be: by the metric, or by the reward that they had."""
        problems, judge = self.problems, Judge(model, pessimism, self.tokenizer.description())
        metric = problems.metric or (problems.reward if self.knows_answers else None)
        return Text(replace(problems, reward=judge, metric=metric), self._tokenizer, self._template)

    def _parted(self, documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
        """By the split; where something is held out by it, by another: these are what it left."""
        return (replace(self.split, salt=f"{self.split.salt} again") if self.problems.test else self.split)(documents)

    def _pairs(self, documents: Sequence[Document]) -> Pairs:
        pairs = [encode_pair(each, self.tokenizer, self.template) for each in documents]
        margin = np.array([margin_of(each) for each in documents], np.float32)
        sides = zip(*(pair for pair in pairs if pair is not None), strict=True)
        chosen, rejected = (Sequences.of(side, self.tokenizer.vocab_size) for side in sides)
        return Pairs(chosen, rejected, margin)

    def _rated(self, documents: Sequence[Document]) -> Rated:
        desirable = np.array([each.columns[LABEL] for each in documents], np.bool_)
        return Rated(encode_all(documents, self.tokenizer, self.template).sequences, desirable)

    def masked(self) -> Texts:
        """All of its text, to fill gaps in, in a vocabulary with a token for these; a part, by the split, validates.
        Raises TextError for a tokenizer of another project's that has no such token."""
        return encoder_texts.masked(*self.corpus_sides(), self.tokenizer)

    def labelled(self, max_length: int, labels: Sequence[str] | None = None) -> Labelled:
        """Its documents with their column ``label``; those held out validate. Raises TextError where labels are missing
        or all alike, and for one that is not among ``labels``, where they are given."""
        return encoder_texts.labelled(*self.sides(), self.tokenizer, max_length, labels)

    def _texts(self, documents: Iterable[Document], others: Iterable[Document]) -> Texts:
        sides = [*documents], [*others]
        train, validation = (encode_all(side, self.tokenizer, self.template).sequences for side in sides)
        sizes = torch.from_numpy(byte_counts(self.tokenizer))
        origins = [each.origin for each in sides[0]], [each.origin for each in sides[1]]
        words = self.tokenizer.description()
        return Texts(train, validation, sizes, self.tokenizer.pad_id, words, origins=origins)

    def source(
        self, n_envs: int, seed: int, device: str = "cpu", *, num_generations: int = 1, slots: int = SLOTS
    ) -> TextSource:
        """``n_envs`` completions a rollout, ``num_generations`` of each prompt."""
        return TextSource(
            self.problems, self.tokenizer, n_envs, seed, device, num_generations=num_generations,
            template=self.template, slots=slots,
        )  # fmt: skip

    def _orders(self, model: RewardModel, pairs: int) -> Evaluation:
        """1 for each of the first held-out pairs that a reward model orders as people did, 0.5 for a tie, else 0."""
        data, judge = self.preferences().validation, Judge(model, 0.0, model.vocabulary)
        numbers = range(min(pairs, len(data)))
        chosen, rejected = (
            torch.tensor(judge.of_tokens([side[i].ids for i in numbers])) for side in (data.chosen, data.rejected)
        )
        return Evaluation(((chosen - rejected).sign() / 2 + 0.5).tolist(), data.steps[: len(numbers)].tolist())

    def evaluate(
        self, policy: Policy | RewardModel, episodes: int, seed: int, deterministic: bool = True
    ) -> Evaluation:
        """Answers to ``episodes`` of the held-out prompts, each at most once, by the metric: the likeliest token by
        token, or drawn. Raises TypeError for a policy that is no language model, and TextError where nothing is held
        out."""
        if isinstance(policy, RewardModel):
            return self._orders(policy, episodes)
        if not isinstance(policy, LanguageModel):
            raise TypeError(f"expected a LanguageModel to judge, got {type(policy).__name__}")
        problems = self.problems
        if not problems.test:
            raise TextError(
                f"expected questions of {self.name} that were held out, to judge answers to them, got none: a model of "
                "plain text is judged by the bits per byte that its training reports"
            )
        order = np.random.default_rng(derive(seed, "held out")).permutation(len(problems.test))[:episodes]
        device = policy.body.token.weight.device
        generator = None if deterministic else torch.Generator(device).manual_seed(derive(seed, "answers"))
        lines = play(
            policy, problems, [problems.test[int(i)] for i in order], self.tokenizer, self.template,
            max_completion_length=problems.max_completion_length, generator=generator,
        )  # fmt: skip
        scores = [sum(line.rewards) for line in lines] if problems.metric is None else judged(lines, problems.metric)
        return Evaluation(scores, [sum(line.own) for line in lines])

    def __repr__(self) -> str:
        return f"Text({self.name})"


def _left_out(others: Sequence[Document], documents: Sequence[Document], why: str) -> str:
    """A sentence on those of some documents that are passed over; empty where none is. Prompts alone are no mistake:
    they are there for learning by reward."""
    if not others:
        return ""
    return f"{len(others):,} of {len(documents):,} documents {why} and are passed over, {others[0].origin} for one"


LABEL = "label"
"""The column that says whether an answer is good."""


def margin_of(document: Document) -> float:
    """By how much the better answer of a pair is better; 0 where nobody said so. Raises TextError for what is no finite
    number."""
    margin = document.columns.get("margin")
    if margin is None:
        return 0.0
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
        raise TextError(f"expected a finite number as margin at {document.origin}, got {margin!r:.80}")
    return float(margin)


def rated(documents: Sequence[Document]) -> list[Document]:
    """Answers that were judged alone, and each pair's two. Raises TextError for a label that is neither true nor
    false."""
    found: list[Document] = []
    for each in documents:
        match each.content:
            case Preference(prompt, chosen, rejected):
                if not prompt and isinstance(chosen, tuple) and isinstance(rejected, tuple):
                    prompt = shared(chosen, rejected)
                    chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
                cut = each.content.cut
                for answer, good, short in ((chosen, True, cut[0]), (rejected, False, cut[1])):
                    one = Completion(prompt, answer, short)
                    found.append(Document(one, each.origin, {**each.columns, LABEL: good}))
            case Completion() | Dialogue() if LABEL in each.columns:
                if not isinstance(each.columns[LABEL], bool):
                    raise TextError(f"expected a label true or false in {each.origin}, got {each.columns[LABEL]!r}")
                found.append(each)
    return found
