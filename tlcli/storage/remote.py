"""Objects at URLs: list, read, upload and remove them, with retries. Torch-free."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from tlcli.storage.connection import (
    CHUNK,
    CONNECTIONS,
    TRANSFER_LIMIT,
    IncompleteError,
    connect,
    explained,
    request,
    request_range,
    retrying,
)
from tlcli.storage.stored import UNKNOWN, StoredPath
from tlcli.storage.urls import Url


def listing(url: Url) -> dict[str, StoredPath]:
    """List all objects below a URL.

    Returns:
        The objects by their path relative to the URL; by "" if the URL is an object itself.

    Raises:
        DataError: there is none.
        MachineError: the URL cannot be listed.
    """
    with explained(url):
        info = retrying(lambda limit: request(url, "info", limit))
        if info["type"] == "file" and not str(url).endswith("/"):
            return {"": _stored(str(url), info)}
        found = retrying(
            lambda limit: request(url, "find", limit, detail=True), each=TRANSFER_LIMIT, most=TRANSFER_LIMIT
        )
    root = connect(url)._strip_protocol(str(url)).rstrip("/") + "/"
    keys = {path.removeprefix(root): info for path, info in found.items() if path.startswith(root)}
    base = str(url).rstrip("/")
    return {key: _stored(f"{base}/{key}", info) for key, info in keys.items() if key and not key.endswith("/")}


def stat(url: Url) -> StoredPath:
    """Get the size and version of an object. Errors are those of its file system."""
    return _stored(str(url), retrying(lambda limit: request(url, "info", limit)))


def stat_all(urls: Sequence[Url]) -> list[StoredPath | None]:
    """Get the sizes and versions of objects: None for a missing one, `UNKNOWN` if the request fails."""

    def one(url: Url) -> StoredPath | None:
        try:
            return stat(url)
        except FileNotFoundError:
            return None
        except Exception:  # noqa: BLE001 - reading it will report the reason in its own row
            return StoredPath(str(url), str(url), size=UNKNOWN, version=UNKNOWN)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(one, urls))


def _stored(path: str, info: dict[str, Any]) -> StoredPath:
    size = info.get("size")
    return StoredPath(path, path, size=UNKNOWN if size is None else int(size), version=_version(info))


def _version(info: dict[str, Any]) -> int:
    """Return a number below `UNKNOWN` from the entity tag, else the modification time in nanoseconds since 1970."""
    changed = next((info[key] for key in ("LastModified", "updated", "mtime", "created") if info.get(key)), None)
    if tag := info.get("ETag") or info.get("etag"):
        return UNKNOWN - 1 - int.from_bytes(hashlib.sha256(f"{tag} {changed}".encode()).digest()[:7])
    if isinstance(changed, datetime):
        return int(changed.timestamp() * 1e9)
    return int(changed * 1e9) if isinstance(changed, float | int) else UNKNOWN


def read(url: Url, offset: int, size: int) -> bytes:
    """Read `size` bytes of an object, or all of it if the size is `UNKNOWN`. Errors are those of its file system."""

    def attempt(limit: float) -> bytes:
        if size == UNKNOWN:
            return bytes(request(url, "cat_file", limit))
        content = request_range(url, limit, offset, size)
        if len(content) != size:
            raise IncompleteError(f"received {len(content):,} of {size:,} bytes")
        return content

    return retrying(attempt) if size else b""


def check_ranges(url: Url, size: int) -> None:
    """Check that parts of an object of this size can be read. Raises what `explained` does."""
    if size > 1:
        with explained(url):
            read(url, size - 1, 1)


class RemoteFile(io.RawIOBase):
    """An object as a read-only file, to wrap in a `BufferedReader` of `CHUNK` bytes. Raises what `explained` does."""

    def __init__(self, url: Url) -> None:
        self._url = url
        self._position = 0
        with explained(url):
            self.stored = stat(url)
            if self.stored.size == UNKNOWN:
                raise IncompleteError("the server does not report its size")

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def tell(self) -> int:  # noqa: D102
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:  # noqa: D102
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.stored.size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401, D102 - a writable buffer
        size = max(0, min(len(buffer), self.stored.size - self._position))
        with explained(self._url):
            buffer[:size] = read(self._url, self._position, size)
        self._position += size
        return size


def content_of(url: Url) -> bytes:
    """Read a whole object.

    Raises:
        DataError: it does not exist.
        MachineError: it cannot be read.
    """
    with io.BufferedReader(RemoteFile(url), CHUNK) as file:
        return file.read()


def download(url: Url, path: Path) -> None:
    """Copy an object to a file.

    Raises:
        DataError: it does not exist.
        MachineError: it cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with RemoteFile(url) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 8 * CHUNK)


def upload(path: Path, url: Url) -> None:
    """Copy a file to an object.

    Raises:
        UsageError: the scheme is read-only.
        MachineError: the object cannot be written.
    """

    def attempt(limit: float) -> None:
        request(url, "put_file", limit, str(path))
        if (size := _stored(str(url), request(url, "info", limit)).size) not in {path.stat().st_size, UNKNOWN}:
            raise IncompleteError(f"only {size:,} of {path.stat().st_size:,} bytes were stored")

    with explained(url):
        retrying(attempt, each=TRANSFER_LIMIT, most=TRANSFER_LIMIT)


def remove(url: Url) -> None:
    """Remove an object, if it exists.

    Raises:
        MachineError: it cannot be removed.
    """
    with explained(url), contextlib.suppress(FileNotFoundError):
        retrying(lambda limit: request(url, "rm_file", limit))


def check_bucket(url: Url) -> None:
    """Check that the bucket (or host) of a URL exists.

    Raises:
        DataError: it does not exist.
        MachineError: it cannot be reached.
    """
    bucket = Url("/".join(str(url).split("/")[:3]))
    with explained(bucket):
        stat(bucket)
