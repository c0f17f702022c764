"""Classification metrics, accumulated as sums over batches and divided once at the end. Torch-free.

Shapes: B images in a batch, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
BINS = 15
MIN_PROBABILITY = 1e-12
"""Lower bound of probabilities in the log loss, so that one certain but wrong prediction costs 27.6, not infinity."""


class Reliability:
    """Accuracy by confidence, in `BINS` bins of equal width (Guo et al. 2017)."""

    def __init__(self) -> None:
        self._bins = np.zeros((3, BINS))
        """Per bin: images, correct images, sum of confidences."""

    def update(self, confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> None:
        """Add a batch: confidences float [B] in (0, 1], and whether the predictions are correct, bool [B]."""
        bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        for row, amount in enumerate((np.ones(len(bins)), correct, confidence)):
            self._bins[row] += np.bincount(bins, weights=amount, minlength=BINS)

    def result(self) -> dict[str, Any]:
        """Return the keys `ece` and `reliability` of `Metrics.result`."""
        images, correct, confidence = self._bins
        return {
            "ece": _ratio(float(np.abs(correct - confidence).sum()), int(images.sum())),
            "reliability": [
                {"confidence": total / count, "accuracy": hits / count, "images": int(count)}
                for count, hits, total in self._bins.T.tolist()
                if count
            ],
        }


class Metrics:
    """Classification metrics, in memory that does not grow with the number of images.

    Args:
        classes: Class names, in the order of the probabilities' columns.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self._confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
        self._top5 = 0
        self._loss = 0.0
        self._reliability = Reliability()
        self._above = np.zeros((2, len(THRESHOLDS)), dtype=np.int64)
        """At or above each threshold: images, correct images."""

    def update(
        self,
        probabilities: NDArray[np.floating],
        labels: NDArray[np.integer],
        predicted: NDArray[np.integer] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            probabilities: float [B, k]; each row sums to 1.
            labels: int [B], in 0 to k - 1.
            predicted: int [B], the predicted classes; None takes the largest probability, and the first of equal ones.
        """
        if len(labels) == 0:
            return
        rows = np.arange(len(labels))
        predicted = probabilities.argmax(axis=1) if predicted is None else predicted
        confidence = probabilities[rows, predicted]
        truth = probabilities[rows, labels]
        correct = predicted == labels

        np.add.at(self._confusion, (labels, predicted), 1)
        equal_before = (probabilities == truth[:, None]) & (np.arange(len(self.classes)) < labels[:, None])
        rank = (probabilities > truth[:, None]).sum(axis=1) + equal_before.sum(axis=1)
        self._top5 += int((rank < 5).sum())
        self._loss -= float(np.log(np.maximum(truth.astype(np.float64), MIN_PROBABILITY)).sum())

        self._reliability.update(confidence, correct)
        above = confidence[:, None] >= np.array(THRESHOLDS, dtype=confidence.dtype)
        self._above += np.stack([above.sum(axis=0), (above & correct[:, None]).sum(axis=0)])

    def result(self) -> dict[str, Any]:
        """Return all metrics as plain numbers, ready for JSON; None for a ratio whose denominator is 0.

        Returns:
            A dictionary with the keys

            - images: number of images
            - accuracy, interval: share of correct predictions, and its 95 % interval [low, high] (Wilson 1927)
            - balanced_accuracy, macro_f1: unweighted means of recall and F1 over the classes that have images
            - top5_accuracy: share of images whose class is among the min(5, k) most probable
            - loss: mean negative log-likelihood in nats, probabilities clipped at 1e-12
            - ece: expected calibration error in 15 confidence bins of equal width (Guo et al. 2017)
            - reliability: [{confidence, accuracy, images}], means of the bins that have images
            - majority: {name, accuracy}, the most frequent class and the accuracy of always predicting it
            - confusion: [k][k] counts; rows are true classes, columns predicted classes
            - per_class: {name: {precision, recall, f1, images}}
            - confidence: [{threshold, share, accuracy}], share of images at or above each threshold, and their accuracy
        """
        images = int(self._confusion.sum())
        correct = int(self._confusion.trace())
        per_class = self._per_class()
        present = [values for values in per_class.values() if values["images"]]
        most_frequent = int(self._confusion.sum(axis=1).argmax())
        return {
            "images": images,
            "accuracy": _ratio(correct, images),
            "interval": list(wilson_interval(correct, images)) if images else None,
            "balanced_accuracy": _mean([values["recall"] for values in present]),
            "top5_accuracy": _ratio(self._top5, images),
            "macro_f1": _mean([values["f1"] for values in present]),
            "loss": _ratio(self._loss, images),
            **self._reliability.result(),
            "majority": {
                "name": self.classes[most_frequent] if images else None,
                "accuracy": _ratio(int(self._confusion[most_frequent].sum()), images),
            },
            "confusion": self._confusion.tolist(),
            "per_class": per_class,
            "confidence": [
                {"threshold": threshold, "share": _ratio(count, images), "accuracy": _ratio(hits, count)}
                for threshold, count, hits in zip(THRESHOLDS, *self._above.tolist(), strict=True)
            ],
        }

    def _per_class(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of each class. F1 is 2 TP / (images + predictions), which needs no precision or recall."""
        metrics = {}
        for name, hits, images, predicted in zip(
            self.classes,
            self._confusion.diagonal().tolist(),
            self._confusion.sum(axis=1).tolist(),
            self._confusion.sum(axis=0).tolist(),
            strict=True,
        ):
            metrics[name] = {
                "precision": _ratio(hits, predicted),
                "recall": _ratio(hits, images),
                "f1": _ratio(2 * hits, images + predicted),
                "images": images,
            }
        return metrics


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a proportion (Wilson 1927): within [0, 1], and valid for few images.

    Args:
        correct: Number of correct predictions, 0 to `images`.
        images: Number of images, at least 1.
    """
    z = 1.959963984540054
    share = correct / images
    center = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * (share * (1 - share) / images + z**2 / (4 * images**2)) ** 0.5
    return max(0.0, center - half), min(1.0, center + half)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
