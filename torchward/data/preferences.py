"""Preferences as tokens: pairs of answers of which one is better, and answers that were judged alone.

An algorithm draws numbers of pairs (:class:`Shuffled`), makes rows of them (:func:`rows_of`), and asks a policy how
likely their answers are (:func:`answer_log_probs`).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.random import derive
from torchward.data.sequences import Sequences
from torchward.data.texts import TextTask
from torchward.nets.body import same_words
from torchward.nets.language_model import NONE, LanguageModel

Numbers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """``P`` answers that were chosen and as many that were rejected, each behind its prompt."""

    chosen: Sequences
    rejected: Sequences
    margin: NDArray[np.float32]
    """``[P]`` By how much the chosen one is better, where somebody said so; else 0."""

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def fingerprint(self) -> str:
        """A hash of all of it."""
        return f"{self.chosen.fingerprint}/{self.rejected.fingerprint}/{hashed(self.margin)}"

    @property
    def steps(self) -> Numbers:
        """``[P]`` The steps of the longer answer of each pair."""
        return np.maximum(self.chosen.steps, self.rejected.steps)

    def only(self, numbers: Numbers) -> "Pairs":
        """Those with these numbers."""
        return Pairs(only(self.chosen, numbers), only(self.rejected, numbers), self.margin[numbers])


@dataclass(frozen=True)
class Rated:
    """``R`` answers behind their prompts, each judged alone."""

    answers: Sequences
    desirable: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def fingerprint(self) -> str:
        """A hash of all of it."""
        return f"{self.answers.fingerprint}/{hashed(self.desirable)}"

    @property
    def steps(self) -> Numbers:
        """``[R]``"""
        return self.answers.steps

    def only(self, numbers: Numbers) -> "Rated":
        """Those with these numbers."""
        return Rated(only(self.answers, numbers), self.desirable[numbers])


@dataclass(frozen=True)
class Preferences:
    """Pairs to learn from and others to validate on, and the words that they are written in."""

    train: Pairs
    validation: Pairs
    pad_id: int
    vocabulary: Mapping[str, Any]
    left_out: str = ""
    """In words, which documents hold no pair; empty where all do."""


@dataclass(frozen=True)
class Judgements:
    """Judged answers to learn from and others to validate on, and the words that they are written in."""

    train: Rated
    validation: Rated
    pad_id: int
    vocabulary: Mapping[str, Any]
    left_out: str = ""
    """In words, which documents nobody has judged; empty where all were."""


@runtime_checkable
class PreferenceTask(TextTask, Protocol):
    """A task of text that has preferences too."""

    def preferences(self) -> Preferences:
        """Pairs of answers."""
        ...

    def judgements(self) -> Judgements:
        """Answers that were judged alone; of a pair, the chosen one is desirable and the other is not."""
        ...


def hashed(numbers: NDArray[Any]) -> str:
    """A hash of some numbers."""
    return hashlib.blake2b(np.ascontiguousarray(numbers).tobytes(), digest_size=16).hexdigest()


class Shuffled:
    """Numbers below ``count`` in batches of ``size``, each once an epoch; the order is a function of seed and epoch.

    So its place is two numbers. A batch that an epoch does not fill goes on in the next one."""

    def __init__(self, count: int, size: int, seed: int, fingerprint: str) -> None:
        self.count, self.size, self.seed, self.fingerprint = count, size, seed, fingerprint
        self.epoch, self.place = 0, 0

    @property
    def epochs(self) -> float:
        """How often all have been drawn."""
        return self.epoch + self.place / self.count

    def next(self) -> Numbers:
        """The next batch."""
        found, wanted = list[Numbers](), self.size
        while wanted:
            if self.place == self.count:
                self.epoch, self.place = self.epoch + 1, 0
            order = np.random.default_rng(derive(self.seed, f"epoch {self.epoch}")).permutation(self.count)
            part = order[self.place : self.place + wanted]
            found.append(part)
            self.place, wanted = self.place + len(part), wanted - len(part)
        return np.concatenate(found)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "place": self.place, "of": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ConfigError where the data are others."""
        if state["of"] != self.fingerprint:
            raise ConfigError("expected the preferences that the run was saved with, got others: resume with the same")
        self.epoch, self.place = state["epoch"], state["place"]


class Answers(NamedTuple):
    """``N`` rows, padded at the right."""

    tokens: Int[Tensor, "rows time"]
    """What was seen."""
    targets: Int[Tensor, "rows time"]
    """What came next, where it was the answer's; -1 in the prompt and in padding."""

    @property
    def lengths(self) -> Float[Tensor, " rows"]:
        """How many tokens each answer has, its end-of-text included."""
        return (self.targets != NONE).sum(1).float()


def rows_of(sequences: Sequences, numbers: Numbers, pad_id: int, device: str | torch.device = "cpu") -> Answers:
    """The sequences with these numbers as rows, as long as the longest of them."""
    starts, steps = sequences.starts[numbers], sequences.steps[numbers]
    place = np.arange(int(steps.max()))
    real = place < steps[:, None]
    at = np.where(real, starts[:, None] + place, 0)
    following = np.where(real, at + 1, 0)
    tokens = np.where(real, sequences.tokens[at].astype(np.int64), pad_id)
    own = real & sequences.own[following]
    targets = np.where(own, sequences.tokens[following].astype(np.int64), NONE)
    return Answers(torch.from_numpy(tokens).to(device), torch.from_numpy(targets).to(device))


