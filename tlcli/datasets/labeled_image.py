"""A labeled image as the readers of folders, tables, and shards return it: a path, the name of a class, and a split."""

from __future__ import annotations

from dataclasses import dataclass, replace

SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Accepted lowercase names of splits, mapped to the split."""


@dataclass(frozen=True, kw_only=True)
class LabeledImage:
    """One labeled image."""

    path: str
    label: str
    """Name of the class."""
    split: str | None = None
    """`train`, `validation`, or `test`; None if DATA does not assign one."""
    group: str | None = None


def default_to_train(images: list[LabeledImage]) -> list[LabeledImage]:
    """Assign images without a split to train, if any image has a split."""
    if not any(image.split for image in images):
        return images
    return [image if image.split else replace(image, split="train") for image in images]
