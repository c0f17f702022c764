"""Stack decoded images into batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""Decoded images, [B, H, W, C] or [H, W, C]."""
Floats = npt.NDArray[np.float32]


def stack_images(images: Sequence[bytes], shape: tuple[int, int, int]) -> Pixels:
    """Stack images into a writable batch.

    Images are copied one at a time. Each copy releases the interpreter's lock, so other threads keep receiving images.

    Args:
        images: Bytes of B images, each uint8 [H, W, C] in row-major order.
        shape: (H, W, C).

    Returns:
        uint8 [B, H, W, C].
    """
    batch = np.empty((len(images), *shape), np.uint8)
    for row, pixels in zip(batch, images, strict=True):
        row[...] = np.frombuffer(pixels, np.uint8).reshape(shape)
    return batch
