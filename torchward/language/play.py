"""A language model at a task: what it wrote for some prompts, turn by turn, and what each of its words earned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from torchward.language.chat import Template
from torchward.language.documents import (
    Completion,
    Dialogue,
    Document,
    Message,
    Preference,
    Prompt,
    TextError,
    Words,
    asked,
    plain,
    shared,
)
from torchward.language.earned import is_kept, numbers
from torchward.language.generate import SLOTS, StopWords, generate, heard
from torchward.language.hub_tokenizer import HubTokenizer
from torchward.language.task import InParts, Problems, ReadsTokens, Reply, Reward
from torchward.language.tokenizer import ALONE, Around, Tokenizer, UnknownCharacter
from torchward.nets.language_model import LanguageModel


@dataclass
class Line:
    """One prompt with all that was said behind it. The lists are as long as ``ids``; what stands in them at a token is
    of the step that chose it."""

    document: Document
    ids: list[int]
    own: list[bool]
    """True where the policy chose the token."""
    log_probs: list[float]
    values: list[float]
    rewards: list[float]
    supports: list[Tensor | None]
    """What a token was drawn among, as bits; None where it was not drawn among some."""
    said: list[str] = field(default_factory=list)
    """What the policy said, turn by turn, without its end-of-text and what a template writes around it."""
    ended: bool = False
    """True where the policy or its partner ended it, False where a length did."""
    next_value: float = 0.0
    """What it is worth behind its last token: something only where its length cut it and the problems say so."""
    parts: dict[str, float] = field(default_factory=dict)
    """What each part of the reward said of it; nothing, where the reward is in one piece."""

    @classmethod
    def begun(cls, document: Document, ids: list[int]) -> "Line":
        """A prompt."""
        line = cls(document, [], [], [], [], [], [])
        line.hear(ids)
        return line

    def hear(self, ids: Sequence[int]) -> None:
        """Tokens that the policy did not choose."""
        count = len(ids)
        self.ids += ids
        self.own += [False] * count
        self.log_probs += [0.0] * count
        self.values += [0.0] * count
        self.rewards += [0.0] * count
        self.supports += [None] * count

    def say(
        self, ids: list[int], log_probs: list[float], values: list[float], supports: Sequence[Tensor | None]
    ) -> None:
        """Tokens that the policy chose."""
        self.ids += ids
        self.own += [True] * len(ids)
        self.log_probs += log_probs
        self.values += values
        self.rewards += [0.0] * len(ids)
        self.supports += supports

    def earn(self, reward: float) -> None:
        """Something for the last token, which is the policy's. Raises TextError for what is no finite number."""
        if not is_kept(self.rewards[-1] + reward):
            raise TextError(f"expected finite rewards, got {reward} for {self.said[-1]!r} of {self.document.origin}")
        self.rewards[-1] += reward


def question(document: Document) -> Words:
    """What is asked: all that stands before the assistant's first words; of a preference its prompt or, without one,
    the messages that both answers begin with. Raises TextError for a document that asks nothing."""
    match document.content:
        case Prompt(prompt) | Completion(prompt, _):
            return prompt
        case Dialogue(messages):
            return asked(messages)
        case Preference(prompt, chosen, rejected):
            if prompt or (isinstance(chosen, tuple) and (prompt := shared(chosen, rejected))):
                return prompt
            raise TextError(f"expected a prompt to answer in {document.origin}, got a preference without one")
    raise TextError(f"expected a prompt to answer in {document.origin}, got a text")


def spoken(tokenizer: Tokenizer, ids: Sequence[int], around: Around = ALONE) -> str:
    """The text of tokens, as somebody reads it who judges it (:func:`~torchward.language.generate.heard`), without what
    a template writes ``around`` it."""
    before, behind, text = (
        b"".join(heard(tokenizer, token) for token in part).decode("utf-8", "replace") for part in (*around, ids)
    )
    text = tokenizer.as_said(text) if isinstance(tokenizer, HubTokenizer) else text
    return text.removeprefix(before).removesuffix(behind)


