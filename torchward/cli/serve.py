"""`torchward serve`: a local page on which people talk to a run's language model and say which answers are better."""

import asyncio
import contextlib
import errno
import re
import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torchward.cli import UsageError, arguments, positional, say

if TYPE_CHECKING:
    from torchward.serve.server import Server


@dataclass(frozen=True)
class Serve:
    """A page to talk to the policy of a run and to judge its answers; judgements go to a file to learn from."""

    feedback: str = "feedback.db"
    """The file that judgements go to; it is made, or added to."""
    port: int = 8000
    """The port; 0: a free one."""
    host: str = "127.0.0.1"
    """The address to listen on. On any but this machine's own, whoever asks has to have the token."""
    token: str | None = None
    """What whoever asks has to have: 16 or more letters, digits, - or _. None: a fresh one where one is needed."""
    answers: Literal[1, 2] = 2
    """How many answers the page asks for at first; there it can be changed."""
    rating: Literal["thumbs", "stars"] = "thumbs"
    """How a single answer is rated: up or down, or with 1 to 5 stars."""
    mode: Literal["auto", "messages", "text"] = "auto"
    """messages: a conversation; text: what is typed is gone on with. auto: as in the data that it was trained on."""
    temperature: float = 0.7
    """What logits are divided by; 0: the likeliest tokens, and one answer alone."""
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
    max_sessions: int = 100
    """Conversations that are kept at a time."""
    max_waiting: int = 16
    """Questions that may wait for the model at a time."""
    which: Literal["best", "last"] = "best"
    """The policy of the best evaluation in training (where there was none: of the end), or that of the end."""


def run(args: Sequence[str]) -> int:
    """The command."""
    words, rest = positional(args, ("RUN",), "serve")
    options: Serve = arguments.read_one(Serve(), rest, "torchward serve RUN")
    _check(options)
    server = _server(Path(words[0]), options)
    try:
        return asyncio.run(_serve(server, options))
    finally:
        server.store.close()


def _check(options: Serve) -> None:
    if options.temperature < 0.0 or options.max_new_tokens < 1:
        raise UsageError("temperature has to be at least 0, and max_new_tokens at least 1")
    if options.max_sessions < 1 or options.max_waiting < 0:
        raise UsageError("max_sessions has to be at least 1, and max_waiting at least 0")
    if not 0 <= options.port <= 65_535:
        raise UsageError(f"expected a port from 0 to 65535, got {options.port}")
    if options.token is not None and not re.fullmatch(r"[A-Za-z0-9_-]{16,256}", options.token):
        raise UsageError("expected a token of 16 to 256 letters, digits, - or _; without one, a fresh one is made")


def _server(path: Path, options: Serve) -> "Server":
    """The page of a run. Raises UsageError for a run that cannot talk, and StoreError for a file that is another's."""
    from torchward.cli.chat import learnt_messages, silent
    from torchward.language.tokenizer import described
    from torchward.nets import saving
    from torchward.nets.language_model import LanguageModel
    from torchward.nets.sampling import Sampling
    from torchward.serve.guard import LOOPBACK, Guard, fresh
    from torchward.serve.server import About, Server
    from torchward.serve.store import Store
    from torchward.serve.talk import Speaker
    from torchward.serve.wire import Limits

    policy = saving.load(path, which="last" if options.which == "last" else None)
    if not isinstance(policy, LanguageModel):
        raise silent(path, policy)
    policy.sampling = Sampling(options.temperature or 1.0, options.top_k, options.top_p)
    converses = options.mode == "messages" or (options.mode == "auto" and learnt_messages(path))
    speaker = Speaker(
        policy, described(policy.vocabulary), converses=converses, max_new_tokens=options.max_new_tokens,
        system=options.system, drawn=options.temperature > 0.0, seed=options.seed,
    )  # fmt: skip
    names = ("temperature", "top_k", "top_p", "max_new_tokens", "system", "seed", "which")
    store = Store(Path(options.feedback), str(path), {name: getattr(options, name) for name in names})
    token = options.token or (None if options.host in LOOPBACK else fresh())
    about = About(
        path.resolve().name,
        pairs=speaker.drawn,
        answers=options.answers if speaker.drawn else 1,
        rating=options.rating,
        converses=converses,
    )
    limits = Limits(sessions=options.max_sessions, waiting=options.max_waiting)
    # Cookies do not tell ports apart: two servers on one machine need two names.
    guard = Guard(options.host, token, f"torchward-{options.port or secrets.token_hex(4)}")
    return Server(speaker, store, guard, about, limits, say)


async def _serve(server: "Server", options: Serve) -> int:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError):  # on Windows Ctrl-C is a KeyboardInterrupt
            loop.add_signal_handler(number, stop.set)

    def ready(port: int) -> None:
        shown = {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(options.host, options.host)
        shown = f"[{shown}]" if ":" in shown and not shown.startswith("[") else shown
        query = "" if server.guard.token is None else f"/?token={server.guard.token}"
        say(f"feedback goes to {options.feedback}; Ctrl-C ends this")
        print(f"http://{shown}:{port}{query}", flush=True)

    host = "127.0.0.1" if options.host == "localhost" else options.host
    try:
        await server.serve(host, options.port, stop, ready)
    except OSError as error:
        helps = "; --port 0 finds one that is free" if error.errno == errno.EADDRINUSE else ""
        raise UsageError(
            f"cannot listen on {options.host}, port {options.port}: {error.strerror or error}{helps}"
        ) from error
    comparisons, ratings = server.store.counts()
    say(f"{options.feedback} holds {comparisons:,} comparisons and {ratings:,} ratings")
    return 0
