"""From a file's bytes to an upright RGB or gray image. Torch-free: this runs in the decoding processes.

What a file is, is told from its content, never from its name. Animated and multi-page files give their first
frame; transparency lies over white; gray of more than 8 bits is scaled to 8.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import IO

from PIL import ExifTags, Image, UnidentifiedImageError

from tlcli.images.intensity import (
    IntensityRange,
    UnknownRangeError,
    has_high_bit_depth,
    to_8_bit,
    value_range,
    with_black_as_zero,
)
from tlcli.images.signatures import SIGNATURE_BYTES, describe_unsupported, is_heic, unsupported_tiff_reason

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
"""What turns an image with this EXIF orientation upright."""

SIDEWAYS = {TURNS[orientation] for orientation in (5, 6, 7, 8)}
"""Turns that swap width and height."""

MAX_PIXELS = 2**28
"""Images of more pixels than this are refused: 1 GB in Pillow's memory, usually a bomb. Phones make 200 million."""


NO_HEIC = "a HEIC image, which needs a decoder: pip install 'tlcli[heic]', or save it as JPEG"


class UndecodableError(Exception):
    """An image that cannot be decoded; its text is the reason, for the image's row."""


Size = tuple[int, int]
"""Width and height, in pixels."""


def decode(
    data: bytes, channels: int, surplus: Callable[[Size], float] | None = None, intensity: IntensityRange | None = None
) -> Image.Image:
    """Decode an image, turned upright by its EXIF orientation.

    Args:
        data: The whole file.
        channels: 3 for RGB, 1 for gray.
        surplus: How many times larger than needed an upright image of some size is. A JPEG is decoded to the smallest
            half, quarter or eighth of its size that is no smaller than needed.
        intensity: What becomes black and white of gray with more than 8 bits; None takes the range of 16 bits.

    Raises:
        UndecodableError: with the reason.
    """
    with _opened(io.BytesIO(data)) as image:
        if surplus is not None and image.format in {"JPEG", "MPO"}:
            _scale_down(image, surplus(image.size[::-1] if _turn(image) in SIDEWAYS else image.size))
        image.load()
        turn = _turn(image)  # after loading, by which Pillow has turned a TIFF itself
        positive = with_black_as_zero(image)
        return _to_mode(positive if turn is None else positive.transpose(turn), channels, intensity)


def measure_intensity(data: bytes) -> IntensityRange | None:
    """Least and greatest value of a gray image with more than 8 bits; None for other images, which aren't decoded.

    Raises:
        UndecodableError: with the reason.
    """
    with _opened(io.BytesIO(data)) as image:
        return value_range(with_black_as_zero(image)) if has_high_bit_depth(image) else None


def dimensions(file: IO[bytes]) -> Size:
    """Width and height of the image in `file`, from its header alone, as they are before it is turned upright.

    Raises:
        UndecodableError: with the reason.
    """
    with _opened(file) as image:
        return image.size


def upright_dimensions(file: IO[bytes]) -> Size:
    """Width and height of the image in `file`, from its header alone, after it is turned upright.

    Raises:
        UndecodableError: with the reason.
    """
    with _opened(file) as image:
        turned = image.format != "TIFF" and _turn(image) in SIDEWAYS  # a TIFF's size is that of the turned image
        return image.size[::-1] if turned else image.size


@contextlib.contextmanager
def _opened(file: IO[bytes]) -> Iterator[Image.Image]:
    """A file's first image, not decoded yet; whatever is raised in the block becomes an UndecodableError."""
    head = file.read(SIGNATURE_BYTES)
    file.seek(0)
    if not head:
        raise UndecodableError("the file is empty")
    formats = (*FORMATS, "HEIF") if is_heic(head) and _knows_heic() else FORMATS
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata in images that are fine, and of bombs, which MAX_PIXELS refuses.
            warnings.simplefilter("ignore")
            Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses twice that, before it makes room
            with Image.open(file, formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UndecodableError(
                        f"{image.width} x {image.height} pixels is more than the {MAX_PIXELS:,} that are decoded"
                    )
                if reason := unsupported_tiff_reason(image):
                    raise UndecodableError(reason)
                yield image
    except UndecodableError:
        raise
    except UnidentifiedImageError as error:
        raise UndecodableError(NO_HEIC if is_heic(head) else describe_unsupported(head, file)) from error
    except UnknownRangeError as error:
        raise UndecodableError(f"{error}: train with --intensity auto, or save it with 8 or 16 bits") from error
    except MemoryError as error:
        raise UndecodableError("not enough memory to decode it") from error
    except Exception as error:  # Pillow raises nearly every type there is on hostile bytes
        text = str(error).strip().splitlines()
        raise UndecodableError(text[0][:200] if text else type(error).__name__) from error


def _knows_heic() -> bool:
    """Have Pillow decode HEIC, where there is a decoder."""
    try:
        import pillow_heif
    except ImportError:
        return False
    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns it upright."""
    try:
        orientation: object = image.getexif().get(ExifTags.Base.Orientation)
        return TURNS.get(orientation) if isinstance(orientation, int) else None
    except Exception:  # noqa: BLE001 - broken metadata of an image that is fine
        return None


def _scale_down(image: Image.Image, surplus: float) -> None:
    """Have the JPEG decoder leave out the highest frequencies.

    Only by what divides both sides: the decoder rounds them up, and what a resized image shows would be shifted.
    """
    width, height = image.size
    for by in (8, 4, 2):
        if by <= surplus and width % by == 0 and height % by == 0:
            image.draft(None, (width // by, height // by))
            return


def _to_mode(image: Image.Image, channels: int, intensity: IntensityRange | None) -> Image.Image:
    if has_high_bit_depth(image):
        image = to_8_bit(image, intensity)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == "LAB":
        image = image.convert("RGB")  # there is no direct way to gray
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)
