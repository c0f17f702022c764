"""The images on which engines are measured, and the speed at which they are decoded. Torch-free.

Shapes: N images of H x W pixels with C channels.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import IO

import numpy as np
import numpy.typing as npt

from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.errors import ArtifactError, DataError, first_reasons
from tlcli.images.batch import Pixels, stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.runs.run import Run
from tlcli.runs.stored_predictions import StoredPrediction, stored_predictions
from tlcli.settings import BenchmarkSettings, TableColumns
from tlcli.storage.files import portable_name
from tlcli.storage.urls import parse_location

RANDOM_IMAGES = 64
"""Images of random pixels, if there are no others."""

Labeled = tuple[str, int | None]
"""Path and class of an image; None if it has no label."""


@dataclass(frozen=True, kw_only=True)
class MeasuredImages:
    """Images in the size of the network's input."""

    source: str
    """`input`, `stored predictions`, or `random pixels`."""
    paths: Sequence[str]
    """Of the images that could be read; empty for random pixels."""
    pixels: Pixels
    """uint8 [N, H, W, C]."""
    labels: npt.NDArray[np.int64] | None = None
    """[N], the true classes; None if they are not known."""
    stored: Mapping[int, int] = field(default_factory=dict)
    """The class that the run stores, for images that its final network predicted in training."""
    trained_on: int = 0
    """Images that the run was trained on."""
    failures: Sequence[tuple[str, str]] = ()
    """Path and reason of each image that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class DecodingSpeed:
    """How fast image files become pixels, from the page cache."""

    milliseconds: Sequence[float]
    """Of single images, one after the other."""
    images_per_second: float
    """With all decoder processes."""


def load_measured_images(settings: BenchmarkSettings, run: Run, stdin: IO[bytes], report: Reporter) -> MeasuredImages:
    """Choose and decode the images: those of INPUT, else those of the run's stored predictions, else random pixels.

    Raises:
        UsageError: A column or filter has no effect.
        DataError: An input does not exist, or it has no images that can be read.
    """
    stored = _stored(run, settings, report)
    if settings.inputs:
        images = _load(
            run, "input", _sample(_list_inputs(settings, run, stdin, report), settings.images), stored, settings
        )
        if not images.paths:
            reasons = first_reasons((portable_name(path), reason) for path, reason in images.failures)
            raise DataError(f"none of the images can be used: {reasons}", path=settings.inputs[0])
        return images
    held_out = [row for row in stored.values() if row.split == "test"] or list(stored.values())
    labeled: list[Labeled] = [(row.path, run.classes.index(row.label)) for row in held_out]
    images = _load(run, "stored predictions", _sample(labeled, settings.images), stored, settings)
    if images.paths:
        return images
    report.warn(
        "the images of the run's stored predictions are no longer at their paths, so random pixels are used: there is "
        "no accuracy, and decoding is not measured. Give images as INPUT."
    )
    pixels = np.random.default_rng(0).integers(0, 256, (RANDOM_IMAGES, *run.preprocessing.shape), np.uint8)
    return MeasuredImages(source="random pixels", paths=(), pixels=pixels)


def measure_decoding(run: Run, paths: Sequence[str], seconds: float, workers: int) -> DecodingSpeed:
    """Decode images again and again, for half of the time one after the other, and then with all processes."""
    options = DecodeOptions(preprocessing=run.preprocessing)
    milliseconds: list[float] = []
    endless = cycle(paths)
    with ImageLoader(options, workers=1) as loader:
        loader.start()
        list(loader.load(paths[:1]))
        end = time.monotonic() + seconds / 2
        while not milliseconds or time.monotonic() < end:
            started = time.perf_counter()
            list(loader.load([next(endless)]))
            milliseconds.append(1000 * (time.perf_counter() - started))
    with ImageLoader(options, workers=workers) as loader:
        loader.start()
        images = loader.load(endless)
        for _ in range(workers):
            next(images)
        started, decoded = time.perf_counter(), 0
        while not decoded or time.perf_counter() < started + seconds / 2:
            next(images)
            decoded += 1
        return DecodingSpeed(milliseconds=milliseconds, images_per_second=decoded / (time.perf_counter() - started))


def _stored(run: Run, settings: BenchmarkSettings, report: Reporter) -> dict[bytes, StoredPrediction]:
    """Return the stored predictions by digest; none if the run has none."""
    try:
        found = stored_predictions(run, workers=settings.worker_count(), report=report)
    except ArtifactError as error:
        report.detail(f"  {error.message}")
        return {}
    return {digest: row for digest, row in found.items() if row.label in run.classes}


def _list_inputs(settings: BenchmarkSettings, run: Run, stdin: IO[bytes], report: Reporter) -> list[Labeled]:
    """List the images of INPUT, with their labels if it is a single input that has labels of the run's classes."""
    only = settings.inputs[0] if len(settings.inputs) == 1 else "-"
    if only != "-" and not only.startswith("@"):
        try:
            dataset = open_dataset(
                parse_location(only), classes=run.classes, filters=settings.filters, columns=settings.columns
            )
        except DataError as error:
            report.note(f"No accuracy, because there are no labels: {error.message}")
        else:
            split = next((split for split in ("test", "validation") if dataset.has_split(split)), None)
            if split is not None:
                report.note(f"{only}: its {split} images")
            return [(sample.path, sample.label) for sample in dataset.samples if split in {None, sample.split}]
    inputs = PredictionInputs(
        settings.inputs, stdin, None, settings.filters, TableColumns(image_column=settings.columns.image_column)
    )
    paths = list(inputs)
    if not paths:
        raise inputs.no_images()
    for option in inputs.unused_filters():
        report.warn(f"{option} matches no file or folder of {', '.join(settings.inputs)}.")
    return [(path, None) for path in paths]


def _sample(images: Sequence[Labeled], most: int) -> list[Labeled]:
    """Return up to `most` of the images, in their order."""
    chosen = sorted(random.Random(0).sample(range(len(images)), min(most, len(images))))
    return [images[index] for index in chosen]


def _load(
    run: Run,
    source: str,
    images: Sequence[Labeled],
    stored: Mapping[bytes, StoredPrediction],
    settings: BenchmarkSettings,
) -> MeasuredImages:
    """Decode images; if these are of stored predictions, leave out files that have changed."""
    splits = run.splits()
    # Without validation images of its own, the run predicted them out of fold, with other weights.
    final = {"test", "validation"} if "validation" in splits.values() else {"test"}
    paths: list[str] = []
    contents: list[bytes] = []
    labels: list[int | None] = []
    failures: list[tuple[str, str]] = []
    kept: dict[int, int] = {}
    trained_on = 0
    with ImageLoader(DecodeOptions(preprocessing=run.preprocessing), workers=settings.worker_count()) as loader:
        for (path, label), image in zip(images, loader.load(path for path, _ in images), strict=True):
            row = stored.get(image.digest or b"")
            if image.pixels is None or (row is None and source != "input"):
                failures.append((path, image.error or "changed since training"))
                continue
            if row is not None and row.split in final and row.predicted in run.classes:
                kept[len(paths)] = run.classes.index(row.predicted)
            trained_on += splits.get(image.digest or b"") == "train"
            paths.append(path)
            contents.append(image.pixels)
            labels.append(label)
    known = [label for label in labels if label is not None]
    return MeasuredImages(
        source=source,
        paths=paths,
        pixels=stack_images(contents, run.preprocessing.shape),
        labels=np.array(known) if known else None,
        stored=kept,
        trained_on=trained_on,
        failures=failures,
    )
