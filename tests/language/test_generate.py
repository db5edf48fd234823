"""Generation: what is stored is what one text alone and read at once would give, however it was batched."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Generator, Tensor

from tests.language.models import CONTEXT, EOS, GPT, LLAMA, WORDS, model, read, within
from torchward.language.documents import TextError
from torchward.language.generate import Completions, StopWords, generate, stream
from torchward.language.tokenizer import Bytes, TextTokenizer
from torchward.nets.language_model import Chosen, LanguageModel
from torchward.nets.positions import Relative
from torchward.nets.sampling import Sampling, among, packed
from torchward.nets.transformer_config import TransformerConfig

PROMPTS = [[1], [2, 3, 4, 5, 6, 7, 8], [9, 1, 4], [3] * (CONTEXT - 2), [5, 6], [7, 7, 2, 1, 9], [8, 2]]
NEW = 8
SAMPLINGS = [Sampling(0.7), Sampling(1.4, top_k=4), Sampling(1.0, top_p=0.8), Sampling(1.2, 6, 0.7)]


def written(
    policy: LanguageModel, copies: int = 1, slots: int = 128, seed: int = 0, stop: StopWords | None = None
) -> Completions:
    noise = policy.noise((NEW, len(PROMPTS) * copies), Generator().manual_seed(seed))
    return generate(
        policy, PROMPTS, eos_id=EOS, max_new_tokens=NEW, num_generations=copies, noise=noise, slots=slots, stop=stop
    )


def repeated(copies: int) -> list[list[int]]:
    return [prompt for prompt in PROMPTS for _ in range(copies)]


def check(policy: LanguageModel, done: Completions, row: int, prompt: list[int]) -> tuple[bool, bool]:
    """That a completion is what its text alone gives. Whether it ended, and whether the context left it less room."""
    sampling = policy.sampling
    n, ended = int(done.lengths[row]), bool(done.ended[row])
    ids = done.tokens[row, :n].tolist()
    alone = read(policy, [*prompt, *ids])
    chosen = slice(len(prompt) - 1, len(prompt) - 1 + n)
    support = None if done.supports is None else done.supports[row, :n]
    expected = within(alone.log_probs[chosen], support)[torch.arange(n), ids].float()
    assert (done.log_probs[row, :n] - expected).abs().max() < 1e-4
    assert (done.values[row, :n] - alone.values[chosen]).abs().max() < 1e-4
    if sampling.is_whole:
        assert support is None
    else:
        assert support is not None
        logits = policy.sampling.temperature * alone.log_probs[chosen].float()
        assert torch.equal(support, packed(among(logits / policy.sampling.temperature, sampling)))
    # Where it ends, and what stands behind that.
    assert EOS not in ids[:-1] and ended == (ids[-1] == EOS)
    limit = min(NEW, CONTEXT - len(prompt))
    assert n == limit if not ended else 1 <= n <= limit
    behind = float(alone.values[-1])
    assert abs(behind) > 1e-3
    assert float(done.values[row, n]) == (0.0 if ended else pytest.approx(behind, abs=1e-4))
    for rest in (done.tokens[row, n:], done.log_probs[row, n:], done.values[row, n + 1 :]):
        assert not rest.any()
    return ended, limit < NEW


@pytest.mark.parametrize(("config", "sampling"), [(GPT, 0), (LLAMA, 1), (LLAMA, 2), (GPT, 3)])
@pytest.mark.parametrize(("copies", "slots"), [(1, 128), (1, 3), (3, 7), (3, 2)])
def test_what_is_stored_is_what_a_text_alone_gives(
    config: TransformerConfig, sampling: int, copies: int, slots: int
) -> None:
    """Ragged prompts, rows that leave and enter, groups, temperature, top-k and top-p."""
    policy = model(config, SAMPLINGS[sampling])
    kinds = set()
    for seed in range(2):
        done = written(policy, copies, slots, seed)
        kinds |= {check(policy, done, row, prompt) for row, prompt in enumerate(repeated(copies))}
    assert kinds >= {(True, False), (False, False), (False, True)}, "of each kind of end there is one"


@pytest.mark.parametrize("sampling", [Sampling(0.7), Sampling(1.2, 6, 0.7)])
def test_a_completion_does_not_depend_on_its_company(sampling: Sampling) -> None:
    policy = model(LLAMA, sampling)
    for copies in (1, 4):
        whole = written(policy, copies)
        for slots in (1, 3, 9):
            part = written(policy, copies, slots)
            assert torch.equal(part.tokens, whole.tokens) and torch.equal(part.lengths, whole.lengths)
            assert torch.equal(part.ended, whole.ended)
            torch.testing.assert_close(part.log_probs, whole.log_probs, atol=1e-5, rtol=0.0)
            torch.testing.assert_close(part.values, whole.values, atol=1e-5, rtol=0.0)
            assert (part.supports is None) == (whole.supports is None) == sampling.is_whole
            if part.supports is not None and whole.supports is not None:
                assert torch.equal(part.supports, whole.supports)


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("slots", [20, 64])
def test_rows_at_their_end_change_nothing_until_they_leave(slots: int, limited: bool) -> None:
    """Among many rows few at their end stay for a while; then others take their places, or all move up."""
    policy = model(LLAMA, SAMPLINGS[3])
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(60)]
    limits = [1 + i * 5 % NEW for i in range(60)] if limited else [NEW] * 60
    noise = policy.noise((NEW, 60), Generator().manual_seed(2))
    done = generate(policy, prompts, eos_id=EOS, max_new_tokens=limits, noise=noise, slots=slots)
    for row, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        alone = generate(policy, [prompt], eos_id=EOS, max_new_tokens=limit, noise=noise[:, row : row + 1])
        n = int(alone.lengths[0])
        assert done.lengths[row] == n and done.ended[row] == alone.ended[0]
        assert torch.equal(done.tokens[row, :n], alone.tokens[0]) and not done.tokens[row, n:].any()
        torch.testing.assert_close(done.log_probs[row, :n], alone.log_probs[0], atol=1e-5, rtol=0.0)
        torch.testing.assert_close(done.values[row, : n + 1], alone.values[0], atol=1e-5, rtol=0.0)
        assert not done.log_probs[row, n:].any() and not done.values[row, n + 1 :].any()
        assert done.supports is not None and alone.supports is not None
        assert torch.equal(done.supports[row, :n], alone.supports[0]) and not done.supports[row, n:].any()


def test_of_several_ends_the_first_that_comes_counts() -> None:
    """Each text is that which is cut at no end, up to the first of them, however it was batched."""
    policy, ends = model(LLAMA, SAMPLINGS[0]), (EOS, 3, 7)
    noise = policy.noise((NEW, len(PROMPTS)), Generator().manual_seed(3))
    whole = generate(policy, PROMPTS, eos_id=WORDS, max_new_tokens=NEW, noise=noise)
    found = set()
    for slots in (128, 3):
        done = generate(policy, PROMPTS, eos_id=ends, max_new_tokens=NEW, noise=noise, slots=slots)
        for row in range(len(PROMPTS)):
            ids = whole.tokens[row, : int(whole.lengths[row])].tolist()
            place = next((i for i, token in enumerate(ids) if token in ends), None)
            kept = ids if place is None else ids[: place + 1]
            assert done.tokens[row, : int(done.lengths[row])].tolist() == kept
            assert bool(done.ended[row]) == (place is not None)
            found |= {kept[-1]} & set(ends)
    assert len(found) > 1
    one = generate(policy, PROMPTS, eos_id=[EOS], max_new_tokens=NEW, noise=noise)
    alone = generate(policy, PROMPTS, eos_id=EOS, max_new_tokens=NEW, noise=noise)
    assert torch.equal(one.tokens, alone.tokens) and torch.equal(one.ended, alone.ended)


def test_another_noise_is_another_text() -> None:
    policy = model()
    assert not torch.equal(written(policy, 3).tokens, written(policy, 3, seed=1).tokens)
    answers = written(policy, 4).tokens.unflatten(0, (len(PROMPTS), 4))
    assert (answers[:, 1:] != answers[:, :1]).any(2).any(1).all(), "answers to one prompt differ"


@pytest.mark.parametrize("config", [GPT, LLAMA])
def test_without_noise_the_likeliest(config: TransformerConfig) -> None:
    policy = model(config, Sampling(0.5, top_k=2))
    done = generate(policy, PROMPTS, eos_id=EOS, max_new_tokens=NEW, num_generations=2, slots=4)
    for i, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        while len(ids) < min(len(prompt) + NEW, CONTEXT) and (len(ids) == len(prompt) or ids[-1] != EOS):
            ids.append(int(read(policy, ids).log_probs[-1].argmax()))
        for copy in (2 * i, 2 * i + 1):
            assert done.tokens[copy, : int(done.lengths[copy])].tolist() == ids[len(prompt) :]


def test_each_prompt_may_have_a_length_of_its_own() -> None:
    policy = model()
    limits = [3, 8, 1, 6, 2, 4, 5]
    noise = policy.noise((8, len(PROMPTS)), Generator().manual_seed(0))
    done = generate(policy, PROMPTS, eos_id=EOS, max_new_tokens=limits, noise=noise, slots=3)
    whole = written(policy)
    for row, (prompt, limit) in enumerate(zip(PROMPTS, limits, strict=True)):
        n = min(limit, int(whole.lengths[row]))
        assert done.lengths[row] == n
        assert torch.equal(done.tokens[row, :n], whole.tokens[row, :n])
        text = [*prompt, *done.tokens[row, :n].tolist()]
        behind = 0.0 if done.ended[row] else float(read(policy, text).values[-1])
        assert float(done.values[row, n]) == pytest.approx(behind, abs=1e-5)


def test_positions_without_a_limit_end_at_the_context_too() -> None:
    policy = model(GPT, positions=Relative(8, 12))
    done = written(policy)
    room = torch.tensor([min(NEW, CONTEXT - len(prompt)) for prompt in PROMPTS])
    assert (done.lengths <= room).all() and (done.lengths[~done.ended] == room[~done.ended]).all()


def test_dropout_is_off_while_it_writes() -> None:
    """And on again afterwards, also where writing fails."""
    expected = written(model())
    policy = model(GPT, dropout=0.5)
    policy.train()
    found = written(policy)
    assert policy.training and all(module.training for module in policy.modules())
    assert torch.equal(found.tokens, expected.tokens) and torch.equal(found.log_probs, expected.log_probs)
    with pytest.raises(IndexError):
        generate(policy, [[WORDS]], eos_id=EOS, max_new_tokens=2)
    assert policy.training


@pytest.mark.parametrize(
    ("prompts", "how", "sentence"),
    [
        ([[1], []], {}, f"expected prompts of 1 to {CONTEXT - 1} tokens, .* got 0 in prompt 1"),
        ([[1] * CONTEXT], {}, f"got {CONTEXT} in prompt 0"),
        ([], {}, "at least one prompt"),
        ([[1]], {"max_new_tokens": 0}, "new token"),
        ([[1]], {"max_new_tokens": [3, 4]}, "new token"),
        ([[1]], {"num_generations": 0}, "completion"),
        ([[1]], {"slots": 0}, "slot"),
    ],
)
def test_what_cannot_be_written_is_refused(prompts: list[list[int]], how: dict[str, object], sentence: str) -> None:
    with pytest.raises(TextError, match=sentence):
        generate(model(), prompts, eos_id=EOS, **{"max_new_tokens": 3, **how})  # type: ignore[arg-type]


# Stop sequences


class Pieces:
    """A vocabulary in which words begin in one token and end in another; what generation asks of a tokenizer."""

    words = (b"a", b"b", b"ab", b"ba", b"\n", b"\n\n", b"b\n", b"aab", b"\xc3", b"\xa4", b"c", b"", b"")
    eos_id = 12
    end_ids = (12,)

    def bytes_of(self, token: int) -> bytes:
        return self.words[token]

    @classmethod
    def read(cls, tokens: list[int]) -> bytes:
        """What is read of some, of which the 11th, padding say, has no text, and the last ends it."""
        return b"".join("\ufffd".encode() if token == 11 else cls.words[token] for token in tokens)


def stopped(*words: str) -> StopWords:
    return StopWords(Pieces(), words)  # type: ignore[arg-type]


WANTED: list[tuple[str, ...]] = [("ab",), ("\n\n",), ("ä", "ba"), ("aaba", "c"), ("\na",)]


@pytest.mark.parametrize("words", WANTED)
def test_a_word_is_found_where_it_ends(words: tuple[str, ...]) -> None:
    """In every text of four tokens, and in random long ones: at the first token with which the text contains it."""
    generator = Generator().manual_seed(0)
    short = list(itertools.product(range(11), repeat=4))[::7]
    long = torch.randint(12, (60, 25), generator=generator).tolist()
    for texts in (short, long):
        stop, tokens = stopped(*words), torch.tensor(texts)
        found = torch.stack([stop.found(torch.arange(len(texts)), tokens[:, t]) for t in range(tokens.shape[1])], 1)
        for text, where in zip(texts, found.tolist(), strict=True):
            contains = [any(word.encode() in Pieces.read(text[: t + 1]) for word in words) for t in range(len(text))]
            first = contains.index(True) if any(contains) else len(text)
            assert where[: first + 1] == contains[: first + 1]


@pytest.mark.parametrize("words", WANTED)
def test_a_completion_ends_behind_a_stop_sequence(words: tuple[str, ...]) -> None:
    policy = model(GPT)
    stop = stopped(*words)
    whole = written(policy, 6)
    for slots in (128, 5):  # the same one again: it forgets what it has seen
        done = written(policy, 6, slots, stop=stop)
        hits = 0
        for row in range(len(done.lengths)):
            tokens = whole.tokens[row, : int(whole.lengths[row])].tolist()
            ends = [
                n for n in range(1, len(tokens) + 1) if any(word.encode() in Pieces.read(tokens[:n]) for word in words)
            ]
            n = ends[0] if ends else len(tokens)
            assert done.tokens[row, : int(done.lengths[row])].tolist() == tokens[:n]
            assert bool(done.ended[row]) == (bool(ends) or bool(whole.ended[row]))
            hits += bool(ends)
        assert hits


def test_stop_sequences_say_something() -> None:
    for words in (("",), ("a", ""), ()):
        with pytest.raises(TextError, match="at least one character"):
            stopped(*words)


# For a person


def test_a_stream_is_what_generation_writes() -> None:
    tokenizer = Bytes().build(())
    policy = model(GPT, vocab_size=tokenizer.vocab_size, max_position_embeddings=60, dropout=0.3)
    with torch.no_grad():
        policy.get_parameter("body.head_bias")[tokenizer.eos_id] += 5.0
    prompt = tokenizer.encode("Wörter: ")
    lengths = []
    for seed in range(6):
        noise = torch.rand(50, 1, generator=Generator().manual_seed(seed))
        done = generate(policy, [prompt], eos_id=tokenizer.eos_id, max_new_tokens=50, noise=noise)
        expected = tokenizer.decode(done.tokens[0, : int(done.lengths[0])].tolist())
        policy.train()
        pieces = list(stream(policy, tokenizer, prompt, max_new_tokens=50, generator=Generator().manual_seed(seed)))
        assert "".join(pieces) == expected and policy.training
        lengths.append(int(done.lengths[0]))
    assert min(lengths) < max(lengths) == 50, "some end before the length does"
    likeliest = generate(policy, [prompt], eos_id=tokenizer.eos_id, max_new_tokens=9)
    pieces = list(stream(policy, tokenizer, prompt, max_new_tokens=9))
    assert "".join(pieces) == tokenizer.decode(likeliest.tokens[0].tolist())


def test_a_stream_ends_with_its_text_and_with_the_context() -> None:
    tokenizer = Bytes().build(())
    policy = model(GPT, vocab_size=tokenizer.vocab_size)
    length = sum(len(piece) for piece in _said(policy, tokenizer, [65] * 12, 50))
    assert 0 < length <= CONTEXT - 12
    with torch.no_grad():
        policy.body.token.weight[tokenizer.eos_id] = 50.0 * _last(policy, [65] * 12)
    assert _said(policy, tokenizer, [65] * 12, 50) == [], "end-of-text is not shown"
    for wrong in ([], [65] * CONTEXT):
        with pytest.raises(TextError, match="expected a prompt of 1 to"):
            _said(policy, tokenizer, wrong, 5)


def test_a_stream_waits_for_whole_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Bytes().build(())
    policy = model(GPT, vocab_size=tokenizer.vocab_size)
    tokens = iter("aäb".encode() + "€".encode()[:2])
    nothing = torch.zeros(1)
    monkeypatch.setattr(policy, "choose", lambda *_: Chosen(torch.tensor([next(tokens)]), nothing, nothing, None))
    assert _said(policy, tokenizer, [65], 6) == ["a", "ä", "b", "\ufffd"]


def _said(policy: LanguageModel, tokenizer: TextTokenizer, prompt: Sequence[int], count: int) -> list[str]:
    return list(stream(policy, tokenizer, prompt, max_new_tokens=count))


def _last(policy: LanguageModel, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return policy.body.forward(torch.tensor([ids]))[0, -1]
