"""`torchward chat`: talk to a language model of a run, in the terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torchward.cli import UsageError, arguments, positional, say

if TYPE_CHECKING:
    from torchward.language.documents import Message


@dataclass(frozen=True)
class Chat:
    """Talk to the policy of a run. An empty line or Ctrl-D ends it, Ctrl-C stops an answer, /new begins anew."""

    mode: Literal["auto", "messages", "text"] = "auto"
    """messages: a conversation; text: what is typed is gone on with. auto: as in the data that it was trained on."""
    temperature: float = 0.7
    """What logits are divided by; 0: the likeliest tokens."""
    top_k: int | None = None
    """Draw among this many of the likeliest tokens; None: all."""
    top_p: float | None = None
    """Draw among the fewest likeliest tokens with this probability together; None: all."""
    max_new_tokens: int = 200
    """The largest number of tokens of an answer."""
    system: str | None = None
    """What the system says before a conversation; None: nothing."""
    seed: int = 0
    """The answers follow from it."""
    which: Literal["best", "last"] = "best"
    """The policy of the best evaluation in training (where there was none: of the end), or that of the end."""


def run(args: Sequence[str]) -> int:
    """The command."""
    words, rest = positional(args, ("RUN",), "chat")
    options: Chat = arguments.read_one(Chat(), rest, "torchward chat RUN")
    if options.temperature < 0.0 or options.max_new_tokens < 1:
        raise UsageError("temperature has to be at least 0, and max_new_tokens at least 1")
    from torchward.language.tokenizer import described
    from torchward.nets import saving
    from torchward.nets.language_model import LanguageModel
    from torchward.nets.sampling import Sampling

    path = Path(words[0])
    policy: Any = saving.load(path, which="last" if options.which == "last" else None)
    if not isinstance(policy, LanguageModel):
        raise silent(path, policy)
    policy.sampling = Sampling(options.temperature or 1.0, options.top_k, options.top_p)
    converses = options.mode == "messages" or (options.mode == "auto" and learnt_messages(path))
    speaker = Speaker(policy, described(policy.vocabulary), options, converses)
    if sys.stdin.isatty():
        say(f"{'a conversation' if converses else 'text to go on with'}; an empty line ends it, /new begins anew")
    return talk(speaker, _lines(), sys.stdout.write)


def silent(path: Path, policy: Any) -> UsageError:
    """What is said of a policy that does not talk, and what shows it."""
    from torchward.nets.masked_language_model import MaskedLanguageModel
    from torchward.nets.reward_model import RewardModel
    from torchward.nets.text_classifier import TextClassifier

    does, shows = "does not talk", f"`torchward watch {path}` shows it"
    if isinstance(policy, MaskedLanguageModel | TextClassifier):
        does, shows = "reads and does not write", f"`torchward predict {path}` shows what it makes of a text"
    elif isinstance(policy, RewardModel):
        does, shows = "judges and does not talk", f"`torchward evaluate {path}` says how often it is right"
    return UsageError(f"{path} has a {type(policy).__name__}, which {does}: {shows}")


class Speaker:
    """A language model, with what was said so far."""

    def __init__(self, policy: Any, tokenizer: Any, options: Chat, converses: bool) -> None:
        import torch

        from torchward.language.hub_template import template_of

        self.policy, self.tokenizer, self.options, self.converses = policy, tokenizer, options, converses
        self.template = template_of(tokenizer, options.system)
        self.generator = torch.Generator(policy.body.token.weight.device).manual_seed(options.seed)
        self.messages: list[Message] = []

    def forget(self) -> None:
        """Begin anew."""
        self.messages = []

    def answer(self, text: str) -> Iterator[str]:
        """The answer to ``text``, piece by piece. Of a conversation that leaves no room for an answer the oldest
        exchanges are forgotten. Raises TextError for a text that fills the model's context, which is then not kept."""
        from torchward.language.documents import Message
        from torchward.language.generate import prompt_room, stream

        if not self.converses:
            prompt = self.template.prompt(text, self.tokenizer)
            yield from stream(self.policy, self.tokenizer, prompt, **self._how())
            return
        said = [*self.messages, Message("user", text)]
        most = prompt_room(self.policy.config.max_position_embeddings, self.options.max_new_tokens)
        while len(prompt := self.template.prompt(tuple(said), self.tokenizer)) > most and len(said) > 1:
            said = said[2:]
        pieces = []
        around = self.template.around(self.tokenizer)
        answering = stream(self.policy, self.tokenizer, prompt, around=around, **self._how())
        self.messages = said
        try:
            for piece in answering:
                pieces.append(piece)
                yield piece
        finally:  # also when a person stops it
            self.messages = [*said, Message("assistant", "".join(pieces))] if pieces else said[:-1]

    def _how(self) -> dict[str, Any]:
        drawn = self.generator if self.options.temperature else None
        return {"max_new_tokens": self.options.max_new_tokens, "generator": drawn}


def talk(speaker: Speaker, lines: Iterator[str], write: Callable[[str], object]) -> int:
    """Answer each line, until there is none or an empty one."""
    from torchward.language.documents import TextError

    for line in lines:
        if not line:
            break
        if line == "/new":
            speaker.forget()
            continue
        answer = speaker.answer(line)
        try:
            for piece in answer:
                write(printable(piece))
                sys.stdout.flush()
        except KeyboardInterrupt:
            answer.close()  # type: ignore[attr-defined]
        except TextError as error:
            say(str(error))
        write("\n")
    return 0


def printable(text: str) -> str:
    """Text without what would command a terminal, such as its escape sequences."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def _lines() -> Iterator[str]:
    """What a person types."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            return
        yield line.rstrip("\r\n")


def learnt_messages(path: Path) -> bool:
    """Whether the run's data are conversations."""
    from torchward.language.documents import Completion, Dialogue, Preference, Prompt
    from torchward.launch import reopen_task
    from torchward.run import read_manifest

    try:
        problems = reopen_task(path, read_manifest(path)["manifest"]).task.problems
    except (ValueError, AttributeError):  # a policy without its run, or a run whose data have gone
        return False
    match problems.train[0].content:
        case Dialogue():
            return True
        case Prompt(prompt) | Completion(prompt, _):
            return not isinstance(prompt, str)
        case Preference(prompt, chosen, _):
            return not isinstance(prompt or chosen, str)
    return False
