r"""Names drawn into images: in a font that has their characters, and harmless. Torch-free.

Pillow's own font has the letters of English. Others are looked for among the system's fonts, and what none of them has
is written as Python escapes it (`\u4e2d`), since an empty box could be anything.
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
"""What Linux distributions, macOS and Windows bring, those with most scripts first."""

NOWHERE = "\U0010fffd"
"""A character that no font has: it is drawn as what stands for missing ones."""
ELLIPSIS = "..."


def default_font(size: int) -> Font:
    """Pillow's own font.

    Args:
        size: In pixels.
    """
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Pixels that `draw_text` takes for `text`."""
    return sum(_rendered_length(face, part) for face, part in _runs(text, size))


def draw_text(pen: ImageDraw.ImageDraw, position: tuple[float, float], text: str, fill: Color, size: int) -> None:
    """Draw a line of text.

    Args:
        pen: Draws on the image.
        position: Of its left end and its baseline.
        text: Anything; what controls a terminal or has no glyph is escaped.
        fill: Its color.
        size: In pixels.
    """
    x, y = position
    for face, part in _runs(text, size):
        pen.text((x, y), part, fill, face, anchor="ls")
        x += _rendered_length(face, part)


def shorten_text(text: str, size: int, width: float, *, front: bool = False) -> str:
    """`text`, or as much of it as fits, with an ellipsis.

    Args:
        text: A line.
        size: Of the font, in pixels.
        width: Pixels that there are.
        front: Leave out what comes first, as in paths.
    """
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)  # characters that fit, and that don't
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if text_width(_cut(text, middle, front=front), size) <= width else (low, middle)
    return _cut(text, low, front=front)


def _cut(text: str, kept: int, *, front: bool) -> str:
    return ELLIPSIS + text[len(text) - kept :] if front else text[:kept] + ELLIPSIS


def _runs(text: str, size: int) -> Iterator[tuple[Font, str]]:
    """Pieces of the text, each with a font that has its characters: one for all of it, where there is one."""
    faces = _fonts(size)
    chosen = [next((index for index in range(len(faces)) if _has_glyph(size, index, one)), None) for one in text]
    together = next((index for index in range(len(faces)) if all(_has_glyph(size, index, one) for one in text)), None)
    if together is not None:
        chosen = [together] * len(text)
    piece, last = "", 0
    for one, index in zip(text, chosen, strict=True):
        shown, here = (one, index) if index is not None else (ascii(one)[1:-1], 0)
        if here != last and piece:
            yield faces[last], piece
            piece = ""
        piece, last = piece + shown, here
    if piece:
        yield faces[last], piece


@functools.cache
def _fonts(size: int) -> tuple[Font, ...]:
    """The fonts of this machine."""
    found: list[Font] = [default_font(size)]
    for name in (*SYSTEM_FONTS, *_matplotlib_fonts()):
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)


def _matplotlib_fonts() -> list[str]:
    """The font that matplotlib brings, where that is installed."""
    spec = importlib.util.find_spec("matplotlib")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return [str(Path(place, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")) for place in places]


@functools.cache
def _fonts_without_shaping(size: int) -> tuple[Font, ...]:
    """The same, drawing each character by itself: else a vowel sign would come with a circle to sit on."""
    basic = ImageFont.Layout.BASIC
    return tuple(
        face.font_variant(layout_engine=basic) if isinstance(face, ImageFont.FreeTypeFont) else face
        for face in _fonts(size)
    )


@functools.cache
def _has_glyph(size: int, index: int, character: str) -> bool:
    """Whether a font has a glyph for a character that may be shown."""
    if character == " ":
        return True
    if not character.isprintable():
        return False
    face = _fonts_without_shaping(size)[index]
    drawn, missing = (face.getmask(one) for one in (character, NOWHERE))
    return sum(drawn.size) > 0 and (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))


def _rendered_length(face: Font, text: str) -> float:
    return float(face.getlength(text))
