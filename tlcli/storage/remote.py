"""What lies at URLs: listed at once, read and written with retries, and whole or not at all. Torch-free."""

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

from tlcli.storage.connection import CHUNK, CONNECTIONS, LONG, IncompleteError, ask, connect, explained, retrying
from tlcli.storage.stored import UNKNOWN, StoredPath
from tlcli.storage.urls import Url


def listing(url: Url) -> dict[str, StoredPath]:
    """All objects below a URL, by what comes behind it and a slash; by "" where it is an object itself.

    Raises:
        DataError: there is none.
        MachineError: it cannot be listed.
    """
    with explained(url):
        info = retrying(lambda limit: ask(url, "info", limit))
        if info["type"] == "file" and not str(url).endswith("/"):
            return {"": _stored(str(url), info)}
        found = retrying(lambda limit: ask(url, "find", limit, detail=True), each=LONG, most=LONG)
    root = connect(url)._strip_protocol(str(url)).rstrip("/") + "/"
    keys = {path.removeprefix(root): info for path, info in found.items() if path.startswith(root)}
    base = str(url).rstrip("/")
    return {key: _stored(f"{base}/{key}", info) for key, info in keys.items() if key and not key.endswith("/")}


def stat(url: Url) -> StoredPath:
    """An object by its URL. Raises whatever its file system does."""
    return _stored(str(url), retrying(lambda limit: ask(url, "info", limit)))


def stat_all(urls: Sequence[Url]) -> list[StoredPath | None]:
    """Objects by their URLs; None for each that isn't there, and of unknown size where that can't be told."""

    def one(url: Url) -> StoredPath | None:
        try:
            return stat(url)
        except FileNotFoundError:
            return None
        except Exception:  # noqa: BLE001 - reading it will give the reason, in its own row
            return StoredPath(str(url), str(url), size=UNKNOWN, version=UNKNOWN)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(one, urls))


def _stored(path: str, info: dict[str, Any]) -> StoredPath:
    size = info.get("size")
    return StoredPath(path, path, size=UNKNOWN if size is None else int(size), version=_version(info))


def _version(info: dict[str, Any]) -> int:
    """What changes with an object: a number below `UNKNOWN` made of its entity tag, else its time of change."""
    changed = next((info[key] for key in ("LastModified", "updated", "mtime", "created") if info.get(key)), None)
    if tag := info.get("ETag") or info.get("etag"):
        return UNKNOWN - 1 - int.from_bytes(hashlib.sha256(f"{tag} {changed}".encode()).digest()[:7])
    if isinstance(changed, datetime):
        return int(changed.timestamp() * 1e9)
    return int(changed * 1e9) if isinstance(changed, float | int) else UNKNOWN


def read(url: Url, offset: int, size: int) -> bytes:
    """Some bytes of an object, or all of one whose size is unknown. Raises whatever its file system does."""

    def attempt(limit: float) -> bytes:
        if size == UNKNOWN:
            return bytes(ask(url, "cat_file", limit))
        content = bytes(ask(url, "cat_file", limit, start=offset, end=offset + size))
        if len(content) != size:
            raise IncompleteError(f"{len(content):,} of {size:,} bytes came")
        return content

    return retrying(attempt) if size else b""


class RemoteFile(io.RawIOBase):
    """An object as a file, for a `BufferedReader` of `CHUNK` bytes. Errors are those of `explained`."""

    def __init__(self, url: Url) -> None:
        self._url = url
        self._at = 0
        with explained(url):
            self.stored = stat(url)
            if self.stored.size == UNKNOWN:
                raise IncompleteError("the service doesn't tell its size")

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def tell(self) -> int:  # noqa: D102
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:  # noqa: D102
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.stored.size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401, D102 - a writable buffer
        size = max(0, min(len(buffer), self.stored.size - self._at))
        with explained(self._url):
            buffer[:size] = read(self._url, self._at, size)
        self._at += size
        return size


def content_of(url: Url) -> bytes:
    """A whole object.

    Raises:
        DataError: it is not there.
        MachineError: it cannot be read.
    """
    with io.BufferedReader(RemoteFile(url), CHUNK) as file:
        return file.read()


def download(url: Url, path: Path) -> None:
    """Copy a whole object to a file.

    Raises:
        DataError: it is not there.
        MachineError: it cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with RemoteFile(url) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 8 * CHUNK)


def upload(path: Path, url: Url) -> None:
    """Copy a whole file to an object.

    Raises:
        UsageError: nothing can be written there.
        MachineError: it cannot be written.
    """

    def attempt(limit: float) -> None:
        ask(url, "put_file", limit, str(path))
        if (size := _stored(str(url), ask(url, "info", limit)).size) not in {path.stat().st_size, UNKNOWN}:
            raise IncompleteError(f"{size:,} of {path.stat().st_size:,} bytes arrived")

    with explained(url):
        retrying(attempt, each=LONG, most=LONG)


def remove(url: Url) -> None:
    """Remove an object.

    Raises:
        MachineError: it cannot be removed.
    """
    with explained(url), contextlib.suppress(FileNotFoundError):
        retrying(lambda limit: ask(url, "rm_file", limit))


def check_bucket(url: Url) -> None:
    """See to it that the bucket (or host) of a URL is there.

    Raises:
        DataError: it is not there.
        MachineError: it cannot be reached.
    """
    bucket = Url("/".join(str(url).split("/")[:3]))
    with explained(bucket):
        stat(bucket)
