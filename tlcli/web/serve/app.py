"""The HTTP interface of `tlcli serve`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tlcli import __version__
from tlcli.errors import ArtifactError, MachineError, TlcliError, UsageError
from tlcli.inference.predictor import Prediction
from tlcli.inference.rows import prediction_row, row_columns
from tlcli.web.page_files import PageFiles
from tlcli.web.requests import http_error
from tlcli.web.security import App, Guard, error_response
from tlcli.web.serve.batcher import Batcher, BusyError
from tlcli.web.serve.metrics import CONTENT_TYPE, Measured, Metrics
from tlcli.web.serve.openapi import describe_interface
from tlcli.web.serve.query import as_parameters, predict_settings
from tlcli.web.serve.service import Service
from tlcli.web.serve.uploads import MAX_BODY, Upload, UploadReader, busy

ANSWER_SECONDS = 60.0
"""Time to predict the images of a request; then it is answered with 503."""
PREDICT = "/v1/predict"
PUBLIC = ("/healthz",)
Row = dict[str, Any]


def serve_app(service: Service, *, token: str | None, host: str, page: bool) -> App:
    """Return the application.

    Args:
        service: The run that is served.
        token: The token that requests must carry; None if none is needed.
        host: The address or name that the server listens on.
        page: Whether to serve the page for people.
    """
    metrics = Metrics([PREDICT, "/healthz", "/metrics", "/openapi.json", "/docs", "/"])
    interface = _Interface(service, metrics)
    page_files = PageFiles(files("tlcli.web.serve") / "page", token or "")
    routes = [
        Route(PREDICT, interface.predict, methods=["POST"]),
        Route("/healthz", interface.health),
        Route("/metrics", interface.metrics),
        Route("/openapi.json", interface.description),
        Route("/docs", lambda _: page_files.html("docs.html")),
        Route("/assets/{name}", page_files.asset),
    ]
    if page:
        routes.append(Route("/", lambda _: page_files.html("serve.html")))
    handlers: Mapping[Any, Any] = {TlcliError: _refused, HTTPException: http_error}
    application = Starlette(routes=routes, exception_handlers=handlers)
    guard = Guard(application, token=token, host=host, max_body=MAX_BODY, public=PUBLIC)
    return Measured(guard, metrics)


class _Interface:
    """The endpoints."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._uploads = UploadReader()

    async def predict(self, request: Request) -> Response:
        async with self._uploads.read(request) as uploads:
            with self._service.borrow() as batcher:
                settings = predict_settings(batcher.run.directory, request.query_params)
                reads_promises = bool(settings.target_precision) or settings.sets is not None
                options = (
                    await run_in_threadpool(batcher.row_options, settings)
                    if reads_promises
                    else batcher.row_options(settings)
                )
                predictions = await _predictions(batcher, uploads)
                classes = batcher.run.classes
        names = row_columns(classes, options)
        rows: list[Row] = [
            dict(zip(names, prediction_row(prediction, classes, options), strict=True)) | {"path": upload.name}
            for upload, prediction in zip(uploads, predictions, strict=True)
        ]
        self._metrics.count_rows(rows)
        return _answer(rows)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        batcher = self._service.batcher
        text = self._metrics.text(
            in_progress=batcher.in_progress, run=self._service.name, digest=batcher.run.info["sha256"]
        )
        return Response(text, headers={"Content-Type": CONTENT_TYPE})

    async def description(self, request: Request) -> Response:
        found = describe_interface(self._service.name, self._service.batcher.run.classes, __version__)
        return JSONResponse(found)


async def _predictions(batcher: Batcher, uploads: list[Upload]) -> list[Prediction]:
    """Predict images. Raises HTTPException if the server is busy, or too slow."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            futures = batcher.submit([upload.content for upload in uploads])
            return await asyncio.gather(*map(asyncio.wrap_future, futures))
    except (BusyError, TimeoutError, MemoryError) as error:
        raise busy() from error


def _answer(rows: list[Row]) -> Response:
    """Return the rows; with status 422 and the reason if none of the images can be read."""
    if any(row["error"] is None for row in rows):
        return JSONResponse({"predictions": rows})
    if len(rows) == 1:
        message = f"the image cannot be used: {rows[0]['error']}."
    else:
        message = f"none of the {len(rows)} images can be used. The first: {rows[0]['error']}."
    error = {"kind": "data", "message": message, "path": None}
    return JSONResponse({"error": error, "predictions": rows}, status_code=422)


def _refused(request: Request, error: TlcliError) -> Response:
    """Answer a request that cannot be met: 503 if the reason is this machine or the run's files."""
    broken = isinstance(error, (MachineError, ArtifactError))
    if broken:  # the reason names files of the server, so it is for its operator
        logging.getLogger("uvicorn.error").error("%s", error.message)
        changed = "files of the run have changed or cannot be read; the operator of the server must reload it (SIGHUP)."
        other = "the server cannot predict now; its operator finds the reason in its output."
        return error_response(503, error.kind, changed if isinstance(error, ArtifactError) else other)
    return error_response(400 if isinstance(error, UsageError) else 422, error.kind, as_parameters(error.message))
