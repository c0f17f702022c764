"""Paths of images that are not files of their own (members of tar files, objects at URLs), and stamps. Torch-free."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from tlcli.storage.urls import is_url

UNKNOWN = -1
"""A size or version that the listing did not report."""


class StoredPath(str):
    """The path of an image that is not a file of its own, as rows show it, and the location of its bytes.

    Args:
        path: The path, such as `shards-000.tar/key.jpg`.
        where: The file or URL that contains the bytes.
        offset: Position of the first byte in it.
        size: Number of bytes, or `UNKNOWN`.
        version: Changes with the bytes: the modification time of `where` in nanoseconds since 1970; or a number below
            `UNKNOWN` derived from the entity tag; or `UNKNOWN`.
    """

    __slots__ = ("offset", "size", "version", "where")

    where: str
    offset: int
    size: int
    version: int

    def __new__(  # noqa: D102
        cls, path: str, where: str = "", offset: int = 0, size: int = 0, version: int = 0
    ) -> StoredPath:
        self = super().__new__(cls, path)
        self.where, self.offset, self.size, self.version = where, offset, size, version
        return self

    @property
    def remote(self) -> bool:
        """Whether the bytes are at a URL."""
        return is_url(self.where)

    def place(self) -> tuple[str, int, int, int]:
        """All arguments of `StoredPath` except the path, to send to another process."""
        return self.where, self.offset, self.size, self.version


class Stamp(NamedTuple):
    """Metadata of an image from the file system. If all of it is unchanged, so are the bytes.

    Size and modification time alone would miss a file replaced by `mv`, `cp -p`, `rsync -t`, or a restored backup. For
    a `StoredPath`, only `size` and `modified` (its version) are known.
    """

    size: int = 0
    """Bytes."""
    modified: int = 0
    """Modification time in nanoseconds since 1970, or a `StoredPath.version`."""
    device: int = 0
    inode: int = 0
    changed: int = 0
    """Time at which content or inode changed (ctime), in nanoseconds since 1970. Programs cannot set it."""

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp of a file with this status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino, status.st_ctime_ns)

    def pack(self) -> bytes:
        """Return `STAMP_BYTES` bytes that `unpack` reads."""
        return _PACKED.pack(*(value % 2**64 for value in self))  # some file systems store times after the year 2262

    @classmethod
    def unpack(cls, packed: bytes) -> Stamp:
        """Return the stamp that `pack` wrote, with negative times modulo 2^64."""
        return cls(*_PACKED.unpack(packed))


_PACKED = struct.Struct("<5Q")
STAMP_BYTES = _PACKED.size


def stamp(path: str) -> Stamp:
    """Return the stamp of an image.

    Raises:
        OSError, ValueError: there is no such file, or its version is unknown.
    """
    if isinstance(path, StoredPath):
        if path.version == UNKNOWN:
            raise OSError("its version is unknown")
        return Stamp(path.size, path.version)
    return Stamp.of(os.stat(path))  # noqa: PTH116 - a path may be any bytes, and there may be a million
