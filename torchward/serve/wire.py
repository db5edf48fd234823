"""As much of HTTP/1.1 as one page needs: strict, with bounds on sizes and time. Every connection serves one request."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 409: "Conflict", 411: "Length Required", 413: "Content Too Large",
    415: "Unsupported Media Type", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
}  # fmt: skip
ALWAYS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every response."""
ASCII = ("host", "origin", "content-length", "transfer-encoding")
"""Headers that decide who is answered, and where a request ends: nothing in them may be read in two ways."""


@dataclass(frozen=True)
class Limits:
    """What one client may cost."""

    head_bytes: int = 65_536
    """The request line and the headers, cookies of every other program on this machine among them."""
    body_bytes: int = 65_536
    head_seconds: float = 10.0
    """Until the headers are there, all of them: a byte now and then gains nothing."""
    body_seconds: float = 10.0
    write_seconds: float = 20.0
    """Until a client has taken what was sent to it."""
    linger_seconds: float = 2.0
    """How long what is still coming is thrown away behind an error, so that the client gets to read the error."""
    connections: int = 128
    sessions: int = 100
    waiting: int = 16
    """Questions that wait for the model, beside the one that it answers."""
    text: int = 8_000
    """Characters of a question."""
    exchanges: int = 64
    """Questions of one conversation that are kept; the oldest go."""
    idle_seconds: float = 60.0
    """After which a conversation gives way to another person's, where there are too many."""


class Refusal(Exception):
    """A request that is not served: the status, and one sentence for the person who asked."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Gone(Exception):
    """The client has left, or does not read."""


@dataclass(frozen=True)
class Request:
    """What a client asks."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """By their names in small letters."""
    body: bytes = b""

    def json(self) -> dict[str, Any]:
        """The body, an object. Raises Refusal with 415 where it says that it is something else, and with 400."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "Expected application/json.")
        try:
            data = json.loads(self.body.decode("utf-8"), parse_constant=_no_constant)
            json.dumps(data, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "Expected JSON in UTF-8.") from error
        if not isinstance(data, dict):
            raise Refusal(400, "Expected a JSON object.")
        return data


class Head(NamedTuple):
    """A request without its body."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


class Connection:
    """One client, for one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> None:
        self.reader, self.writer, self.limits = reader, writer, limits
        self.begun = False
        self.plain = True
        """Whether an error is shown to a person as it is, not read by the page."""
        writer.transport.set_write_buffer_limits(high=16_384)

    async def head(self) -> Head:
        """The request line and the headers. Raises Refusal, or Gone where the client said nothing."""
        try:
            async with asyncio.timeout(self.limits.head_seconds):
                raw = await self.reader.readuntil(b"\r\n\r\n")
        except TimeoutError as error:
            raise Refusal(408, "The request took too long.") from error
        except asyncio.LimitOverrunError as error:
            raise Refusal(431, "The headers are too long.") from error
        except asyncio.IncompleteReadError as error:
            if not error.partial.strip():
                raise Gone from error
            raise Refusal(400, "The request ended before its headers did.") from error
        except OSError as error:
            raise Gone from error
        if len(raw) > self.limits.head_bytes:
            raise Refusal(431, "The headers are too long.")
        return _parsed(raw)

    async def body(self, head: Head) -> Request:
        """The request with its body. Raises Refusal where the length is missing or too large, or the body is late."""
        if "transfer-encoding" in head.headers or "content-length" not in head.headers:
            raise Refusal(411, "Expected a Content-Length.")
        said = head.headers["content-length"]
        if not (said.isascii() and said.isdigit()):
            raise Refusal(400, "Expected a number as Content-Length.")
        if len(said) > 12 or int(said) > self.limits.body_bytes:
            raise Refusal(413, f"The request is too large: {self.limits.body_bytes:,} bytes are allowed.")
        try:
            if head.headers.get("expect", "").lower() == "100-continue":
                await self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
            async with asyncio.timeout(self.limits.body_seconds):
                body = await self.reader.readexactly(int(said))
        except TimeoutError as error:
            raise Refusal(408, "The request took too long.") from error
        except asyncio.IncompleteReadError as error:
            raise Refusal(400, "The request ended before its body did.") from error
        except OSError as error:
            raise Gone from error
        return Request(*head, body)

    async def respond(
        self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None, *, bare: bool = False
    ) -> None:
        """A whole response; ``bare`` without its body, as HEAD wants it."""
        own = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
        await self._send(_response_head(status, own) + (b"" if bare else body))

    async def respond_json(
        self,
        data: Mapping[str, Any],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        bare: bool = False,
    ) -> None:
        """A whole response of one object."""
        await self.respond(status, _line(data), "application/json", headers, bare=bare)

    async def refuse(self, refusal: Refusal) -> None:
        """One sentence; then what is still coming is thrown away for a while."""
        if self.begun:
            await self.event({"error": refusal.sentence})
            return
        if self.plain:
            said = (refusal.sentence + "\n").encode()
            await self.respond(refusal.status, said, "text/plain; charset=utf-8", refusal.headers)
        else:
            await self.respond_json({"error": refusal.sentence}, refusal.status, refusal.headers)
        with contextlib.suppress(OSError, TimeoutError):
            self.writer.write_eof()
            async with asyncio.timeout(self.limits.linger_seconds):
                while await self.reader.read(65_536):
                    pass

    async def begin(self) -> None:
        """A response of lines, each of them an object, that ends with the connection."""
        self.begun = True
        await self._send(_response_head(200, {"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"}))

    async def event(self, data: Mapping[str, Any]) -> None:
        """One line."""
        await self._send(_line(data))

    async def left(self) -> None:
        """Returns when the client has gone. What it still sends is thrown away."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65_536):
                pass

    async def close(self) -> None:
        """The end. What the client does not take within its time is thrown away."""
        try:
            self.writer.close()
            async with asyncio.timeout(self.limits.write_seconds):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            self.writer.transport.abort()

    async def _send(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            async with asyncio.timeout(self.limits.write_seconds):
                await self.writer.drain()
        except (OSError, TimeoutError) as error:
            self.writer.transport.abort()
            raise Gone from error


def _parsed(raw: bytes) -> Head:
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if not first.isascii() or len(parts) != 3 or not parts[0].isalpha() or not parts[1].startswith("/"):
        raise Refusal(400, "Expected a request of HTTP.")
    if parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refusal(505, "Expected HTTP/1.1.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        # A folded line, a space before the colon, a header twice: what two readers may read in two ways is refused.
        if not colon or not name or name != name.strip() or not name.isascii() or not _printable(line):
            raise Refusal(400, "Expected headers of HTTP.")
        if (name := name.lower()) in ASCII and not value.isascii():
            raise Refusal(400, "Expected headers in ASCII.")
        if name in headers and name not in ("accept", "cookie"):
            raise Refusal(400, "A header stands twice in the request.")
        headers[name] = value.strip(" \t")
    path, _, query = parts[1].partition("?")
    return Head(parts[0], path, query, headers)


def _printable(line: str) -> bool:
    return all(" " <= character != "\x7f" or character == "\t" for character in line)


def _response_head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", *(f"{k}: {v}" for k, v in {**ALWAYS, **headers}.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data).encode("ascii") + b"\n"


def _no_constant(name: str) -> None:
    raise ValueError(name)
