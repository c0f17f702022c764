"""Load images through decoder processes, in order, with a bounded number of images in progress.

Each process has pipes of its own and handles one image at a time. A process that hangs or crashes therefore loses
exactly one image, whose `error` has the reason, and is replaced by a new process. (In a pool with one pipe for all
workers, such as pebble's, killing a worker that holds the pipe blocks or breaks all of them.)
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
from tlcli.progress import Reporter, Silent
from tlcli.storage.connection import READ_LIMIT
from tlcli.storage.stored import StoredPath

TIME_LIMIT = 60.0
"""Seconds to read and decode one image; `READ_LIMIT` more if it is at a URL."""

START_LIMIT = 60.0
"""Seconds to start a process."""

START_ATTEMPTS = 3
"""Number of processes that may crash while starting before this is an error."""

UPLOAD = "a file sent to this process"
"""The name of images that have no path, for notes on ignored parts."""

_START_LOCK = threading.Lock()
"""Held while a process starts, which briefly needs seven file descriptors in addition to the two it keeps."""

_WORKER_CODE = "import sys; sys.path[:] = {path!r}; from tlcli.images.worker import run_worker; run_worker()"


class ImageLoader:
    """Decode images in other processes. Use it as a context manager; leaving it ends the processes.

    Args:
        options: How to handle each image.
        workers: Number of decoder processes.
        time_limit: Seconds to read and decode one image.
        ahead: Minimum number of images to have in progress, for callers that take images in bursts.
        report: Receives, as details on leaving, how many images had parts that were ignored.
    """

    def __init__(
        self,
        options: DecodeOptions,
        *,
        workers: int,
        time_limit: float = TIME_LIMIT,
        ahead: int | None = None,
        report: Reporter | None = None,
    ) -> None:
        self._options = options
        self._time_limit = time_limit
        self._window = max(32 + 8 * workers, ahead or 0)
        self._workers = workers
        # Only the main process handles Ctrl-C. Processes inherit the signal mask of the threads that start them.
        block_sigint = (signal.SIG_BLOCK, {signal.SIGINT})
        self._threads = ThreadPoolExecutor(workers, "decode", signal.pthread_sigmask, block_sigint)
        self._thread_local = threading.local()
        self._processes: set[_DecoderProcess] = set()
        self._closed = threading.Event()
        self._report = report or Silent()
        self._notes: dict[str, tuple[str, int]] = {}  # path of the first image, and number of images
        self._notes_lock = threading.Lock()

    def __enter__(self) -> ImageLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        for process in list(self._processes):
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()
        for note, (path, number) in self._notes.items():
            self._report.detail(f"  {note}: {path}" + (f" and {number - 1:,} more" if number > 1 else ""))

    def start(self) -> None:
        """Start all processes and wait until they are ready. Otherwise they start with the first images.

        Raises:
            MachineError: A process does not start.
        """
        barrier = threading.Barrier(self._workers)  # makes each thread start its own process

        def start_one() -> None:
            try:
                if getattr(self._thread_local, "process", None) is None:
                    self._new_process()
            except BaseException:
                barrier.abort()
                raise
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait()

        for future in [self._threads.submit(start_one) for _ in range(self._workers)]:
            future.result()

    def decode(self, content: bytes) -> Future[DecodedImage]:
        """Decode the content of a file in the background, after all images that were requested before."""
        return self._threads.submit(self._load_one, (content, 0))

    def load(self, paths: Iterable[str]) -> Iterator[DecodedImage]:
        """Yield the unchanged image of each path, in order. `paths` is consumed only as far as needed."""
        return self.load_views((path, 0) for path in paths)

    def load_views(self, requests: Iterable[ImageRequest]) -> Iterator[DecodedImage]:
        """Yield the image of each path and view, in order. `requests` is consumed only as far as needed.

        Decoding of the first images starts with this call, before the first image is taken.
        """
        rest = iter(requests)
        pending = deque(self._threads.submit(self._load_one, request) for request in islice(rest, self._window))
        return self._in_order(pending, rest)

    def _in_order(self, pending: deque[Future[DecodedImage]], rest: Iterator[ImageRequest]) -> Iterator[DecodedImage]:
        while pending:
            yield pending.popleft().result()
            pending.extend(self._threads.submit(self._load_one, request) for request in islice(rest, 1))

    def _load_one(self, request: ImageRequest) -> DecodedImage:
        process: _DecoderProcess = getattr(self._thread_local, "process", None) or self._new_process()
        if self._closed.is_set():  # __exit__ may have missed a process that has just started
            return DecodedImage(error="stopped")
        path = request[0] if isinstance(request[0], str) else UPLOAD
        # Retries of a slow server end before this limit, so the image fails, but its process is kept.
        limit = self._time_limit + (READ_LIMIT if isinstance(path, StoredPath) and path.remote else 0)
        try:
            image = process.request(request, limit)
            if image.note is not None:
                with self._notes_lock:
                    first, number = self._notes.get(image.note, (path, 0))
                    self._notes[image.note] = (first, number + 1)
            return image
        except TimeoutError:
            reason = f"took longer than {limit:g} s to read and decode"
        except (EOFError, OSError):
            if self._closed.is_set():
                return DecodedImage(error="stopped")
            reason = f"the decoder process crashed ({process.exit_description()})"
        self._thread_local.process = None
        self._processes.discard(process)
        process.close()
        return DecodedImage(error=reason)

    def _new_process(self) -> _DecoderProcess:
        for attempt in range(1, START_ATTEMPTS + 1):
            with _START_LOCK:
                process = _DecoderProcess()
            self._processes.add(process)
            try:
                process.start(self._options)
            except MachineError:
                self._processes.discard(process)
                process.close()
                if attempt == START_ATTEMPTS or self._closed.is_set():
                    raise
            else:
                break
        self._thread_local.process = process
        return process


class _DecoderProcess:
    """One decoder process and the pipes to it.

    Responses are read without `Connection`, because its copies cost a twentieth of the CPU time of decoding.
    """

    def __init__(self) -> None:
        requests, request_pipe = os.pipe()
        response_pipe, responses = os.pipe()
        # -I ignores the working directory and PYTHON* variables; the process gets this process's sys.path.
        command = [sys.executable, "-I", "-c", _WORKER_CODE.format(path=sys.path), str(requests), str(responses)]
        devnull = subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(command, pass_fds=(requests, responses), stdin=devnull, stdout=devnull)
        except OSError:
            os.close(request_pipe)
            os.close(response_pipe)
            raise
        finally:
            os.close(requests)
            os.close(responses)
        self._requests = Connection(request_pipe, readable=False)
        self._responses = os.fdopen(response_pipe, "rb")
        self._poll = select.poll()
        self._poll.register(response_pipe, select.POLLIN)

    def start(self, options: DecodeOptions) -> None:
        """Send the options and wait until the process is ready. Raises MachineError if it does not start."""
        if options.preprocessing is not None:
            _enlarge_pipe(self._responses, math.prod(options.preprocessing.shape))
        try:
            self._requests.send(options)
            ready = bool(self._poll.poll(1000 * START_LIMIT) and self._responses.readline())
        except OSError:
            ready = False
        if not ready:
            raise MachineError(
                f"a decoder process did not start ({self.exit_description()}). If memory is short, use fewer --workers."
            )

    def request(self, request: ImageRequest, limit: float) -> DecodedImage:
        """Request an image. Raises TimeoutError after `limit` seconds, EOFError or OSError if the process crashes."""
        self._requests.send(request)
        if not self._poll.poll(1000 * limit):
            raise TimeoutError
        return receive_image(self._responses)

    def exit_description(self) -> str:
        """Describe how the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        return "still running" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"

    def kill(self) -> None:
        """Kill the process; a thread that waits for its response gets an EOFError."""
        self._process.kill()

    def close(self) -> None:
        """Kill the process, wait for its end, and close the pipes."""
        self.kill()
        self._process.wait()
        self._requests.close()
        self._responses.close()


def _enlarge_pipe(pipe: BinaryIO, size: int) -> None:
    """Let a pipe hold an image of `size` bytes and its header, so that writing one does not wait for its reader."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # more than the system allows; keep the default size
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size + 4096)
