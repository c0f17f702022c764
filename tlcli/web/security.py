"""Access to a server: the token, Host and Origin, the size of requests, and the headers of every response.

DNS rebinding makes a browser send requests to this machine with the attacker's name as Host, so only names of this
machine and addresses are allowed. The token is needed for every request, pages and images included, unless the server
has none or the address is public, and is compared in constant time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

MAX_BODY = 2**20
"""Bytes of a request's body, at most, unless a server allows more."""
DISCARD_SECONDS = 2.0
"""Time to read the rest of a request that is refused."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # addresses contain the token
    "X-Content-Type-Options": "nosniff",
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware that rejects requests before the application sees them.

    Args:
        app: The application.
        token: The token that every request must carry, as `Authorization: Bearer TOKEN` or `?token=TOKEN`; None if
            none is needed.
        host: The address or name that the server listens on.
        max_body: Bytes of a request's body, at most.
        public: Paths that need no token.
    """

    def __init__(
        self, app: App, *, token: str | None, host: str, max_body: int = MAX_BODY, public: Collection[str] = ()
    ) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._max_body = max_body
        self._public = public
        name = socket.gethostname().lower()
        self._names = {"localhost", host.lower(), name, f"{name}.local", socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return

        body = _Body(receive, self._max_body)
        headers = Headers(scope=scope)

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(raw=message["headers"])
                for name, value in {**HEADERS, "Cache-Control": "no-store"}.items():
                    added.setdefault(name, value)
                if message["status"] >= 400 and "expect" not in headers:
                    await body.discard()
            await send(message)

        refused = self._refusal(scope, headers)
        if refused is not None:
            refused.headers["Connection"] = "close"  # its body, if any, may not be read
            await refused(scope, body.receive, send_with_headers)
            return
        await self._app(scope, body.receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own(host):
            return error_response(403, "forbidden", "the Host header names another machine.")
        if origin is not None and origin != f"http://{host}":
            return error_response(403, "forbidden", "requests from other sites are not allowed.")
        if not self._has_token(scope, headers):
            return error_response(401, "unauthorized", "the token is missing or wrong. Use the URL that tlcli printed.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body:
            return error_response(413, "too-large", too_large(self._max_body))
        return None

    def _is_own(self, host: str) -> bool:
        match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]@/]+)(:\d+)?", host)
        if match is None:
            return False
        name = match[1].strip("[]").lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        if self._token is None or scope["path"] in self._public:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            try:
                query = parse_qs(scope["query_string"].decode("latin1"), max_num_fields=20)
            except ValueError:  # more fields
                return False
            given = query.get("token", [""])[0]
        return hmac.compare_digest(given.strip().encode("utf8", "surrogateescape"), self._token)


class _Body:
    """The body of a request, which may have at most `limit` bytes, whatever its header says."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._read = 0
        self._complete = False

    async def receive(self) -> MutableMapping[str, Any]:
        """Return the next message of the client. Raises HTTPException if the body is too large."""
        message = await self._next()
        if self._read > self._limit:
            raise HTTPException(413, too_large(self._limit), {"Connection": "close"})
        return message

    async def discard(self) -> None:
        """Read the rest, within limits: a client that is still sending would not read the response."""
        end = self._read + self._limit
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self._complete and self._read < end:
                    await self._next()

    async def _next(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message


def too_large(limit: int) -> str:
    """Say how many bytes a request may have."""
    return f"a request may have at most {limit:,} bytes."


def error_response(status: int, kind: str, message: str) -> JSONResponse:
    """Return a response with an error, in the form of `--json`."""
    return JSONResponse({"error": {"kind": kind, "message": message, "path": None}}, status_code=status)
