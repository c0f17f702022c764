"""Find exact and near duplicates, leaks between splits, and images with conflicting labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlcli.checking.finding import CONFLICT, DUPLICATE, LEAK, NEAR_DUPLICATE, Finding, pair_finding
from tlcli.checking.near_duplicates import Links
from tlcli.datasets.dataset import Dataset
from tlcli.settings import SPLITS

IDENTICAL = "identical file"
SIMILAR = "near duplicate"


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Which files contain which image. Images are distinct digests, numbered in order of first appearance."""

    files: tuple[tuple[int, ...], ...]
    """The files of each image: sample indices in ascending order."""
    links: Links
    """Links between near duplicates."""
    groups: tuple[tuple[int, ...], ...]
    """Connected components of `links`, of two or more images each."""

    @property
    def sample_groups(self) -> list[list[int]]:
        """The sample indices of the images of each group."""
        return [[index for image in group for index in self.files[image]] for group in self.groups]


def files_by_digest(digests: Sequence[bytes | None]) -> tuple[tuple[int, ...], ...]:
    """Return the indices of the files of each digest, in order of first appearance; None is skipped."""
    files: dict[bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        if digest is not None:
            files.setdefault(digest, []).append(index)
    return tuple(tuple(indices) for indices in files.values())


def connected_components(links: Links) -> tuple[tuple[int, ...], ...]:
    """Return the connected components, each in ascending order."""
    groups: list[tuple[int, ...]] = []
    seen: set[int] = set()
    for start in sorted(links):
        if start in seen:
            continue
        group, stack = {start}, [start]
        while stack:
            new = links[stack.pop()].keys() - group
            group |= new
            stack += new
        seen |= group
        groups.append(tuple(sorted(group)))
    return tuple(groups)


def copy_findings(dataset: Dataset, copies: Copies) -> list[Finding]:
    """Return a finding for each copy, plus one for each leak into another split and each conflict between classes."""
    findings = [
        pair_finding(dataset, copy, files[0], kind=DUPLICATE, detail=IDENTICAL, score=1.0)
        for files in copies.files
        for copy in files[1:]
    ]
    for group in copies.groups:
        for image in group[1:]:
            other, score = _closest(copies, image)
            first, partner = copies.files[image][0], copies.files[other][0]
            findings.append(pair_finding(dataset, first, partner, kind=NEAR_DUPLICATE, detail=SIMILAR, score=score))
    in_groups = {image for group in copies.groups for image in group}
    exact = [(image,) for image, files in enumerate(copies.files) if len(files) > 1 and image not in in_groups]
    for group in [*copies.groups, *exact]:
        findings += _leaks_and_conflicts(dataset, copies, group)
    return findings


def _closest(copies: Copies, image: int) -> tuple[int, float]:
    """Return the most similar image and its similarity, preferring earlier images."""
    links = copies.links[image]
    earlier = {other: score for other, score in links.items() if other < image}
    return max((earlier or links).items(), key=lambda link: (link[1], -link[0]))


def _leaks_and_conflicts(dataset: Dataset, copies: Copies, group: Sequence[int]) -> list[Finding]:
    """Find leaks and conflicts within a group of identical or near-duplicate images."""
    owner = {index: image for image in group for index in copies.files[image]}
    samples = dataset.samples
    if len({(samples[index].split, samples[index].label) for index in owner}) == 1:
        return []
    order = {split: number for number, split in enumerate((None, *SPLITS))}
    # Training files come first: a copy in another split is a leak from training.
    files = sorted(owner, key=lambda index: (order[samples[index].split], index))
    findings = []
    for position, index in enumerate(files):
        sample, before = samples[index], files[:position]
        earlier = [one for one in before if samples[one].split != sample.split]
        if earlier:
            other, score = _partner(copies, owner, index, earlier)
            detail = f"also in {samples[other].split}: {IDENTICAL if owner[other] == owner[index] else SIMILAR}"
            findings.append(pair_finding(dataset, index, other, kind=LEAK, detail=detail, score=score))
        differing = [one for one in before if samples[one].label != sample.label]
        if differing:
            other, score = _partner(copies, owner, index, differing)
            detail = f"in two classes: {IDENTICAL if owner[other] == owner[index] else SIMILAR}"
            findings.append(pair_finding(dataset, index, other, kind=CONFLICT, detail=detail, score=score))
    return findings


def _partner(copies: Copies, owner: dict[int, int], index: int, others: Sequence[int]) -> tuple[int, float | None]:
    """Return the most similar of `others` and its similarity; None if they are linked only through other images."""
    image = owner[index]
    links = copies.links.get(image, {})

    def score(other: int) -> float:
        return 1.0 if owner[other] == image else links.get(owner[other], 0.0)

    best = max(others, key=lambda other: (owner[other] == image, score(other)))  # the first of ties
    return best, score(best) or None
