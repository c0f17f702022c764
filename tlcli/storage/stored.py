"""An image's path that knows where its bytes lie, and how any image is opened. Torch-free."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import IO

from tlcli.storage.urls import Url, is_url

UNKNOWN = -1
"""Size or version of what nobody has told yet."""


class UnreadableError(Exception):
    """An image whose bytes cannot be had; its text is the reason, for the image's row."""


class Stored(str):
    """The path of an image that is no file of its own, as rows show it; a plain path everywhere else.

    Args:
        path: Such as `shards-000.tar/key.jpg`.
        where: The file, or URL, that its bytes lie in.
        offset: Of its first byte there.
        size: Bytes, or `UNKNOWN`.
        version: Changes with the bytes: the time of the last change of `where`, in nanoseconds since 1970; or a number
            below `UNKNOWN` made of its entity tag; or `UNKNOWN`.
    """

    __slots__ = ("offset", "size", "version", "where")

    where: str
    offset: int
    size: int
    version: int

    def __new__(cls, path: str, where: str = "", offset: int = 0, size: int = 0, version: int = 0) -> Stored:  # noqa: D102
        self = super().__new__(cls, path)
        self.where, self.offset, self.size, self.version = where, offset, size, version
        return self

    @property
    def remote(self) -> bool:
        """Whether its bytes lie at a URL."""
        return is_url(self.where)

    def place(self) -> tuple[str, int, int, int]:
        """All that `Stored` takes besides the path."""
        return self.where, self.offset, self.size, self.version


def stamp(path: str) -> tuple[int, int]:
    """Size and version (time of change) of an image, without opening it: while they stay, so do its bytes.

    Raises:
        OSError, ValueError: there is no such file, or nobody has told.
    """
    if isinstance(path, Stored):
        if path.version == UNKNOWN:
            raise OSError("its version is unknown")
        return path.size, path.version
    status = os.stat(path)  # noqa: PTH116 - a path may be any bytes, and there may be a million
    return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def opened(path: str, most: int) -> Iterator[tuple[IO[bytes], int, int]]:
    """An image's bytes as a file, their number, and their version.

    Args:
        path: Of the image.
        most: Bytes that are read of one that is no file of its own.

    Raises:
        UnreadableError: it is no file, it is not there any more, or not as it was listed.
        OSError, ValueError: there is no such file.
    """
    if isinstance(path, Stored):
        _check_size(path.size, most)
        content = _remote_content(path, most) if path.remote else _content(path)
        yield io.BytesIO(content), len(content), path.version
        return
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
        raise UnreadableError("is a folder, a pipe, a socket or a device, not a file")
    # Without waiting, should it have become a pipe meanwhile.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
        status = os.fstat(file.fileno())
        yield file, status.st_size, status.st_mtime_ns


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise UnreadableError(f"has {size:,} bytes, more than the {most:,} that are read")


def _content(path: Stored) -> bytes:
    with open(path.where, "rb") as file:  # noqa: PTH123 - a path may be any bytes
        if os.fstat(file.fileno()).st_mtime_ns != path.version:
            raise UnreadableError(f"{path.where} was changed while it was read")
        file.seek(path.offset)
        content = file.read(path.size)
    if len(content) < path.size:
        raise UnreadableError(f"{path.where} is truncated")
    return content


def _remote_content(path: Stored, most: int) -> bytes:
    from tlcli.storage.connection import reason
    from tlcli.storage.remote import read, stat

    try:
        url = Url(path.where)
        size = stat(url).size if path.size == UNKNOWN else path.size
        _check_size(size, most)
        return read(url, path.offset, size)
    except UnreadableError:
        raise
    except Exception as error:  # fsspec's file systems raise their own
        raise UnreadableError(f"cannot be read: {reason(error)}") from error
