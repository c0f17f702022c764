"""Text in images: characters without a glyph are escaped, and shortened text fits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tlcli.images import text_drawing
from tlcli.images.text_drawing import draw_text, shorten_text, text_width


@pytest.fixture
def without_system_fonts(monkeypatch):
    """Simulate a machine without fonts."""
    monkeypatch.setattr(text_drawing, "SYSTEM_FONTS", ())
    monkeypatch.setattr(text_drawing, "_matplotlib_fonts", list)
    for cached in (text_drawing._fonts, text_drawing._fonts_without_shaping, text_drawing._has_glyph):
        cached.cache_clear()
    yield
    for cached in (text_drawing._fonts, text_drawing._fonts_without_shaping, text_drawing._has_glyph):
        cached.cache_clear()


def drawn(text):
    image = Image.new("RGB", (600, 40), "white")
    draw_text(ImageDraw.Draw(image), (5, 28), text, (0, 0, 0), 20)
    return np.asarray(image)


def test_characters_that_no_font_has_are_escaped(without_system_fonts):
    assert np.array_equal(drawn("caf\u00e9 \u4e2d"), drawn(r"caf\xe9 \u4e2d"))


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\u202egpj", "\udcff", "\U0010fffd"])
def test_control_characters_and_unassigned_characters_are_escaped(text):
    escaped = "".join(one if one.isascii() and one.isprintable() else ascii(one)[1:-1] for one in text)
    assert np.array_equal(drawn(text), drawn(escaped))


def test_english_text_has_the_width_of_the_built_in_font():
    assert text_width("shirt", 20) == pytest.approx(text_drawing.default_font(20).getlength("shirt"))
    assert text_width("", 20) == 0


@pytest.mark.parametrize("front", [False, True])
def test_shortened_text_fits_and_keeps_as_much_as_possible(front):
    text = "a/long/path/to/some/image.jpg" * 9
    short = shorten_text(text, 15, 200, front=front)
    assert text_width(short, 15) <= 200 < text_width(text, 15)
    kept = short.removeprefix("...") if front else short.removesuffix("...")
    assert text.endswith(kept) if front else text.startswith(kept)
    assert text_width(short, 15) > 185
    assert shorten_text("shirt", 15, 200, front=front) == "shirt"
