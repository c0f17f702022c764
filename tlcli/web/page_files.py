"""The files of a page: HTML with the token in it, scripts, style sheets, and icons."""

from __future__ import annotations

from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

from tlcli.web.security import error_response

MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class PageFiles:
    """Serves the files of a folder.

    Args:
        folder: The folder.
        token: What `{{token}}` in HTML stands for.
    """

    def __init__(self, folder: Traversable, token: str) -> None:
        self._folder = folder
        self._token = token

    def html(self, name: str) -> Response:
        """Return a page."""
        text = (self._folder / name).read_text("utf8")
        return Response(text.replace("{{token}}", self._token), media_type="text/html")

    def asset(self, request: Request) -> Response:
        """Answer a request for `{name}`, a file that a page needs."""
        name = request.path_params["name"]
        known = {path.name: path for path in self._folder.iterdir()}
        suffix = "." + name.rpartition(".")[2]
        if name not in known or suffix not in MEDIA_TYPES:
            return error_response(404, "missing", "there is no such file.")
        return Response(known[name].read_bytes(), media_type=MEDIA_TYPES[suffix])
