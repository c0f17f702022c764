"""Figures of merit: sums while batches come in, division once at the end. Torch-free.

Shapes: B images of a batch, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
BINS = 15
SMALLEST = 1e-12
"""Probabilities are clipped here before the logarithm, so that one certain mistake costs 27.6, not infinity."""


class Reliability:
    """How often images are right at which confidence, in `BINS` equally wide bins of it (Guo et al. 2017)."""

    def __init__(self) -> None:
        self._bins = np.zeros((3, BINS))
        """Of each bin: images, images right, sum of confidences."""

    def update(self, confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> None:
        """Count a batch: confidences float [B] in (0, 1], and whether what was said is right, bool [B]."""
        bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        for row, amount in enumerate((np.ones(len(bins)), right, confidence)):
            self._bins[row] += np.bincount(bins, weights=amount, minlength=BINS)

    def result(self) -> dict[str, Any]:
        """The keys `ece` and `reliability` of `Metrics.result`."""
        images, right, confidence = self._bins
        return {
            "ece": _ratio(float(np.abs(right - confidence).sum()), int(images.sum())),
            "reliability": [
                {"confidence": total / count, "accuracy": good / count, "images": int(count)}
                for count, good, total in self._bins.T.tolist()
                if count
            ],
        }


class Metrics:
    """Accumulates what `result` needs, in memory that does not grow with the number of images.

    Args:
        classes: Class names, in the order of the probabilities' columns.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self._confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
        self._top5 = 0
        self._loss = 0.0
        self._reliability = Reliability()
        self._trusted = np.zeros((2, len(THRESHOLDS)), dtype=np.int64)
        """At or above each threshold: images, images right."""

    def update(
        self,
        probabilities: NDArray[np.floating],
        labels: NDArray[np.integer],
        predicted: NDArray[np.integer] | None = None,
    ) -> None:
        """Count a batch.

        Args:
            probabilities: float [B, k], rows adding up to 1.
            labels: int [B], 0 to k - 1.
            predicted: int [B], what was said; None takes the largest probability, of equal ones the first.
        """
        if len(labels) == 0:
            return
        rows = np.arange(len(labels))
        predicted = probabilities.argmax(axis=1) if predicted is None else predicted
        confidence = probabilities[rows, predicted]
        truth = probabilities[rows, labels]
        right = predicted == labels

        np.add.at(self._confusion, (labels, predicted), 1)
        equal_before = (probabilities == truth[:, None]) & (np.arange(len(self.classes)) < labels[:, None])
        rank = (probabilities > truth[:, None]).sum(axis=1) + equal_before.sum(axis=1)
        self._top5 += int((rank < 5).sum())
        self._loss -= float(np.log(np.maximum(truth.astype(np.float64), SMALLEST)).sum())

        self._reliability.update(confidence, right)
        trusted = confidence[:, None] >= np.array(THRESHOLDS, dtype=confidence.dtype)
        self._trusted += np.stack([trusted.sum(axis=0), (trusted & right[:, None]).sum(axis=0)])

    def result(self) -> dict[str, Any]:
        """All figures as plain numbers, ready for JSON; None where there is nothing to divide by.

        Returns:
            A dictionary with the keys

            - images: images counted
            - accuracy, interval: the share that is right, and its 95 % interval [low, high] (Wilson 1927)
            - balanced_accuracy, macro_f1: unweighted means of recall and F1 over the classes that have
              images here
            - top5_accuracy: the share whose class is among the min(5, k) likeliest
            - loss: mean negative log likelihood in nats, probabilities clipped at 1e-12
            - ece: expected calibration error in 15 equally wide bins of confidence (Guo et al. 2017)
            - reliability: [{confidence, accuracy, images}], means of those bins that have images
            - majority: {name, accuracy}, what always saying the commonest class here would give
            - confusion: [k][k] counts, rows are the truth, columns the prediction
            - per_class: {name: {precision, recall, f1, images}}
            - confidence: [{threshold, share, accuracy}], the share of images at or above each
              threshold and how many of these are right
        """
        images = int(self._confusion.sum())
        right = int(self._confusion.trace())
        per_class = self._per_class()
        present = [figures for figures in per_class.values() if figures["images"]]
        commonest = int(self._confusion.sum(axis=1).argmax())
        return {
            "images": images,
            "accuracy": _ratio(right, images),
            "interval": list(wilson(right, images)) if images else None,
            "balanced_accuracy": _mean([figures["recall"] for figures in present]),
            "top5_accuracy": _ratio(self._top5, images),
            "macro_f1": _mean([figures["f1"] for figures in present]),
            "loss": _ratio(self._loss, images),
            **self._reliability.result(),
            "majority": {
                "name": self.classes[commonest] if images else None,
                "accuracy": _ratio(int(self._confusion[commonest].sum()), images),
            },
            "confusion": self._confusion.tolist(),
            "per_class": per_class,
            "confidence": [
                {"threshold": threshold, "share": _ratio(count, images), "accuracy": _ratio(good, count)}
                for threshold, count, good in zip(THRESHOLDS, *self._trusted.tolist(), strict=True)
            ],
        }

    def _per_class(self) -> dict[str, dict[str, Any]]:
        """F1 as 2 TP / (images + predictions), which needs neither precision nor recall to exist."""
        figures = {}
        for name, hits, images, predicted in zip(
            self.classes,
            self._confusion.diagonal().tolist(),
            self._confusion.sum(axis=1).tolist(),
            self._confusion.sum(axis=0).tolist(),
            strict=True,
        ):
            figures[name] = {
                "precision": _ratio(hits, predicted),
                "recall": _ratio(hits, images),
                "f1": _ratio(2 * hits, images + predicted),
                "images": images,
            }
        return figures


def wilson(right: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): never outside [0, 1], sound for few images.

    Args:
        right: Images that are right, 0 to `images`.
        images: Images, at least 1.
    """
    z = 1.959963984540054
    share = right / images
    center = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * (share * (1 - share) / images + z**2 / (4 * images**2)) ** 0.5
    return max(0.0, center - half), min(1.0, center + half)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
