"""Gray images of more than 8 bits: from the values of an instrument to 0 .. 255, by one range for all of them.

Torch-free. Scaling each image by its own range would make the dark bright and lose what tells classes apart.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image, TiffImagePlugin

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IntensityRange = tuple[float, float]
"""What becomes black, and what becomes white."""

SIXTEEN_BITS = 65535.0


class UnknownRangeError(Exception):
    """Values that could be anything, and no range to scale them by."""


def has_high_bit_depth(image: Image.Image) -> bool:
    """Whether an image is gray with more than 8 bits; nothing is decoded for that."""
    return image.mode.startswith("I") or image.mode == "F"


def with_black_as_zero(image: Image.Image) -> Image.Image:
    """The image; inverted where it is a 16-bit TIFF whose zero is white, which Pillow heeds with 8 bits only."""
    white_is_zero = isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0
    if not white_is_zero or not image.mode.startswith("I;16"):
        return image
    import numpy as np

    return Image.fromarray(np.invert(np.asarray(image, np.uint16)))


def value_range(image: Image.Image) -> IntensityRange:
    """Least and greatest value of a deep image.

    Raises:
        ValueError: some values are no numbers.
    """
    values = _values(image)
    return float(values.min()), float(values.max())


def to_8_bit(image: Image.Image, intensity: IntensityRange | None) -> Image.Image:
    """A deep image in mode L. What lies outside the range becomes black or white.

    Args:
        image: Deep.
        intensity: The range; None takes that of 16 bits.

    Raises:
        NoRangeError: it has 32 bits, and there is no range.
        ValueError: some values are no numbers.
    """
    if intensity is None:
        # A PPM of 16 bits has mode I.
        if not image.mode.startswith("I;16") and not (image.mode == "I" and image.format == "PPM"):
            raise UnknownRangeError(f"32-bit gray ({image.mode}) has no known range")
        return image.convert("I").point(lambda value: value / 257).convert("L")
    import numpy as np

    low, high = intensity
    scaled = (_values(image) - low) * (255 / (high - low))
    return Image.fromarray(np.clip(scaled, 0, 255).round().astype(np.uint8))


def _values(image: Image.Image) -> npt.NDArray[np.float64]:
    import numpy as np

    # Pillow's own way from 16 bits in the other byte order to an array is not the same in all its versions.
    values = np.asarray(image.convert("I") if image.mode.startswith("I;16") else image, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are no numbers (NaN or infinite)")
    return values


def enclosing_range(ranges: list[IntensityRange]) -> IntensityRange:
    """The range that holds all of them."""
    return min((low for low, _ in ranges), default=math.inf), max((high for _, high in ranges), default=-math.inf)
