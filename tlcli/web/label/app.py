"""The HTTP interface of `tlcli label`: requests to calls of the session, results and errors to responses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tlcli.errors import DataError, TlcliError, UsageError, from_os_error
from tlcli.storage.files import portable_name
from tlcli.web.label.session import Answer, Session
from tlcli.web.label.thumbnails import SIDES, Thumbnails
from tlcli.web.page_files import PageFiles
from tlcli.web.requests import arriving_within, http_error
from tlcli.web.security import Guard, error_response

BODY_SECONDS = 10.0
"""Time for the body of a request to arrive."""
MAX_ANSWERS = 10_000
"""Labels in one request, at most."""
Body = dict[str, Any]


def label_app(session: Session, thumbnails: Thumbnails, *, token: str, host: str) -> Guard:
    """Return the application.

    Args:
        session: The session that requests act on.
        thumbnails: Makes the images.
        token: The token that every request must carry.
        host: The address or name that the server listens on.
    """
    page = PageFiles(files("tlcli.web.label") / "page", token)
    interface = _Interface(session, thumbnails, page)
    routes = [
        Route("/", interface.page),
        Route("/assets/{name}", page.asset),
        Route("/image/{image}", interface.image),
        Route("/api/state", interface.state),
        Route("/api/batch", interface.batch),
        Route("/api/labels", interface.labels, methods=["GET"]),
        Route("/api/labels", interface.answer, methods=["POST"]),
        Route("/api/undo", interface.undo, methods=["POST"]),
        Route("/api/classes", interface.classes, methods=["POST"]),
    ]
    handlers: Mapping[Any, Any] = {TlcliError: _refused, OSError: _not_written, HTTPException: http_error}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token=token, host=host)


class _Interface:
    """The endpoints. Those that are not coroutines run in threads."""

    def __init__(self, session: Session, thumbnails: Thumbnails, page: PageFiles) -> None:
        self._session = session
        self._thumbnails = thumbnails
        self._page = page

    def page(self, request: Request) -> Response:
        return self._page.html("label.html")

    def image(self, request: Request) -> Response:
        side, number = _whole(request, "side", SIDES[1], least=1, most=SIDES[-1]), request.path_params["image"]
        if not _is_number(number) or int(number) >= len(self._session.paths):
            return error_response(404, "missing", "there is no such image.")
        path = self._session.paths[int(number)]
        content, reason = self._thumbnails.make(path, side)
        if content is None:
            return error_response(404, "data", f"{portable_name(path)} cannot be shown: {reason}.")
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    def state(self, request: Request) -> Response:
        return JSONResponse(self._session.state())

    def batch(self, request: Request) -> Response:
        query = request.query_params
        like = _whole(request, "like", -1, least=0, most=2**31) if "like" in query else None
        size = _whole(request, "size", 24, least=1, most=2**31)
        return JSONResponse(self._session.batch(size, class_name=query.get("class"), like=like, tab=query.get("tab")))

    def labels(self, request: Request) -> Response:
        offset = _whole(request, "offset", 0, least=0, most=2**31)
        limit = _whole(request, "limit", 100, least=1, most=1000)
        return JSONResponse(
            self._session.labels(offset=offset, limit=limit, class_name=request.query_params.get("class"))
        )

    async def answer(self, request: Request) -> Response:
        return await self._act(request, lambda body: self._session.answer(_answers(body)))

    async def undo(self, request: Request) -> Response:
        return await self._act(request, lambda _: self._session.undo())

    async def classes(self, request: Request) -> Response:
        return await self._act(request, self._change_classes)

    async def _act(self, request: Request, action: Callable[[Body], Body]) -> Response:
        """Read a JSON object and act on it in a thread, once for each `Idempotency-Key`."""
        body, key = await _json(request), request.headers.get("idempotency-key")
        return JSONResponse(await run_in_threadpool(self._session.once, key, lambda: action(body)))

    def _change_classes(self, body: Body) -> Body:
        match body:
            case {"add": str(name)}:
                return self._session.add_class(name)
            case {"rename": {"from": str(old), "to": str(new)}}:
                return self._session.rename_class(old, new)
            case {"merge": {"from": str(old), "into": str(new)}}:
                return self._session.merge_classes(old, new)
        raise UsageError(
            'expected {"add": NAME}, {"rename": {"from": NAME, "to": NAME}}, or '
            '{"merge": {"from": NAME, "into": NAME}}.'
        )


async def _json(request: Request) -> Body:
    """Read a JSON object. Raises UsageError and HTTPException."""
    if request.headers.get("content-type", "application/json").partition(";")[0].strip() != "application/json":
        raise UsageError("expected the content type application/json.")
    async with arriving_within(BODY_SECONDS):
        content = await request.body()
    try:
        body = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is not JSON ({error}).") from error
    if not isinstance(body, dict):
        raise UsageError("expected a JSON object.")
    return body


def _answers(body: Body) -> list[Answer]:
    entries = body.get("labels")
    if not isinstance(entries, list) or len(entries) > MAX_ANSWERS:
        raise UsageError(f'expected {{"labels": [...]}} with at most {MAX_ANSWERS:,} entries.')
    return [_answer(entry) for entry in entries]


def _answer(entry: object) -> Answer:
    match entry:
        case {"id": bool()}:
            pass
        case {"id": int(image), "skip": True}:
            return Answer(image=image, skip=True)
        case {"id": int(image), "remove": True}:
            return Answer(image=image, remove=True)
        case {"id": int(image), "label": None | str() as label}:
            return Answer(image=image, label=label)
    raise UsageError(f'{json.dumps(entry)[:100]} is not a label; expected {{"id": NUMBER, "label": NAME or null}}.')


def _whole(request: Request, name: str, default: int, *, least: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not _is_number(text) or not least <= int(text) <= most:
        raise UsageError(f"{name} is {text[:40]!r}; expected a whole number from {least} to {most:,}.")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10


def _refused(request: Request, error: TlcliError) -> Response:
    status = 409 if isinstance(error, DataError) else 400 if isinstance(error, UsageError) else 503
    return error_response(status, error.kind, error.message)


def _not_written(request: Request, error: OSError) -> Response:
    return error_response(503, "environment", f"{from_os_error(error).message} Nothing was recorded.")
