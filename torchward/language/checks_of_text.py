"""The doctor on text: whether what a model is asked is written in the tokens that it has learnt."""

from collections.abc import Sequence

from torchward.language.documents import Completion, Document
from torchward.language.finding import Finding
from torchward.language.tokenizer import Tokenizer

NAME = "prompt ends"
FEW = 0.05
"""The part of the texts that may be otherwise."""


def prompt_ends(documents: Sequence[Document], tokenizer: Tokenizer) -> Finding:
    """Whether prompts end where tokens do: a prompt and its answer, encoded one after the other, should be the tokens
    of both together. Else a model that has read whole texts is asked in tokens that it has never seen there.

    Tokens of byte pairs put the space before a word to the word, and a line's end to the space behind it."""
    pairs = [
        (each.content.prompt, each.content.completion, each.origin)
        for each in documents
        if isinstance(each.content, Completion)
    ]
    texts = [(ask, answer, origin) for ask, answer, origin in pairs if isinstance(ask, str) and isinstance(answer, str)]
    if not texts:
        return Finding(NAME, None, "not looked at: there is no text with a prompt and an answer")
    wrong = [
        (ask, answer, origin)
        for ask, answer, origin in texts
        if [*tokenizer.encode(ask), *tokenizer.encode(answer)] != list(tokenizer.encode(ask + answer))
    ]
    if len(wrong) <= FEW * len(texts):
        alike = len(texts) - len(wrong)
        return Finding(
            NAME, True, f"prompt and answer are the tokens of the whole text in {alike} of {len(texts)} texts"
        )
    ask, answer, origin = wrong[0]
    return Finding(
        NAME,
        False,
        f"In {len(wrong)} of {len(texts)} texts a token of the whole text lies across the end of the prompt, first in "
        f"{origin}, between {ask[-8:]!r} and {answer[:8]!r}: a model that was pretrained on whole texts does not know "
        "such a beginning. Let white space at a prompt's end be the answer's beginning, or fine-tune on these pairs.",
    )
