"""How URLs are asked, through fsspec: once, again after failures that may pass, and what failures mean. Torch-free.

fsspec is imported when the first URL is opened. Each process has connections of its own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tlcli.errors import DataError, MachineError, TlcliError, UsageError
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
"""Seconds for all attempts and pauses together; an image's time for being decoded begins behind them."""
LONG = 3600.0
"""Seconds for what grows with the data: listing a folder, writing a file."""
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

HOPELESS = (
    TlcliError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    ValueError,
    MemoryError,
)
"""What the next attempt would answer, too."""
NOBODY = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"}
"""What packages call it when nobody said who asks."""
DENIED = {401, 403}
"""What web servers answer to somebody who may not."""
GONE = {404, 410}
"""What they answer where there is nothing."""
PASSING = {408, 425, 429}
"""What they answer, among the errors that are the asker's, where the next attempt may go well."""


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
    except TypeError as error:  # a server, say, that is named by fsspec's configuration only
        raise UsageError(f"{scheme}:// needs settings in fsspec's configuration: {error}.") from error
    if hasattr(found, "retries"):
        found.retries = 1
    return found


def ask(url: Url, what: str, limit: float, *before: object, **options: object) -> Any:  # noqa: ANN401
    """Call a method of the URL's file system once, for at most so many seconds where it can be interrupted."""
    system = connect(url)
    path = system._strip_protocol(str(url))
    if not system.async_impl:
        return getattr(system, what)(*before, path, **options)
    from fsspec.asyn import sync

    try:
        return sync(system.loop, getattr(system, f"_{what}"), *before, path, timeout=limit, **options)
    except FileNotFoundError as error:
        # fsspec makes it of whatever a web server answers to the question for a size, or doesn't.
        cause = error.__cause__
        if INSTALL.get(url.scheme) == "http" and isinstance(cause, Exception) and _status(cause) not in GONE:
            raise cause from None
        raise


def _status(error: BaseException) -> int | None:
    """The number of a web server's answer."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _hopeless(error: Exception) -> bool:
    """Whether the next attempt would end so, too."""
    status = _status(error)
    refused = status is not None and 400 <= status < 500 and status not in PASSING
    return refused or isinstance(error, HOPELESS) or type(error).__name__ in NOBODY


def retrying(attempt: Callable[[float], T], *, each: float = ATTEMPT_LIMIT, most: float = READ_LIMIT) -> T:
    """What `attempt` gives, which is told how many seconds it has; tried again after failures that may pass.

    Args:
        attempt: What to do.
        each: Seconds for one attempt.
        most: Seconds for all of them and the pauses.
    """
    end = time.monotonic() + most
    for number in range(ATTEMPTS):
        try:
            return attempt(min(each, end - time.monotonic()))
        except Exception as error:  # packages raise their own
            pause = min(PAUSE * 2**number, LONGEST_PAUSE) * random.uniform(0.5, 1)
            last = number + 1 == ATTEMPTS or time.monotonic() + pause >= end
            if last or _hopeless(error):
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def reason(error: Exception) -> str:
    """Why something failed, in a few words."""
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
        if isinstance(error, PermissionError) or type(error).__name__ in NOBODY or _status(error) in DENIED:
            how = CREDENTIALS.get(url.scheme, "those that fsspec expects for this scheme")
            message = f"{url}: access denied ({reason(error)}). Give credentials: {how}."
        else:
            message = f"{url} cannot be reached: {reason(error)}. Check the network and the address, then try again."
        raise MachineError(message, path=str(url)) from error
