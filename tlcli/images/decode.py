"""From a file's bytes to an upright RGB or grey picture. Torch-free: this runs in the decoding processes.

What a file is, is told from its content, never from its name. Animated and multi-page files give their first
frame; transparency lies over white; 16-bit grey is scaled to 8 bits.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import IO

from PIL import ExifTags, Image, UnidentifiedImageError

# Formats that Pillow reads itself. EPS is left out since Pillow would start Ghostscript for it.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture with this EXIF orientation upright."""

SIDEWAYS = {TURNS[orientation] for orientation in (5, 6, 7, 8)}
"""Turns that swap width and height."""

MAX_PIXELS = 178_956_970
"""Pictures of more pixels than this are refused: 0.5 GB as RGB, and usually a bomb."""


class UndecodableError(Exception):
    """A picture that cannot be decoded; its text is the reason, for the picture's row."""


Size = tuple[int, int]
"""Width and height, in pixels."""


def decode(data: bytes, channels: int, surplus: Callable[[Size], float] | None = None) -> Image.Image:
    """Decode a picture, turned upright by its EXIF orientation.

    Args:
        data: The whole file.
        channels: 3 for RGB, 1 for grey.
        surplus: How many times larger than needed an upright picture of some size is. A JPEG is decoded to the smallest
            half, quarter or eighth of its size that is no smaller than needed.

    Raises:
        UndecodableError: with the reason.
    """
    if not data:
        raise UndecodableError("the file is empty")
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata in pictures that are fine, and of bombs, which MAX_PIXELS refuses.
            warnings.simplefilter("ignore")
            return _decode(data, channels, surplus)
    except UndecodableError:
        raise
    except MemoryError as error:
        raise UndecodableError("not enough memory to decode it") from error
    except Exception as error:  # Pillow raises nearly every type there is on hostile bytes
        raise UndecodableError(_reason(error)) from error


def dimensions(file: IO[bytes]) -> Size:
    """Width and height of the picture in `file`, from its header alone, as they are before it is turned upright.

    Raises:
        UndecodableError: with the reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as picture:
                return picture.size
    except MemoryError as error:
        raise UndecodableError("not enough memory to read its header") from error
    except Exception as error:  # as in `decode`
        raise UndecodableError(_reason(error)) from error


def _decode(data: bytes, channels: int, surplus: Callable[[Size], float] | None) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise UndecodableError(
                f"{picture.width} x {picture.height} pixels is more than the {MAX_PIXELS:,} that are decoded"
            )
        if surplus is not None and picture.format in {"JPEG", "MPO"}:
            _scale_down(picture, surplus(picture.size[::-1] if _turn(picture) in SIDEWAYS else picture.size))
        picture.load()
        turn = _turn(picture)  # after loading, by which Pillow has turned a TIFF itself
        return _to_mode(picture if turn is None else picture.transpose(turn), channels)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What turns it upright."""
    try:
        orientation: object = picture.getexif().get(ExifTags.Base.Orientation)
        return TURNS.get(orientation) if isinstance(orientation, int) else None
    except Exception:  # noqa: BLE001 - broken metadata of a picture that is fine
        return None


def _scale_down(picture: Image.Image, surplus: float) -> None:
    """Have the JPEG decoder leave out the highest frequencies.

    Only by what divides both sides: the decoder rounds them up, and what a resized picture shows would be shifted.
    """
    width, height = picture.size
    for by in (8, 4, 2):
        if by <= surplus and width % by == 0 and height % by == 0:
            picture.draft(None, (width // by, height // by))
            return


def _to_mode(picture: Image.Image, channels: int) -> Image.Image:
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        picture = picture.convert("I").point(lambda value: value / 257)
    elif picture.mode in {"I", "F"}:
        raise UndecodableError(f"32-bit grey ({picture.mode}) has no known range; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture)
        picture = ground
    if picture.mode == "LAB":
        picture = picture.convert("RGB")  # there is no direct way to grey
    return picture.convert("RGB" if channels == 3 else "L")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture of a known format"
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
