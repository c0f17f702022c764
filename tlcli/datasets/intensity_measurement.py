"""`--intensity auto`: measure the range of gray images with more than 8 bits on the training images."""

from __future__ import annotations

from tlcli.datasets.dataset import Dataset
from tlcli.datasets.splits import assign_splits
from tlcli.errors import DataError, UsageError
from tlcli.images.intensity import IntensityRange, enclosing_range
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.settings import intensity_range


def resolve_intensity(
    requested: str | None, dataset: Dataset, *, fraction: float | None, seed: int, workers: int, report: Reporter
) -> IntensityRange | None:
    """Return the values that become black and white in gray images with more than 8 bits.

    Args:
        requested: Value of `--intensity`: `LO,HI`, `auto` (measure it), or None for the 16-bit range.
        dataset: The images to measure if the range is `auto`.
        fraction: Fraction of train that will be held out; None holds nothing out.
        seed: Seed of the split.
        workers: Number of decoder processes.
        report: Receives the progress of the measurement.

    Raises:
        UsageError: The range is to be measured, and no training image is gray with more than 8 bits.
        DataError: All these images have a single value.
    """
    if requested != "auto":
        return intensity_range(requested)
    return _measure(dataset, fraction=fraction, seed=seed, workers=workers, report=report)


def _measure(dataset: Dataset, *, fraction: float | None, seed: int, workers: int, report: Reporter) -> IntensityRange:
    """Return the minimum and maximum of the training images that are gray with more than 8 bits."""
    paths = [sample.path for sample in dataset.samples]
    with (
        ImageLoader(DecodeOptions(measure="intensity"), workers=workers) as loader,
        report.task("Intensity", len(paths)) as advance,
    ):
        images = [image for image in loader.load(paths) if advance(1) is None]
    read = [index for index, image in enumerate(images) if image.digest is not None]
    digests = [images[index].digest or b"" for index in read]
    samples = assign_splits([dataset.samples[index] for index in read], digests, fraction=fraction, seed=seed)
    train = [images[index] for index, sample in zip(read, samples, strict=True) if sample.split == "train"]
    ranges = [image.intensity for image in train if image.intensity is not None]
    if not ranges:
        raise UsageError(
            f"--intensity auto has no effect: none of the {len(train):,} training images of {dataset.root} is gray "
            "with more than 8 bits. Remove the option."
        )
    low, high = enclosing_range(ranges)
    if low == high:
        raise DataError(
            f"the {len(ranges):,} training images of {dataset.root} with more than 8 bits have a single value, "
            f"{low:g}. Pass the range of your instrument: --intensity LO,HI.",
            path=dataset.root,
        )
    report.note(f"Intensity {low:g} to {high:g}, measured on {len(ranges):,} training images with more than 8 bits")
    return low, high
