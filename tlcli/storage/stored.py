"""Paths of images that are not files of their own: members of tar files and objects at URLs. Torch-free."""

from __future__ import annotations

import os

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


def stamp(path: str) -> tuple[int, int]:
    """Size and version (modification time) of an image. While they stay the same, so do its bytes.

    Raises:
        OSError, ValueError: there is no such file, or its version is unknown.
    """
    if isinstance(path, StoredPath):
        if path.version == UNKNOWN:
            raise OSError("its version is unknown")
        return path.size, path.version
    status = os.stat(path)  # noqa: PTH116 - a path may be any bytes, and there may be a million
    return status.st_size, status.st_mtime_ns
