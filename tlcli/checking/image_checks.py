"""Images by themselves: those that can't be read, those that are too small, and how many there are of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tlcli.checking.finding import IMBALANCE, SMALL_CLASS, TINY, UNREADABLE, Finding, of_sample
from tlcli.datasets.dataset import Dataset
from tlcli.datasets.splits import SMALL_CLASS as FEW
from tlcli.images.decode import Size
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter

ENLARGED = 2
"""An image is tiny where the network's input is more than so many times its shorter side: most of what the network
sees would be made up."""
EXTREME = 100
"""Ratio of the largest class to the smallest that is a finding; less is only said."""


def measure(
    dataset: Dataset, usable: Sequence[int], workers: int, report: Reporter
) -> tuple[dict[int, Size], dict[int, str]]:
    """Width and height of images, from their headers; and for those that vanished meanwhile, the reason."""
    sizes: dict[int, Size] = {}
    failures: dict[int, str] = {}
    paths = (dataset.samples[index].path for index in usable)
    with (
        ImageLoader(DecodeOptions(measure="size"), workers=workers) as loader,
        report.task("Sizes", len(usable)) as advance,
    ):
        for index, image in zip(usable, loader.load(paths), strict=True):
            if image.dimensions is not None:
                sizes[index] = image.dimensions
            else:
                failures[index] = image.error or "its size is not in its header"
            advance(1)
    return sizes, failures


def unreadable_findings(dataset: Dataset, failures: Mapping[int, str]) -> list[Finding]:
    """One for each image that training could not use."""
    return [of_sample(dataset, index, kind=UNREADABLE, detail=reason) for index, reason in sorted(failures.items())]


def tiny_findings(dataset: Dataset, sizes: Mapping[int, Size], side: int) -> list[Finding]:
    """One for each tiny image, the smallest first; none where most are, since then that is what the data is like.

    Args:
        dataset: The images.
        sizes: Width and height of each, in pixels.
        side: Of the network's input, in pixels.
    """
    tiny = [index for index, size in sizes.items() if ENLARGED * min(size) < side]
    if 2 * len(tiny) > len(sizes):
        return []
    return [
        of_sample(
            dataset,
            index,
            kind=TINY,
            detail=f"{sizes[index][0]} x {sizes[index][1]} pixels; the network sees {side} x {side}",
        )
        for index in sorted(tiny, key=lambda index: (min(sizes[index]), index))
    ]


def class_counts(dataset: Dataset, usable: Sequence[int]) -> dict[str, int]:
    """Usable images of each class that training learns from: those of train, where DATA makes splits."""
    samples = [dataset.samples[index] for index in usable]
    counts = Counter(sample.label for sample in samples if sample.split in {None, "train"})
    return {name: counts[label] for label, name in enumerate(dataset.classes)}


def balance_findings(counts: Mapping[str, int]) -> list[Finding]:
    """One for each class that is too small to learn, and one where the largest drowns the smallest."""
    findings = [
        Finding(
            kind=SMALL_CLASS,
            label=name,
            detail=f"{count:,} usable {'image' if count == 1 else 'images'} to train on; expected at least {FEW}",
        )
        for name, count in counts.items()
        if count < FEW
    ]
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] > EXTREME * counts[least] > 0:
        findings.append(
            Finding(
                kind=IMBALANCE,
                label=least,
                detail=f"{counts[least]:,} images beside {counts[most]:,} of the largest class",
                other_label=most,
                score=None,
            )
        )
    return findings
