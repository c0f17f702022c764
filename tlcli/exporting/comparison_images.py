"""Real images to compare an export with the run on: by default, the images that the run was trained with.

Shapes: N images of H x W pixels with C channels.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import chain, islice, zip_longest

import numpy as np
import numpy.typing as npt

from tlcli.datasets.dataset import Dataset, Sample, data_exists
from tlcli.errors import DataError, UsageError, first_reasons
from tlcli.images.batch import Pixels
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.runs.run import Run
from tlcli.settings import PathPatterns, TableColumns
from tlcli.storage.files import portable_name
from tlcli.storage.urls import Location, parse_location

MAX_READ_PER_IMAGE = 20
"""Images read per image requested, while looking for images that the run was not trained on."""

LabeledPixels = tuple[Pixels, int]


@dataclass(frozen=True, kw_only=True)
class ComparisonImages:
    """Images to compare on, and images to calibrate int8 quantization with."""

    pixels: Pixels
    """uint8 [N, H, W, C], resized to the network's input."""
    labels: npt.NDArray[np.int64]
    """int [N], their classes."""
    held_out: int
    """Number of these images that the run was not trained on."""
    calibration: Pixels
    """uint8 [M, H, W, C], images that the run was trained on."""


def comparison_data(run: Run, data: Location | None) -> Location:
    """Return `data`, or by default the run's training data.

    Raises:
        UsageError: `data` is None, and the training data is no longer where it was.
    """
    if data is not None:
        return data
    own = parse_location(str(run.info["settings"].get("data") or ""))
    if own.absolute() == own and data_exists(own):
        return own
    raise UsageError(
        f"the training images of {run.directory} are no longer at {own}. An export is compared with the run on real "
        "images before it is kept: pass some with --data DIR, in one folder per class."
    )


def recorded_patterns(run: Run) -> PathPatterns:
    """Return the patterns that chose the files of the run's training data."""
    own = run.info["settings"]
    return PathPatterns(include=tuple(own.get("include") or ()), exclude=tuple(own.get("exclude") or ()))


def recorded_columns(run: Run) -> TableColumns:
    """Return the columns of the run's training data, if it is a table."""
    own = run.info["settings"]
    return TableColumns(**{one.name: own.get(one.name) for one in fields(TableColumns)})


def recorded_corrections(run: Run) -> Location | None:
    """Return the table that corrected the labels of the run's training data, if it still exists."""
    file = run.info["settings"].get("corrections")
    return parse_location(file) if file and data_exists(parse_location(file)) else None


def load_comparison_images(
    run: Run, dataset: Dataset, *, compare: int, calibrate: int, workers: int
) -> ComparisonImages:
    """Choose images of all classes, the same ones each time, and preferably images that the run was not trained on.

    Args:
        run: The run that was exported.
        dataset: The labeled images to choose from.
        compare: Number of images to compare on; fewer if DATA has fewer.
        calibrate: Number of images to calibrate with; fewer if DATA has fewer.
        workers: Number of worker processes.

    Raises:
        DataError: None of the images can be read, or images to calibrate with were requested and the run was trained
            on none of them.
    """
    samples = _interleaved(dataset.samples)
    splits = run.splits()
    some_held_out = any(split in {"validation", "test"} for split in splits.values())
    unseen: list[LabeledPixels] = []
    seen: list[LabeledPixels] = []
    calibration: list[LabeledPixels] = []
    reasons: list[tuple[str, str]] = []
    with ImageLoader(DecodeOptions(preprocessing=run.preprocessing), workers=workers) as loader:
        candidates = list(islice(samples, MAX_READ_PER_IMAGE * (compare + calibrate)))
        for sample, image in zip(candidates, loader.load(sample.path for sample in candidates), strict=True):
            if image.pixels is None:
                reasons.append((portable_name(sample.path), image.error or ""))
                continue
            pixels = np.frombuffer(image.pixels, np.uint8).reshape(run.preprocessing.shape)
            if splits.get(image.digest or b"") != "train":
                unseen += [(pixels, sample.label)] if len(unseen) < compare else []
            elif len(calibration) < calibrate:
                calibration.append((pixels, sample.label))
            elif len(seen) < compare:
                seen.append((pixels, sample.label))
            enough = len(unseen) if some_held_out else len(unseen) + len(seen)
            if enough >= compare and len(calibration) >= calibrate:
                break
    if not unseen and not seen and not calibration:
        raise DataError(
            f"none of the images in {dataset.root} can be used, and the export needs some to compare: "
            f"{first_reasons(reasons)}",
            path=dataset.root,
        )
    if calibrate and not calibration:
        raise DataError(
            f"--int8 needs images that the run was trained on, and {dataset.root} contains none. Pass the training "
            "images with --data DIR, or omit --int8.",
            path=dataset.root,
        )
    chosen = list(islice(chain(unseen, seen, calibration), compare))
    return ComparisonImages(
        pixels=_stack(chosen, run),
        labels=np.array([label for _, label in chosen]),
        held_out=min(len(unseen), compare),
        calibration=_stack(calibration, run),
    )


def _stack(images: list[LabeledPixels], run: Run) -> Pixels:
    return np.stack([pixels for pixels, _ in images]) if images else np.empty((0, *run.preprocessing.shape), np.uint8)


def _interleaved(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Return the samples shuffled, alternating between classes and between the splits of DATA."""
    parts: dict[tuple[str | None, int], list[Sample]] = {}
    for sample in samples:
        parts.setdefault((sample.split, sample.label), []).append(sample)
    generator = random.Random(0)
    for part in parts.values():
        generator.shuffle(part)
    rounds = zip_longest(*parts.values())
    return (sample for turn in rounds for sample in turn if sample is not None)
