"""The files behind the winning patches: how large they are upright, and a small picture of each for the page."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from tlcli.images.intensity import Range
from tlcli.images.loader import PictureLoader
from tlcli.images.preprocess import Placement, Preprocessing, placement
from tlcli.images.worker import Order

SIDE = 288
"""Pixels along a thumbnail's longer side, at most."""

THUMBNAIL = Preprocessing(
    height=SIDE,
    width=SIDE,
    channels=3,
    fit="pad",
    crop_fraction=1.0,
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(1.0, 1.0, 1.0),
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file of one picture."""

    placement: Placement
    """Where the network's input lies in it."""
    thumbnail: bytes
    """All of it, as JPEG."""


def sources(
    paths: Sequence[str], numbers: Iterable[int], preprocessing: Preprocessing, workers: int
) -> dict[int, Source]:
    """The source of each picture, by its number; those that can't be read any more are missing.

    Args:
        paths: Of all pictures.
        numbers: Which of them.
        preprocessing: How they entered the network.
        workers: Decoding processes.
    """
    numbers = sorted(set(numbers))
    with PictureLoader(Order(measure="upright"), workers=workers) as loader:
        sizes = [picture.dimensions for picture in loader.load(paths[number] for number in numbers)]
    found: dict[int, Source] = {}
    with PictureLoader(Order(preprocessing=_thumbnail(preprocessing.intensity)), workers=workers) as loader:
        pictures = loader.load(paths[number] for number in numbers)
        for number, size, picture in zip(numbers, sizes, pictures, strict=True):
            if size is None or picture.pixels is None:
                continue
            whole = Image.frombytes("RGB", (SIDE, SIDE), picture.pixels)
            ground = placement(size, THUMBNAIL)
            x, y = (round(-start / step) for start, step in zip(ground.start, ground.step, strict=True))
            inner = whole.crop((x, y, x + round(size[0] / ground.step[0]), y + round(size[1] / ground.step[1])))
            file = io.BytesIO()
            inner.save(file, "JPEG", quality=82)
            found[number] = Source(placement=placement(size, preprocessing), thumbnail=file.getvalue())
    return found


def _thumbnail(intensity: Range | None) -> Preprocessing:
    return Preprocessing.from_json(THUMBNAIL.to_json() | ({"intensity": list(intensity)} if intensity else {}))
