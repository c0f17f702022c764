"""Decoder processes that a server forks, so that tests do not pay for their start and for importing torch.

A forked process runs the same code as one that `tlcli.images.loader` starts, and has the same pipes, working directory,
variables, user, and limits. The server has one thread and imports modules, but calls nothing that starts threads.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SERVER_CODE = "import sys; sys.path[:] = {path!r}; from decoder_server import serve; serve(int(sys.argv[1]))"


class DecoderServer:
    """Stands in for the module `subprocess` in `tlcli.images.loader`; the server starts with the first process."""

    DEVNULL, TimeoutExpired = subprocess.DEVNULL, subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def Popen(self, command: Sequence[str], *, pass_fds: Sequence[int], **_: int) -> ForkedProcess:  # noqa: N802
        """Fork a process that runs `command`, which is `python -I -c CODE REQUESTS RESPONSES`."""
        with self._lock:
            if self._server is None:
                self._start()
        status, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._requests, [b"."], [theirs.fileno(), 2, *pass_fds])
        request = {
            "code": command[3],
            "folder": os.getcwd(),  # noqa: PTH109
            "variables": dict(os.environ),
            "user": os.geteuid(),
            "limits": [resource.getrlimit(limit) for limit in LIMITS],
        }
        status.sendall(json.dumps(request).encode())
        status.shutdown(socket.SHUT_WR)
        return ForkedProcess(status)

    def _start(self) -> None:
        self._requests, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-c", SERVER_CODE.format(path=sys.path), str(theirs.fileno())]
        with theirs:
            self._server = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=os.environ | ONE_THREAD,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._requests.close()
            self._server.wait()


class ForkedProcess:
    """What `tlcli.images.loader` uses of a `Popen`."""

    def __init__(self, status: socket.socket) -> None:
        self.returncode: int | None = None
        self._status = status
        _, (self._process,), _, _ = socket.recv_fds(status, 1, 1)
        self._lock = threading.Lock()

    def kill(self) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self.returncode is None:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> None:
        with self._lock:
            if self.returncode is not None:
                return
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("decoder", timeout or 0)
            self.returncode = int(self._status.recv(100))
            self._status.close()
            os.close(self._process)


def serve(descriptor: int) -> None:
    """Fork a process per request, and send its exit code when it ends, until the socket is closed."""
    import_modules()
    requests = socket.socket(fileno=descriptor)
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready, _ in poll.poll():
            if ready != descriptor:
                pid, status = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError), status:
                    status.sendall(str(code).encode())
                poll.unregister(ready)
                os.close(ready)
                continue
            descriptors = socket.recv_fds(requests, 1, 4)[1]
            if not descriptors:
                return
            status = socket.socket(fileno=descriptors[0])
            if not (pid := os.fork()):
                run_forked(status, descriptors[1:])
            for other in descriptors[1:]:
                os.close(other)
            process = os.pidfd_open(pid)
            running[process] = pid, status
            socket.send_fds(status, [b"."], [process])
            poll.register(process, select.POLLIN)


def import_modules() -> None:
    """Import what decoder processes import, some of it late."""
    from PIL import Image

    from tlcli.images import augment, worker

    del worker
    Image.init()
    augment.import_transforms()
    gc.freeze()  # a collection would copy the pages of all these objects in each forked process


def run_forked(status: socket.socket, descriptors: Sequence[int]) -> None:
    """Become the process that was asked for: run its code, then exit."""
    code = 1
    try:
        request: dict[str, Any] = json.loads(b"".join(iter(lambda: status.recv(2**16), b"")))
        os.dup2(descriptors[0], 2)
        first = 3
        for kept in sorted(descriptors[1:]):
            os.closerange(first, kept)
            first = kept + 1
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["variables"])
        for limit, values in zip(LIMITS, request["limits"], strict=True):
            resource.setrlimit(limit, tuple(values))
        os.seteuid(request["user"])
        sys.argv = ["-c", *map(str, descriptors[1:])]
        exec(request["code"], {"__name__": "__main__"})
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:  # noqa: BLE001 - as at the end of a process
        traceback.print_exc()
    finally:
        os._exit(code)
