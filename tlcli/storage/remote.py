"""What lies at URLs, through fsspec: listed at once, read with retries, and whole or not at all. Torch-free.

fsspec is imported when the first URL is opened. Each process has connections of its own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

from tlcli.errors import DataError, MachineError, TlcliError, UsageError
from tlcli.storage.stored import UNKNOWN, Stored
from tlcli.storage.urls import Url

T = TypeVar("T")

ATTEMPTS = 5
"""Times that something is tried which may go well the next time."""
PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before the second attempt, doubled before each further one, and at most; half of them are drawn at random, so
that processes that were throttled together don't come back together."""
ATTEMPT_LIMIT = 30.0
"""Seconds for one attempt."""
READ_LIMIT = 120.0
"""Seconds for all attempts and pauses together; a picture's time for being decoded begins behind them."""
CHUNK = 2**20
"""Bytes that are read at once of what is read from the beginning to the end: tables, runs, headers of tars."""
CONNECTIONS = 16
"""Requests under way at the same time, in one process."""

INSTALL = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
"""The extra of tlcli that brings what a scheme needs."""
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_ENDPOINT_URL where it isn't Amazon's S3",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login",
}
"""How a person says who they are."""

HOPELESS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError, ValueError)
"""What the next attempt would answer, too."""
NOBODY = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"}
"""What packages call it when nobody said who asks."""


class IncompleteError(OSError):
    """Fewer bytes came than there are."""


def connect(url: Url) -> Any:  # noqa: ANN401 - fsspec has no types
    """The file system of a URL.

    Raises:
        UsageError: there is no such scheme.
        MachineError: a package is missing.
    """
    return _filesystem(url.scheme)


@functools.cache
def _filesystem(scheme: str) -> Any:  # noqa: ANN401
    import fsspec

    if scheme in {"s3", "s3a"}:
        os.environ.setdefault("AWS_MAX_ATTEMPTS", "1")  # attempts are counted here
    if scheme == "memory":
        raise UsageError("memory:// is the memory of one process, while tlcli works in several. Give another place.")
    try:
        found = fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        extra = INSTALL.get(scheme)
        how = f"pip install 'tlcli[{extra}]'" if extra else str(error)
        raise MachineError(f"{scheme}:// needs a package that isn't installed: {how}.") from error
    except ValueError as error:
        raise UsageError(f"{scheme}:// is no scheme that fsspec knows. Expected s3://, gs://, https://, ...") from error
    if hasattr(found, "retries"):
        found.retries = 1
    return found


def _ask(url: Url, what: str, limit: float, **options: object) -> Any:  # noqa: ANN401
    """Call a method of the URL's file system once, for at most so many seconds where it can be interrupted."""
    system = connect(url)
    path = system._strip_protocol(str(url))
    if not system.async_impl:
        return getattr(system, what)(path, **options)
    from fsspec.asyn import sync

    return sync(system.loop, getattr(system, f"_{what}"), path, timeout=limit, **options)


def retrying(attempt: Callable[[float], T]) -> T:
    """What `attempt` gives, which is told how many seconds it has; tried again after failures that may pass."""
    end = time.monotonic() + READ_LIMIT
    for number in range(ATTEMPTS):
        try:
            return attempt(min(ATTEMPT_LIMIT, end - time.monotonic()))
        except Exception as error:  # packages raise their own
            pause = min(PAUSE * 2**number, LONGEST_PAUSE) * random.uniform(0.5, 1)
            last = number + 1 == ATTEMPTS or time.monotonic() + pause >= end
            if last or isinstance(error, (TlcliError, *HOPELESS)) or type(error).__name__ in NOBODY:
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def reason(error: Exception) -> str:
    """Why something failed, in a few words."""
    if isinstance(error, TlcliError):
        return error.message
    if isinstance(error, FileNotFoundError):
        return "there is no such object"
    if type(error).__name__ == "FSTimeoutError":
        return f"no answer within {ATTEMPT_LIMIT:g} s"
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


