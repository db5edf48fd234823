"""A server in a thread of its own, a model that says what a test wants, and HTTP in plain bytes."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.language.models import GPT, model
from torchward.language.tokenizer import Bytes
from torchward.nets.language_model import LanguageModel
from torchward.serve.guard import Guard
from torchward.serve.server import About, Server
from torchward.serve.store import Store
from torchward.serve.talk import Asked, Speaker
from torchward.serve.wire import Limits

BYTES = Bytes().build(())
Say = Callable[[Asked, int], Iterator[tuple[int, str | bool]]]


def policy(context: int = 400, seed: int = 0) -> LanguageModel:
    """One that says random bytes, and ends soon."""
    made = model(GPT, seed=seed, vocab_size=BYTES.vocab_size, max_position_embeddings=context)
    made.get_parameter("body.head_bias").data[BYTES.eos_id] += 3.0
    made.vocabulary = BYTES.description()
    return made


def speaker(say: Say | None = None, **how: Any) -> Speaker:
    """The model, or somebody who says what a test wants in its place."""
    made = Speaker(policy(), BYTES, **{"converses": True, "max_new_tokens": 20, **how})
    if say is not None:
        made.answers = lambda asked, count, session, question: say(asked, count)  # type: ignore[method-assign]
    return made


def scripted(*texts: str) -> Say:
    """Answers that say these texts, in pieces."""

    def say(asked: Asked, count: int) -> Iterator[tuple[int, str | bool]]:
        for place in range(max(map(len, texts[:count]))):
            yield from ((i, text[place]) for i, text in enumerate(texts[:count]) if place < len(text))

    return say


class Place(NamedTuple):
    """A server that runs."""

    port: int
    server: Server
    faults: list[str]
    """What it would tell at the terminal."""

    def ask(self, method: str, path: str, data: Any = None, headers: dict[str, str] | None = None) -> "Reply":
        """One request; ``data`` as JSON, or bytes as they are."""
        body = data if isinstance(data, bytes | None) else json.dumps(data).encode()
        own = {} if body is None else {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {**own, **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
        finally:
            connection.close()

    def raw(self, request: bytes, timeout: float = 20.0) -> bytes:
        """What is answered to bytes."""
        with self.connected(timeout) as client:
            client.sendall(request)
            return read(client)

    def connected(self, timeout: float = 20.0) -> socket.socket:
        """A connection that has said nothing."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def session(self) -> str:
        """A new conversation."""
        return str(self.ask("POST", "/api/session", {}).json["session"])

    def answer(self, session: str, text: str, count: int = 2) -> "Said":
        """What is answered to a question. Fails for anything but an answer to its end."""
        reply = self.ask("POST", "/api/answer", {"session": session, "text": text, "answers": count})
        assert reply.status == 200, reply
        lines = [json.loads(line) for line in reply.body.splitlines()]
        shown = ["".join(line["text"] for line in lines if line.get("side") == side) for side in range(count)]
        return Said(lines[-1]["end"], lines[-1]["same"], shown)


class Reply(NamedTuple):
    """What a server answers."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


class Said(NamedTuple):
    """An exchange as the page sees it."""

    exchange: str
    same: bool
    shown: list[str]
    """The answers, from left to right."""


def read(client: socket.socket) -> bytes:
    """Until the server closes."""
    parts = []
    while part := client.recv(65_536):
        parts.append(part)
    return b"".join(parts)


@contextmanager
def serving(
    path: Path,
    talks: Speaker | None = None,
    *,
    limits: Limits | None = None,
    guard: Guard | None = None,
    about: About | None = None,
    port: int = 0,
) -> Iterator[Place]:
    """A server whose feedback goes to ``path``. It listens on this machine alone."""
    faults: list[str] = []
    store = Store(path, "runs/test", {"temperature": 1.0})
    server = Server(
        talks or speaker(), store, guard or Guard(), about or About("test"), limits or Limits(), faults.append
    )
    started, found = threading.Event(), []
    stop: list[Callable[[], object]] = []

    async def go() -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))

        def ready(at: int) -> None:
            found.append(at)
            started.set()

        await server.serve("127.0.0.1", port, ended, ready)

    thread = threading.Thread(target=lambda: asyncio.run(go()))
    thread.start()
    try:
        assert started.wait(20)
        yield Place(found[0], server, faults)
    finally:
        stop[0]()
        thread.join(20)
        store.close()
        assert not thread.is_alive(), "the server does not end"


def together(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """All at once, each in a thread; what they return. An error of one is an error."""
    results: list[Any] = [None] * len(jobs)
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(jobs))

    def work(number: int) -> None:
        try:
            barrier.wait(20)
            results[number] = jobs[number]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)
    return results
