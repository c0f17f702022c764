"""Decode a file's bytes to an upright RGB or gray image. Torch-free, because it runs in the decoder processes.

The format is detected from the content, never from the file name. Of animated and multi-page files, the first frame is
decoded; transparency is composited over white; gray with more than 8 bits is scaled to 8 bits; colors become sRGB.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import IO

from PIL import ExifTags, Image, UnidentifiedImageError

from tlcli.images.color import ColorSpace, Note, check_profile, color_space, gray_levels, to_srgb
from tlcli.images.corrections import prepare_bmp, prepare_png, without_empty_alpha
from tlcli.images.intensity import (
    IntensityRange,
    UnknownRangeError,
    has_high_bit_depth,
    to_8_bit,
    value_range,
)
from tlcli.images.signatures import SIGNATURE_BYTES, describe_unsupported, is_heic
from tlcli.images.tiff import known_range, prepare_tiff, with_tiff_values

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "DIB")
"""Formats that Pillow decodes itself. EPS is excluded because Pillow would start Ghostscript for it."""

EXIF_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transpose that makes an image with this EXIF orientation upright."""

SWAP_SIDES = {EXIF_TRANSPOSES[orientation] for orientation in (5, 6, 7, 8)}
"""Transposes that swap width and height."""

MAX_PIXELS = 2**28
"""Images with more pixels are rejected: they need 1 GB in Pillow and are usually decompression bombs. Phone cameras
make up to 200 million."""

NO_HEIC = "a HEIC image, and no HEIC decoder is installed; run pip install 'tlcli[heic]', or save the image as JPEG"


class UndecodableError(Exception):
    """The image cannot be decoded; the message is the reason, as shown in the image's row."""


Size = tuple[int, int]
"""Width and height, in pixels."""


def decode(
    data: bytes,
    channels: int,
    oversampling: Callable[[Size], float] | None = None,
    intensity: IntensityRange | None = None,
    note: Note | None = None,
) -> Image.Image:
    """Decode an image, make it upright according to its EXIF orientation, and convert its colors to sRGB.

    Args:
        data: Content of the file.
        channels: 3 for RGB, 1 for gray.
        oversampling: Returns how many times larger than needed an upright image of the given size is. A JPEG is decoded
            at half, a quarter, or an eighth of its size, whichever is the smallest that is still large enough. None
            decodes the full size.
        intensity: Values that become black and white in gray images with more than 8 bits; None means the 16-bit range.
        note: Called with a remark if a part of the file is ignored.

    Returns:
        Image of mode RGB or L.

    Raises:
        UndecodableError: The image cannot be decoded; the message is the reason.
    """
    with _open_undecoded(io.BytesIO(data)) as image:
        space = color_space(image, data, note)
        if oversampling is not None and image.format in {"JPEG", "MPO"}:
            size = image.size[::-1] if _upright_transpose(image) in SWAP_SIDES else image.size
            _reduce_while_decoding(image, oversampling(size))
        image.load()
        transpose = _upright_transpose(image)  # read after load(), in which Pillow itself makes a TIFF upright
        decoded = with_tiff_values(without_empty_alpha(image))
        upright = decoded if transpose is None else decoded.transpose(transpose)
        if has_high_bit_depth(upright):
            upright, space = to_8_bit(upright, intensity or known_range(image), gray_levels(space, note)), ColorSpace()
        return _to_mode(upright, channels, space, note)


def measure_intensity(data: bytes) -> IntensityRange | None:
    """Return the minimum and maximum of a gray image with more than 8 bits; None, without decoding, for other images.

    Raises:
        UndecodableError: The image cannot be decoded; the message is the reason.
    """
    with _open_undecoded(io.BytesIO(data)) as image:
        return value_range(with_tiff_values(image)) if has_high_bit_depth(image) else None


