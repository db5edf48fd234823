"""The page and what it asks: one event loop for the people, one thread for the model, one for the file."""

import asyncio
import base64
import contextlib
import hashlib
import re
import secrets
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from torchward.language.documents import TextError
from torchward.serve.guard import Guard
from torchward.serve.store import Comparison, Judged, Rating, Scale, Store
from torchward.serve.talk import Asked, Exchange, Session, Sessions, Speaker, as_json
from torchward.serve.wire import Connection, Gone, Head, Limits, Refusal, Request

PAGE = Path(__file__).with_name("page.html")
SIDES = ("left", "right")
ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
LOST = "This conversation is not known here any more: begin a new one."
FAILED = "Something went wrong here: the terminal in which this runs says more."


@dataclass(frozen=True)
class About:
    """What the page is told."""

    run: str
    """The name of the run."""
    pairs: bool = True
    """Whether two answers to a question can differ."""
    answers: int = 2
    """How many answers the page asks for at first."""
    rating: Scale = "thumbs"
    """How a single answer is rated."""
    converses: bool = True
    """A conversation, or texts that are gone on with."""


Handler: TypeAlias = Callable[[Connection, Request], Awaitable[None]]


class Server:
    """The page of a model. What it does for one person waits for no other, but for the model and the file."""

    def __init__(
        self,
        speaker: Speaker,
        store: Store,
        guard: Guard,
        about: About,
        limits: Limits | None = None,
        report: Callable[[str], object] = print,
    ) -> None:
        """``report`` is told of faults, a sentence each."""
        self.speaker, self.store, self.guard, self.about = speaker, store, guard, about
        self.limits, self.report = limits or Limits(), report
        self.sessions = Sessions(self.limits.sessions, self.limits.exchanges, self.limits.idle_seconds)
        self.page = PAGE.read_bytes()
        self.policy = _content_policy(self.page.decode())
        self.waiting = 0
        """Questions that the model has not answered to the end."""
        self.model = ThreadPoolExecutor(1, "model")
        self.file = ThreadPoolExecutor(1, "feedback")
        self._clients: set[asyncio.Task[None]] = set()
        self._given_up: set[threading.Event] = set()
        self._shown: Mapping[str, Callable[[Connection, Head], Awaitable[None]]] = {
            "/": self._page,
            "/api/about": self._about,
        }
        self._asked: Mapping[str, Handler] = {
            "/api/session": self._session,
            "/api/leave": self._leave,
            "/api/answer": self._answer,
            "/api/compare": self._compare,
            "/api/rate": self._rate,
        }

    async def serve(self, host: str, port: int, stop: asyncio.Event, ready: Callable[[int], object]) -> None:
        """Listen until ``stop``. ``ready`` is told the port: 0 takes a free one. Raises OSError where it is taken."""
        listening = await asyncio.start_server(self._client, host, port, limit=self.limits.head_bytes)
        try:
            ready(listening.sockets[0].getsockname()[1])
            await stop.wait()
        finally:
            listening.close()
            for event in self._given_up:
                event.set()
            for task in self._clients:
                task.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            self.model.shutdown(cancel_futures=True)
            self.file.shutdown()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        connection = Connection(reader, writer, self.limits)
        try:
            await self._one(connection)
        except Refusal as refusal:
            with contextlib.suppress(Gone):
                await connection.refuse(refusal)
        except Gone:
            pass
        except asyncio.CancelledError:  # the end of the server, and of nothing else
            writer.transport.abort()
        except Exception as error:
            self.report(f"a request failed: {type(error).__name__}: {error}")
            with contextlib.suppress(Gone):
                await connection.refuse(Refusal(500, FAILED))
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await connection.close()
            self._clients.discard(task)

    async def _one(self, connection: Connection) -> None:
        if len(self._clients) > self.limits.connections:
            if len(self._clients) > 2 * self.limits.connections:
                raise Gone
            raise Refusal(503, "Too many people are here: try again in a moment.", Retry_After="2")
        head = await connection.head()
        connection.plain = not head.path.startswith("/api/")
        self.guard.check(head)
        allowed = "GET, HEAD" if head.path in self._shown else "POST" if head.path in self._asked else None
        if allowed is None:
            raise Refusal(404, "There is nothing here.")
        if head.method not in allowed.split(", "):
            raise Refusal(405, f"Expected {allowed}.", Allow=allowed)
        if head.path in self._shown:
            await self._shown[head.path](connection, head)
        else:
            await self._asked[head.path](connection, await connection.body(head))

    # What is shown

    async def _page(self, connection: Connection, head: Head) -> None:
        headers = {"Content-Security-Policy": self.policy, **self.guard.cookies(head)}
        await connection.respond(200, self.page, "text/html; charset=utf-8", headers, bare=head.method == "HEAD")

    async def _about(self, connection: Connection, head: Head) -> None:
        data = {**asdict(self.about), "text": self.limits.text}
        await connection.respond_json(data, bare=head.method == "HEAD")

    # What is asked

    async def _session(self, connection: Connection, request: Request) -> None:
        request.json()
        session = self.sessions.begin()
        if session is None:
            raise Refusal(503, "Too many people are talking: try again in a minute.", Retry_After="30")
        await connection.respond_json({"session": session.id})

    async def _leave(self, connection: Connection, request: Request) -> None:
        self.sessions.end(_id(request.json(), "session"))
        await connection.respond_json({})

    async def _answer(self, connection: Connection, request: Request) -> None:
        data = request.json()
        name, text, count = _id(data, "session"), _text(data, self.limits.text), data.get("answers", 1)
        if count not in (1, 2) or isinstance(count, bool) or (count == 2 and not self.about.pairs):
            raise Refusal(400, "Expected 1 or 2 answers." if self.about.pairs else "Expected 1 answer.")
        session = self._known(name)
        if session.busy:
            raise Refusal(429, "The last question is still being answered.", Retry_After="1")
        if self.waiting > self.limits.waiting:
            raise Refusal(503, "Too many questions are waiting: try again in a moment.", Retry_After="2")
        session.busy, self.waiting, given_up = True, self.waiting + 1, threading.Event()
        self._given_up.add(given_up)
        gone = asyncio.ensure_future(connection.left())
        answering = asyncio.ensure_future(self._speak(connection, session, text, count, given_up))
        try:
            await asyncio.wait({gone, answering}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise Gone
            answering.result()
        finally:
            given_up.set()
            gone.cancel()
            answering.cancel()
            await asyncio.gather(gone, answering, return_exceptions=True)
            self._given_up.discard(given_up)
            session.busy, self.waiting = False, self.waiting - 1

    async def _speak(
        self, connection: Connection, session: Session, text: str, count: int, given_up: threading.Event
    ) -> None:
        """Have the model answer in its thread, and send what it says as it says it."""
        loop, said = asyncio.get_running_loop(), asyncio.Queue[Any]()
        session.count += 1
        question = session.count
        left = self.speaker.left(session.number, question) if count == 2 else 0

        def work() -> None:
            def tell(what: Any) -> None:
                loop.call_soon_threadsafe(said.put_nowait, what)

            try:
                if not given_up.is_set():
                    asked = self.speaker.asked(session, text)
                    tell(asked)
                    pieces = self.speaker.answers(asked, count, session.number, question)
                    for piece in pieces:
                        if given_up.is_set():
                            break
                        tell(piece)
                tell(None)
            except Exception as error:  # it is told to the person who waits for the answer
                tell(error)

        job = loop.run_in_executor(self.model, work)
        try:
            asked, answers, cut = None, [""] * count, [False] * count
            while (what := await said.get()) is not None:
                if isinstance(what, TextError):
                    raise Refusal(400, str(what))
                if isinstance(what, Exception):
                    raise what
                if isinstance(what, Asked):
                    asked = what
                    await connection.begin()
                    continue
                number, piece = what
                if isinstance(piece, bool):
                    cut[number] = piece
                    continue
                answers[number] += piece
                await connection.event({"side": int(number != left), "text": piece})
            assert asked is not None
        finally:
            given_up.set()
            job.cancel()
        exchange = Exchange(
            secrets.token_urlsafe(12), text, asked.words, tuple(answers), tuple(cut), left, kept=left
        )  # fmt: skip
        self.sessions.keep(session, exchange)
        try:
            await connection.event({"end": exchange.id, "same": count == 2 and answers[0] == answers[1]})
        except Gone:
            session.exchanges.pop(exchange.id, None)
            raise

    async def _compare(self, connection: Connection, request: Request) -> None:
        data = request.json()
        name, of, choice = _id(data, "id"), _id(data, "session"), data.get("choice")
        if choice not in (*SIDES, "tie"):
            raise Refusal(400, "Expected a choice of left, right or tie.")
        if (found := self._exchange(data)) is None:
            row = await self._in_file(self.store.find, "comparisons", name)
            if row is None or row["session"] != of or _side(row) != choice:
                raise Refusal(404, LOST)
            await connection.respond_json({"stored": True})
            return
        session, exchange = found
        if len(exchange.answers) != 2:
            raise Refusal(409, "There is one answer to this question: rate it.")
        if choice != "tie" and exchange.answers[0] == exchange.answers[1]:
            raise Refusal(409, "Both answers are the same.")
        left = exchange.left
        kept = left if choice in ("left", "tie") else 1 - left
        judgement = Comparison(
            name, of, as_json(exchange.words), exchange.answers[0], exchange.answers[1],
            "tie" if choice == "tie" else "b" if kept else "a", "b" if left else "a", _names(exchange.cut),
        )  # fmt: skip
        before = exchange.kept
        if session.ends_with(exchange):  # before it is on the disk: the next question may come earlier
            exchange.kept = kept
        try:
            await self._judge(exchange, judgement)
        except BaseException:
            if session.ends_with(exchange):
                exchange.kept = before
            raise
        await connection.respond_json({"stored": True})

    async def _rate(self, connection: Connection, request: Request) -> None:
        data = request.json()
        name, of, value = _id(data, "id"), _id(data, "session"), data.get("value")
        lowest, highest = (0, 1) if self.about.rating == "thumbs" else (1, 5)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise Refusal(400, f"Expected a value from {lowest} to {highest}.")
        if (found := self._exchange(data)) is None:
            row = await self._in_file(self.store.find, "ratings", name)
            if row is None or row["session"] != of or row["value"] != value:
                raise Refusal(404, LOST)
        else:
            _, exchange = found
            if len(exchange.answers) != 1:
                raise Refusal(409, "There are two answers to this question: compare them.")
            words, cut = as_json(exchange.words), _names(exchange.cut)
            rating = Rating(name, of, words, exchange.answers[0], self.about.rating, value, cut)
            await self._judge(exchange, rating)
        await connection.respond_json({"stored": True})

    async def _judge(self, exchange: Exchange, judgement: Comparison | Rating) -> None:
        """Write it, and return when it is on the disk. Each exchange is judged once."""
        if exchange.judgement not in (None, judgement.id):
            raise Refusal(409, "This was judged already.")
        before, exchange.judgement = exchange.judgement, judgement.id
        try:
            await self._in_file(self.store.add, judgement)
        except BaseException:
            exchange.judgement = before
            raise

    async def _in_file(self, what: Callable[..., Any], *arguments: Any) -> Any:
        """Something with the file, in its thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.file, what, *arguments)
        except Judged as error:
            raise Refusal(409, "This was judged already.") from error
        except sqlite3.Error as error:
            self.report(f"feedback could not be written: {error}")
            raise Refusal(503, "This could not be written: nothing was stored.", Retry_After="2") from error

    def _known(self, name: str) -> Session:
        if (session := self.sessions.find(name)) is None:
            raise Refusal(404, LOST)
        return session

    def _exchange(self, data: Mapping[str, Any]) -> tuple[Session, Exchange] | None:
        """What is judged; None where the server does not know it, or not any more."""
        session = self.sessions.find(_id(data, "session"))
        exchange = None if session is None else session.exchanges.get(_id(data, "exchange"))
        return None if session is None or exchange is None else (session, exchange)


def _names(which: Sequence[bool]) -> tuple[Literal["a", "b"], ...]:
    """The answers of which it is so, by their names."""
    names: tuple[Literal["a", "b"], ...] = ("a", "b")
    return tuple(name for name, is_so in zip(names, which, strict=False) if is_so)


def _id(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise Refusal(400, f"Expected {name}: 8 to 64 letters, digits, - or _.")
    return value


def _text(data: Mapping[str, Any], most: int) -> str:
    value = data.get("text")
    if not isinstance(value, str) or not value.strip():
        raise Refusal(400, "Expected a text.")
    if len(value) > most:
        raise Refusal(413, f"The text is too long: {most:,} characters are allowed.")
    return value


def _side(row: Mapping[str, Any]) -> str:
    """What a person chose, by where it stood."""
    if row["choice"] == "tie":
        return "tie"
    return "left" if row["choice"] == row["shown_left"] else "right"


def _content_policy(page: str) -> str:
    """What the page may do: run its own script and style, known by their hashes, and ask this server."""
    sources = {}
    for kind in ("script", "style"):
        found = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
        sources[kind] = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
