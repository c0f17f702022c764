"""Generate the images of the documentation from sample_data. Requires Chromium and Playwright (the test extra).

usage: make gallery
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parent
TLCLI = [sys.executable, "-m", "tlcli"]


def tlcli(*arguments):
    """Run a command. Its working directory has a link to sample_data, so no absolute path appears in its output."""
    subprocess.run([*TLCLI, *map(str, arguments)], check=True)


def save(image, name, width):
    """Save a PNG with 256 colors, which takes a third of the bytes."""
    small = image.convert("RGB").resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    small.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(DOCS / name, optimize=True)


def stack(images):
    """Arrange images vertically."""
    sheet = Image.new("RGB", (max(one.width for one in images), sum(one.height + 12 for one in images)), "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + 12
    return sheet


def save_report(page, run):
    """Save the top of the report and its map, side by side."""
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


def save_units(page, folder):
    """Save three units of layer 14, before and after fine-tuning."""
    page.goto((folder / "inspect.html").absolute().as_uri())
    cards = page.locator("#layer-14 article")
    save(stack([Image.open(io.BytesIO(cards.nth(number).screenshot())) for number in range(3)]), "inspect.png", 1200)


def save_explanations(folder):
    """Save the explanations of a pedestrian, a car, and an uncertain prediction."""
    cards = [Image.open(next(folder.glob(f"*street_{number}.jpg"))) for number in (1, 4, 6)]
    save(stack(cards), "explain.png", 1280)


with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
    os.chdir(name)
    Path("sample_data").symlink_to(DOCS.parent / "sample_data")
    images = "sample_data/pictures"
    tlcli("finetune", images, "--out", "runs/street")
    tlcli("finetune", images, *"--freeze blocks.3 --epochs 6 --learning-rate 0.002 --out runs/tail".split())
    tlcli("inspect", "runs/tail", images, "--out", "units")
    tlcli("predict", "runs/street", "sample_data/to_predict", "--explain", "explanations", "--out", "rows.csv")
    tlcli("augment", images, "--augment", "strong", "--preview", "augmentation.png")
    save(Image.open("augmentation.png"), "augmentation.png", 885)
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 1180}, color_scheme="light")
    save_report(page, Path("runs/street"))
    save_units(page, Path("units"))
    save_explanations(Path("explanations"))
    browser.close()
