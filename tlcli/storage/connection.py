"""Requests to object stores and web servers through fsspec: connections, retries, and error messages. Torch-free.

fsspec is imported when the first URL is opened. Each process has its own connections.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from tlcli.errors import DataError, MachineError, TlcliError, UsageError
from tlcli.storage.urls import Url

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")

ATTEMPTS = 5
"""Maximum number of attempts of a request that fails with a transient error."""
PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before the second attempt, doubled before each further one, and their maximum. Half of each pause is random,
so that processes that were throttled together do not retry together."""
ATTEMPT_LIMIT = 30.0
"""Timeout of one attempt, in seconds."""
READ_LIMIT = 120.0
"""Timeout of all attempts and pauses together, in seconds. The time limit for decoding an image starts afterwards."""
TRANSFER_LIMIT = 3600.0
"""Timeout in seconds for requests whose duration grows with the data: listing a folder, writing a file."""
CHUNK = 2**20
"""Bytes per request when an object is read sequentially: tables, runs, headers of tar files."""
CONNECTIONS = 16
"""Concurrent requests in one process."""

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
"""The extra of tlcli that installs the packages for a scheme."""
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_ENDPOINT_URL if it is not Amazon's S3",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login",
}
"""How to provide credentials, by scheme."""

PERMANENT_ERRORS = (
    TlcliError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    ValueError,
    MemoryError,
)
"""Errors that another attempt would raise again."""
MISSING_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "DefaultCredentialsError",
}
"""Names of the errors that client packages raise if there are no credentials."""
ACCESS_DENIED = {401, 403}
"""HTTP statuses for missing or insufficient credentials."""
PARTIAL = 206
"""HTTP status of a response that is part of an object."""
NOT_FOUND = {404, 410}
"""HTTP statuses for a missing object."""
TRANSIENT_CLIENT_ERRORS = {408, 425, 429}
"""HTTP statuses 4xx after which another attempt may succeed."""


class IncompleteError(OSError):
    """Fewer bytes were transferred than the object has."""


def connect(url: Url) -> Any:  # noqa: ANN401 - fsspec has no types
    """Return fsspec's file system for a URL.

    Raises:
        UsageError: the scheme is unknown or not supported.
        MachineError: a package is missing.
    """
    return _filesystem(url.scheme)


@functools.cache
def _filesystem(scheme: str) -> Any:  # noqa: ANN401
    import fsspec

    if scheme in {"s3", "s3a"}:
        os.environ.setdefault("AWS_MAX_ATTEMPTS", "1")  # `retrying` counts the attempts
    if scheme == "memory":
        raise UsageError("memory:// is local to one process, but tlcli uses several. Use another location.")
    try:
        found = fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        how = f"pip install 'tlcli[{extra}]'" if extra else str(error)
        raise MachineError(f"{scheme}:// needs a package that is not installed: {how}.") from error
    except ValueError as error:
        raise UsageError(
            f"{scheme}:// is not a scheme that fsspec supports. Expected s3://, gs://, https://, ..."
        ) from error
    except TypeError as error:  # for example a server that only fsspec's configuration can name
        raise UsageError(f"{scheme}:// requires settings in fsspec's configuration: {error}.") from error
    if hasattr(found, "retries"):
        found.retries = 1
    return found


def request(url: Url, method: str, limit: float, *before: object, **options: object) -> Any:  # noqa: ANN401
    """Call a method of the URL's file system once.

    Args:
        url: The URL, which is passed to the method as a path.
        method: Name of the method, such as `info`.
        limit: Timeout in seconds; only asynchronous file systems support it.
        before: Arguments before the path.
        options: Keyword arguments of the method.
    """
    system = connect(url)
    path = system._strip_protocol(str(url))
    if not system.async_impl:
        return getattr(system, method)(*before, path, **options)
    from fsspec.asyn import sync

    try:
        return sync(system.loop, getattr(system, f"_{method}"), *before, path, timeout=limit, **options)
    except FileNotFoundError as error:
        # fsspec raises it for any failed request for a size over HTTP, including timeouts and refusals.
        cause = error.__cause__
        if EXTRAS.get(url.scheme) == "http" and isinstance(cause, Exception) and _status(cause) not in NOT_FOUND:
            raise cause from None
        raise


