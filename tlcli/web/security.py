"""Access to a server: the token, Host and Origin, the size of requests, and the headers of every response.

DNS rebinding makes a browser send requests to this machine with the attacker's name as Host, so only names of this
machine and addresses are allowed. The token is needed for every request, pages and images included, and is compared in
constant time.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

MAX_BODY = 2**20
"""Bytes of a request's body, at most."""
TOO_LARGE = f"a request may have at most {MAX_BODY:,} bytes."
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
        token: The token that every request must carry, as `Authorization: Bearer TOKEN` or `?token=TOKEN`.
        host: The address or name that the server listens on.
    """

    def __init__(self, app: App, *, token: str, host: str) -> None:
        self._app = app
        self._token = token.encode()
        name = socket.gethostname().lower()
        self._names = {"localhost", host.lower(), name, f"{name}.local", socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in {**HEADERS, "Cache-Control": "no-store"}.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        refused = self._refusal(scope, headers)
        if refused is not None:
            refused.headers["Connection"] = "close"  # its body, if any, is not read
            await refused(scope, receive, send_with_headers)
            return
        await self._app(scope, _limited(receive), send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own(host):
            return error_response(403, "forbidden", "the Host header names another machine.")
        if origin is not None and origin != f"http://{host}":
            return error_response(403, "forbidden", "requests from other sites are not allowed.")
        if not self._has_token(scope, headers):
            return error_response(401, "unauthorized", "the token is missing or wrong. Use the URL that tlcli printed.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return error_response(413, "too-large", TOO_LARGE)
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
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            try:
                query = parse_qs(scope["query_string"].decode("latin1"), max_num_fields=20)
            except ValueError:  # more fields
                return False
            given = query.get("token", [""])[0]
        return hmac.compare_digest(given.strip().encode("utf8", "surrogateescape"), self._token)


def _limited(receive: Receive) -> Receive:
    """Stop reading a body that is larger than allowed, whatever its header says."""
    read = 0

    async def limited() -> MutableMapping[str, Any]:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MAX_BODY:
            raise HTTPException(413, TOO_LARGE, {"Connection": "close"})
        return message

    return limited


def error_response(status: int, kind: str, message: str) -> JSONResponse:
    """Return a response with an error, in the form of `--json`."""
    return JSONResponse({"error": {"kind": kind, "message": message, "path": None}}, status_code=status)
