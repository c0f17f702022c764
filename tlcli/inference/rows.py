"""The rows of predict: their columns, a row from a prediction, and counts of rows. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tlcli.images.loader import ImageLoader
from tlcli.inference.prediction_sets import join_labels, prediction_set
from tlcli.inference.predictor import Prediction, Predictor, ranked
from tlcli.inference.row_files import PredictionRow
from tlcli.storage.files import portable_name

ROWS_PER_BATCH = 32
"""Rows that `predict_rows` yields at a time."""

MOST_FAILURES = 5
"""Failures that `RowCounts` keeps by name; the rows contain all of them."""


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """Which columns a row has, and when its status is `review` or `unknown`."""

    top: int
    """Number of classes per image, the most probable ones; at least 1."""
    probabilities: bool
    """Whether a row has the probabilities of all classes."""
    min_confidence: float | None
    """The status is `review` below this confidence; None is never."""
    novelty: bool
    """Whether a row has the novelty; only if the run can tell it."""
    unknown_rate: float
    """The status is `unknown` above a novelty of 1 minus this rate; 0 is never."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """By label, the confidence below which the status is `review`, in addition to `min_confidence`."""
    set_limit: float | None = None
    """The limit of `prediction_set`; None is a row without a set."""

    def lowest_confidence(self, label: str) -> float:
        """Return the lowest confidence with which an image with this label needs no review."""
        return max(self.min_confidence or 0.0, self.thresholds.get(label, 0.0))

    def signature(self) -> dict[str, Any]:
        """Return all that determines the rows, ready for JSON; what is not used does not appear."""
        signature: dict[str, Any] = {
            "top": self.top,
            "probabilities": self.probabilities,
            "min_confidence": self.min_confidence,
        }
        if self.novelty:
            signature["unknown_rate"] = self.unknown_rate
        if self.thresholds:
            signature["thresholds"] = {name: min(value, 2.0) for name, value in self.thresholds.items()}  # not infinite
        if self.set_limit is not None:
            signature["set_limit"] = self.set_limit
        return signature


def row_columns(classes: Sequence[str], options: RowOptions) -> list[str]:
    """Return the column names: path, label, confidence, status, error, and those that the options add."""
    names = ["path", "label", "confidence", "status", "error"]
    if options.novelty:
        names.append("novelty")
    if options.set_limit is not None:
        names.append("set")
    for rank in range(2, min(options.top, len(classes)) + 1):
        names += [f"label_{rank}", f"confidence_{rank}"]
    return names + [f"p:{name}" for name in classes] if options.probabilities else names


def predict_rows(
    predictor: Predictor, paths: Iterator[str], options: RowOptions, loader: ImageLoader | None = None
) -> Iterator[list[tuple[Prediction, PredictionRow]]]:
    """Predict images, and yield predictions with their rows in input order, a few at a time.

    Args:
        predictor: The run, ready to predict.
        paths: Paths of the images.
        options: What the rows contain.
        loader: See `Predictor.stream`.
    """
    predictions = predictor.stream(paths, loader)
    while batch := list(islice(predictions, ROWS_PER_BATCH)):
        yield [(prediction, prediction_row(prediction, predictor.run.classes, options)) for prediction in batch]


def prediction_row(prediction: Prediction, classes: Sequence[str], options: RowOptions) -> PredictionRow:
    """Return the values of one image, in the order of `row_columns`."""
    ranks = min(options.top, len(classes))
    shares = prediction.probabilities
    if shares is None:
        start = [portable_name(prediction.path), None, None, "failed", prediction.error]
        return start + [None] * (len(row_columns(classes, options)) - len(start))
    assert prediction.label is not None, "an image with probabilities has a label"
    best = [(classes[label], round(float(shares[label]), 6)) for label in ranked(prediction.label, shares)[:ranks]]
    status = row_status(*best[0], prediction.novelty, options)
    row: PredictionRow = [portable_name(prediction.path), *best[0], status, None]
    row += [prediction.novelty] * options.novelty
    if options.set_limit is not None:
        chosen = prediction_set(prediction.label, shares, options.set_limit)
        row.append(join_labels([classes[label] for label in chosen]))
    row += [value for pair in best[1:] for value in pair]
    return row + [round(float(value), 6) for value in shares] if options.probabilities else row


def row_status(label: str, confidence: float, novelty: float | None, options: RowOptions) -> str:
    """Return `unknown` for an untypical image, `review` if the confidence is too low for this label, or `ok`.

    An image can be both; its confidence then means little.
    """
    if is_unknown(novelty, options.unknown_rate):
        return "unknown"
    return "review" if confidence < options.lowest_confidence(label) else "ok"


def is_unknown(novelty: float | None, rate: float) -> bool:
    """Return whether a novelty is above 1 minus the rate at which known images may be flagged."""
    return novelty is not None and novelty > 1 - rate


@dataclass(kw_only=True)
class RowCounts:
    """Rows counted by status and label."""

    images: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    """Images with status `ok`, by label."""
    review: int = 0
    unknown: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason of the first few failures."""
    failed: int = 0

    def count(self, row: PredictionRow) -> None:
        """Count a row."""
        path, label, _, status, error = row[:5]
        self.images += 1
        if status == "failed":
            self.failed += 1
            if len(self.failures) < MOST_FAILURES:
                self.failures.append((path, error))
        elif status == "review":
            self.review += 1
        elif status == "unknown":
            self.unknown += 1
        else:
            self.labels[label] += 1

    def add(self, other: RowCounts) -> None:
        """Add other counts, for example those of another part."""
        self.images += other.images
        self.labels += other.labels
        self.review += other.review
        self.unknown += other.unknown
        self.failures = (self.failures + other.failures)[:MOST_FAILURES]
        self.failed += other.failed
