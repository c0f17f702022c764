"""Copies, byte for byte or nearly: duplicates, leaks from one split into another, one image in two classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlcli.checking.finding import CONFLICT, DUPLICATE, LEAK, NEAR_DUPLICATE, Finding, of_pair
from tlcli.checking.near_duplicates import Links
from tlcli.datasets.dataset import Dataset
from tlcli.settings import SPLITS

SAME = "the same bytes"
ALMOST = "nearly the same image"


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Which files show which image. An image is what one digest stands for; its number counts digests."""

    files: tuple[tuple[int, ...], ...]
    """Of each image, its files: indices of samples, rising."""
    links: Links
    """Between images that are nearly the same."""
    groups: tuple[tuple[int, ...], ...]
    """Images that hang together by `links`: connected components of two and more."""


def distinct(digests: Sequence[bytes | None]) -> tuple[tuple[int, ...], ...]:
    """The files of each digest, in the order in which digests first appear; None is nobody's."""
    files: dict[bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        if digest is not None:
            files.setdefault(digest, []).append(index)
    return tuple(tuple(indices) for indices in files.values())


def connected(links: Links) -> tuple[tuple[int, ...], ...]:
    """Connected components, each in order."""
    groups: list[tuple[int, ...]] = []
    seen: set[int] = set()
    for start in sorted(links):
        if start in seen:
            continue
        group, waiting = {start}, [start]
        while waiting:
            new = links[waiting.pop()].keys() - group
            group |= new
            waiting += new
        seen |= group
        groups.append(tuple(sorted(group)))
    return tuple(groups)


def copy_findings(dataset: Dataset, copies: Copies) -> list[Finding]:
    """One row for each copy; another where it stands in a later split than the original, or in another class."""
    findings = [
        of_pair(dataset, copy, files[0], kind=DUPLICATE, detail=SAME, score=1.0)
        for files in copies.files
        for copy in files[1:]
    ]
    for group in copies.groups:
        for image in group[1:]:
            other, score = _closest(copies, image)
            first, partner = copies.files[image][0], copies.files[other][0]
            findings.append(of_pair(dataset, first, partner, kind=NEAR_DUPLICATE, detail=ALMOST, score=score))
    in_groups = {image for group in copies.groups for image in group}
    alone = [(image,) for image, files in enumerate(copies.files) if len(files) > 1 and image not in in_groups]
    for group in [*copies.groups, *alone]:
        findings += _across(dataset, copies, group)
    return findings


def _closest(copies: Copies, image: int) -> tuple[int, float]:
    """Which image resembles this one most, and how much; an earlier one, where one does."""
    links = copies.links[image]
    earlier = {other: score for other, score in links.items() if other < image}
    return max((earlier or links).items(), key=lambda link: (link[1], -link[0]))


def _across(dataset: Dataset, copies: Copies, group: Sequence[int]) -> list[Finding]:
    """Leaks and conflicts within a group of images that are the same, or nearly."""
    owner = {index: image for image in group for index in copies.files[image]}
    samples = dataset.samples
    if len({(samples[index].split, samples[index].label) for index in owner}) == 1:
        return []
    order = {split: number for number, split in enumerate((None, *SPLITS))}
    # Train first: it is what a copy elsewhere leaks from.
    files = sorted(owner, key=lambda index: (order[samples[index].split], index))
    findings = []
    for position, index in enumerate(files):
        sample, before = samples[index], files[:position]
        earlier = [one for one in before if samples[one].split != sample.split]
        if earlier:
            other, score = _partner(copies, owner, index, earlier)
            detail = f"also in {samples[other].split}: {SAME if owner[other] == owner[index] else ALMOST}"
            findings.append(of_pair(dataset, index, other, kind=LEAK, detail=detail, score=score))
        differing = [one for one in before if samples[one].label != sample.label]
        if differing:
            other, score = _partner(copies, owner, index, differing)
            detail = f"in two classes: {SAME if owner[other] == owner[index] else ALMOST}"
            findings.append(of_pair(dataset, index, other, kind=CONFLICT, detail=detail, score=score))
    return findings


def _partner(copies: Copies, owner: dict[int, int], index: int, others: Sequence[int]) -> tuple[int, float | None]:
    """Which of some files resembles a file most, and how much; None where only a chain of others joins them."""
    image = owner[index]
    links = copies.links.get(image, {})

    def score(other: int) -> float:
        return 1.0 if owner[other] == image else links.get(owner[other], 0.0)

    best = max(others, key=lambda other: (owner[other] == image, score(other)))  # the first of equals
    return best, score(best) or None
