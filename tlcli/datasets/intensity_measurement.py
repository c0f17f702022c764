"""The range of gray images with more than 8 bits, measured once on the images of train."""

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
    asked: str | None, dataset: Dataset, *, fraction: float | None, seed: int, workers: int, report: Reporter
) -> IntensityRange | None:
    """What becomes black and white in deep images: as `--intensity` says, which may be to measure it.

    Args:
        asked: `LO,HI`, `auto`, or None for the range of 16 bits.
        dataset: The images.
        fraction: Share of train that will be held out; None holds nothing out.
        seed: Of the split.
        workers: Decoding processes.
        report: Shown the progress.

    Raises:
        UsageError: it is to be measured, and no image of train is gray with more than 8 bits.
        DataError: they have one value only.
    """
    if asked != "auto":
        return intensity_range(asked)
    return _measure(dataset, fraction=fraction, seed=seed, workers=workers, report=report)


def _measure(dataset: Dataset, *, fraction: float | None, seed: int, workers: int, report: Reporter) -> IntensityRange:
    """Least and greatest value in the deep images of train."""
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
            "with more than 8 bits. Leave it out."
        )
    low, high = enclosing_range(ranges)
    if low == high:
        raise DataError(
            f"the {len(ranges):,} training images of {dataset.root} with more than 8 bits hold one value, {low:g}. "
            "Give the range of your instrument: --intensity LO,HI.",
            path=dataset.root,
        )
    report.note(f"Intensity {low:g} to {high:g}, of {len(ranges):,} training images with more than 8 bits")
    return low, high
