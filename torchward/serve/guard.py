"""Who may ask: the name by which the page was called, the site that asks, and the token.

A page of another site may send requests to an address of this machine. It cannot read the answers, unless its own name
is made to lead to this machine (DNS rebinding): then the header Host bears that name, and is refused.
"""

import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from torchward.serve.wire import Head, Refusal

LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Guard:
    """What a request has to show."""

    host: str = "127.0.0.1"
    """The address that is listened on."""
    token: str | None = None
    """What whoever may ask knows; None: all on this machine may."""
    cookie: str = "torchward"
    """The name of the cookie that the page keeps the token in."""

    def check(self, head: Head) -> None:
        """Raises Refusal with 400 or 403 for a wrong Host or a foreign site, and with 401 without the token."""
        named = _host(head.headers.get("host", ""))
        if not self._is_ours(named):
            raise Refusal(403, "This page does not go by that name: open the address that the terminal shows.")
        if head.method not in ("GET", "HEAD"):
            self._check_origin(head, named)
        if self.token is not None and not any(_equal(given, self.token) for given in self._given(head)):
            raise Refusal(401, "The token is missing or wrong: open the address that the terminal shows.")

    def cookies(self, head: Head) -> dict[str, str]:
        """The header with which the page keeps the token that stood in its address."""
        if self.token is None or "token" not in parse_qs(head.query):
            return {}
        return {"Set-Cookie": f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"}

    def _given(self, head: Head) -> list[str]:
        scheme, _, bearer = head.headers.get("authorization", "").partition(" ")
        pairs = (pair.strip().partition("=") for pair in head.headers.get("cookie", "").split(";"))
        found = [value for name, _, value in pairs if name == self.cookie]
        found += [bearer.strip()] if scheme.lower() == "bearer" else []
        # In the address of the page alone: there it is typed, and the page takes it out.
        return found + (parse_qs(head.query).get("token", []) if head.path == "/" else [])

    def _is_ours(self, named: str) -> bool:
        if self.host in LOOPBACK:
            return named in LOOPBACK
        try:
            ipaddress.ip_address(named)
        except ValueError:
            return named in ("localhost", self.host.lower())
        return True  # a number is no name that somebody could have made lead here

    def _check_origin(self, head: Head, named: str) -> None:
        origin, site = head.headers.get("origin"), head.headers.get("sec-fetch-site", "same-origin")
        ours = site in ("same-origin", "none")
        if origin is not None:
            parts = urlsplit(origin)
            ours &= parts.scheme in ("http", "https") and parts.netloc.lower() == head.headers["host"].lower()
        if not ours:
            raise Refusal(403, "Only the page itself may ask this.")


def fresh() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(32)


def _equal(given: str, token: str) -> bool:
    """In a time that says nothing of where they differ."""
    return hmac.compare_digest(given.encode(), token.encode())


def _host(header: str) -> str:
    """The name in a Host header, without its port. Raises Refusal where it is none."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # a port that is no number raises
        named = parts.hostname or ""
    except ValueError as error:
        raise Refusal(400, "Expected a header Host.") from error
    if not named or parts.path or parts.query or parts.fragment or "@" in header:
        raise Refusal(400, "Expected a header Host.")
    return named
