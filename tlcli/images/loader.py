"""Images through decoding processes, in order, with a bound on how many are under way.

Each process has pipes of its own and one image at a time. So a process that hangs or dies takes exactly one
image with it, which gets a reason, and a new process goes on. (A pool with one pipe for all, such as
pebble's, blocks or breaks for every worker when one is killed while it holds the pipe.)
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from multiprocessing.connection import Connection
from types import TracebackType
from typing import BinaryIO

from tlcli.errors import MachineError
from tlcli.images.worker import DecodedImage, DecodeOptions, ImageRequest, receive_image
from tlcli.storage.connection import READ_LIMIT
from tlcli.storage.stored import StoredPath

TIME_LIMIT = 60.0
"""Seconds that reading and decoding one image may take; at a URL, `READ_LIMIT` more."""

START_LIMIT = 60.0
"""Seconds that a process may take to start."""

START_ATTEMPTS = 3
"""Processes that may die while they start, before it is an error."""

_STARTING = threading.Lock()
"""Held while a process is started: that takes seven more file descriptors than the two it keeps."""

_BOOT = "import sys; sys.path[:] = {path!r}; from tlcli.images.worker import main; main()"


class ImageLoader:
    """Decodes images in other processes. Use as a context manager; leaving it ends them.

    Args:
        order: What to do with each image.
        workers: Number of processes.
        time_limit: Seconds for one image.
        ahead: Images to have under way at least, where whoever takes them does so in bursts.
    """

    def __init__(
        self, order: DecodeOptions, *, workers: int, time_limit: float = TIME_LIMIT, ahead: int | None = None
    ) -> None:
        self._order = order
        self._time_limit = time_limit
        self._window = max(32 + 8 * workers, ahead or 0)
        self._workers = workers
        # Ctrl-C is ours to handle: processes that these threads start don't hear it from their first moment on.
        hold = (signal.SIG_BLOCK, {signal.SIGINT})
        self._threads = ThreadPoolExecutor(workers, "decode", signal.pthread_sigmask, hold)
        self._own = threading.local()
        self._children: set[_DecoderProcess] = set()
        self._closed = threading.Event()

    def __enter__(self) -> ImageLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        for child in list(self._children):
            child.end()
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.kill()

    def start(self) -> None:
        """Wait until every process is ready; otherwise they start with the first images.

        Raises:
            MachineError: one doesn't start.
        """
        together = threading.Barrier(self._workers)  # so that each thread starts its own

        def one() -> None:
            try:
                if getattr(self._own, "child", None) is None:
                    self._new_child()
            except BaseException:
                together.abort()
                raise
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait()

        for future in [self._threads.submit(one) for _ in range(self._workers)]:
            future.result()

    def load(self, paths: Iterable[str]) -> Iterator[DecodedImage]:
        """One plain `Image` for each path, in the order of `paths`, which is read only as far as needed."""
        return self.load_views((path, 0) for path in paths)

    def load_views(self, requests: Iterable[ImageRequest]) -> Iterator[DecodedImage]:
        """One `Image` for each path and view, in the order of `requests`, read only as far as needed.

        The first ones are begun at once, before anybody takes one.
        """
        rest = iter(requests)
        begun = deque(self._threads.submit(self._load_one, request) for request in islice(rest, self._window))
        return self._in_order(begun, rest)

    def _in_order(self, begun: deque[Future[DecodedImage]], rest: Iterator[ImageRequest]) -> Iterator[DecodedImage]:
        while begun:
            yield begun.popleft().result()
            begun.extend(self._threads.submit(self._load_one, request) for request in islice(rest, 1))

    def _load_one(self, request: ImageRequest) -> DecodedImage:
        child: _DecoderProcess = getattr(self._own, "child", None) or self._new_child()
        if self._closed.is_set():  # nobody ended a child that started just now
            return DecodedImage(error="stopped")
        path, _ = request
        # Retries end before this limit does, so that a slow service costs a row and not its process.
        limit = self._time_limit + (READ_LIMIT if isinstance(path, StoredPath) and path.remote else 0)
        try:
            return child.ask(request, limit)
        except TimeoutError:
            reason = f"took longer than {limit:g} s to read and decode"
        except (EOFError, OSError):
            if self._closed.is_set():
                return DecodedImage(error="stopped")
            reason = f"the decoder died of it ({child.farewell()})"
        self._own.child = None
        self._children.discard(child)
        child.kill()
        return DecodedImage(error=reason)

    def _new_child(self) -> _DecoderProcess:
        for attempt in range(1, START_ATTEMPTS + 1):
            with _STARTING:
                child = _DecoderProcess()
            self._children.add(child)
            try:
                child.start(self._order)
            except MachineError:
                self._children.discard(child)
                child.kill()
                if attempt == START_ATTEMPTS or self._closed.is_set():
                    raise
            else:
                break
        self._own.child = child
        return child


class _DecoderProcess:
    """One decoding process and the pipes to it.

    Answers are read without `Connection`, whose copies cost as much core-time as a twentieth of the decoding.
    """

    def __init__(self) -> None:
        requests, to = os.pipe()
        from_, answers = os.pipe()
        # -I keeps the working directory and PYTHON* variables out; the child sees our path and nothing else.
        command = [sys.executable, "-I", "-c", _BOOT.format(path=sys.path), str(requests), str(answers)]
        nothing = subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(command, pass_fds=(requests, answers), stdin=nothing, stdout=nothing)
        except OSError:
            os.close(to)
            os.close(from_)
            raise
        finally:
            os.close(requests)
            os.close(answers)
        self._to = Connection(to, readable=False)
        self._from = os.fdopen(from_, "rb")
        self._answer = select.poll()
        self._answer.register(from_, select.POLLIN)

    def start(self, order: DecodeOptions) -> None:
        """Hand it its order, and wait until it is ready. Raises MachineError if it never is."""
        if order.preprocessing is not None:
            _make_room(self._from, math.prod(order.preprocessing.shape))
        try:
            self._to.send(order)
            ready = bool(self._answer.poll(1000 * START_LIMIT) and self._from.readline())
        except OSError:
            ready = False
        if not ready:
            raise MachineError(
                f"a decoding process did not start ({self.farewell()}). Is memory short? Use fewer --workers."
            )

    def ask(self, request: ImageRequest, limit: float) -> DecodedImage:
        """The image asked for. Raises TimeoutError after `limit` seconds, EOFError or OSError if it dies."""
        self._to.send(request)
        if not self._answer.poll(1000 * limit):
            raise TimeoutError
        return receive_image(self._from)

    def farewell(self) -> str:
        """How the process ended, in words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        return "still running" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"

    def end(self) -> None:
        """End the process at once; whoever waits for its answer gets an EOFError."""
        self._process.kill()

    def kill(self) -> None:
        """End the process at once, and close the pipes."""
        self.end()
        self._process.wait()
        self._to.close()
        self._from.close()


def _make_room(pipe: BinaryIO, size: int) -> None:
    """Have a pipe hold so many bytes, and a line more, so that who writes an image needn't wait for who reads it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # more than the system allows: it stays as it is
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size + 4096)
