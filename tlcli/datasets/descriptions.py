"""Notes and warnings about a dataset: its size, skipped files, unusable images, duplicates, and class balance."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping

from tlcli.datasets.class_names import reading_order
from tlcli.datasets.dataset import Dataset
from tlcli.datasets.duplicates import Duplicates
from tlcli.datasets.folders.mask_pairs import confirmed_masks
from tlcli.datasets.image_files import describe_skipped
from tlcli.datasets.labeled_image import SPLIT_NAMES
from tlcli.datasets.splits import SMALL_CLASS, SplitDataset
from tlcli.progress import Reporter
from tlcli.storage.files import portable_name

IMBALANCE = 10
"""Ratio of the largest class to the smallest above which a warning suggests `--balance`."""


def describe_dataset(dataset: Dataset, report: Reporter) -> None:
    """Report the number of images, their classes and splits, and what was skipped."""
    counts = Counter(sample.label for sample in dataset.samples)
    shown = ", ".join(f"{dataset.classes[index]} {counts[index]:,}" for index in reading_order(dataset.classes)[:12])
    more = f", ... {len(dataset.classes) - 12} more" if len(dataset.classes) > 12 else ""
    splits = Counter(sample.split for sample in dataset.samples if sample.split)
    by_split = f" ({', '.join(f'{name} {count:,}' for name, count in splits.items())})" if splits else ""
    report.note(
        f"{portable_name(str(dataset.root))}: {len(dataset.samples):,} images{by_split}, "
        f"{len(dataset.classes)} classes: {shown}{more}"
    )
    if not splits and (split_like := sorted(set(SPLIT_NAMES) & {name.lower() for name in dataset.classes})):
        report.warn(
            f"{', '.join(split_like)} is treated as a class. A folder named train marks splits; put val (or valid, "
            "validation) and test next to it."
        )
    describe_reading(dataset, report)
    if (masks := confirmed_masks(dataset.masks)) is not None:
        mask, image = map(portable_name, masks.pairs[0])
        report.warn(
            f"{len(masks.pairs):,} of {len(dataset.samples):,} images look like masks of others, such as {mask} of "
            f"{image}. Leave them out with --exclude {shlex.quote(masks.exclude)}."
        )
    if dataset.skipped:
        report.note(f"  skipped: {describe_skipped(dataset.skipped)}")


def describe_reading(dataset: Dataset, report: Reporter) -> None:
    """Report how DATA was read where that is not obvious, and which labels were corrected."""
    for note in dataset.notes:
        report.note(f"  {note}")
    if dataset.corrections is not None:
        report.note(dataset.corrections.describe())
        if unmatched := dataset.corrections.describe_unmatched():
            report.warn(unmatched)


def describe_failures(dataset: Dataset, failures: Mapping[int, str], report: Reporter) -> None:
    """Warn about images that could not be used, naming the first five and the reasons."""
    if not failures:
        return
    report.warn(f"{len(failures):,} of {len(dataset.samples):,} images could not be used:")
    for index in sorted(failures)[:5]:
        report.note(f"  {portable_name(dataset.samples[index].path)}: {failures[index]}")
    if len(failures) > 5:
        report.note(f"  ... and {len(failures) - 5:,} more")


def describe_duplicates(duplicates: Duplicates, report: Reporter) -> None:
    """Report the number of copies, and warn about images that are in two classes or two splits."""
    if duplicates.extra:
        report.note(f"  {duplicates.extra:,} images are byte-identical copies of others")
    for what, groups in (("class", duplicates.across_classes), ("split", duplicates.across_splits)):
        if groups:
            images = "image is" if len(groups) == 1 else "images are"
            report.warn(
                f"{len(groups):,} {images} in more than one {what}: "
                + "; ".join(" = ".join(portable_name(path) for path in group) for group in groups[:3])
                + ("; ..." if len(groups) > 3 else "")
            )


def describe_balance(dataset: Dataset, splits: SplitDataset, report: Reporter, *, balanced: bool) -> None:
    """Warn about classes that are too small to split, and about classes of very different sizes."""
    counts = Counter(sample.label for sample in splits.samples if sample.split == "train")
    small = [name for label, name in enumerate(dataset.classes) if counts[label] < SMALL_CLASS]
    if small:
        names = ", ".join(small[:5]) + (", ..." if len(small) > 5 else "")
        held_out_by_us = not splits.cross_validated and not dataset.has_split("validation")
        effect = "none of their images are held out" if held_out_by_us else "their metrics are unreliable"
        report.warn(
            f"{len(small)} of {len(dataset.classes)} classes have fewer than {SMALL_CLASS} images ({names}): {effect}."
        )
    most, least = max(counts.values()), min(counts.values())
    if most > IMBALANCE * least and not balanced:
        report.warn(
            f"the largest class has {most / least:.0f} times as many images as the smallest; --balance gives all "
            "classes the same weight."
        )


def count_groups(groups: int, largest: int) -> str:
    """Describe how many groups of similar images stay together, and the number of images in the largest one."""
    what = "group of similar images" if groups == 1 else "groups of similar images"
    return f"{groups:,} {what} (largest {largest:,}) {'is' if groups == 1 else 'are'} kept together"
