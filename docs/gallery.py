"""Makes the images in README.md from sample_data: `make gallery`. Needs Chromium, and Playwright (the test extra)."""

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


def save(image, name, width):
    """As a PNG of 256 colors, which are enough and a third of the bytes."""
    small = image.convert("RGB").resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
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
    """The three units of the last block looked at that tell images apart best, before and after fine-tuning."""
    page.goto((folder / "inspect.html").absolute().as_uri())
    cards = page.locator("#layer-14 article")
    shots = [Image.open(io.BytesIO(cards.nth(number).screenshot())) for number in range(3)]
    below(shots, "inspect.png", 1280)


def below(images, name, width):
    """Some images, one below the other."""
    sheet = Image.new("RGB", (max(one.width for one in images), sum(one.height + 12 for one in images)), "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + 12
    save(sheet, name, width)


def explanations(folder):
    """A pedestrian, a car, and one that the network is unsure of."""
    below([Image.open(next(folder.glob(f"*street_{number}.jpg"))) for number in (1, 4, 6)], "explain.png", 1280)


with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
    world = Path(name)
    tlcli("finetune", SAMPLES / "pictures", "--out", world / "street")
    tlcli(
        *"finetune --freeze blocks.3 --epochs 6 --learning-rate 0.002".split(),
        SAMPLES / "pictures",
        "--out",
        world / "tail",
    )
    tlcli("inspect", world / "tail", SAMPLES / "pictures", "--out", world / "units")
    tlcli("predict", world / "street", SAMPLES / "to_predict", "--explain", world / "why", "--out", world / "rows.csv")
    tlcli("augment", SAMPLES / "pictures", "--augment", "strong", "--preview", world / "look.png")
    save(Image.open(world / "look.png"), "augmentation.png", 885)
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 1180}, color_scheme="light")
    report(page, world / "street")
    inspection(page, world / "units")
    explanations(world / "why")
    browser.close()
