"""Makes the pictures in README.md from sample_data: `make gallery`. Needs Chromium, and Playwright (the test extra)."""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
SAMPLES = DOCS.parent / "sample_data"
TLCLI = [sys.executable, "-m", "tlcli"]


def tlcli(*arguments):
    subprocess.run([*TLCLI, *map(str, arguments)], check=True)


def save(picture, name, width):
    """As a PNG of 256 colours, which are enough and a third of the bytes."""
    small = picture.convert("RGB").resize(
        (width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS
    )
    small.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(DOCS / name, optimize=True)


def report(page, run):
    """The top of the report, then its map, side by side."""
    page.goto((run / "report.html").absolute().as_uri())
    page.wait_for_function("document.querySelector('#scatter').width > 300")
    shots = [Image.open(io.BytesIO(page.screenshot()))]
    page.locator("#map").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#map').scrollIntoView()")
    shots.append(Image.open(io.BytesIO(page.screenshot())))
    both = Image.new("RGB", (sum(shot.width for shot in shots), shots[0].height))
    for number, shot in enumerate(shots):
        both.paste(shot, (number * shots[0].width, 0))
    save(both, "report.png", 1600)


def inspection(page, folder):
    page.goto((folder / "inspect.html").absolute().as_uri())
    page.wait_for_load_state()
    page.evaluate("document.querySelectorAll('section')[2].scrollIntoView()")
    save(Image.open(io.BytesIO(page.screenshot())), "inspect.png", 1280)


def explanations(folder):
    """Some cards, one below the other."""
    cards = [
        Image.open(folder / name) for name in ("000001-street_1.jpg", "000004-street_4.jpg", "000006-street_6.jpg")
    ]
    sheet = Image.new("RGB", (max(card.width for card in cards), sum(card.height for card in cards)), (255, 255, 255))
    top = 0
    for card in cards:
        sheet.paste(card, (0, top))
        top += card.height
    save(sheet, "explain.png", 1000)


with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
    world = Path(name)
    tlcli("finetune", SAMPLES / "pictures", "--out", world / "street")
    tlcli("inspect", world / "street", SAMPLES / "pictures", "--out", world / "units")
    tlcli("predict", world / "street", SAMPLES / "to_predict", "--explain", world / "why", "--out", world / "rows.csv")
    tlcli("augment", SAMPLES / "pictures", "--augment", "strong", "--preview", DOCS / "augmentation.png", "--overwrite")
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 960}, color_scheme="light")
    report(page, world / "street")
    inspection(page, world / "units")
    explanations(world / "why")
    browser.close()
