r"""Draw names and paths into images, with fallback fonts for each script. Torch-free.

Pillow's built-in font covers English. Other characters are drawn with system fonts. Characters that no font has are
escaped as in Python (`\u4e2d`), because empty boxes are ambiguous.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Color = tuple[int, int, int]

SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "Hiragino Sans GB.ttc",
    "segoeui.ttf",
    "msyh.ttc",
    "msgothic.ttc",
    "malgun.ttf",
)
"""Fonts of Linux distributions, macOS, and Windows; those that cover more scripts come first."""

UNASSIGNED = "\U0010fffd"
"""A character that no font has. Fonts draw it as their glyph for missing characters."""
ELLIPSIS = "..."


def default_font(size: int) -> Font:
    """Return Pillow's built-in font at `size` pixels."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Return the width in pixels of `text` as drawn by `draw_text`."""
    return sum(_rendered_length(font, part) for font, part in _font_runs(text, size))


def draw_text(canvas: ImageDraw.ImageDraw, position: tuple[float, float], text: str, fill: Color, size: int) -> None:
    """Draw a line of text.

    Args:
        canvas: The image to draw on.
        position: x of the left end and y of the baseline, in pixels.
        text: Any text; control characters and characters without a glyph are escaped.
        fill: Color of the text.
        size: Font size in pixels.
    """
    x, y = position
    for font, part in _font_runs(text, size):
        canvas.text((x, y), part, fill, font, anchor="ls")
        x += _rendered_length(font, part)


def shorten_text(text: str, size: int, width: float, *, front: bool = False) -> str:
    """Shorten `text` to `width` and mark the cut with an ellipsis; return text that fits unchanged.

    Args:
        text: A line of text.
        size: Font size in pixels.
        width: Available width in pixels.
        front: Cut at the front, as is best for paths, instead of at the end.
    """
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)  # numbers of characters that fit and that do not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if text_width(_cut(text, middle, front=front), size) <= width else (low, middle)
    return _cut(text, low, front=front)


def _cut(text: str, kept: int, *, front: bool) -> str:
    return ELLIPSIS + text[len(text) - kept :] if front else text[:kept] + ELLIPSIS


def _font_runs(text: str, size: int) -> Iterator[tuple[Font, str]]:
    """Split the text into runs, each with a font that has its characters; a single run if one font has them all."""
    fonts = _fonts(size)
    chosen = [next((index for index in range(len(fonts)) if _has_glyph(size, index, char)), None) for char in text]
    common = next((index for index in range(len(fonts)) if all(_has_glyph(size, index, char) for char in text)), None)
    if common is not None:
        chosen = [common] * len(text)
    run, run_font = "", 0
    for char, index in zip(text, chosen, strict=True):
        shown, font = (char, index) if index is not None else (ascii(char)[1:-1], 0)
        if font != run_font and run:
            yield fonts[run_font], run
            run = ""
        run, run_font = run + shown, font
    if run:
        yield fonts[run_font], run


@functools.cache
def _fonts(size: int) -> tuple[Font, ...]:
    """Load the fonts that this machine has, Pillow's built-in font first."""
    found: list[Font] = [default_font(size)]
    for name in (*SYSTEM_FONTS, *_matplotlib_fonts()):
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)


def _matplotlib_fonts() -> list[str]:
    """Return the path of matplotlib's own font if matplotlib is installed (without importing it)."""
    spec = importlib.util.find_spec("matplotlib")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return [str(Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")) for folder in folders]


@functools.cache
def _fonts_without_shaping(size: int) -> tuple[Font, ...]:
    """Return `_fonts` without text shaping, which would draw a combining vowel sign with a dotted circle."""
    basic = ImageFont.Layout.BASIC
    return tuple(
        font.font_variant(layout_engine=basic) if isinstance(font, ImageFont.FreeTypeFont) else font
        for font in _fonts(size)
    )


@functools.cache
def _has_glyph(size: int, index: int, character: str) -> bool:
    """Return whether a font has a glyph for a printable character."""
    if character == " ":
        return True
    if not character.isprintable():
        return False
    font = _fonts_without_shaping(size)[index]
    drawn, missing = (font.getmask(char) for char in (character, UNASSIGNED))
    return sum(drawn.size) > 0 and (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))


def _rendered_length(font: Font, text: str) -> float:
    return float(font.getlength(text))
