"""Record a labeling session on sample_data as an animated image. Requires Chromium and Playwright (the test extra).

usage: python docs/label_recording.py
"""

import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

DOCS = Path(__file__).resolve().parent
CLASSES = ["car", "neither", "pedestrian"]
SIZE = {"width": 1060, "height": 680}
WIDTH = 800
"""Pixels of the recording."""


class Recording:
    """Frames of a page, each with its duration."""

    def __init__(self, page):
        self.page, self.frames, self.durations = page, [], []

    def frame(self, milliseconds):
        """Capture the page for so long."""
        shot = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        self.frames.append(shot.resize((WIDTH, round(WIDTH * shot.height / shot.width)), Image.Resampling.LANCZOS))
        self.durations.append(milliseconds)

    def save(self, path):
        """Write an animated WebP file."""
        first, *rest = self.frames
        first.save(path, save_all=True, append_images=rest, duration=self.durations, loop=0, quality=60, method=6)


def flat_copy(folder):
    """Copy the images of sample_data into one folder, unlabeled; their names still tell the class."""
    folder.mkdir(parents=True)
    for path in sorted((DOCS.parent / "sample_data" / "pictures").glob("*/*.jpg")):
        shutil.copy(path, folder / path.name)


def label_batch(recording):
    """Give each image that is proposed wrongly its class, then accept the others."""
    page = recording.page
    tiles = page.locator("#grid [role=option]")
    expect(tiles.first).to_be_visible()
    recording.frame(1500)
    proposed = tiles.first.inner_text() != ""
    for tile in tiles.all():
        described = tile.get_attribute("aria-label")
        label = next(name for name in CLASSES if f"/{name}_" in described)
        if not described.startswith(label):
            tile.click()
            page.keyboard.press(str(CLASSES.index(label) + 1))
            recording.frame(220)
    page.wait_for_timeout(700)
    recording.frame(600)
    if proposed:  # without proposals, each image got its class above
        page.keyboard.press("Enter")
    page.wait_for_timeout(1500)


def record(folder):
    """Label all images, and save the recording."""
    flat_copy(folder / "street")
    options = ["--classes", ",".join(CLASSES), "--no-browser", "--out", "labels.csv"]
    command = [sys.executable, "-m", "tlcli", "label", "street", *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as process, sync_playwright() as playwright:
        url = json.loads(process.stdout.readline())["url"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport=SIZE)
        page.goto(url)
        page.wait_for_timeout(8000)  # until the features of all images are computed
        recording = Recording(page)
        for _ in range(4):
            label_batch(recording)
        recording.frame(3000)
        recording.save(DOCS / "label.webp")
        process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        record(Path(name))
