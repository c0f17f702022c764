"""Copies, byte for byte or nearly: duplicates, leaks from one split into another, one picture in two classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlcli.checking.finding import CONFLICT, DUPLICATE, LEAK, NEAR_DUPLICATE, Finding, of_pair
from tlcli.checking.near_duplicates import Links
from tlcli.datasets.dataset import Dataset
from tlcli.settings import SPLITS

SAME = "the same bytes"
ALMOST = "nearly the same picture"


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Which files show which picture. A picture is what one digest stands for; its number counts digests."""

    files: tuple[tuple[int, ...], ...]
    """Of each picture, its files: indices of samples, rising."""
    links: Links
    """Between pictures that are nearly the same."""
    groups: tuple[tuple[int, ...], ...]
    """Pictures that hang together by `links`: connected components of two and more."""


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
        for picture in group[1:]:
            other, score = _closest(copies, picture)
            first, partner = copies.files[picture][0], copies.files[other][0]
            findings.append(of_pair(dataset, first, partner, kind=NEAR_DUPLICATE, detail=ALMOST, score=score))
    in_groups = {picture for group in copies.groups for picture in group}
    alone = [(picture,) for picture, files in enumerate(copies.files) if len(files) > 1 and picture not in in_groups]
    for group in [*copies.groups, *alone]:
        findings += _across(dataset, copies, group)
    return findings


def _closest(copies: Copies, picture: int) -> tuple[int, float]:
    """Which picture resembles this one most, and how much; an earlier one, where one does."""
    links = copies.links[picture]
    earlier = {other: score for other, score in links.items() if other < picture}
    return max((earlier or links).items(), key=lambda link: (link[1], -link[0]))


def _across(dataset: Dataset, copies: Copies, group: Sequence[int]) -> list[Finding]:
    """Leaks and conflicts within a group of pictures that are the same, or nearly."""
    owner = {index: picture for picture in group for index in copies.files[picture]}
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
    picture = owner[index]
    links = copies.links.get(picture, {})

    def score(other: int) -> float:
        return 1.0 if owner[other] == picture else links.get(owner[other], 0.0)

    best = max(others, key=lambda other: (owner[other] == picture, score(other)))  # the first of equals
    return best, score(best) or None
