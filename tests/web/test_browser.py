"""The browser is opened without the token on its command line."""

from __future__ import annotations

import re
import stat
import sys
import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tlcli.web.browser import open_in_browser

URL = 'http://127.0.0.1:8000/?token=secret&x="<>'


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A browser that writes its arguments to a file; return that file."""
    program, found = tmp_path / "browser", tmp_path / "arguments"
    program.write_text(f'#!/bin/sh\necho "$@" > {found}\n')
    program.chmod(0o700)
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    monkeypatch.setattr(webbrowser, "_browsers", {})
    monkeypatch.setenv("BROWSER", f"{program} %s")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return found


def test_the_token_is_in_a_private_file_that_is_removed(started):
    with open_in_browser(URL):
        (argument,) = started.read_text().split()
        path = Path(unquote(urlsplit(argument).path))
        assert "secret" not in argument
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR
        assert re.search(
            r'content="0; url=http://127.0.0.1:8000/\?token=secret&amp;x=&quot;&lt;&gt;"', path.read_text()
        )
    assert not path.exists()


def test_nothing_is_opened_without_a_screen(started, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with open_in_browser(URL):
        assert not started.exists()


def test_a_full_disk_does_not_end_the_session(started, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", fail)
    with open_in_browser(URL):
        assert not started.exists()