def stacked(one: Answers, other: Answers, pad_id: int) -> Answers:
    """The rows of both, one below the other."""
    time = max(one.tokens.shape[1], other.tokens.shape[1])
    tokens, targets = (
        torch.cat([torch.nn.functional.pad(x, (0, time - x.shape[1]), value=fill) for x in both])
        for both, fill in (((one.tokens, other.tokens), pad_id), ((one.targets, other.targets), NONE))
    )
    return Answers(tokens, targets)


def both(pairs: Pairs, numbers: Numbers, pad_id: int, device: str | torch.device = "cpu") -> Answers:
    """``2 P`` rows: the chosen answers of some pairs, and below them the rejected ones."""
    chosen, rejected = (rows_of(side, numbers, pad_id, device) for side in (pairs.chosen, pairs.rejected))
    return stacked(chosen, rejected, pad_id)


def mismatched(
    sequences: Sequences, numbers: Numbers, pad_id: int, longest: int, device: str | torch.device = "cpu"
) -> Answers:
    """Each prompt with the answer to the next one, the last with the first's: what no one would have written there.
    A long answer behind a long prompt is cut, so that no row has more than ``longest`` tokens."""
    made = []
    for one, other in zip(numbers, np.roll(numbers, -1), strict=True):
        prompt, answer = sequences[int(one)], sequences[int(other)]
        asked, begins = prompt.own.index(True), answer.own.index(True)
        ids, own = [*prompt.ids[:asked], *answer.ids[begins:]], [*prompt.own[:asked], *answer.own[begins:]]
        made.append((ids[:longest], own[:longest]))
    time = max(len(ids) for ids, _ in made) - 1
    tokens = torch.full((len(made), time), pad_id)
    targets = torch.full((len(made), time), NONE)
    for row, (ids, own) in enumerate(made):
        steps, following = len(ids) - 1, torch.tensor(ids[1:])
        tokens[row, :steps] = torch.tensor(ids[:-1])
        targets[row, :steps] = torch.where(torch.tensor(own[1:]), following, NONE)
    return Answers(tokens.to(device), targets.to(device))


def pieces(numbers: Numbers, steps: Numbers, rows: int) -> Iterator[NDArray[np.int64]]:
    """Places in ``numbers``, at most ``rows`` at a time, the longest first: rows of about equal lengths need little
    padding. ``steps`` are those of all."""
    order = np.argsort(-steps[numbers], kind="stable")
    for begin in range(0, len(order), rows):
        yield order[begin : begin + rows]


def answer_log_probs(policy: LanguageModel, answers: Answers) -> Float[Tensor, " rows"]:
    """How likely each answer is behind its prompt: the sum over its tokens, without dropout."""
    return by_length(answers, lambda some: policy.log_probs(some.tokens, some.targets).sum(1))


ALIKE, ALIKE_ELSEWHERE = 8, 64
"""Rows of about equal lengths that are computed at a time on a CPU, and on another device."""


def by_length(answers: Answers, of: Callable[[Answers], Tensor]) -> Float[Tensor, " rows"]:
    """What ``of`` says of each row, a number for each. Rows are given to it by their lengths, ALIKE at a time, and cut
    to the longest of these: an answer's padding may be half of a batch, and nothing is computed of it."""
    places = torch.arange(1, answers.targets.shape[1] + 1, device=answers.targets.device)
    lengths = ((answers.targets != NONE) * places).amax(1)
    order = lengths.argsort(stable=True, descending=True)
    found = []
    for rows in order.split(ALIKE if order.device.type == "cpu" else ALIKE_ELSEWHERE):
        time = int(lengths[rows[0]])
        found.append(of(Answers(answers.tokens[rows, :time], answers.targets[rows, :time])))
    return torch.cat(found)[order.argsort()]


def fitting(data: "Pairs | Rated", max_length: int, context: int, skip: bool) -> Any:
    """What has no answer of more than ``max_length`` tokens with its prompt, nor of more than the ``context`` that the
    model reads. Raises ConfigError where there is one that is not to be skipped, and where none is left."""
    fits = data.steps < min(max_length, context)
    bound, instead = f"max_length={max_length} tokens", "raise max_length"
    if context <= max_length:
        bound, instead = f"{context} tokens, as many as the model reads", "begin from a model that reads more"
    if not fits.all() and not skip:
        raise ConfigError(
            f"expected prompts with their answers of at most {bound}, got {int((~fits).sum())} of {len(fits)} that are "
            f"longer, the longest of {int(data.steps.max()) + 1}: {instead}, or leave them out with skip_too_long"
        )
    if not fits.any():
        raise ConfigError(f"expected some answers of at most {bound}, got none of {len(fits)}")
    return data if fits.all() else data.only(fits.nonzero()[0])


def prepared(
    data: "Preferences | Judgements", policy_vocabulary: Any, max_length: int, context: int, skip: bool
) -> Any:
    """The data, both sides :func:`fitting`. Raises ConfigError where their words are not the policy's."""
    if not same_words(data.vocabulary, policy_vocabulary):
        raise ConfigError("expected preferences in the model's own vocabulary, got another: task.using(model) has them")
    train, validation = (fitting(side, max_length, context, skip) for side in (data.train, data.validation))
    return replace(data, train=train, validation=validation)


def only(sequences: Sequences, numbers: Numbers) -> Sequences:
    """Those with these numbers, copied."""
    lengths = (sequences.starts[1:] - sequences.starts[:-1])[numbers]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    at = np.repeat(sequences.starts[numbers] - starts[:-1], lengths) + np.arange(int(starts[-1]))
    return Sequences(sequences.tokens[at], sequences.own[at], starts)
