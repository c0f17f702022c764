"""What a person should know about a data set: its size, what was passed over, and what looks wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tlcli.datasets.dataset import Dataset
from tlcli.datasets.duplicates import Duplicates
from tlcli.datasets.splits import SMALL_CLASS, SplitDataset
from tlcli.datasets.tables import SPLIT_NAMES
from tlcli.progress import Reporter
from tlcli.storage.files import portable_name

IMBALANCE = 10
"""Ratio of the largest class to the smallest above which `--balance` is named."""


def describe_dataset(dataset: Dataset, report: Reporter) -> None:
    """Say what DATA holds, in a line or two."""
    counts = Counter(sample.label for sample in dataset.samples)
    shown = ", ".join(f"{name} {counts[index]:,}" for index, name in enumerate(dataset.classes[:12]))
    more = f", ... {len(dataset.classes) - 12} more" if len(dataset.classes) > 12 else ""
    splits = Counter(sample.split for sample in dataset.samples if sample.split)
    parted = f" ({', '.join(f'{name} {count:,}' for name, count in splits.items())})" if splits else ""
    report.note(
        f"{portable_name(str(dataset.root))}: {len(dataset.samples):,} images{parted}, "
        f"{len(dataset.classes)} classes: {shown}{more}"
    )
    if not splits and (alike := sorted(set(SPLIT_NAMES) & {name.lower() for name in dataset.classes})):
        report.warn(
            f"{', '.join(alike)} was taken for a class. Splits are told by a folder named train, with val (or valid, "
            "validation) and test beside it."
        )
    if dataset.skipped:
        report.note("  skipped: " + ", ".join(f"{count:,} {reason}" for reason, count in dataset.skipped.items()))


def describe_failures(dataset: Dataset, failures: Mapping[int, str], report: Reporter) -> None:
    """Name the first images that could not be used, and why."""
    if not failures:
        return
    report.warn(f"{len(failures):,} of {len(dataset.samples):,} images could not be used:")
    for index in sorted(failures)[:5]:
        report.note(f"  {portable_name(dataset.samples[index].path)}: {failures[index]}")
    if len(failures) > 5:
        report.note(f"  ... and {len(failures) - 5:,} more")


def describe_duplicates(duplicates: Duplicates, report: Reporter) -> None:
    """Count copies, and name an image that is in two classes or two splits."""
    if duplicates.extra:
        report.note(f"  {duplicates.extra:,} images are byte-identical copies of others")
    for what, groups in (("class", duplicates.across_classes), ("split", duplicates.across_splits)):
        if groups:
            stand = "image stands" if len(groups) == 1 else "images stand"
            report.warn(
                f"{len(groups):,} {stand} in more than one {what}: "
                + "; ".join(" = ".join(portable_name(path) for path in group) for group in groups[:3])
                + ("; ..." if len(groups) > 3 else "")
            )


def describe_balance(dataset: Dataset, settled: SplitDataset, report: Reporter, *, balanced: bool) -> None:
    """Warn of classes too small to split, and of one class that drowns another."""
    counts = Counter(sample.label for sample in settled.samples if sample.split == "train")
    small = [name for label, name in enumerate(dataset.classes) if counts[label] < SMALL_CLASS]
    if small:
        names = ", ".join(small[:5]) + (", ..." if len(small) > 5 else "")
        ours = not settled.cross_validated and not dataset.has_split("validation")
        what = "none of theirs is held out" if ours else "what is said of them is rough"
        report.warn(
            f"{len(small)} of {len(dataset.classes)} classes have under {SMALL_CLASS} images ({names}): {what}."
        )
    most, least = max(counts.values()), min(counts.values())
    if most > IMBALANCE * least and not balanced:
        report.warn(
            f"the largest class has {most / least:.0f} times the images of the smallest; --balance weighs all "
            "classes the same."
        )
