"""Read the bytes of an image, whether it is a file, a member of a tar file, or an object at a URL. Torch-free."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import IO

from tlcli.storage.stored import UNKNOWN, Stamp, StoredPath
from tlcli.storage.urls import Url


class UnreadableError(Exception):
    """The bytes of an image cannot be read. Its text is the reason shown in the image's row."""


@contextlib.contextmanager
def open_image_file(path: str, max_bytes: int) -> Iterator[tuple[IO[bytes], Stamp]]:
    """Open an image as a binary file.

    Args:
        path: The image's path; a `StoredPath` if it is not a file of its own.
        max_bytes: Size limit for an image that is not a file of its own, because it is read into memory.

    Yields:
        The file, and its stamp when it was opened.

    Raises:
        UnreadableError: it is not a regular file, no longer exists, or has changed since it was listed.
        OSError, ValueError: there is no such file.
    """
    if isinstance(path, StoredPath):
        _check_size(path.size, max_bytes)
        content = _read_remote(path, max_bytes) if path.remote else _read_member(path)
        yield io.BytesIO(content), Stamp(len(content), path.version)
        return
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
        raise UnreadableError("is a folder, a pipe, a socket or a device, not a file")
    # Without blocking, in case it has become a pipe in the meantime.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
        yield file, Stamp.of(os.fstat(file.fileno()))


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise UnreadableError(f"has {size:,} bytes, more than the limit of {max_bytes:,}")


def _read_member(path: StoredPath) -> bytes:
    with open(path.where, "rb") as file:  # noqa: PTH123 - a path may be any bytes
        if os.fstat(file.fileno()).st_mtime_ns != path.version:
            raise UnreadableError(f"{path.where} was changed while it was read")
        file.seek(path.offset)
        content = file.read(path.size)
    if len(content) < path.size:
        raise UnreadableError(f"{path.where} is truncated")
    return content


def _read_remote(path: StoredPath, max_bytes: int) -> bytes:
    from tlcli.storage.connection import reason
    from tlcli.storage.remote import read, stat

    try:
        url = Url(path.where)
        size = stat(url).size if path.size == UNKNOWN else path.size
        _check_size(size, max_bytes)
        return read(url, path.offset, size)
    except UnreadableError:
        raise
    except Exception as error:  # fsspec's file systems raise their own
        raise UnreadableError(f"cannot be read: {reason(error)}") from error
