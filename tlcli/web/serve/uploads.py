"""Read uploaded images, in memory and with limits: a raw body, or the `image` parts of a multipart body."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from tlcli.web.requests import arriving_within

MAX_BODY = 2**25
"""Bytes of a request, at most."""
MAX_IMAGES = 64
"""Images in a request, at most."""
MAX_HELD = 2**29
"""Bytes of all requests in progress, at most; more are refused."""
BODY_SECONDS = 30.0
"""Time for the body of a request to arrive."""
RETRY_SECONDS = 1
"""When to try again if the server is busy."""
PART = "image"


class Upload(NamedTuple):
    """An image in a request."""

    name: str | None
    """The name of its file, as the client gave it; None in a raw body."""
    content: bytes


class _InMemoryParser(MultiPartParser):
    spool_max_size = MAX_BODY + 1  # never in a temporary file
    complete = False
    """Whether the last boundary was read."""

    def on_end(self) -> None:
        self.complete = True


class UploadReader:
    """Reads the images of requests, which together hold at most `MAX_HELD` bytes. Belongs to one event loop."""

    def __init__(self) -> None:
        self._held = 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[list[Upload]]:
        """Read the images of a request, which count until the block ends.

        Raises:
            HTTPException: There is none; the request is malformed, too large or too slow; or the server is busy.
        """
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise _refusal(415, "compressed requests are not accepted; send the image as it is.")
        length = 0

        async def chunks() -> AsyncGenerator[bytes]:
            nonlocal length
            async for chunk in request.stream():
                length += len(chunk)
                self._held += len(chunk)
                if self._held > MAX_HELD:
                    raise busy()
                yield chunk

        try:
            async with arriving_within(BODY_SECONDS):
                uploads = await _read(request, chunks())
            yield uploads
        except ClientDisconnect as error:
            raise _refusal(400, "the connection was closed before the request was complete.") from error
        finally:
            self._held -= length


async def _read(request: Request, chunks: AsyncGenerator[bytes]) -> list[Upload]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        content = b"".join([chunk async for chunk in chunks])
        if not content:
            raise _refusal(400, "the body is empty; expected an image, or a multipart form with parts named image.")
        return [Upload(None, content)]
    parser = _InMemoryParser(request.headers, chunks, max_files=MAX_IMAGES, max_fields=0)
    try:
        form = await parser.parse()
        try:
            if begun := [] if parser.complete else parser._files_to_close_on_error:
                for file in begun:
                    file.close()
                raise _refusal(400, "the form is malformed: it ends before its last boundary.")
            return await _images(form)
        finally:
            await form.close()
    except MultiPartException as error:
        raise _refusal(400, _reason(error.message)) from error


async def _images(form: FormData) -> list[Upload]:
    images = []
    for name, part in form.multi_items():
        if name != PART or not isinstance(part, UploadFile):
            raise _refusal(400, f"the form has a part {name[:100]!r}; expected only files, in parts named {PART}.")
        images.append(Upload(part.filename, await part.read()))
    if not images:
        raise _refusal(400, f"the form has no images; expected files, in parts named {PART}.")
    return images


def _reason(message: str) -> str:
    """Explain what the parser says."""
    if message.startswith("Too many files"):
        return f"the form has more than {MAX_IMAGES} images. Send them in several requests."
    if message.startswith("Too many fields"):
        return f"the form has a part without a filename; expected only files, in parts named {PART}."
    return f"the form is malformed: {message.rstrip('.')}."


def _refusal(status: int, reason: str) -> HTTPException:
    """Return a refusal that closes the connection, because the rest of the body is not read."""
    return HTTPException(status, reason, {"Connection": "close"})


def busy() -> HTTPException:
    """Return a refusal of a server with too much to do."""
    headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
    return HTTPException(503, "the server is busy. Try again soon.", headers)
