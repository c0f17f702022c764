"""Real images on which an export shows that it is right: the run's own where they are still there.

Shapes: N images of H x W pixels with C channels.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

import numpy as np
import numpy.typing as npt

from tlcli.datasets.dataset import Sample, data_exists, open_dataset
from tlcli.errors import DataError, UsageError
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.runs.run import Run
from tlcli.storage.urls import Location, parse_location

READ_AT_MOST = 20
"""Images that are read for one that is wanted, in search of some that the run wasn't trained on."""

Pixels = npt.NDArray[np.uint8]
Labeled = tuple[Pixels, int]


@dataclass(frozen=True, kw_only=True)
class ComparisonImages:
    """Images to compare on, and others to calibrate an integer network by."""

    pixels: Pixels
    """uint8 [N, H, W, C], as they enter the network."""
    labels: npt.NDArray[np.int64]
    """int [N]: their true classes."""
    held_out: int
    """How many of them the run wasn't trained on."""
    calibration: Pixels
    """uint8 [M, H, W, C]: images that the run was trained on."""


def data_of(run: Run, data: Location | None) -> Location:
    """Where the images are: `data`, else where they were when the run was trained.

    Raises:
        UsageError: they are not there any more, and nothing else was given.
    """
    if data is not None:
        return data
    own = parse_location(str(run.info["settings"].get("data") or ""))
    if own.absolute() == own and data_exists(own):
        return own
    raise UsageError(
        f"the images that {run.directory} was trained on are no longer at {own}, and an export is compared on real "
        "images before it is kept. Give some with --data DIR, in one folder a class."
    )


def real_images(run: Run, data: Location, *, wanted: int, calibrating: int, workers: int) -> ComparisonImages:
    """Draw images of all classes, the same ones each time; those that the run wasn't trained on first.

    Args:
        run: The run.
        data: DATA.
        wanted: Images to compare on; fewer where there are fewer.
        calibrating: Images to calibrate by; fewer where there are fewer.
        workers: Decoding processes.

    Raises:
        DataError: DATA is unusable, none of it can be read, or images for calibration were asked for and the run
            was trained on none of it.
    """
    samples = _in_turn(open_dataset(data, classes=run.classes).samples)
    known = run.splits()
    some_held_out = any(split in {"validation", "test"} for split in known.values())
    fresh: list[Labeled] = []
    spare: list[Labeled] = []
    calibration: list[Labeled] = []
    with ImageLoader(DecodeOptions(preprocessing=run.preprocessing), workers=workers) as loader:
        asked = list(islice(samples, READ_AT_MOST * (wanted + calibrating)))
        for sample, image in zip(asked, loader.load(sample.path for sample in asked), strict=True):
            if image.pixels is None:
                continue
            pixels = np.frombuffer(image.pixels, np.uint8).reshape(run.preprocessing.shape)
            if known.get(image.digest or b"") != "train":
                fresh += [(pixels, sample.label)] if len(fresh) < wanted else []
            elif len(calibration) < calibrating:
                calibration.append((pixels, sample.label))
            elif len(spare) < wanted:
                spare.append((pixels, sample.label))
            enough = len(fresh) if some_held_out else len(fresh) + len(spare)
            if enough >= wanted and len(calibration) >= calibrating:
                break
    if not fresh and not spare and not calibration:
        raise DataError(f"none of the images in {data} can be read: nothing to compare an export on.", path=data)
    if calibrating and not calibration:
        raise DataError(
            f"--int8 is calibrated on images that the run was trained on, and none of {data} is. Give the run's own "
            "training images with --data DIR, or leave --int8 out.",
            path=data,
        )
    chosen = list(islice(chain(fresh, spare, calibration), wanted))
    return ComparisonImages(
        pixels=_stacked(chosen, run),
        labels=np.array([label for _, label in chosen]),
        held_out=min(len(fresh), wanted),
        calibration=_stacked(calibration, run),
    )


def _stacked(images: list[Labeled], run: Run) -> Pixels:
    return np.stack([pixels for pixels, _ in images]) if images else np.empty((0, *run.preprocessing.shape), np.uint8)


def _in_turn(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Shuffled, the classes and DATA's own splits taking turns."""
    parts: dict[tuple[str | None, int], list[Sample]] = {}
    for sample in samples:
        parts.setdefault((sample.split, sample.label), []).append(sample)
    generator = random.Random(0)
    for part in parts.values():
        generator.shuffle(part)
    rounds = zip_longest(*parts.values())
    return (sample for turn in rounds for sample in turn if sample is not None)