def request_range(url: Url, limit: float, offset: int, size: int) -> bytes:
    """Read part of an object once.

    Raises:
        MachineError: a web server sends all of it instead, which is then not received.
    """
    if EXTRAS.get(url.scheme) != "http":
        return bytes(request(url, "cat_file", limit, start=offset, end=offset + size))
    from fsspec.asyn import sync

    system = connect(url)

    async def part() -> bytes:
        session = await system.set_session()
        options = dict(system.kwargs)
        asked = {"Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
        headers = {**options.pop("headers", {}), **asked}
        async with session.get(system.encode_url(str(url)), headers=headers, **options) as response:
            system._raise_not_found_for_status(response, str(url))
            if response.status != PARTIAL and (offset or response.content_length not in {None, size}):
                changed = "" if offset else ", or the file has changed"
                raise MachineError(
                    f"{url}: the server does not support byte ranges: it sends whole files only{changed}. Download the "
                    "file and pass its path, or use a server that supports them.",
                    path=str(url),
                )
            return bytes(await response.read())

    return bytes(sync(system.loop, part, timeout=limit))


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error, if it has one."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _is_transient(error: BaseException) -> bool:
    """Return whether another attempt may succeed."""
    status = _status(error)
    refused = status is not None and 400 <= status < 500 and status not in TRANSIENT_CLIENT_ERRORS
    permanent = isinstance(error, PERMANENT_ERRORS) or type(error).__name__ in MISSING_CREDENTIALS
    return isinstance(error, Exception) and not refused and not permanent


def _pause(state: RetryCallState) -> float:
    """Return the seconds before the next attempt."""
    return min(PAUSE * 2.0 ** (state.attempt_number - 1), LONGEST_PAUSE) * random.uniform(0.5, 1)


def retrying(attempt: Callable[[float], T], *, each: float = ATTEMPT_LIMIT, most: float = READ_LIMIT) -> T:
    """Call `attempt` until it succeeds or fails with a permanent error, and return its result.

    Args:
        attempt: Takes its timeout in seconds.
        each: Timeout of one attempt, in seconds.
        most: Timeout of all attempts and pauses together, in seconds.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_before_delay

    end = time.monotonic() + most
    retry = Retrying(
        retry=retry_if_exception(_is_transient),
        stop=stop_after_attempt(ATTEMPTS) | stop_before_delay(most),
        wait=_pause,
        reraise=True,
    )
    return retry(lambda: attempt(min(each, end - time.monotonic())))


def reason(error: Exception) -> str:
    """Describe why a request failed, in a few words."""
    if isinstance(error, TlcliError):
        return error.message
    if isinstance(error, FileNotFoundError):
        return "there is no such object"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if type(error).__name__ == "FSTimeoutError":
        return f"no answer within {ATTEMPT_LIMIT:g} s"
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error).strip().splitlines()
    return text[0][:200].rstrip(".") if text else type(error).__name__


@contextlib.contextmanager
def explained(url: Url) -> Iterator[None]:
    """Convert the errors of client packages into errors with a remedy.

    Raises:
        DataError: the object does not exist.
        UsageError: the scheme does not support the operation.
        MachineError: access is denied, or the URL cannot be reached.
    """
    try:
        yield
    except TlcliError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{url} does not exist. Check the bucket and the name.", path=str(url)) from error
    except NotImplementedError as error:
        raise UsageError(f"{url}: {url.scheme}:// does not support this operation. Use a local path.") from error
    except Exception as error:
        denied = _status(error) in ACCESS_DENIED or type(error).__name__ in MISSING_CREDENTIALS
        if denied or isinstance(error, PermissionError):
            how = CREDENTIALS.get(url.scheme, "see the documentation of fsspec for this scheme")
            message = f"{url}: access denied ({reason(error)}). Provide credentials: {how}."
        else:
            message = f"{url} cannot be reached: {reason(error)}. Check the network and the address, then try again."
        raise MachineError(message, path=str(url)) from error
