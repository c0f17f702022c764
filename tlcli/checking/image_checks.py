"""Check images and class sizes: unreadable images, tiny images, small classes, and imbalance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tlcli.checking.finding import IMBALANCE, SMALL_CLASS, TINY, UNREADABLE, Finding, sample_finding
from tlcli.datasets.dataset import Dataset
from tlcli.datasets.splits import SMALL_CLASS as MIN_CLASS_SIZE
from tlcli.images.decode import Size
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter

TINY_FACTOR = 2
"""An image is tiny if the network's input is more than this many times its shorter side: most of the input would be
interpolated."""
IMBALANCE_RATIO = 100
"""Ratio of the largest to the smallest class above which imbalance is a finding."""


@dataclass(frozen=True)
class Headers:
    """What was read from the headers of images, by sample index."""

    sizes: dict[int, Size] = field(default_factory=dict)
    """Width and height in pixels."""
    failures: dict[int, str] = field(default_factory=dict)
    """Why an image can no longer be read."""
    notes: dict[int, str] = field(default_factory=dict)
    """Why a color profile is ignored."""


def read_headers(dataset: Dataset, usable: Sequence[int], workers: int, report: Reporter) -> Headers:
    """Read the headers of images.

    Args:
        dataset: The dataset whose files are measured.
        usable: Indices of the samples to measure.
        workers: Number of decoder processes.
        report: Receives the progress over the images.

    """
    headers = Headers()
    paths = (dataset.samples[index].path for index in usable)
    with (
        ImageLoader(DecodeOptions(measure="size"), workers=workers) as loader,
        report.task("Sizes", len(usable)) as advance,
    ):
        for index, image in zip(usable, loader.load(paths), strict=True):
            if image.dimensions is not None:
                headers.sizes[index] = image.dimensions
            else:
                headers.failures[index] = image.error or "the header does not contain the size"
            if image.note is not None:
                headers.notes[index] = image.note
            advance(1)
    return headers


def unreadable_findings(dataset: Dataset, failures: Mapping[int, str]) -> list[Finding]:
    """Return a finding for each unreadable image."""
    return [
        sample_finding(dataset, index, kind=UNREADABLE, detail=reason) for index, reason in sorted(failures.items())
    ]


def tiny_findings(dataset: Dataset, sizes: Mapping[int, Size], side: int) -> list[Finding]:
    """Return a finding for each tiny image, the smallest first; none if most images are tiny.

    Args:
        dataset: The dataset that was measured.
        sizes: Width and height in pixels, by sample index.
        side: Side of the network's input in pixels.
    """
    tiny = [index for index, size in sizes.items() if TINY_FACTOR * min(size) < side]
    if 2 * len(tiny) > len(sizes):
        return []
    return [
        sample_finding(
            dataset,
            index,
            kind=TINY,
            detail=f"{sizes[index][0]} x {sizes[index][1]} pixels; network input: {side} x {side}",
        )
        for index in sorted(tiny, key=lambda index: (min(sizes[index]), index))
    ]


def class_counts(dataset: Dataset, usable: Sequence[int]) -> dict[str, int]:
    """Count the usable training images of each class; without splits, all images are training images."""
    samples = [dataset.samples[index] for index in usable]
    counts = Counter(sample.label for sample in samples if sample.split in {None, "train"})
    return {name: counts[label] for label, name in enumerate(dataset.classes)}


def balance_findings(counts: Mapping[str, int]) -> list[Finding]:
    """Return a finding for each small class, and one if the classes are extremely imbalanced."""
    findings = [
        Finding(
            kind=SMALL_CLASS,
            label=name,
            detail=f"{count:,} usable training {'image' if count == 1 else 'images'}; at least {MIN_CLASS_SIZE} needed",
        )
        for name, count in counts.items()
        if count < MIN_CLASS_SIZE
    ]
    largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[largest] > IMBALANCE_RATIO * counts[smallest] > 0:
        findings.append(
            Finding(
                kind=IMBALANCE,
                label=smallest,
                detail=f"{counts[smallest]:,} images; the largest class has {counts[largest]:,}",
                other_label=largest,
                score=None,
            )
        )
    return findings
