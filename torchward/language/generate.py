"""Text from a language model: many completions at once, each with what the policy said while it wrote them.

A batch has a fixed number of slots. A prompt is read once, however many completions it gets; a completion that is
finished leaves its slot, and where others wait, they enter. What is drawn for a completion depends on its number alone,
not on what else is in the batch.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from torchward.language.documents import TextError
from torchward.language.tokenizer import ALONE, Around, Stream, Tokenizer
from torchward.nets import kv_cache
from torchward.nets.dropout import without_dropout
from torchward.nets.kv_cache import Cache
from torchward.nets.language_model import Chosen, LanguageModel
from torchward.nets.replayed import ReplayedSteps, cuda_graphs
from torchward.nets.transformer import Transformer

UNSAID = "\ufffd".encode()
CHUNK = 16
"""By how many slots a cache grows at least."""
SLOTS = 128
"""Completions that are written at a time, by default; those of one prompt always together."""


@dataclass(frozen=True)
class Completions:
    """``N`` completions of at most ``L`` tokens: those of the first prompt, then those of the second, and so on."""

    tokens: Tensor
    """``[N, L]`` int64; behind a completion's end, 0."""
    log_probs: Tensor
    """``[N, L]`` float32, of each token under the distribution that it was drawn from."""
    values: Tensor
    """``[N, L + 1]`` float32: before each token, and, where the length ended a completion, behind its last one."""
    lengths: Tensor
    """``[N]`` int64: tokens of each, its end-of-text included."""
    ended: Tensor
    """``[N]`` bool: True where end-of-text or a stop sequence ended it, False where the length did."""
    supports: Tensor | None
    """``[N, L, bytes]``: what each token was drawn among; None where it was among all."""


def heard(tokenizer: Tokenizer, token: int) -> bytes:
    """What somebody reads who judges a token: one without text, other than those that end one, is U+FFFD.

    Padding or a role within an answer would else be passed over, and an answer earn what it never said."""
    return tokenizer.bytes_of(token) or (b"" if token in tokenizer.end_ids else UNSAID)


