"""Pages opened in a real browser, and what is asked of every one of them.

A test opens a page with the fixture `visit` and acts on `Visit.page`, which is Playwright's:

    def test_sorting(visit, report):
        shown = visit(report, width=PHONE, dark=True)
        shown.page.get_by_role("button", name="recall").click()
        assert shown.page.locator("tbody tr").first.text_content() == ...

When the test ends, the fixture fails it for whatever went wrong unseen: `Visit.complaints`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page, Request

PHONE, DESKTOP = 390, 1280
"""CSS pixels across."""
HEIGHTS = {PHONE: 844, DESKTOP: 900}
PAPER = 718
"""CSS pixels across an A4 page between margins of 1 cm."""
TRAPS = {"disc": "<script>alert(1)</script>", "square": "\"&'", "stripes": "<img src=x onerror=alert(2)>"}
"""What the table `hostile` calls the classes of `photos`."""

STICKING_OUT = """() => {
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

# Colors are laid on each other by a canvas, which knows every notation; ground comes from the color scheme.
FAINT = """() => {
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


class Visit:
    """One page in a window of its own; `page` is Playwright's, for all that isn't here."""

    page: Page
    complaints: list[str]
    """What no page may do: console messages, uncaught errors, alerts, and requests for anything but itself."""

    def __init__(self, browser: Browser, path: Path, *, width: int, dark: bool):
        """Open the file at `path`; a phone's width also makes a touch screen and a phone's viewport."""
        self.complaints = []
        self._address = path.absolute().as_uri()
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
        page.on("request", self._asked)
        page.on("dialog", self._alerted)
        page.goto(self._address)

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def _asked(self, request: Request) -> None:
        own = unquote(request.url.split("#")[0]) == unquote(self._address)
        if not own and not request.url.startswith(("data:", "blob:")):
            self._complain(f"asked for {request.url}")

    def _alerted(self, dialog: Dialog) -> None:
        self._complain(f"{dialog.type}: {dialog.message}")
        dialog.dismiss()

    def sticking_out(self) -> list[str]:
        """By what the page scrolls sideways; empty when it doesn't."""
        return self.page.evaluate(STICKING_OUT)

    def broken_images(self) -> list[str]:
        """Addresses of `img` elements and of backgrounds that can't be decoded."""
        return self.page.evaluate(BROKEN_IMAGES)

    def faint(self) -> list[str]:
        """Texts whose contrast with the colors behind them is below WCAG 2's AA: 4.5, or 3 where they are large.

        Background images and gradients don't count as colors.
        """
        return self.page.evaluate(FAINT)

    def screenshot(self, path: Path | None = None, *, full: bool = False) -> Image.Image:
        """What the window shows, or with `full` the page down to its end; kept as a PNG where a path is given."""
        return Image.open(io.BytesIO(self.page.screenshot(path=path, full_page=full))).convert("RGB")

    def printed(self) -> bytes:
        """The page on A4 as a PDF."""
        return self.page.pdf(format="A4", margin=dict.fromkeys(("top", "right", "bottom", "left"), "1cm"))

    def close(self) -> None:
        self._context.close()


def ground(shown: Image.Image) -> int:
    """The commonest color of an RGB image, as a gray from 0 to 255."""
    colors = shown.getcolors(shown.width * shown.height)
    _, (red, green, blue) = max(colors)
    return (red + green + blue) // 3


def colors(shown: Image.Image) -> int:
    """How many colors an RGB image has."""
    return len(shown.getcolors(shown.width * shown.height))
