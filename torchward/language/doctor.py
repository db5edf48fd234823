"""The doctor: what the training of a language model stands on, looked at in a user's own model, tokenizer and data.

A fault here raises no error and spoils what is learnt: a ratio that is not 1 at first, a cache that is off by one, an
end-of-text that is never learnt. Each check is a function of what it needs; :func:`examine` prepares that and calls.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from torchward.config import ConfigError
from torchward.data.sequences import Sequences, TokenSequence
from torchward.language.chat import encode_all
from torchward.language.checks_of_adapters import adapters
from torchward.language.checks_of_learning import Cost, ends, first_ratio, masked_steps, same_loss
from torchward.language.checks_of_sampling import (
    cached_decode,
    dropout,
    sampled_tokens,
    support,
    temperature,
    weights,
)
from torchward.language.checks_of_text import prompt_ends
from torchward.language.documents import Completion, Document, Preference, Prompt, TextError, imitated
from torchward.language.finding import WHOLE, Finding, device_of, drawing
from torchward.language.play import question
from torchward.language.source import TextSource
from torchward.language.task import Problems
from torchward.language.text_task import Text
from torchward.nets.encoder_decoder import EncoderDecoder
from torchward.nets.language_model import LanguageModel

NEW_TOKENS = 24
"""The largest number of tokens of a completion that is looked at."""
SHOWN = 1000
"""The largest number of texts whose ends are looked at."""


def examine(
    policy: LanguageModel,
    task: Text,
    cost: Cost,
    *,
    prompts: int = 8,
    seed: int = 0,
    start: LanguageModel | None = None,
) -> Iterator[Finding]:
    """Every check, one after the other, on ``prompts`` prompts of the task, each answered twice.

    ``cost`` is the loss of imitation, as training computes it; ``start`` is what the base of an adapted policy was. A
    check that fails by an error has found something too; where weights are no numbers, that is all that is looked at.
    Raises TextError where the task has no prompt that leaves room in the model's context."""
    whole = _looked(partial(weights, policy))
    yield whole
    if not whole.ok:  # nothing can be drawn from it
        return
    tokenizer, device = task.tokenizer, str(device_of(policy))
    problems = asking(task, policy.config.max_position_embeddings, prompts)
    eos, pad = tokenizer.eos_id, tokenizer.pad_id

    def source() -> TextSource:
        count = 2 * len(problems.train)
        return TextSource(problems, tokenizer, count, seed, device, num_generations=2, template=task.template)

    written = source()
    with drawing(policy, WHOLE):
        rollout = written.collect(policy, None)
    texts = [line.ids for line in written.lines[::2]]
    asked = [line.ids[: line.own.index(True)] for line in written.lines[::2]]
    said = Sequences.of((TokenSequence(line.ids, line.own) for line in written.lines), policy.config.vocab_size)
    shown, unreadable = None, None
    try:
        shown = demonstrations(task, SHOWN)
    except (TextError, ConfigError) as error:
        unreadable = Finding("ends", False, f"Its texts cannot be learnt from: {error}.")
    # With a partner a conversation may also end by what it says.
    ended = rollout if problems.partner is None else None
    decode = _looked(partial(cached_decode, policy, asked))
    yield decode
    if decode.ok:
        yield _looked(partial(first_ratio, policy, rollout, seed))
    else:
        yield Finding(
            "first ratio", None, "not looked at: what sampling stores comes from the cache, and that is wrong"
        )
    yield _looked(partial(sampled_tokens, policy, source(), tokenizer))
    yield _looked(partial(temperature, policy, texts, seed))
    yield _looked(partial(support, policy, texts, source(), seed))
    yield _looked(partial(dropout, policy, rollout, asked[:4]))
    yield _looked(partial(masked_steps, policy, rollout))
    yield _looked(partial(same_loss, policy, said if shown is None else shown, pad, cost))
    yield unreadable or _looked(partial(ends, shown, ended, eos, pad, tokenizer.end_ids))
    if isinstance(policy.body, EncoderDecoder):
        yield Finding("prompt ends", None, "not looked at: an encoder reads the prompt, and nobody the two as one text")
    else:
        yield _looked(partial(prompt_ends, task.problems.train[:SHOWN], tokenizer))
    yield _looked(partial(adapters, policy, texts, start))


def asking(task: Text, context: int, count: int) -> Problems:
    """The first ``count`` prompts of a task that leave room in a context, as problems whose answers earn nothing. Of a
    plain text its first words are the prompt. Raises TextError where there is none."""
    found: list[Document] = []
    for document in task.problems.train:
        if len(found) == count:
            break
        asked = Document(_prompt(document, context), document.origin, document.columns)
        if len(task.template.prompt(question(asked), task.tokenizer)) + 2 <= context:
            found.append(asked)
    if not found:
        raise TextError(f"expected prompts of {task.name} that leave room in a context of {context} tokens, got none")
    return Problems(
        task.name, found, (), _nothing, partner=task.problems.partner, turns=task.problems.turns,
        max_completion_length=min(NEW_TOKENS, task.problems.max_completion_length),
    )  # fmt: skip


def demonstrations(task: Text, count: int) -> Sequences | None:
    """The first ``count`` texts that the task gives to imitate: those with an answer, else plain ones, cut to a page;
    None where there are only prompts. Raises TextError as encoding does."""
    given = task.problems.imitated
    every = (shown for each in given if (shown := imitated(each)) is not None)
    some = [each for each in every if not (isinstance(each.content, Completion) and each.content.cut)][:count]
    if not some:
        some = [Document(each.content[:4000], each.origin) for each in given if isinstance(each.content, str)][:count]
    return encode_all(some, task.tokenizer, task.template).sequences if some else None


def _prompt(document: Document, context: int) -> Prompt:
    match document.content:
        case str(text):
            return Prompt(text[: max(1, min(64, context // 8))])
        case Preference(prompt, _, _):
            return Prompt(prompt)
    return Prompt(question(document))


def _nothing(prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float]:
    return [0.0] * len(prompts)


def _looked(check: "partial[Finding]") -> Finding:
    """What a check finds; an error is a finding too."""
    try:
        return check()
    except Exception as error:  # in a model of the user's own anything may be raised
        name = check.func.__name__.replace("_", " ")
        return Finding(name, False, f"It could not be looked at, for it fails: {type(error).__name__}: {error}.")
