"""Byte-identical images of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlcli.datasets.dataset import Sample
from tlcli.storage.files import portable_name


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Byte-identical images."""

    extra: int
    """Number of images that are copies of another one."""
    across_classes: tuple[tuple[str, ...], ...]
    """Paths of each image that is in more than one class."""
    across_splits: tuple[tuple[str, ...], ...]
    """Paths of each image that is in more than one split."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "extra": self.extra,
            "across_classes": [[portable_name(path) for path in paths] for paths in self.across_classes],
            "across_splits": [[portable_name(path) for path in paths] for paths in self.across_splits],
        }


def find_duplicates(samples: Sequence[Sample], digests: Sequence[bytes | None]) -> Duplicates:
    """Group samples by digest; samples that could not be read (None) are ignored."""
    groups: dict[bytes, list[Sample]] = {}
    for sample, digest in zip(samples, digests, strict=True):
        if digest is not None:
            groups.setdefault(digest, []).append(sample)
    repeated = [group for group in groups.values() if len(group) > 1]

    def paths(groups: list[list[Sample]]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(sample.path for sample in group) for group in groups)

    return Duplicates(
        extra=sum(len(group) - 1 for group in repeated),
        across_classes=paths([group for group in repeated if len({sample.label for sample in group}) > 1]),
        across_splits=paths([group for group in repeated if len({sample.split for sample in group}) > 1]),
    )
