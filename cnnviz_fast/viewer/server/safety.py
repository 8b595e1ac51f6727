"""Who may ask the server, and what its answers forbid the browser: this machine's own page, and nobody else.

A page of another site can make a browser send requests to this machine. The Host header shows whether a browser came by
a name that somebody else's DNS points here, Origin and Sec-Fetch-Site show whether another site sent it; both are
refused, and no answer allows another site to read it. With --host other machines can reach the server too: then every
request needs a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN_BYTES = 24

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]]+))(?::(\d{1,5}))?", re.ASCII)
_SAME_SITE = ("same-origin", "none")


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(TOKEN_BYTES)


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        host: the server listens on; one of LOOPBACK, or what --host says.
        port: it listens on.
        token: that every request needs; None on this machine alone.
        upload_token: that an upload needs, which only the page knows.
    """

    host: str
    port: int
    token: str | None = None
    upload_token: str = field(default_factory=new_token)

    @property
    def cookie(self) -> str:
        """Return the name of the cookie with the token: cookies do not tell ports apart."""
        return f"cnnviz-{self.port}"

    def is_host(self, given: str) -> bool:
        """Check whether a Host header is one of this server's own names."""
        found = _HOST.fullmatch(given)
        if found is None or (found[3] or "80") != str(self.port):
            return False
        name = (found[1] or found[2]).lower()
        if self.host in LOOPBACK:
            return name in LOOPBACK
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in (self.host.lower(), "localhost", socket.gethostname().lower())
        return True  # no name, so that no DNS led here

    def is_token(self, given: str | None) -> bool:
        """Check a token, in a time that tells nothing of it."""
        return given is not None and self.token is not None and _same(given, self.token)

    def is_upload_token(self, given: str | None) -> bool:
        """Check the token of an upload."""
        return given is not None and _same(given, self.upload_token)


def _same(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode("utf-8", "surrogatepass"), b.encode())


class Guard:
    """Answers in place of the application what it must not be asked, and adds to its answers what they forbid."""

    def __init__(self, app: App, access: Access, policy: str) -> None:
        """Stand before an application.

        Args:
            app: the application.
            access: who may ask it.
            policy: content security policy of all answers.
        """
        self._app, self._access = app, access
        self._headers = {**_HEADERS, "content-security-policy": policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no web sockets

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in self._headers.items()]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send_guarded, *refusal)
        else:
            await self._app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str, list[tuple[bytes, bytes]]] | None:
        """Return status, text and headers of the answer to what must not be asked; None for what may."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        hosts, origins = headers.get("host", []), headers.get("origin", [])
        if len(hosts) != 1 or not self._access.is_host(hosts[0]):
            return 421, "This server does not have that name.", []
        if origins and origins != [f"http://{hosts[0]}"]:
            return 403, "Other sites may not ask this server.", []
        site, mode = headers.get("sec-fetch-site", ["none"]), headers.get("sec-fetch-mode", [""])
        if site[0] not in _SAME_SITE and not (mode == ["navigate"] and scope["path"] == "/"):
            return 403, "Other sites may not ask this server.", []
        return self._refusal_without_token(scope, headers.get("cookie", []))

    def _refusal_without_token(
        self, scope: Scope, cookies: list[str]
    ) -> tuple[int, str, list[tuple[bytes, bytes]]] | None:
        access = self._access
        if access.token is None or any(access.is_token(_cookie(text, access.cookie)) for text in cookies):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if scope["path"] == "/" and len(given) == 1 and access.is_token(given[0]):
            kept = f"{access.cookie}={access.token}; HttpOnly; SameSite=Lax; Path=/"
            return 303, "", [(b"location", b"/"), (b"set-cookie", kept.encode())]
        return 401, "Open the address that cnnviz view has printed: it ends in a token.", []


def _cookie(header: str, name: str) -> str | None:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


async def _answer(send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = text.encode()
    headers = [*headers, (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
