"""Gray images with more than 8 bits: scale instrument values to 0..255 by one range for all images.

Scaling each image by its own range would brighten dark images and lose differences between classes. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IntensityRange = tuple[float, float]
"""Values that become black and white."""

SIXTEEN_BITS = 65535.0


class UnknownRangeError(Exception):
    """The image's values have no known range, and none was given."""


def has_high_bit_depth(image: Image.Image) -> bool:
    """Return whether an image is gray with more than 8 bits, without decoding it."""
    return image.mode.startswith("I") or image.mode == "F"


def value_range(image: Image.Image) -> IntensityRange:
    """Return the minimum and maximum of a gray image with more than 8 bits.

    Raises:
        ValueError: Some values are NaN or infinite.
    """
    values = _values(image)
    return float(values.min()), float(values.max())


def to_8_bit(image: Image.Image, intensity: IntensityRange | None, levels: Sequence[int] | None = None) -> Image.Image:
    """Scale a gray image with more than 8 bits to mode L. Values outside the range become black or white.

    Args:
        image: Gray image with more than 8 bits.
        intensity: Values that become black and white; None means the 16-bit range.
        levels: New level of each level of 255, interpolated between them; ignored if `intensity` is given.

    Raises:
        UnknownRangeError: The image has 32 bits, and `intensity` is None.
        ValueError: Some values are NaN or infinite.
    """
    if intensity is None:
        # A 16-bit PPM has mode I.
        if not image.mode.startswith("I;16") and not (image.mode == "I" and image.format == "PPM"):
            raise UnknownRangeError(f"32-bit gray ({image.mode}) has no known range")
        if levels is None and "transparency" not in image.info:
            return image.convert("I").point(lambda value: value / 257).convert("L")
        intensity = (0.0, SIXTEEN_BITS)
    else:
        levels = None
    import numpy as np

    low, high = intensity
    values = _values(image)
    scaled = np.clip((values - low) * (255 / (high - low)), 0, 255)
    if levels is not None:
        scaled = np.interp(scaled, np.arange(256), levels)
    if "transparency" in image.info:  # one of the values, which becomes white as all that is transparent
        scaled[values == image.info["transparency"]] = 255
    return Image.fromarray(scaled.round().astype(np.uint8))


def _values(image: Image.Image) -> npt.NDArray[np.float64]:
    import numpy as np

    # Pillow's conversion of 16-bit images in the other byte order to an array differs between its versions.
    values = np.asarray(image.convert("I") if image.mode.startswith("I;16") else image, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("some pixel values are NaN or infinite")
    return values


def enclosing_range(ranges: list[IntensityRange]) -> IntensityRange:
    """Return the smallest range that encloses all `ranges`."""
    return min((low for low, _ in ranges), default=math.inf), max((high for _, high in ranges), default=-math.inf)