@contextlib.contextmanager
def explained(url: Url) -> Iterator[None]:
    """Make of what goes wrong at a URL an error that says what to do."""
    try:
        yield
    except TlcliError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{url} does not exist. Check the bucket and the name.", path=str(url)) from error
    except NotImplementedError as error:
        raise UsageError(f"{url}: this can't be done at {url.scheme}://. Give a place on this machine.") from error
    except Exception as error:
        if isinstance(error, PermissionError) or type(error).__name__ in NOBODY:
            how = CREDENTIALS.get(url.scheme, "those that fsspec expects for this scheme")
            message = f"{url}: access denied ({reason(error)}). Give credentials: {how}."
        else:
            message = f"{url} cannot be reached: {reason(error)}. Check the network and the address, then try again."
        raise MachineError(message, path=str(url)) from error


def listing(url: Url) -> dict[str, Stored]:
    """All objects below a URL, by what comes behind it and a slash; by "" where it is an object itself.

    Raises:
        DataError: there is none.
        MachineError: it cannot be listed.
    """
    with explained(url):
        info = retrying(lambda limit: _ask(url, "info", limit))
        if info["type"] == "file" and not str(url).endswith("/"):
            return {"": _stored(str(url), info)}
        found = retrying(lambda limit: _ask(url, "find", max(limit, READ_LIMIT), detail=True))
    root = connect(url)._strip_protocol(str(url)).rstrip("/") + "/"
    keys = {path.removeprefix(root): info for path, info in found.items() if path.startswith(root)}
    base = str(url).rstrip("/")
    return {key: _stored(f"{base}/{key}", info) for key, info in keys.items() if key and not key.endswith("/")}


def stat(url: Url) -> Stored:
    """An object by its URL. Raises whatever its file system does."""
    return _stored(str(url), retrying(lambda limit: _ask(url, "info", limit)))


def stat_all(urls: Sequence[Url]) -> list[Stored | None]:
    """Objects by their URLs; None for each that isn't there, and of unknown size where that can't be told."""

    def one(url: Url) -> Stored | None:
        try:
            return stat(url)
        except FileNotFoundError:
            return None
        except Exception:  # noqa: BLE001 - reading it will give the reason, in its own row
            return Stored(str(url), str(url), size=UNKNOWN, version=UNKNOWN)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(one, urls))


def _stored(path: str, info: dict[str, Any]) -> Stored:
    size = info.get("size")
    return Stored(path, path, size=UNKNOWN if size is None else int(size), version=_version(info))


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
    if size == UNKNOWN:
        size = stat(url).size

    def attempt(limit: float) -> bytes:
        if size == UNKNOWN:
            return bytes(_ask(url, "cat_file", limit))
        content = bytes(_ask(url, "cat_file", limit, start=offset, end=offset + size))
        if len(content) != size:
            raise IncompleteError(f"{len(content):,} of {size:,} bytes came")
        return content

    return retrying(attempt) if size else b""


class RemoteFile(io.RawIOBase):
    """An object as a file to read from the beginning to the end, or with leaps; errors are those of `explained`."""

    def __init__(self, url: Url) -> None:
        self._url = url
        self._at = self._start = 0
        self._buffer = b""
        with explained(url):
            self.stored = stat(url)
            if self.stored.size == UNKNOWN:
                self._buffer = read(url, 0, UNKNOWN)
                self.stored.size = len(self._buffer)

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
        if not self._start <= self._at < self._start + len(self._buffer):
            size = min(max(CHUNK, len(buffer)), self.stored.size - self._at)
            if size <= 0:
                return 0
            with explained(self._url):
                self._start, self._buffer = self._at, read(self._url, self._at, size)
        begin = self._at - self._start
        content = self._buffer[begin : begin + len(buffer)]
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def content_of(url: Url) -> bytes:
    """A whole object.

    Raises:
        DataError: it is not there.
        MachineError: it cannot be read.
    """
    with io.BufferedReader(RemoteFile(url), CHUNK) as file:
        return file.read()
