"""Completions as experience: rollouts whose rows are prompts with what a language model wrote behind them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchward.config import ConfigError
from torchward.data.protocols import Episode, Policy
from torchward.data.random import derive, generator
from torchward.data.rollout import Rollout
from torchward.data.tree import Tree
from torchward.language.chat import Template
from torchward.language.documents import Document, TextError
from torchward.language.generate import SLOTS
from torchward.language.play import Line, padded, play, question, read
from torchward.language.task import Problems
from torchward.language.tokenizer import Tokenizer
from torchward.nets.language_model import NONE, LanguageModel

EARNED = "earned"
"""Where a rollout's context has what each answer earned, ``[B]``, before any shaping."""
PARTS = "parts"
"""Where it has what each part of the reward said, ``[B]`` by name; of a reward in one piece, nothing."""


class TextSource:
    """A :class:`~torchward.data.protocols.Source`: ``n`` completions a rollout, ``num_generations`` of each prompt.

    A row is a text from its first token to the last but one, and the step at each says which token came next. Prompts,
    what a partner says, and padding at the right have ``loss_mask`` False and the action -1. A completion is terminated
    by its end-of-text; one that its length cut is not, and its ``next_value`` is what the policy expected behind it if
    the problems say so, else 0: its reward was paid where it was cut.
    Between two turns time passes with each of the partner's tokens, and the value there is that of the policy's next
    choice. ``context["group"]`` says which rows answer the same prompt, ``context["earned"]`` what each answer was
    paid, and ``context["parts"]`` what the parts of a reward in parts said of it.

    Each prompt comes once in an epoch, in an order that follows from the seed and the epoch's number."""

    resumable = True

    def __init__(
        self,
        problems: Problems,
        tokenizer: Tokenizer,
        n: int,
        seed: int,
        device: str = "cpu",
        *,
        num_generations: int = 1,
        template: Template | None = None,
        stop: Sequence[str] = (),
        slots: int = SLOTS,
    ) -> None:
        if num_generations < 1 or n < 1 or n % num_generations:
            raise ConfigError(
                f"expected a number of completions that is a multiple of num_generations={num_generations}, got {n}"
            )
        if not problems.train:
            raise TextError(f"expected prompts to answer in {problems.name}, got none")
        for document in problems.train:
            question(document)  # raises where nothing is asked: now, not when its turn comes
        self.problems, self.tokenizer, self.template = problems, tokenizer, template or Template()
        self.n, self.seed, self.num_generations, self.stop, self.slots = n, seed, num_generations, stop, slots
        self.generator = generator(seed, "completions", device)
        self.handed_out = 0
        """The number of prompts so far."""
        self.finished: list[Episode] = []
        self.unread = True
        """Whether nobody has looked yet if the policy can read all prompts."""
        self.lines: list[Line] = []
        """What the last rollout is made of: texts, for whoever wants to read them."""

    def collect(self, policy: Policy, horizon: int | None) -> Rollout:
        """The next prompts' completions, of at most ``horizon`` tokens a turn, and no more than the task allows.
        Raises TypeError for a policy that is no language model; and TextError for a prompt that it cannot read, be it
        the last one's turn: before the first, not in the midst of a run."""
        if not isinstance(policy, LanguageModel):
            raise TypeError(f"expected a LanguageModel to write completions, got {type(policy).__name__}")
        if self.unread:
            every = [*self.problems.train, *self.problems.test]
            read(every, self.template, self.tokenizer, policy.config.max_position_embeddings)
            self.unread = False
        limit = self.problems.max_completion_length
        self.lines = play(
            policy,
            self.problems,
            self._next(self.n // self.num_generations),
            self.tokenizer,
            self.template,
            max_completion_length=limit if horizon is None else min(horizon, limit),
            num_generations=self.num_generations,
            generator=self.generator,
            stop=self.stop,
            slots=self.slots,
        )
        self.finished += [Episode(sum(line.rewards), sum(line.own)) for line in self.lines]
        return rollout(self.lines, self.num_generations, self.generator.device, self.tokenizer.pad_id)

    def _next(self, count: int) -> list[Document]:
        train = self.problems.train
        found: list[Document] = []
        while len(found) < count:
            epoch, place = divmod(self.handed_out, len(train))
            order = np.random.default_rng(derive(self.seed, f"prompts {epoch}")).permutation(len(train))
            some = order[place : place + count - len(found)].tolist()
            found += [train[i] for i in some]
            self.handed_out += len(some)
        return found

    def episodes(self) -> list[Episode]:
        """The completions since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def cut(self) -> bool:
        """Nothing runs on from one rollout to the next."""
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "handed_out": self.handed_out}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.handed_out = int(state["handed_out"])

    def close(self) -> None:
        pass


def rollout(lines: Sequence[Line], num_generations: int, device: torch.device, pad_id: int) -> Rollout:
    """Lines as rows. Raises TextError where the policy said nothing in one."""
    time = max(len(line.ids) for line in lines) - 1
    last = []
    for line in lines:
        if not any(line.own):
            raise TextError(f"expected at least one token of the policy behind the prompt of {line.document.origin}")
        last.append(max(i for i, own in enumerate(line.own) if own) - 1)
    rows, ends = torch.arange(len(lines)), torch.tensor(last)
    own = padded([line.own[1:] for line in lines], time, False, torch.bool)
    chosen = padded([line.ids[1:] for line in lines], time, NONE, torch.int64).masked_fill_(~own, NONE)
    value = padded([_carried(line) for line in lines], time, 0.0, torch.float32)
    next_value = torch.cat([value[:, 1:], torch.zeros(len(lines), 1)], 1)
    next_value[rows, ends] = torch.tensor([line.next_value for line in lines])
    terminated, boundary = torch.zeros_like(own), torch.zeros_like(own)
    terminated[rows, ends] = torch.tensor([line.ended for line in lines])
    boundary[torch.arange(time) >= ends[:, None]] = True
    observation: Tree = padded([line.ids[:-1] for line in lines], time, pad_id, torch.int64).to(device)
    if (support := _supports(lines, time)) is not None:
        observation = {"token": observation, "support": support.to(device)}
    return Rollout(
        observation=observation,
        action=chosen.to(device),
        log_prob=padded([line.log_probs[1:] for line in lines], time, 0.0, torch.float32).to(device),
        reward=padded([line.rewards[1:] for line in lines], time, 0.0, torch.float32).to(device),
        terminated=terminated.to(device),
        boundary=boundary.to(device),
        loss_mask=own.to(device),
        value=value.to(device),
        next_value=next_value.to(device),
        context={
            "group": (rows // num_generations).to(device),
            EARNED: torch.tensor([sum(line.rewards) for line in lines]).to(device),
            **_parts(lines, device),
        },
    )


def _parts(lines: Sequence[Line], device: torch.device) -> dict[str, Tree]:
    names = lines[0].parts
    return (
        {PARTS: {name: torch.tensor([line.parts[name] for line in lines]).to(device) for name in names}}
        if names
        else {}
    )


def _carried(line: Line) -> list[float]:
    """The values of the steps ``[len(ids) - 1]``; where nothing was chosen, that of the next choice."""
    values, following = list(line.values), 0.0
    for i in range(len(values) - 1, -1, -1):
        if line.own[i]:
            following = values[i]
        else:
            values[i] = following
    return values[1:]


def _supports(lines: Sequence[Line], time: int) -> Tensor | None:
    """``[B, time, bytes]``, 255 where nothing was drawn; None where every token was drawn among all."""
    some = next((bits for line in lines for bits in line.supports if bits is not None), None)
    if some is None:
        return None
    made = torch.full((len(lines), time, len(some)), 255, dtype=torch.uint8)
    for row, line in enumerate(lines):
        for i, bits in enumerate(line.supports[1:]):
            if bits is not None:
                made[row, i] = bits
    return made
