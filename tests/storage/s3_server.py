"""moto's S3 server on the loopback address, with injected faults."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing resets the connection."""

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
NO_SUCH_KEY = b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"


@dataclass
class Faults:
    """The faults to inject. Keys are `bucket/key`."""

    latency: float = 0.0
    """Seconds before each response."""
    throttled: Counter[str] = field(default_factory=Counter)
    """Number of reads of a key to answer with 503; of any key under ""."""
    reset: Counter[str] = field(default_factory=Counter)
    """Number of reads of a key to reset half-way."""
    missing: set[str] = field(default_factory=set)
    """Keys that are listed but cannot be read."""
    written: Counter[str] = field(default_factory=Counter)
    """Number of writes of a key to answer with 503."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and key of every request so far; `?` and the prefix for a listing."""


class Server:
    """moto behind `faults`, listening at `url`."""

    def __init__(self):
        self.faults = Faults()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ, start):
        faults, method, key = self.faults, environ["REQUEST_METHOD"], environ["PATH_INFO"].lstrip("/")
        time.sleep(faults.latency)
        if "list-type" in environ.get("QUERY_STRING", ""):
            faults.requests.append(("?", key))
            return self._moto(environ, start)
        faults.requests.append((method, key))
        if method == "PUT" and faults.written[key] > 0:
            faults.written[key] -= 1
            return _refuse(start, "503 Slow Down", SLOW_DOWN)
        if method != "GET":
            return self._moto(environ, start)
        for name in (key, ""):
            if faults.throttled[name] > 0:
                faults.throttled[name] -= 1
                return _refuse(start, "503 Slow Down", SLOW_DOWN)
        if key in faults.missing:
            return _refuse(start, "404 Not Found", NO_SUCH_KEY)
        if faults.reset[key] > 0:
            faults.reset[key] -= 1
            return self._broken(environ, start)
        return self._moto(environ, start)

    def _broken(self, environ, start):
        body = b"".join(self._moto(environ, start))
        yield body[: len(body) // 2]
        connection = environ["werkzeug.socket"]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RD)
        connection.close()


def _refuse(start, status, body):
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