def play(
    policy: LanguageModel,
    problems: Problems,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    template: Template,
    *,
    max_completion_length: int,
    num_generations: int = 1,
    generator: Generator | None = None,
    stop: Sequence[str] = (),
    slots: int = SLOTS,
) -> list[Line]:
    """``num_generations`` answers to each document, those of the first one first, with what they earn. Without a
    generator they are the likeliest, token by token.

    In a task of several turns the partner's words follow in the template's form, and the policy speaks again; a turn
    that its length cut is the last one, and so is one behind which the partner's words leave no room in the model's
    context. Raises TextError for a prompt that fills the context, and for rewards that are not finite numbers, one for
    each answer."""
    context = policy.config.max_position_embeddings
    lines = [
        Line.begun(document, ids)
        for document, ids in zip(documents, read(documents, template, tokenizer, context), strict=True)
        for _ in range(num_generations)
    ]
    running = lines
    for turn in range(problems.turns):
        first = turn == 0
        prompts = [line.ids for line in running]
        done = generate(
            policy,
            prompts[::num_generations] if first else prompts,  # one reading serves all answers to a prompt
            eos_id=tokenizer.end_ids,
            max_new_tokens=max_completion_length,
            num_generations=num_generations if first else 1,
            noise=None if generator is None else policy.noise((max_completion_length, len(running)), generator),
            stop=StopWords(tokenizer, stop) if stop else None,
            slots=slots,
        )
        lengths, ended = done.lengths.tolist(), done.ended.tolist()
        tokens, log_probs, values = done.tokens.tolist(), done.log_probs.tolist(), done.values.tolist()
        supports = None if done.supports is None else done.supports.cpu()
        for i, line in enumerate(running):
            n = lengths[i]
            bits: Sequence[Tensor | None] = [None] * n if supports is None else list(supports[i, :n])
            line.say(tokens[i][:n], log_probs[i][:n], values[i][:n], bits)
            plainly = first and isinstance(question(line.document), str)
            line.said.append(spoken(tokenizer, tokens[i][:n], ALONE if plainly else template.around(tokenizer)))
            line.ended = ended[i]
            line.next_value = values[i][n] if problems.bootstrap_cut and not ended[i] else 0.0
        if problems.partner is None:
            break
        running = _answered(running, problems, tokenizer, template, context)
        if not running:
            break
    for line, earned in zip(lines, judged(lines, problems.reward), strict=True):
        line.earn(earned)
    return lines


def read(documents: Sequence[Document], template: Template, tokenizer: Tokenizer, context: int) -> list[list[int]]:
    """The tokens of what each document asks. Raises TextError, with the document's origin, for one that fills the
    ``context`` and for characters that the tokenizer does not know."""
    prompts = []
    for document in documents:
        try:
            ids = template.prompt(question(document), tokenizer)
        except UnknownCharacter as error:
            raise error.within(document.origin) from None
        if len(ids) >= context:
            raise TextError(
                f"expected prompts of at most {context - 1} tokens, the model's context less one, got {len(ids)} in "
                f"{document.origin}"
            )
        prompts.append(ids)
    return prompts


def _answered(
    lines: list[Line], problems: Problems, tokenizer: Tokenizer, template: Template, context: int
) -> list[Line]:
    """The lines that go on: the partner has answered, and there is room for an answer to that."""
    assert problems.partner is not None
    going = []
    for line in lines:
        reply = problems.partner(line.said, line.document.columns)
        if not isinstance(reply, Reply):
            raise TextError(
                f"expected the partner of {problems.name} to answer with a Reply(text, reward), got {reply!r:.80}; "
                "a text of None ends the conversation"
            )
        line.earn(reply.reward)
        if reply.text is None:
            line.ended = True
        elif line.ended and len(line.said) < problems.turns:
            ids = template.reply(Message("user", reply.text), tokenizer)
            if len(line.ids) + len(ids) < context:
                line.hear(ids)
                line.ended = False
                going.append(line)
            else:
                line.ended = False  # the context ended it
    return going


def judged(lines: Sequence[Line], reward: Reward) -> list[float]:
    """What a reward says of each line: one that reads tokens, of the tokens that were sampled; one in parts leaves them
    in the lines. Beside the columns of a document it is given the ``completion`` that the document holds. Raises
    TextError where it does not say a finite number for each."""
    name = getattr(reward, "__name__", type(reward).__name__)
    if isinstance(reward, ReadsTokens) and reward.reads_tokens:
        given: Any = reward.of_tokens([line.ids for line in lines])
    else:
        columns = gathered([shown(line.document) for line in lines])
        prompts = [plain(question(line.document)) for line in lines]
        said = ["\n".join(line.said) for line in lines]
        if isinstance(reward, InParts):
            parts = reward.parts(prompts, said, **columns)
            for place, line in enumerate(lines):
                line.parts = {each: values[place] for each, values in parts.items()}
            given = reward.total(parts)
        else:
            given = reward(prompts, said, **columns)
    return numbers(
        given, len(lines), name, lambda place: f"{lines[place].said[-1]!r} of {lines[place].document.origin}"
    )


def shown(document: Document) -> Mapping[str, Any]:
    """What a reward is told of a document: its columns, and the completion that it holds, unless a column is called
    so."""
    match document.content:
        case Completion(_, completion):
            return {"completion": plain(completion), **document.columns}
    return document.columns


def gathered(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns of some documents as lists; None where a document lacks one that another has."""
    names = dict.fromkeys(name for each in columns for name in each)
    return {name: [each.get(name) for each in columns] for name in names}


def padded(lists: Sequence[Sequence[Any]], length: int, fill: Any, dtype: torch.dtype) -> Tensor:
    """``[B, length]``: the lists, filled up at the right."""
    return torch.tensor([[*each, *[fill] * (length - len(each))] for each in lists], dtype=dtype)
