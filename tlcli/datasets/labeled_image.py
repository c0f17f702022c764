"""A labeled image as the readers of folders, tables, and shards return it: a path, the name of a class, and a split."""

from __future__ import annotations

from dataclasses import dataclass, replace

SPLIT_SYNONYMS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev", "holdout"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Accepted lowercase names of each split."""
SPLIT_NAMES = {name: split for split, names in SPLIT_SYNONYMS.items() for name in names}
"""Accepted lowercase names of splits, mapped to the split."""


def split_named(text: str) -> str | None:
    """Return the split that a text names, ignoring case and surrounding spaces; None if it names none."""
    return SPLIT_NAMES.get(text.strip().casefold())


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
