"""A decoding process: reads a picture's file, hashes it, decodes it, brings it to size. Imports no torch.

It talks through two pipes of its own, so that it can be killed at any time without harm to the others. A
request is a path; an answer is a `Picture`. It ends when its parent does.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import stat
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple

from tlcli.images.decode import UndecodableError, decode
from tlcli.images.preprocess import Preprocessing, fit_picture

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker does with every path it is sent."""

    preprocessing: Preprocessing | None = None
    """How to bring pictures to size; None only hashes them."""
    known: frozenset[bytes] = frozenset()
    """Digests of pictures whose pixels nobody needs."""


class Picture(NamedTuple):
    """What became of one file."""

    digest: bytes | None = None
    """SHA-256 of its bytes; None if they could not be read."""
    size: int = 0
    """Bytes."""
    modified: int = 0
    """Time of the last change, in nanoseconds since 1970."""
    read: int = 0
    """When it was read, in nanoseconds since 1970."""
    pixels: bytes | None = None
    """uint8 [H, W, C], row by row; None for known digests and failures."""
    error: str | None = None
    """Why there are no pixels."""


def read_picture(path: str, order: Order) -> Picture:
    """Read the file at `path` once, for its digest and its pixels; whatever is wrong becomes `error`."""
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
            return Picture(error="is a device or a socket, not a file")
        with open(path, "rb") as file:  # noqa: PTH123 - a path may be any bytes, and this is the hot loop
            status = os.fstat(file.fileno())
            read = time.time_ns()
            data = file.read()
    except OSError as error:
        return Picture(error=f"cannot be read: {error.strerror}")
    except ValueError as error:  # a NUL in the name
        return Picture(error=f"cannot be read: {error}")
    digest = hashlib.sha256(data).digest()
    picture = Picture(digest=digest, size=status.st_size, modified=status.st_mtime_ns, read=read)
    if order.preprocessing is None or picture.digest in order.known:
        return picture
    try:
        fitted = fit_picture(decode(data, order.preprocessing.channels), order.preprocessing)
    except UndecodableError as error:
        return picture._replace(error=str(error))
    return picture._replace(pixels=fitted.tobytes())


def serve(requests: Connection, answers: Connection) -> None:
    """Answer requests until the parent closes its end. The first message is the `Order`, answered by True."""
    order: Order = requests.recv()
    answers.send(True)
    while True:
        try:
            path: str = requests.recv()
        except EOFError:
            return
        answers.send(tuple(read_picture(path, order)))


def main() -> None:
    """Entry of the process: `requests` and `answers` are the file descriptors in its arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # C libraries (libtiff) write to descriptor 2 about odd files; the reason is in the answer already.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    requests, answers = (Connection(int(number)) for number in sys.argv[-2:])
    try:
        serve(requests, answers)
    except BrokenPipeError:
        os._exit(0)  # the parent is gone; nobody is left to tell