def dimensions(file: IO[bytes], note: Note | None = None) -> Size:
    """Return width and height from the image's header, as stored (EXIF orientation is ignored).

    Args:
        file: The image's file.
        note: Called if a color profile is ignored.

    Raises:
        UndecodableError: The header cannot be read; the message is the reason.
    """
    with _open_undecoded(file) as image:
        if note is not None:
            check_profile(image, note)
        return image.size


def upright_dimensions(file: IO[bytes]) -> Size:
    """Return width and height of the upright image, from its header and EXIF orientation.

    Raises:
        UndecodableError: The header cannot be read; the message is the reason.
    """
    with _open_undecoded(file) as image:
        # Pillow already reports the upright size of a TIFF.
        swapped = image.format != "TIFF" and _upright_transpose(image) in SWAP_SIDES
        return image.size[::-1] if swapped else image.size


@contextlib.contextmanager
def _open_undecoded(file: IO[bytes]) -> Iterator[Image.Image]:
    """Open a file's first image without decoding it; any exception in the block becomes an UndecodableError."""
    head = file.read(SIGNATURE_BYTES)
    file.seek(0)
    if not head:
        raise UndecodableError("the file is empty")
    formats = (*FORMATS, "HEIF") if is_heic(head) and _register_heic() else FORMATS
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd metadata in valid images, and about bombs, which MAX_PIXELS rejects.
            warnings.simplefilter("ignore")
            Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow rejects twice this, before it allocates memory
            with Image.open(file, formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UndecodableError(
                        f"{image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS:,}; save it smaller"
                    )
                if reason := prepare_tiff(image) or prepare_png(image) or prepare_bmp(image, head):
                    raise UndecodableError(reason)
                yield image
    except UndecodableError:
        raise
    except UnidentifiedImageError as error:
        raise UndecodableError(NO_HEIC if is_heic(head) else describe_unsupported(head, file)) from error
    except UnknownRangeError as error:
        raise UndecodableError(f"{error}; train with --intensity auto, or save it with 8 or 16 bits") from error
    except MemoryError as error:
        raise UndecodableError("not enough memory to decode it") from error
    except Image.DecompressionBombError as error:
        raise UndecodableError(f"more pixels than the limit of {MAX_PIXELS:,}; save it smaller") from error
    except Exception as error:  # on hostile bytes, Pillow raises almost any exception type
        text = str(error).strip().splitlines()
        raise UndecodableError(text[0][:200].rstrip(".") if text else type(error).__name__) from error


def _register_heic() -> bool:
    """Let Pillow decode HEIC if pillow-heif is installed; return whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _upright_transpose(image: Image.Image) -> Image.Transpose | None:
    """Return the transpose that makes the image upright; None if it already is."""
    try:
        orientation: object = image.getexif().get(ExifTags.Base.Orientation)
        return EXIF_TRANSPOSES.get(orientation) if isinstance(orientation, int) else None
    except Exception:  # noqa: BLE001 - the metadata is broken, the image is valid
        return None


def _reduce_while_decoding(image: Image.Image, oversampling: float) -> None:
    """Let the JPEG decoder skip the highest frequencies, which reduces the image by 2, 4, or 8.

    The factor must divide both sides. The decoder rounds sides up, which would shift the content of the resized image.
    """
    width, height = image.size
    for factor in (8, 4, 2):
        if factor <= oversampling and width % factor == 0 and height % factor == 0:
            image.draft(None, (width // factor, height // factor))
            return


def _to_mode(image: Image.Image, channels: int, space: ColorSpace, note: Note | None) -> Image.Image:
    """Convert an image of 8 bits per channel to an opaque sRGB or gray image."""
    if image.mode == "LAB":  # a color space of its own
        image, space = image.convert("RGB"), ColorSpace()
    elif image.has_transparency_data:
        image = image.convert("LA" if image.mode in {"L", "LA", "La"} else "RGBA")
    elif image.mode not in {"1", "L", "RGB", "CMYK"}:
        image = image.convert("RGB")
    image = to_srgb(image, space, note)
    if image.mode in {"LA", "RGBA"}:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)
