"""Decoded images as batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def stack_images(images: Sequence[bytes], shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Images, each uint8 [H, W, C] row by row, as a batch [B, H, W, C] that may be written to.

    One by one: the interpreter's lock is free while each is copied, so that others go on receiving images.
    """
    batch = np.empty((len(images), *shape), np.uint8)
    for row, pixels in zip(batch, images, strict=True):
        row[...] = np.frombuffer(pixels, np.uint8).reshape(shape)
    return batch