class StopWords:
    """Finds where completions say one of some words; a completion ends behind it. They may begin in one token and end
    in another."""

    def __init__(self, tokenizer: Tokenizer, words: Sequence[str]) -> None:
        self.tokenizer, self.words = tokenizer, tuple(word.encode() for word in words)
        if not self.words or not all(self.words):
            raise TextError(f"expected stop sequences of at least one character, got {list(words)}")
        self.tails: dict[int, bytes] = {}
        """The last bytes of each completion."""

    def begin(self) -> None:
        """Forget what was said: other completions begin."""
        self.tails = {}

    def found(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Which of the ``rows`` a word ends in, with these new tokens."""
        found = []
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            text = self.tails.get(row, b"") + heard(self.tokenizer, token)
            found.append(any(word in text for word in self.words))
            self.tails[row] = text[-max(map(len, self.words)) :]
        return torch.tensor(found, dtype=torch.bool, device=rows.device)


@torch.no_grad()
def generate(
    policy: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    eos_id: int | Sequence[int],
    max_new_tokens: int | Sequence[int],
    num_generations: int = 1,
    noise: Tensor | None = None,
    stop: StopWords | None = None,
    slots: int = SLOTS,
) -> Completions:
    """``num_generations`` completions of each prompt, each up to ``eos_id`` or, of several, the first that comes.

    ``max_new_tokens`` may be one number for all, or one for each prompt. ``noise`` is
    ``policy.noise((max(max_new_tokens), N), generator)``; without it completions are the likeliest, token by
    token. Where a prompt leaves less room in the model's context than ``max_new_tokens``, its completions are that
    much shorter. Raises TextError for an empty prompt and one that fills the context."""
    context = policy.config.max_position_embeddings
    for number, prompt in enumerate(prompts):
        if not 1 <= len(prompt) < context:
            raise TextError(
                f"expected prompts of 1 to {context - 1} tokens, the model's context less one, got {len(prompt)} in "
                f"prompt {number}"
            )
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if not prompts or len(limits) != len(prompts) or min(limits) < 1 or num_generations < 1 or slots < 1:
        raise TextError("expected at least one prompt, new token for each, completion of each and slot")
    if stop is not None:
        stop.begin()
    # Tensors that can never enter autograd are a tenth cheaper to work with. What others compute may keep some of them.
    with without_dropout(policy), torch.inference_mode(isinstance(policy.body, Transformer)):
        batch = _Batch(policy, prompts, limits, num_generations, noise, slots)
        several = [eos_id] if isinstance(eos_id, int) else list(eos_id)
        ends = several[0] if len(several) == 1 else torch.tensor(several, device=batch.device)
        while batch.fill():
            batch.leave(ends, batch.choose(), stop)
            batch.step()
    return batch.done()


class _Said(NamedTuple):
    """What was chosen for each row in one step: the token at ``place`` in completion ``number``."""

    number: Tensor
    place: Tensor
    token: Tensor
    log_prob: Tensor
    value: Tensor
    support: Tensor | None


class _Batch:
    """The slots, and what is written in them. ``number`` says which completion each row is, ``count`` how many tokens
    it has; a row that its length ended stays for one step more, in which it is asked for a value alone.

    A row that has come to its end is computed on, and nothing of it counts, until enough others have: to close up takes
    about as long as to compute an eighth of the rows."""

    def __init__(
        self,
        policy: LanguageModel,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        copies: int,
        noise: Tensor | None,
        slots: int,
    ) -> None:
        self.policy, self.prompts, self.copies, self.noise = policy, prompts, copies, noise
        self.device = policy.body.token.weight.device
        self.total, config = len(prompts) * copies, policy.config
        self.context = config.max_position_embeddings
        both = list(zip(prompts, limits, strict=True))
        room = torch.tensor([min(self.context - len(prompt), limit) for prompt, limit in both])
        self.limits = room.repeat_interleave(copies).to(self.device)
        self.size = min(self.context, max(len(prompt) + limit for prompt, limit in both))
        self.groups = max(1, slots // copies)
        self.waiting = 0
        """The prompts before this one have been read."""
        self.lengths = torch.zeros(self.total, dtype=torch.int64, device=self.device)
        self.ended = torch.zeros(self.total, dtype=torch.bool, device=self.device)
        self.said = list[_Said]()
        # A CPU reads memory without gaps twice as fast: there a row has the slots that are needed by now, and no more.
        own = isinstance(policy.body, Transformer)
        self.grows = own and self.device.type == "cpu" and not policy.cuda_graphs
        self.whole = policy.body.cache(min(self.groups * copies, self.total), 0 if self.grows else self.size)
        graphs = policy.cuda_graphs
        self.read = ReplayedSteps(policy.body, self.whole, cuda_graphs(self.device)) if graphs else policy.body.step
        self.cache = kv_cache.first(self.whole, 0)
        """The part of the whole one that has rows."""
        self.number = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.count, self.limit, self.last = self.number, self.number, self.number
        self.runs = torch.zeros(0, dtype=torch.bool, device=self.device)
        """False where a row has come to its end."""
        self.running = 0
        """How many rows have not."""
        self.hidden = torch.zeros(0, config.hidden_size, device=self.device, dtype=policy.body.token.weight.dtype)
        self.span = 0
        """The longest row's tokens."""

    def done(self) -> Completions:
        """All that was said, completion by completion; in tensors as all others, if called outside inference mode."""
        longest = int(self.lengths.max())
        number, place, token, log_prob, value = (
            torch.cat([part for part in parts if part is not None])
            for parts in zip(*(x[:5] for x in self.said), strict=True)
        )
        length = self.lengths[number]
        own = place < length
        asked = own | ((place == length) & ~self.ended[number])

        def spread(part: Tensor) -> Tensor:
            made = part.new_zeros(self.total, longest, *part.shape[1:])
            made[number[own], place[own]] = part[own]
            return made

        values = value.new_zeros(self.total, longest + 1)
        values[number[asked], place[asked]] = value[asked]
        supports = [each.support for each in self.said if each.support is not None]
        return Completions(
            spread(token),
            spread(log_prob),
            values,
            self.lengths.clone(),
            self.ended.clone(),
            spread(torch.cat(supports)) if supports else None,
        )

    def fill(self) -> bool:
        """Let prompts enter where there is room for them; False when all is done."""
        free = self.groups - -(-self.running // self.copies)
        left = len(self.prompts) - self.waiting
        # Reading a prompt takes about as long as a step of the whole batch: a few enter together.
        if left and free >= min(left, max(1, self.groups // 8)):
            self.hidden = self.hidden[self._close_up()]
            self._enter(min(left, free))
        return self.running > 0

    def _enter(self, count: int) -> None:
        policy, device = self.policy, self.device
        which = range(self.waiting, self.waiting + count)
        self.waiting += count
        longest = max(len(self.prompts[i]) for i in which)
        lengths = torch.tensor([len(self.prompts[i]) for i in which])
        mask = torch.arange(longest) >= longest - lengths[:, None]
        tokens = torch.tensor([[0] * (longest - len(self.prompts[i])) + list(self.prompts[i]) for i in which])
        padded = None if bool(mask.all()) else mask.to(device)
        hidden, cache = policy.read(tokens.to(device), padded, longest)
        if self.copies > 1:
            each = torch.arange(count, device=device).repeat_interleave(self.copies)
            hidden, cache = hidden.index_select(0, each), kv_cache.rows(cache, each)
        self._make_room(longest + 1, self.whole)
        number = which.start * self.copies + torch.arange(len(hidden), device=device)
        length = torch.cat([self.cache.length, cache.length])
        here = torch.arange(len(self.number), len(length), device=device)
        kv_cache.enter(self.whole, here, cache)
        self.cache = kv_cache.first(self.whole, len(length))._replace(length=length)
        self.number = torch.cat([self.number, number])
        self.count = torch.cat([self.count, torch.zeros_like(number)])
        self.limit = torch.cat([self.limit, self.limits[number]])
        self.runs = torch.cat([self.runs, torch.ones_like(number, dtype=torch.bool)])
        self.hidden = torch.cat([self.hidden, hidden])
        self.running += len(number)
        self.span = max(self.span, longest)

    def choose(self) -> Chosen:
        """The next token of each row, taken down."""
        noise = None if self.noise is None else self.noise[self.count.clamp_max(len(self.noise) - 1), self.number]
        chosen = self.policy.choose(self.hidden, noise)
        self.said.append(_Said(self.number, self.count, chosen.token, chosen.log_prob, chosen.value, chosen.support))
        return chosen

    def leave(self, eos_id: int | Tensor, chosen: Chosen, stop: StopWords | None) -> None:
        """Rows come to their end."""
        over = self.count >= self.limit  # the length had ended it one step ago
        ends = torch.isin(chosen.token, eos_id) if isinstance(eos_id, Tensor) else chosen.token == eos_id
        if stop is not None:
            ends |= stop.found(self.number, chosen.token)
        self.last = chosen.token
        leaving = ((over | ends) & self.runs).nonzero().squeeze(1)
        self.count = self.count + 1
        if not len(leaving):
            return
        which, over = self.number.index_select(0, leaving), over.index_select(0, leaving)
        self.lengths.index_copy_(0, which, self.count.index_select(0, leaving) - over.long())
        self.ended.index_copy_(0, which, ends.index_select(0, leaving) & ~over)
        self.runs = self.runs.index_fill(0, leaving, False)
        self.running -= len(leaving)
        if 8 * self.running <= 7 * len(self.number):
            self._close_up()
        else:  # what a row writes behind its end takes no room
            self.cache.length.masked_fill_(~self.runs, 0)
            self.span = int(self.cache.length.max())

    def _close_up(self) -> Tensor | slice:
        """Rows at their end leave; where those that stay stood."""
        if self.running == len(self.number):
            return slice(None)
        self.cache, stood = kv_cache.closed_up(self.cache, self.runs, self.span)
        self.number, self.count, self.last = self.number[stood], self.count[stood], self.last[stood]
        self.limit, self.runs = self.limit[stood], self.runs[stood]
        self.span = int(self.cache.length.max()) if self.running else 0
        return stood

    def step(self) -> None:
        """Read the tokens that were chosen."""
        if not self.running:
            self.hidden = self.hidden[:0]
            return
        self.span += 1
        # Where nobody waits, rows that have left are not copied.
        self._make_room(self.span, self.whole if self.waiting < len(self.prompts) else self.cache)
        span = self.whole.size if self.grows else self.span
        self.hidden, self.cache = self.read(self.last, self.cache, span)

    def _make_room(self, slots: int, rows: Cache) -> None:
        """Let ``rows`` have so many slots, and some more, that they need not be copied soon again; they are then all
        rows that there are."""
        if slots <= self.whole.size:
            return
        more = max(CHUNK, slots // 8)
        self.whole = kv_cache.grown(rows, min(self.size, -(-slots // more) * more))
        self.cache = kv_cache.first(self.whole, len(self.number))._replace(length=self.cache.length)


def prompt_room(context: int, max_new_tokens: int) -> int:
    """How many tokens of a conversation are read, so that an answer has its length, or a quarter of the context."""
    return context - min(max_new_tokens, context // 4)


@torch.no_grad()
def stream(
    policy: LanguageModel,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    generator: torch.Generator | None = None,
    around: Around = ALONE,
) -> Generator[str, None, bool]:
    """One completion for a person who reads along: its text piece by piece, without its end-of-text and what a template
    writes ``around`` it; and at the end whether it came to one, or its length cut it. Without a generator it is the
    likeliest, token by token. Raises TextError for a prompt that fills the model's context."""
    context, device = policy.config.max_position_embeddings, policy.body.token.weight.device
    if not 1 <= len(prompt) < context:
        raise TextError(f"expected a prompt of 1 to {context - 1} tokens, got {len(prompt)}")
    room = min(max_new_tokens, context - len(prompt))
    text, ended = Stream(tokenizer, around), False
    with without_dropout(policy):
        hidden, cache = policy.read(torch.tensor([list(prompt)], device=device), None, len(prompt) + room)
        for count in range(room):
            noise = None if generator is None else policy.noise((1,), generator)
            token = policy.choose(hidden, noise).token
            if ended := int(token) in tokenizer.end_ids:
                break
            if piece := text.push(int(token)):
                yield piece
            if count + 1 < room:
                hidden, cache = policy.body.step(token, cache, len(prompt) + count + 1)
    if rest := text.finish():
        yield rest
    return ended
