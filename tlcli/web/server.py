"""Start and stop a server in a thread, on a socket that listens before its address is announced."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from tlcli.errors import MachineError
from tlcli.web.security import App

REQUEST_SECONDS = 10.0
"""Time for a request to arrive after its connection opened, or answered the last one; others are then closed."""
CHECK_SECONDS = 1.0
"""How often connections are checked."""
OPEN_FILES = 8192
"""Connections and files that may be open, if the system allows: a page opens six, a hostile client any number."""
RESERVED_FILES = 128
"""Files that are not left to connections."""
ANY = {"0.0.0.0", "::", ""}
"""Hosts that stand for all addresses of this machine."""
STOP_SECONDS = 3
"""Time for running requests to finish when the server stops, unless a server allows more."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server listens."""

    url: str
    """With the token, if it has one."""
    token: str | None


class _ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that closes connections without a complete request, for which uvicorn would wait forever."""

    def connection_made(self, transport: object) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._waiting_since = self.loop.time()
        if len(self.connections) > resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_FILES:
            self.transport.close()
        self._check()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open for the answer if the client closed its side after a complete request."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def on_response_complete(self) -> None:
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def _check(self) -> None:
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's annotation does not say that it is None at first
        is_waiting = cycle is None or cycle.response_complete
        if is_waiting and self.loop.time() - self._waiting_since > REQUEST_SECONDS:
            self.transport.close()
        else:
            self.loop.call_later(min(CHECK_SECONDS, REQUEST_SECONDS), self._check)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: The name or address of this machine to listen on.
        port: The port; 0 takes any free one.

    Raises:
        MachineError: The address does not exist, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:  # UnicodeError for names that cannot be looked up
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number is not None and number > 0 else str(error)
        raise MachineError(
            f"cannot listen on {host}, port {port}: {reason}. Choose another --port (0 takes any free one) or --host."
        ) from error
    # asyncio does this only for sockets made with IPPROTO_TCP; without it, the body of an answer may come 40 ms late.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def address_of(listening: socket.socket, host: str, token: str | None) -> Address:
    """Return the address to open."""
    port = listening.getsockname()[1]
    shown = socket.gethostname() if host in ANY else host  # others on the network cannot use 127.0.0.1
    root = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
    return Address(url=root if token is None else f"{root}?token={token}", token=token)


def new_token() -> str:
    """Return a random token."""
    return secrets.token_urlsafe(24)


@contextlib.contextmanager
def serving(app: App, listening: socket.socket, *, stop_seconds: int = STOP_SECONDS) -> Iterator[None]:
    """Serve an application in a thread until the block ends; running requests then have `stop_seconds` to finish."""
    _allow_connections()
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # malformed requests are no news, bugs are
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        http=_ImpatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(REQUEST_SECONDS) + 5,
        timeout_graceful_shutdown=stop_seconds,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(stop_seconds + STOP_SECONDS)
        listening.close()


def _allow_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
