"""Draw the thumbnails of a page as a sprite sheet, a single image file.

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
"""Maximum and minimum of S."""
AREA = 4000 * SMALL**2
"""Maximum number of pixels of all thumbnails together, unless they have the minimum size."""
QUALITIES = (70, 45, 20, 5)
"""WebP qualities to try: the first that gives at most `MAX_BYTES` is used, otherwise the last."""
MAX_BYTES = 3_200_000
"""Keeps the page below 5 MB. Photographs stay below 2.5 MB at the first quality; noise does not."""
PADDING = 0.5
"""Gray level of the padding around images that are not square, for light and dark pages."""


@dataclass(frozen=True, kw_only=True)
class SpriteSheet:
    """Thumbnails in one image, row by row."""

    content: bytes
    """The bytes of a WebP file."""
    side: int
    """Side S of a thumbnail in pixels."""
    columns: int
    """Thumbnails per row."""

    def style(self, number: int, count: int) -> str:
        """Return the CSS that shows one of `count` thumbnails as a background of any size."""
        rows = max(1, -(-count // self.columns))

        def position(index: int, of: int) -> float:
            return 100 * index / (of - 1) if of > 1 else 0

        x, y = position(number % self.columns, self.columns), position(number // self.columns, rows)
        return f"background-size: {100 * self.columns}% {100 * rows}%; background-position: {x:.4f}% {y:.4f}%"


def sprite_layout(count: int) -> tuple[int, int]:
    """Return the side of a thumbnail in pixels and the number of columns for `count` thumbnails."""
    side = LARGE if count == 0 else min(LARGE, max(SMALL, math.isqrt(AREA // count)))
    return side, max(1, math.ceil(math.sqrt(count)))


def draw_sprite_sheet(
    paths: Sequence[str],
    *,
    intensity: IntensityRange | None,
    workers: int,
    advance: Callable[[int], None] = lambda _: None,
) -> SpriteSheet:
    """Draw a thumbnail of each whole image; images that cannot be read are left gray.

    Args:
        paths: Paths of N images.
        intensity: Levels that become black and white in gray images of more than 8 bits.
        workers: Number of decoder processes.
        advance: Called with 1 for each finished image.
    """
    side, columns = sprite_layout(len(paths))
    rows = max(1, math.ceil(len(paths) / columns))
    sheet = Image.new("RGB", (columns * side, rows * side), (round(255 * PADDING),) * 3)
    with ImageLoader(
        DecodeOptions(preprocessing=display_preprocessing(side, background=PADDING, intensity=intensity)),
        workers=workers,
    ) as loader:
        for number, image in enumerate(loader.load(paths)):
            if image.pixels is not None:
                thumbnail = Image.frombytes("RGB", (side, side), image.pixels)
                sheet.paste(thumbnail, (number % columns * side, number // columns * side))
            advance(1)
    return SpriteSheet(content=encode_webp(sheet), side=side, columns=columns)


def encode_webp(image: Image.Image, max_bytes: int = MAX_BYTES) -> bytes:
    """Encode an image as WebP with at most `max_bytes` bytes, if possible."""
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=2)
        if file.tell() <= max_bytes:
            break
    return file.getvalue()
