"""Open a page in the browser without its token on a command line, which other users of the machine can see."""

from __future__ import annotations

import contextlib
import html
import os
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path

REDIRECT = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={0}"><a href="{0}">tlcli</a>'
)


@contextlib.contextmanager
def open_in_browser(url: str) -> Iterator[None]:
    """Open a URL in the browser, if there is a screen; its command line has the name of a file that leads there.

    Only the user can read the file, which is removed when the block ends. If it cannot be written, nothing is opened.
    """
    with contextlib.ExitStack() as stack:
        if has_screen():
            with contextlib.suppress(OSError):
                path = stack.enter_context(_redirect_file(url))
                webbrowser.open(path.as_uri())
        yield


def has_screen() -> bool:
    """Return whether a browser would have a window; otherwise Python might open one in the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def _redirect_file(url: str) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix="tlcli-", suffix=".html")  # with mode 0600
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf8") as file:
            file.write(REDIRECT.format(html.escape(url)))
        yield path
    finally:
        path.unlink(missing_ok=True)
