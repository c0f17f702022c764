"""Visits find the problems that they look for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from visits import DESKTOP, PHONE, Visit, colors, ground

pytestmark = pytest.mark.slow  # tests of the tests of pages


@pytest.fixture
def shown(browser, tmp_path):
    """Open a page that consists of `text`; complaints do not fail the test."""
    visits = []

    def open_text(text, **options):
        path = tmp_path / "ä b.html"
        path.write_text(
            f'<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">{text}'
        )
        visits.append(Visit(browser, path, **({"width": DESKTOP, "dark": False} | options)))
        return visits[-1]

    yield open_text
    for one in visits:
        one.close()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<script>console.error('oh')</script>", "console, error: oh"),
        ("<script>nothing.there()</script>", "uncaught: nothing is not defined"),
        ("<script>alert(1)</script>", "alert: 1"),
        ("<img src=x.png>", "requested file:"),
        ("<script src='http://127.0.0.1:9/x.js'></script>", "requested http:"),
        ("<link rel=stylesheet href='other.css'>", "failed: file:"),
    ],
)
def test_complaints(shown, text, complaint):
    assert complaint in "\n".join(shown(text).complaints)


def test_no_complaints(shown):
    one = shown(
        "<a href='#b'>go</a><img src='data:image/svg+xml,<svg xmlns=\"http://www.w3.org/2000/svg\"/>'><p id=b>b"
    )
    one.page.get_by_text("go").click()
    assert one.complaints == []
    assert (one.overflow(), one.broken_images(), one.low_contrast()) == ([], [], [])


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_overflowing_elements(shown, width):
    wide = "<div style='width: 1300px'>wide</div>"
    assert "DIV to 13" in shown(wide, width=width).overflow()[1]
    assert shown(f"<div style='overflow-x: auto'>{wide}</div>", width=width).overflow() == []


def test_broken_images(shown):
    broken = "data:image/png;base64,bm8="
    assert shown(f"<img src='{broken}'>").broken_images() == [broken]
    assert shown(f"<p style='background: url({broken})'>").broken_images() == [broken]


@pytest.mark.parametrize(
    ("style", "dark", "found"),
    [
        ("color: #777", False, [4.48]),
        ("color: #767676", False, []),
        ("color: #777; font-size: 24px", False, []),
        ("color: #767676; opacity: .9", False, [3.76]),
        ("color: #767676; background: rgb(0 0 0 / .5)", False, [1.14]),
        ("color: color-mix(in srgb, currentColor 40%, transparent)", False, [2.85]),
        ("color: #777; display: none", False, []),
        ("color: #444", True, [1.92]),
        ("", True, []),
    ],
)
def test_low_contrast_text(shown, style, dark, found):
    """Ratios are computed manually; rounding of translucent colors may differ."""
    one = shown(f"<style>:root {{ color-scheme: light dark }}</style><p style='{style}'>text", dark=dark)
    assert [float(line.split(": text")[0]) for line in one.low_contrast()] == pytest.approx(found, abs=0.04)


def test_screenshots(shown, tmp_path):
    blank = shown("").screenshot(tmp_path / "blank.png")
    assert blank.size == (DESKTOP, 900)
    assert (tmp_path / "blank.png").stat().st_size > 0
    assert (colors(blank), ground(blank)) == (1, 255)
    tall = shown("<p style='height: 2000px'>text", width=PHONE)
    assert tall.screenshot().size == (PHONE, 844)
    assert tall.screenshot(full=True).height > 2000
    assert colors(tall.screenshot()) > 8


def test_printing(shown):
    assert shown("<p>one").printed().count(b"/Type /Page\n") == 1
    assert shown("<p style='break-after: page'>one</p><p>two").printed().count(b"/Type /Page\n") == 2


@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_without_a_browser(tmp_path, required, outcome):
    """Without a browser, tests are skipped, or fail if one is required; the message names the package to install."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}"]
    done = subprocess.run(
        [*command, f"{Path(__file__)}::test_printing"],
        env=os.environ | {"PATH": str(tmp_path), "TLCLI_REQUIRE_BROWSER": required},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout.splitlines()[-1]
    assert "apt-get install chromium" in done.stdout
