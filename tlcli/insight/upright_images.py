"""Load whole images, small and upright: those that patches come from, and those that are explained."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import Placement, Preprocessing, display_preprocessing, placement
from tlcli.images.worker import DecodeOptions

THUMBNAIL_SIDE = 240
"""Longer side of a thumbnail in pixels, at most."""

THUMBNAIL_QUALITY = 68
"""WebP quality of the thumbnails, from 0 to 100."""


class UprightImage(NamedTuple):
    """A whole image, upright and scaled down."""

    digest: bytes | None
    """SHA-256 of the file's bytes."""
    placement: Placement
    """Where the network's input lies in the image, in the image's own pixels."""
    image: Image.Image
    """RGB, `side` pixels along its longer side."""


def upright_images(
    paths: Sequence[str], preprocessing: Preprocessing, *, side: int, workers: int
) -> Iterator[UprightImage | None]:
    """Load images in order; yield None for each that cannot be read.

    Args:
        paths: Paths of the images.
        preprocessing: How images are prepared for the network.
        side: Longer side of the loaded images, in pixels.
        workers: Number of decoder processes.
    """
    whole = display_preprocessing(side, intensity=preprocessing.intensity)
    with (
        ImageLoader(DecodeOptions(measure="upright"), workers=workers) as measuring,
        ImageLoader(DecodeOptions(preprocessing=whole), workers=workers) as decoding,
    ):
        for measured, decoded in zip(measuring.load(paths), decoding.load(paths), strict=True):
            size = measured.dimensions
            if size is None or decoded.pixels is None:
                yield None
                continue
            padded = placement(size, whole)
            x, y = (round(-start / step) for start, step in zip(padded.start, padded.step, strict=True))
            box = (x, y, x + round(size[0] / padded.step[0]), y + round(size[1] / padded.step[1]))
            image = Image.frombytes("RGB", (side, side), decoded.pixels).crop(box)
            yield UprightImage(decoded.digest, placement(size, preprocessing), image)


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A thumbnail of an image file."""

    placement: Placement
    """Where the network's input lies in the image, in the image's own pixels."""
    content: bytes
    """The whole image as a WebP file."""


def load_thumbnails(
    paths: Sequence[str], indices: Iterable[int], preprocessing: Preprocessing, workers: int
) -> dict[int, Thumbnail]:
    """Load thumbnails, by image index; images that cannot be read are missing.

    Args:
        paths: Paths of all images.
        indices: The images to load.
        preprocessing: How images are prepared for the network.
        workers: Number of decoder processes.
    """
    indices = sorted(set(indices))
    thumbnails: dict[int, Thumbnail] = {}
    images = upright_images([paths[index] for index in indices], preprocessing, side=THUMBNAIL_SIDE, workers=workers)
    for index, upright in zip(indices, images, strict=True):
        if upright is not None:
            file = io.BytesIO()
            upright.image.save(file, "WEBP", quality=THUMBNAIL_QUALITY)
            thumbnails[index] = Thumbnail(placement=upright.placement, content=file.getvalue())
    return thumbnails
