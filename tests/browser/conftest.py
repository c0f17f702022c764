"""Fixtures: a browser per test module, monitored pages, and images with hostile names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from visits import BROWSERS, DESKTOP, TRAPS, Visit, installed_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = "mein Ordner (ü)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium. Without it, tests are skipped, or fail if TLCLI_REQUIRE_BROWSER is set."""
    path = installed_browser()
    if path is None:
        missing = f"none of {', '.join(BROWSERS)} is on the path; to run the browser tests: apt-get install chromium"
        (pytest.fail if os.environ.get("TLCLI_REQUIRE_BROWSER") else pytest.skip)(missing)
    from playwright.sync_api import sync_playwright

    # Playwright disables the sandbox, which would not start as root; only our own pages are opened.
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path) as started:
        yield started


@pytest.fixture
def visit(browser):
    """Open pages with `visit(path, width=PHONE, dark=True)`, which returns a `Visit`; complaints fail the test."""
    visits: list[Visit] = []

    def open_page(path: Path | str, *, width: int = DESKTOP, dark: bool = False, **options: bool) -> Visit:
        visits.append(Visit(browser, path, width=width, dark=dark, **options))
        return visits[-1]

    yield open_page
    for one in visits:
        one.close()
    assert [complaint for one in visits for complaint in one.complaints] == []


@pytest.fixture(scope="module")
def hostile(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of `photos` with two thirds for training, one unreadable image, and markup in all names."""
    root = tmp_path_factory.mktemp("browser") / FOLDER
    rows = []
    for shape, label in TRAPS.items():
        folder = root / label.replace("/", "")
        folder.mkdir(parents=True)
        for path in sorted((photos / shape).iterdir()):
            copy = folder / f'"><svg onload=alert(3)> & {path.name}'
            if shape == "stripes":  # larger than the browser windows
                Image.open(path).resize((1536, 1280)).save(copy)
            else:
                copy.write_bytes(path.read_bytes())
            split = "train" if int(path.stem) < 10 else "test"
            rows.append({"path": str(copy.relative_to(root)), "label": label, "split": split})
    broken = root / "<b onclick='alert(4)'>.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    rows.append({"path": broken.name, "label": TRAPS["disc"], "split": "train"})
    table = root / "Bilder & <i>mehr.jsonl"
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return table
