"""What the HTTP interfaces share: the time for a body to arrive, and responses to errors of HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tlcli.web.security import error_response

KINDS = {408: "timeout", 413: "too-large", 503: "busy"}


@contextlib.asynccontextmanager
async def arriving_within(seconds: float) -> AsyncIterator[None]:
    """Raise HTTPException if a body, which the block reads, does not arrive in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        message = f"the request did not arrive within {seconds:.0f} s."
        raise HTTPException(408, message, {"Connection": "close"}) from error


def http_error(request: Request, error: HTTPException) -> Response:
    """Answer a request with an error of HTTP."""
    if error.status_code == 404:
        return error_response(404, "missing", "there is no such address.")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        response = error_response(405, "refused", f"this address accepts {allowed}, not {request.method}.")
        response.headers["Allow"] = allowed
        return response
    response = error_response(error.status_code, KINDS.get(error.status_code, "refused"), error.detail)
    response.headers.update(error.headers or {})
    return response
