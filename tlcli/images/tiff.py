"""TIFFs: make Pillow decode every layout as written, and reject those that it would decode incorrectly. Torch-free.

tests/images/test_tiff.py compares all combinations of layout, sample type, and compression with the values written.
"""

from __future__ import annotations

from PIL import Image, TiffImagePlugin

# libtiff supports every layout; Pillow's own reader of uncompressed files mixes up 16-bit and inverted planes.
TiffImagePlugin.READ_LIBTIFF = True

BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR = 258, 259, 262, 277, 284
INK_SET, DOT_RANGE, EXTRA_SAMPLES, SAMPLE_FORMAT, REFERENCE_BLACK_WHITE = 332, 336, 338, 339, 532
WHITE_IS_ZERO, RGB, CMYK = 0, 2, 5
CMYK_INKS = 1
FAX = (2, 3, 4)
FULL_RANGE = (0, 255) * 3
UNSPECIFIED = 0
UNSIGNED, SIGNED = 1, 2
SEPARATE = 2

NATIVE_MODES = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Pillow's names of big-endian values, and of those that libtiff makes of them."""


def prepare_tiff(image: Image.Image) -> str | None:
    """Correct the layout of an open, undecoded TIFF; do nothing for other formats.

    Returns:
        Why the TIFF must be rejected, although Pillow would decode it; None if it is decoded correctly.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    image.tile = [
        tile._replace(args=(NATIVE_MODES.get(tile.args[0], tile.args[0]), *tile.args[1:]))
        if isinstance(tile.args, tuple)
        else tile
        for tile in image.tile
    ]
    return _unsupported_reason(image)


def _unsupported_reason(image: TiffImagePlugin.TiffImageFile) -> str | None:
    tags = image.tag_v2
    samples, extra = tags.get(SAMPLES, 1), tags.get(EXTRA_SAMPLES, ())
    if UNSPECIFIED in extra and samples > len(image.getbands()):  # Pillow drops these channels
        return describe_channels(tags)
    if tags.get(PHOTOMETRIC) == RGB and samples > 3 and not extra:  # Pillow takes the fourth for transparency
        return describe_channels(tags)
    if PHOTOMETRIC not in tags and tags.get(COMPRESSION) not in FAX:
        return "a TIFF that does not define whether zero is black or white (PhotometricInterpretation); save it again"
    if tags.get(PHOTOMETRIC) == RGB and tuple(tags.get(REFERENCE_BLACK_WHITE, FULL_RANGE)) != FULL_RANGE:
        return "an RGB TIFF with its own black and white (ReferenceBlackWhite), which is not supported; save it as PNG"
    if tags.get(INK_SET, CMYK_INKS) != CMYK_INKS:
        return "a TIFF with other inks than CMYK, which is not supported; save it as RGB"
    if tags.get(PHOTOMETRIC) == CMYK and tuple(tags.get(DOT_RANGE, ())) not in {(), (0, 255), (0, 65535)}:
        return "a CMYK TIFF with its own ink range (DotRange), which is not supported; save it as RGB"
    if tags.get(PLANAR) == SEPARATE and image.mode in {"LA", "La", "PA", "LAB"}:
        return f"a planar TIFF with {samples} channels of mode {image.mode}, which is not supported; save it as RGB"
    if SIGNED in tags.get(SAMPLE_FORMAT, ()) and 8 in tags.get(BITS, ()):
        return "a TIFF with signed 8-bit values, which is not supported; save it with unsigned values"
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and image.mode in {"I", "F"}:
        return "a TIFF of 32-bit values in which zero is white, which is not supported; save it with black as zero"
    return None


def with_tiff_values(image: Image.Image) -> Image.Image:
    """Return a decoded gray image of more than 8 bits with the values that the file defines; others unchanged.

    Pillow inverts TIFFs whose zero is white only for 8 bits, and reads unsigned 32-bit values as signed ones.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return image
    inverted = image.mode.startswith("I;16") and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
    unsigned = image.mode == "I" and image.tag_v2.get(BITS) == (32,) and _sample_format(image) == UNSIGNED
    if not inverted and not unsigned:
        return image
    import numpy as np

    if inverted:
        return Image.fromarray(np.invert(np.asarray(image, np.uint16)))
    return Image.fromarray(np.asarray(image, np.int32).view(np.uint32).astype(np.float32))


def known_range(image: Image.Image) -> tuple[float, float] | None:
    """Return the values of black and white of a 12-bit TIFF, which Pillow opens as one of 16 bits; None for others."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(BITS) == (12,):
        return 0.0, 4095.0
    return None


def describe_channels(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """Describe a TIFF by its channels, as one that is not supported."""
    samples, depths = int(tags.get(SAMPLES, 1)), "/".join(str(depth) for depth in sorted(set(tags.get(BITS, (1,)))))
    return (
        f"a TIFF with {samples} channel{'s' * (samples != 1)} of {depths} bits, which is not supported in this layout; "
        "save it as RGB or gray with 8 or 16 bits"
    )


def _sample_format(image: TiffImagePlugin.TiffImageFile) -> int:
    return int(image.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))[0])
