"""Letters to be answered with letters, in one turn or in several: problems, a policy and a source of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.language.models import GPT, model
from torchward.language.documents import Document, Message, Prompt
from torchward.language.source import TextSource
from torchward.language.task import Partner, Problems, Reply
from torchward.language.tokenizer import Characters
from torchward.nets.language_model import LanguageModel
from torchward.nets.sampling import Sampling

LETTERS = Characters().build(["abcdefgh=? "])
TEXTS = ["a=", "abc=", "h?=", "abcdefgh=", "b?b?=", "c=", "=?="]


def lengths(prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
    """An answer earns its number of letters, and the weight of its document."""
    return [len(said) + weight for said, weight in zip(completions, columns["weight"], strict=True)]


def problems(texts: Sequence[str] = TEXTS, **changes: Any) -> Problems:
    documents = [Document(Prompt(text), f"line {i}", {"weight": 100.0 * i}) for i, text in enumerate(texts)]
    made: dict[str, Any] = {"reward": lengths, "max_completion_length": 6, **changes}
    return Problems("letters", documents, documents[:2], **made)


def policy(sampling: Sampling | None = None, context: int = 60, ends: float = 1.0) -> LanguageModel:
    return model(GPT, sampling, vocab_size=LETTERS.vocab_size, max_position_embeddings=context, ends=ends)


def source(of: Problems | None = None, n: int = 12, seed: int = 0, **how: Any) -> TextSource:
    return TextSource(of or problems(), LETTERS, n, seed, **{"num_generations": 3, **how})


def partner(said: Sequence[str], columns: Mapping[str, Any]) -> Reply:
    """Ends the conversation where the answer begins with a, pays an eighth for each letter, and answers at length."""
    if said[-1].startswith("a"):
        return Reply(None, 5.0)
    return Reply("abc=?"[: 1 + int(columns["weight"]) // 100], len(said[-1]) / 8.0)


def asked(texts: Sequence[str] = TEXTS) -> list[Document]:
    return [
        Document(Prompt((Message("user", text),)), f"line {i}", {"weight": 100.0 * i}) for i, text in enumerate(texts)
    ]


def talking(answers: Partner = partner, turns: int = 3, **how: Any) -> Problems:
    documents = asked()
    return Problems("talk", documents, documents[:2], lengths, partner=answers, turns=turns, **how)
