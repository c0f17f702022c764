"""Correct what Pillow misreads in PNG and BMP, and reject what cannot be corrected. Torch-free."""

from __future__ import annotations

from PIL import BmpImagePlugin, Image, PngImagePlugin

LEVELS_PER_VALUE = {"L;2": 85, "L;4": 17}
"""Levels of 255 between two values of a gray PNG of 2 and 4 bits."""


def prepare_png(image: Image.Image) -> str | None:
    """Correct the transparent color of an open, undecoded PNG; do nothing for other formats.

    Returns:
        Why the PNG must be rejected; None if it is decoded correctly.
    """
    if not isinstance(image, PngImagePlugin.PngImageFile) or not image.tile or "transparency" not in image.info:
        return None
    form, key = str(image.tile[0].args), image.info["transparency"]
    if form in LEVELS_PER_VALUE:  # Pillow scales the pixels, but not the transparent value
        image.info["transparency"] = key * LEVELS_PER_VALUE[form]
    if form == "RGB;16B":
        return "a PNG of 16-bit color with a transparent color, which is not supported; save it with an alpha channel"
    return None


def prepare_bmp(image: Image.Image, head: bytes) -> str | None:
    """Correct the layout of an open, undecoded BMP; do nothing for other formats.

    Pillow reads an image whose palette is black and white with 1 bit per pixel, even if it is stored with 4 or 8 bits.

    Args:
        image: The image.
        head: The first bytes of its file.

    Returns:
        Why the BMP must be rejected; None if it is decoded correctly.
    """
    if not isinstance(image, BmpImagePlugin.BmpImageFile) or image.mode != "1":
        return None
    start = 14 if image.format == "BMP" else 0
    place = start + (10 if head[start] == 12 else 14)  # the oldest header has short sizes
    bits = int.from_bytes(head[place : place + 2], "little")
    (tile,) = image.tile
    if bits == 8 and tile.codec_name == "raw" and isinstance(tile.args, tuple):
        _, *layout = tile.args
        image.tile = [tile._replace(args=("1;8", *layout))]
    elif bits != 1:
        return f"a black-and-white BMP with {bits} bits per pixel, which is not supported; save it as PNG"
    return None


def without_empty_alpha(image: Image.Image) -> Image.Image:
    """Return a decoded BMP whose alpha is 0 everywhere as an opaque image, as browsers do; others unchanged."""
    if (
        isinstance(image, BmpImagePlugin.BmpImageFile)
        and image.mode == "RGBA"
        and image.getchannel("A").getextrema() == (0, 0)
    ):
        return image.convert("RGB")
    return image
