"""Open pages in a real browser and monitor them.

A test opens a page with the fixture `visit` and uses `Visit.page`, a Playwright page:

    def test_sorting(visit, report):
        shown = visit(report, width=PHONE, dark=True)
        shown.page.get_by_role("button", name="recall").click()
        assert shown.page.locator("tbody tr").first.text_content() == ...

At the end of the test, the fixture fails it if there are any `Visit.complaints`.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page, Request

BROWSERS = ("chromium", "google-chrome", "google-chrome-stable", "chrome")
PHONE, DESKTOP = 390, 1280
"""Widths in CSS pixels."""
HEIGHTS = {PHONE: 844, DESKTOP: 900}
PAPER = 718
"""Width in CSS pixels of an A4 page with margins of 1 cm."""
TRAPS = {"disc": "<script>alert(1)</script>", "square": "\"&'", "stripes": "<img src=x onerror=alert(2)>"}
"""Class names in the table `hostile`, by class of `photos`."""

OVERFLOW = """() => {
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= room) return [];
  const scrolls = (element) => element && element !== document.body && element !== document.documentElement
    && (getComputedStyle(element).overflowX !== "visible" || scrolls(element.parentElement));
  const right = (element) => element.getBoundingClientRect().right;
  const found = [...document.body.querySelectorAll("*")]
    .filter((element) => right(element) > room + 1 && !scrolls(element.parentElement))
    .map((element) => `${element.tagName} to ${right(element)}: ${element.textContent.slice(0, 60)}`);
  return [`${document.documentElement.scrollWidth} of ${room}`, ...found];
}"""

BROKEN_IMAGES = """async () => {
  const addresses = [...document.images].map((image) => image.getAttribute("src"));
  for (const element of document.querySelectorAll("*"))
    for (const part of ["", "::before", "::after"])
      for (const [, address] of getComputedStyle(element, part || null).backgroundImage.matchAll(/url\\("(.*?)"\\)/g))
        addresses.push(address);
  const broken = [];
  for (const address of new Set(addresses)) {
    if (!address) continue;
    const image = new Image();
    image.src = address;
    await image.decode().catch(() => broken.push(address.slice(0, 80)));
  }
  return broken;
}"""

# A canvas blends the colors, since it parses every notation; the background comes from the color scheme.
LOW_CONTRAST = """() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.background = "Canvas";
  const ground = getComputedStyle(probe).backgroundColor;
  probe.remove();
  function luminance(layers) {
    for (const [color, opacity] of [[ground, 1], ...layers]) {
      pen.globalAlpha = opacity;
      pen.fillStyle = color;
      pen.fillRect(0, 0, 1, 1);
    }
    const [red, green, blue] = [...pen.getImageData(0, 0, 1, 1).data].map((level) => level / 255)
      .map((level) => (level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  }
  const found = new Set(), texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, text = texts.currentNode.data.trim();
    const shown = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!text || !shown || element.closest("script, style, :disabled")) continue;
    const line = [];
    for (let above = element; above; above = above.parentElement) line.unshift(getComputedStyle(above));
    let opacity = 1;
    const layers = line.map((style) => [style.backgroundColor, (opacity *= style.opacity)]);
    const own = line.at(-1), color = element instanceof SVGElement ? own.fill : own.color;
    const [light, dark] = [luminance(layers), luminance([...layers, [color, opacity]])].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05), size = parseFloat(own.fontSize);
    const large = size >= 24 || (size >= 18.66 && own.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.add(`${ratio.toFixed(2)}: ${text.slice(0, 60)}`);
  }
  return [...found];
}"""


def installed_browser() -> str | None:
    """Return the first browser on the path that can open every file; one packaged as a snap cannot."""
    found = (shutil.which(name) for name in BROWSERS)
    return next((path for path in found if path and Path(path).resolve().name != "snap"), None)


class Visit:
    """A page in its own window; `page` is the Playwright page."""

    page: Page
    complaints: list[str]
    """Console messages, uncaught errors, alerts, and requests for anything but the page itself."""

    def __init__(self, browser: Browser, path: Path | str, *, width: int, dark: bool, expect_failures: bool = False):
        """Open a file or a URL; the width `PHONE` also emulates a touch screen and a mobile viewport.

        A page at a URL may request anything of its own server, and requests may fail if that is expected.
        """
        self.complaints = []
        self._address = path if isinstance(path, str) else path.absolute().as_uri()
        self._server = path.partition("/?")[0] + "/" if isinstance(path, str) else None
        self._expect_failures = expect_failures
        self._context = browser.new_context(
            viewport={"width": width, "height": HEIGHTS.get(width, 900)},
            color_scheme="dark" if dark else "light",
            is_mobile=width == PHONE,
            has_touch=width == PHONE,
            locale="en-GB",
        )
        self.page = page = self._context.new_page()
        page.on("console", lambda message: self._complain(f"console, {message.type}: {message.text}"))
        page.on("pageerror", lambda error: self._complain(f"uncaught: {error}"))
        page.on("requestfailed", lambda request: self._complain(f"failed: {request.url[:80]} {request.failure}"))
        page.on("request", self._requested)
        page.on("dialog", self._dialog_opened)
        page.goto(self._address)

    def _complain(self, text: str) -> None:
        if not (self._expect_failures and ("Failed to load resource" in text or text.startswith("failed:"))):
            self.complaints.append(text)

    def _requested(self, request: Request) -> None:
        own = unquote(request.url.split("#")[0]) == unquote(self._address)
        own = own or (self._server is not None and request.url.startswith(self._server))
        if not own and not request.url.startswith(("data:", "blob:")):
            self._complain(f"requested {request.url}")

    def _dialog_opened(self, dialog: Dialog) -> None:
        self._complain(f"{dialog.type}: {dialog.message}")
        dialog.dismiss()

    def overflow(self) -> list[str]:
        """Return the elements that make the page scroll horizontally."""
        return self.page.evaluate(OVERFLOW)

    def broken_images(self) -> list[str]:
        """Return the URLs of images and backgrounds that cannot be decoded."""
        return self.page.evaluate(BROKEN_IMAGES)

    def low_contrast(self) -> list[str]:
        """Return texts whose contrast is below level AA of WCAG 2: 4.5, or 3 for large text.

        Background images and gradients are ignored.
        """
        return self.page.evaluate(LOW_CONTRAST)

    def screenshot(self, path: Path | None = None, *, full: bool = False) -> Image.Image:
        """Capture the window, or the `full` page; save it as a PNG if a path is given."""
        return Image.open(io.BytesIO(self.page.screenshot(path=path, full_page=full))).convert("RGB")

    def printed(self) -> bytes:
        """Print the page to a PDF on A4."""
        return self.page.pdf(format="A4", margin=dict.fromkeys(("top", "right", "bottom", "left"), "1cm"))

    def close(self) -> None:
        self._context.close()


def ground(shown: Image.Image) -> int:
    """Return the most frequent color of an RGB image, as a gray level from 0 to 255."""
    colors = shown.getcolors(shown.width * shown.height)
    _, (red, green, blue) = max(colors)
    return (red + green + blue) // 3


def colors(shown: Image.Image) -> int:
    """Count the colors of an RGB image."""
    return len(shown.getcolors(shown.width * shown.height))
