"""Images as they are, small and upright: those behind the winning patches, and those that are explained."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import Placement, Preprocessing, display_preprocessing, placement
from tlcli.images.worker import DecodeOptions

SIDE = 240
"""Pixels along a thumbnail's longer side, at most."""

QUALITY = 68
"""Of the WebPs."""


class Upright(NamedTuple):
    """All of one image, small."""

    digest: bytes | None
    """SHA-256 of the file's bytes."""
    placement: Placement
    """Where the network's input lies in the image, in the pixels of its file."""
    image: Image.Image
    """RGB, with `side` pixels along its longer side."""


def upright_images(
    paths: Sequence[str], preprocessing: Preprocessing, *, side: int, workers: int
) -> Iterator[Upright | None]:
    """Each image in order; None for what can't be read.

    Args:
        paths: Of the images.
        preprocessing: How they enter the network.
        side: Of the images given, in pixels.
        workers: Decoding processes.
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
            ground = placement(size, whole)
            x, y = (round(-start / step) for start, step in zip(ground.start, ground.step, strict=True))
            box = (x, y, x + round(size[0] / ground.step[0]), y + round(size[1] / ground.step[1]))
            image = Image.frombytes("RGB", (side, side), decoded.pixels).crop(box)
            yield Upright(decoded.digest, placement(size, preprocessing), image)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file of one image."""

    placement: Placement
    """Where the network's input lies in it."""
    thumbnail: bytes
    """All of it, as WebP."""


def sources(
    paths: Sequence[str], numbers: Iterable[int], preprocessing: Preprocessing, workers: int
) -> dict[int, Source]:
    """The source of each image, by its number; those that can't be read any more are missing.

    Args:
        paths: Of all images.
        numbers: Which of them.
        preprocessing: How they entered the network.
        workers: Decoding processes.
    """
    numbers = sorted(set(numbers))
    found: dict[int, Source] = {}
    images = upright_images([paths[number] for number in numbers], preprocessing, side=SIDE, workers=workers)
    for number, upright in zip(numbers, images, strict=True):
        if upright is not None:
            file = io.BytesIO()
            upright.image.save(file, "WEBP", quality=QUALITY)
            found[number] = Source(placement=upright.placement, thumbnail=file.getvalue())
    return found
