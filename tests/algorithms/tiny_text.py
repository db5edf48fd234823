"""Two letters to be written the other way round, and a transformer that is just large enough to learn it."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from torchward.data.random import seeded
from torchward.language.documents import Completion, Dialogue, Document, Message, Preference, Prompt
from torchward.language.rewards import exact_match
from torchward.language.task import Problems, Reply
from torchward.language.text_task import Text
from torchward.language.tokenizer import Characters
from torchward.nets.language_model import LanguageModel
from torchward.nets.transformer import Transformer
from torchward.nets.transformer_config import TransformerConfig

LETTERS = "abcdef"


def letters(prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
    """The share of an answer's letters that were said at all: something that chance earns now and then."""
    return [len(set(one) & set(said)) / len(set(one)) for one, said in zip(columns["answer"], completions, strict=True)]


def task(in_turns: bool = False, graded: bool = False) -> Text:
    """Each pair of letters; a quarter of them is held out. In turns, the partner says once more what is wanted. Graded,
    a reward is for what an untrained policy does too."""
    every = [
        Document(Completion(f"{a}{b}=", f"{b}{a}"), f"{a}{b}", {"answer": f"{b}{a}"})
        for a, b in product(LETTERS, repeat=2)
    ]
    test, train = every[::4], [document for i, document in enumerate(every) if i % 4]
    if not in_turns:
        reward = letters if graded else exact_match
        return Text(Problems("pairs", train, test, reward, tokenizer=Characters(), max_completion_length=3))
    asked = [
        Document(Dialogue((Message("user", "ab="), Message("assistant", "ba"))), document.origin, document.columns)
        for document in train
    ]
    return Text(
        Problems(
            "pairs in turns", asked, asked, lambda prompts, completions, **_: [0.0] * len(prompts),
            partner=lambda said, columns: Reply("=" if len(said) < 2 else None, float(len(said[-1])) / 8),
            turns=3, tokenizer=Characters(), max_completion_length=3,
        )
    )  # fmt: skip


def preferred() -> Text:
    """Each pair of two letters as it should be written, and as it should not."""
    every = [
        Document(Preference(f"{a}{b}=", f"{b}{a}", f"{a}{b}"), f"{a}{b}", {"answer": f"{b}{a}"})
        for a, b in product(LETTERS, repeat=2)
    ]
    test, train = every[::4], [document for i, document in enumerate(every) if i % 4]
    return Text(Problems("preferred", train, test, exact_match, tokenizer=Characters(), max_completion_length=3))


def labelled() -> Text:
    """Each pair of letters, with the first of the two as its label."""
    every = [Document(Prompt(f"{a}{b}"), f"{a}{b}", {"label": a}) for a, b in product(LETTERS, repeat=2)]
    test, train = every[::4], [document for i, document in enumerate(every) if i % 4]
    return Text(Problems("letters", train, test, exact_match, tokenizer=Characters(), corpus=every))


def policy(of: Text, seed: int = 0, dropout: float = 0.0) -> LanguageModel:
    """An untrained one."""
    made = TransformerConfig(
        vocab_size=of.tokenizer.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, value_head=True, initializer_range=0.2, dropout=dropout,
    )  # fmt: skip
    with seeded(seed, "tiny"):
        return LanguageModel(Transformer(made), of.tokenizer.description())
