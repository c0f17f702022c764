"""Two runs that predicted the same images: their accuracies, the difference, and the images that tell them apart.

Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlcli.inference.metrics import wilson_interval
from tlcli.inference.paired_accuracy import LEVEL, difference_interval, images_needed, mcnemar_test
from tlcli.storage.files import portable_name


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One of the two runs, for people."""

    name: str
    """Its directory or URL, as the user gave it."""
    description: str
    """Its backbone, freezing depth, and input size."""


@dataclass(frozen=True, kw_only=True)
class PairedImage:
    """An image that both runs predicted, and neither was trained on."""

    path: str
    label: str
    """The true class."""
    predicted: tuple[str, str]
    """The classes that A and B predict."""
    confidence: tuple[float, float]
    """Calibrated probabilities of these classes."""

    @property
    def correct(self) -> tuple[bool, bool]:
        """Whether A and B are right."""
        return self.predicted[0] == self.label, self.predicted[1] == self.label

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `flips`."""
        return {
            "path": portable_name(self.path),
            "label": self.label,
            "predicted_a": self.predicted[0],
            "predicted_b": self.predicted[1],
            "confidence_a": round(self.confidence[0], 6),
            "confidence_b": round(self.confidence[1], 6),
        }


@dataclass(frozen=True, kw_only=True)
class PairedCounts:
    """On how many images both, one, or none of two runs is right."""

    images: int
    both: int
    only_a: int
    only_b: int

    @classmethod
    def of(cls, images: Sequence[PairedImage]) -> PairedCounts:
        """Count some images."""
        found = [image.correct for image in images]
        return cls(
            images=len(found),
            both=found.count((True, True)),
            only_a=found.count((True, False)),
            only_b=found.count((False, True)),
        )

    @property
    def correct(self) -> tuple[int, int]:
        """The numbers of images that A and B predict correctly."""
        return self.both + self.only_a, self.both + self.only_b

    def to_json(self) -> dict[str, Any]:
        """Return the counts and the accuracies; None for an accuracy without images."""
        accuracy_a, accuracy_b = (count / self.images if self.images else None for count in self.correct)
        return {
            "images": self.images,
            "accuracy_a": accuracy_a,
            "accuracy_b": accuracy_b,
            "only_a": self.only_a,
            "only_b": self.only_b,
        }


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """The comparison of two runs on the same images, at least one."""

    classes: tuple[str, ...]
    images: tuple[PairedImage, ...]

    def flips(self) -> dict[str, list[PairedImage]]:
        """Return the images that only A (`only_a`) or only B (`only_b`) predicts correctly, sorted by class."""
        order = {name: number for number, name in enumerate(self.classes)}
        images = sorted(self.images, key=lambda image: (order[image.label], -max(image.confidence)))
        return {
            "only_a": [image for image in images if image.correct == (True, False)],
            "only_b": [image for image in images if image.correct == (False, True)],
        }

    def result(self) -> dict[str, Any]:
        """Return the comparison as plain numbers, ready for JSON.

        Returns:
            A dictionary with the keys

            - images: number of images
            - accuracy_a, accuracy_b, interval_a, interval_b: accuracies, and their 95 % intervals (Wilson 1927)
            - difference, interval: accuracy of B minus that of A, and its 95 % interval (see `difference_interval`)
            - only_a, only_b: number of images that only A or only B predicts correctly
            - p_value: of the exact McNemar test
            - distinguishable: whether the p-value is below 0.05
            - images_needed: see `images_needed`; None if the runs are distinguishable, or equally accurate
            - per_class: {name: {images, accuracy_a, accuracy_b, only_a, only_b}}; accuracies of a class are recalls
            - flips: {only_a: [image], only_b: [image]}, see `PairedImage.to_json`
        """
        counts = PairedCounts.of(self.images)
        only_one = counts.only_a, counts.only_b
        right_a, right_b = counts.correct
        p_value = mcnemar_test(*only_one)
        by_class: dict[str, list[PairedImage]] = {name: [] for name in self.classes}
        for image in self.images:
            by_class[image.label].append(image)
        return counts.to_json() | {
            "interval_a": list(wilson_interval(right_a, counts.images)),
            "interval_b": list(wilson_interval(right_b, counts.images)),
            "difference": (counts.only_b - counts.only_a) / counts.images,
            "interval": list(difference_interval(*only_one, counts.images)),
            "p_value": p_value,
            "distinguishable": p_value < LEVEL,
            "images_needed": None if p_value < LEVEL else images_needed(*only_one, counts.images),
            "per_class": {name: PairedCounts.of(images).to_json() for name, images in by_class.items()},
            "flips": {side: [image.to_json() for image in images] for side, images in self.flips().items()},
        }


def describe_result(result: dict[str, Any]) -> str:
    """Return in one sentence whether the images tell the two runs apart, and how many would be needed.

    Args:
        result: From `PairedComparison.result`.
    """
    if result["distinguishable"]:
        return f"{'B' if result['difference'] > 0 else 'A'} is more accurate"
    images = "1 image" if result["images"] == 1 else f"{result['images']:,} images"
    if result["images_needed"]:
        return f"not distinguishable on {images}; about {_rounded(result['images_needed']):,} would be needed to tell"
    same = "equally many" if result["only_a"] else "the same ones"
    return f"not distinguishable on {images}: both runs are right on {same}"


def _rounded(count: int) -> int:
    """Round up to two significant digits."""
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit
