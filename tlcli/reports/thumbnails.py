"""Small images for a page, all in one file: a sprite sheet.

Shapes: N images, S the side of a thumbnail in pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from tlcli.images.intensity import IntensityRange
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import display_preprocessing
from tlcli.images.worker import DecodeOptions

LARGE, SMALL = 128, 64
"""S, in pixels, for few images and for the most there may be."""
AREA = 4000 * SMALL**2
"""Pixels of all thumbnails together, at most, while they are larger than `SMALL`."""
QUALITIES = (70, 45, 20, 5)
"""Of the WebP file: the first with which it has at most `BYTES`, else the last."""
BYTES = 3_200_000
"""So that the page stays below 5 MB: photographs stay below 2.5 MB at the first quality, noise does not."""
GROUND = 0.5
"""Gray beside images that aren't square, on light and dark pages alike."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Thumbnails, row by row, in one image."""

    content: bytes
    """A WebP file."""
    side: int
    """S."""
    columns: int
    """Thumbnails in a row."""


def layout(count: int) -> tuple[int, int]:
    """Side and columns of a sheet of so many thumbnails."""
    side = LARGE if count == 0 else min(LARGE, max(SMALL, math.isqrt(AREA // count)))
    return side, max(1, math.ceil(math.sqrt(count)))


def draw_sheet(
    paths: Sequence[str],
    *,
    intensity: IntensityRange | None,
    workers: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Sheet:
    """Thumbnails of the whole of each image; of one that can't be read, only the ground.

    Args:
        paths: Of N images.
        intensity: What becomes black and white of gray with more than 8 bits.
        workers: Decoding processes.
        advance: Told of each image.
    """
    side, columns = layout(len(paths))
    rows = max(1, math.ceil(len(paths) / columns))
    sheet = Image.new("RGB", (columns * side, rows * side), (round(255 * GROUND),) * 3)
    with ImageLoader(
        DecodeOptions(preprocessing=display_preprocessing(side, background=GROUND, intensity=intensity)),
        workers=workers,
    ) as loader:
        for number, image in enumerate(loader.load(paths)):
            if image.pixels is not None:
                thumbnail = Image.frombytes("RGB", (side, side), image.pixels)
                sheet.paste(thumbnail, (number % columns * side, number // columns * side))
            advance(1)
    return Sheet(content=encode(sheet), side=side, columns=columns)


def encode(image: Image.Image, most: int = BYTES) -> bytes:
    """A WebP file of at most so many bytes, if that is possible."""
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=2)
        if file.tell() <= most:
            break
    return file.getvalue()
