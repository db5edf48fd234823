"""Sequences of tokens, and which of them are learnt: kept once, flat, one behind the other.

A sequence of ``L`` tokens is ``L - 1`` steps: at each one the policy has seen a token and chooses the next. So the
first token is given, and every other one is chosen exactly once.
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchward.config import ConfigError


class TokenSequence(NamedTuple):
    """One sequence."""

    ids: Sequence[int]
    own: Sequence[bool]
    """True where the token was to be chosen, as an answer was, and not given, as a prompt is. False for the first."""


class Sequences:
    """``D`` sequences, in two flat arrays of ``N`` tokens in all."""

    def __init__(self, tokens: NDArray[np.integer], own: NDArray[np.bool_], starts: NDArray[np.int64]) -> None:
        """``tokens`` and ``own`` ``[N]``; in ``starts`` ``[D + 1]`` where each sequence begins, and ``N``."""
        self.tokens, self.own, self.starts = tokens, own, starts

    @classmethod
    def of(cls, sequences: Iterable[TokenSequence], vocab_size: int) -> "Sequences":
        """The sequences, copied one by one: they may come from a generator.

        Raises ConfigError for one without two tokens, for a token outside the vocabulary, and where nothing is learnt.
        """
        kind: Literal["H", "i"] = "H" if vocab_size <= 2**16 else "i"
        tokens, own, starts = array(kind), bytearray(), array("q", [0])
        for number, (ids, mask) in enumerate(sequences):
            if len(ids) < 2 or len(mask) != len(ids):
                raise ConfigError(
                    f"expected at least 2 tokens in sequence {number} and as many in its mask, got {len(ids)} and "
                    f"{len(mask)}"
                )
            if not 0 <= min(ids) <= max(ids) < vocab_size:
                raise ConfigError(
                    f"expected tokens from 0 to {vocab_size - 1} in sequence {number}, got {min(ids)} to {max(ids)}"
                )
            if mask[0] or not any(mask):
                raise ConfigError(
                    f"expected a first token that is given and others to learn from in sequence {number}, got a mask "
                    f"{'that begins with True' if mask[0] else 'that is False throughout'}"
                )
            tokens.extend(ids)
            own.extend(mask)
            starts.append(len(tokens))
        if len(starts) == 1:
            raise ConfigError("expected sequences to learn from, got none")
        return cls(
            np.frombuffer(tokens, np.uint16 if kind == "H" else np.int32),
            np.frombuffer(own, np.bool_),
            np.frombuffer(starts, np.int64),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> TokenSequence:
        begin, end = self.starts[index], self.starts[index + 1]
        return TokenSequence(self.tokens[begin:end].tolist(), self.own[begin:end].tolist())

    def head(self, steps: int) -> "Sequences":
        """The first sequences, of so many steps together; where the first one alone has more, so much of it."""
        count = int(np.searchsorted(np.cumsum(self.steps), steps, side="right"))
        starts = self.starts[: count + 1] if count else np.array([0, steps + 1])
        return Sequences(self.tokens[: starts[-1]], self.own[: starts[-1]], starts)

    def closed(self, token: int) -> "Sequences":
        """The same with ``token`` behind each one, so that the rows of what is seen show all of it: of ``L`` tokens
        only ``L - 1`` are seen, for the last one is chosen alone. What is behind is not learnt."""
        ends = self.starts[1:]
        starts = self.starts + np.arange(len(self.starts))
        return Sequences(np.insert(self.tokens, ends, token), np.insert(self.own, ends, False), starts)

    @property
    def steps(self) -> NDArray[np.int64]:
        """How many tokens follow another one, ``[D]``: each sequence's length less one."""
        return np.diff(self.starts) - 1

    @property
    def learnt(self) -> int:
        """How many tokens are learnt from, in all."""
        return int(self.own.sum())

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all of it: another corpus, tokenizer or mask has another one."""
        hasher = hashlib.blake2b(digest_size=16)
        for part in (self.tokens, self.own, self.starts):
            hasher.update(np.ascontiguousarray(part).view(np.uint8).data)
        return hasher.hexdigest()
