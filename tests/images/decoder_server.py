"""Decoder processes that a server forks, so that tests do not pay for their start and for importing torch.

A forked process runs the same code as one that `tlcli.images.loader` starts, and has the same pipes, working directory,
variables, user, and limits. The server has one thread and imports modules, but calls nothing that starts threads.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
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
from typing import TYPE_CHECKING, Any

from PIL import Image

from tlcli.images import augment, loader

if TYPE_CHECKING:
    import pytest

LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
LOCAL, REMOTE = b"l", b"r"
"""Whether images may be at URLs, so that processes need the client of S3."""
SERVER_CODE = "import sys; sys.path[:] = {path!r}; from decoder_server import serve; serve(*map(int, sys.argv[1:]))"


class DecoderServers:
    """Stand in for the module `subprocess` in `tlcli.images.loader`; each starts with its first process."""

    DEVNULL, TimeoutExpired = subprocess.DEVNULL, subprocess.TimeoutExpired

    def __init__(self) -> None:
        # Only processes that augment import torch. Forking one that has imported it takes five times as long.
        self._servers = {False: DecoderServer(augments=False), True: DecoderServer(augments=True)}
        self._caller = threading.local()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let `tlcli.images.loader` fork its processes."""
        new_process = loader.ImageLoader._new_process

        def note_options(images: loader.ImageLoader) -> loader._DecoderProcess:
            self._caller.augments = images._options.augmentation is not None
            return new_process(images)

        patch.setattr(loader.ImageLoader, "_new_process", note_options)
        patch.setattr(loader, "subprocess", self)

    def Popen(self, command: Sequence[str], *, pass_fds: Sequence[int], **_: int) -> ForkedProcess:  # noqa: N802
        """Fork a process that runs `command`, which is `python -I -c CODE REQUESTS RESPONSES`."""
        return self._servers[self._caller.augments].fork(command[3], pass_fds)

    def close(self) -> None:
        """End the servers."""
        for server in self._servers.values():
            server.close()


class DecoderServer:
    """A process that forks decoder processes."""

    def __init__(self, *, augments: bool) -> None:
        self._augments = augments
        self._server: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def fork(self, code: str, descriptors: Sequence[int]) -> ForkedProcess:
        """Run code in a process that inherits two descriptors, and has them as arguments."""
        with self._lock:
            if self._server is None:
                self._start()
        status, theirs = socket.socketpair()
        with theirs:
            remote = REMOTE if "s3fs" in sys.modules else LOCAL
            socket.send_fds(self._requests, [remote], [theirs.fileno(), 2, *descriptors])
        request = {
            "code": code,
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
        code = SERVER_CODE.format(path=sys.path)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-I", "-c", code, str(theirs.fileno()), str(int(self._augments))],
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


def serve(descriptor: int, augments: int) -> None:
    """Fork a process per request, and send its exit code when it ends, until the socket is closed."""
    Image.init()
    if augments:
        augment.import_transforms()
    gc.freeze()  # a collection would copy the pages of all these objects in each forked process
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
            where, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
            if not descriptors:
                return
            if where == REMOTE:
                importlib.import_module("s3fs")
            status = socket.socket(fileno=descriptors[0])
            if not (pid := os.fork()):
                run_forked(status, descriptors[1:])
            for other in descriptors[1:]:
                os.close(other)
            process = os.pidfd_open(pid)
            running[process] = pid, status
            socket.send_fds(status, [b"."], [process])
            poll.register(process, select.POLLIN)


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
