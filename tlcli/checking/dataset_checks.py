"""Check how DATA is organized: masks among the images, classes with similar names, and images at two levels."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping

from tlcli.checking.finding import MASK, MIXED_LEVELS, PROFILE, SIMILAR_NAMES, Finding, pair_finding, sample_finding
from tlcli.datasets.dataset import Dataset
from tlcli.datasets.folders.mask_pairs import confirmed_masks


def mask_findings(dataset: Dataset) -> list[Finding]:
    """Return a finding for each image that is the mask of another one, by its name and, of a few, by its pixels."""
    masks = confirmed_masks(dataset.masks)
    if masks is None:
        return []
    indices = {sample.path: index for index, sample in enumerate(dataset.samples)}
    return [
        pair_finding(
            dataset, indices[mask], indices[image], kind=MASK, detail=f"exclude with {masks.exclude}", score=None
        )
        for mask, image in masks.pairs
        if mask in indices and image in indices
    ]


def profile_findings(dataset: Dataset, ignored: Mapping[int, str]) -> list[Finding]:
    """Return a finding for each image whose color profile is ignored; `ignored` has the reason by sample index."""
    return [sample_finding(dataset, index, kind=PROFILE, detail=reason) for index, reason in sorted(ignored.items())]


def similar_name_findings(dataset: Dataset) -> list[Finding]:
    """Return a finding for each class whose name differs from another one's only in punctuation or a plural s."""
    counts = Counter(sample.label for sample in dataset.samples)
    alike: dict[str, list[int]] = defaultdict(list)
    for label, name in enumerate(dataset.classes):
        letters = "".join(filter(str.isalnum, name.casefold()))
        if letters and not letters.isdigit():  # 1.5 and 15 are different numbers
            alike[letters.removesuffix("s")].append(label)
    return [
        Finding(
            kind=SIMILAR_NAMES,
            label=dataset.classes[label],
            other_label=dataset.classes[first],
            detail=f"{counts[label]:,} images; {dataset.classes[first]} has {counts[first]:,}",
        )
        for first, *others in alike.values()
        for label in others
    ]


def mixed_level_findings(dataset: Dataset) -> list[Finding]:
    """Return a finding for each class that has images in its folder and in subfolders, if folders are the classes."""
    if not dataset.in_folders:
        return []
    folders: dict[tuple[int, str | None], Counter[str]] = defaultdict(Counter)
    for sample in dataset.samples:
        folders[sample.label, sample.split][os.path.dirname(sample.path)] += 1  # noqa: PTH120 - paths may be URLs
    findings = []
    for (label, split), counts in folders.items():
        top = min(counts, key=len)
        below = [folder for folder in counts if folder.startswith(top + "/")]
        if below:
            inside = sum(counts[folder] for folder in below)
            names = ", ".join(folder.removeprefix(top + "/") for folder in below[:3]) + ", ..." * (len(below) > 3)
            findings.append(
                Finding(
                    kind=MIXED_LEVELS,
                    label=dataset.classes[label],
                    split=split,
                    detail=f"{counts[top]:,} images in its folder, {inside:,} in subfolders ({names})",
                )
            )
    return findings
