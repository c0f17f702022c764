"""Predictions to rows, and rows to counts. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tlcli.images.loader import ImageLoader
from tlcli.inference.journal import PredictionRow
from tlcli.inference.predictor import Prediction, Predictor, ranked
from tlcli.settings import PredictSettings
from tlcli.storage.files import portable_name

FLUSH = 32
"""Rows made at a time."""

SHOWN_FAILURES = 5
"""Failures that a tally names; the rows have them all."""


@dataclass(kw_only=True)
class Tally:
    """What rows say, counted."""

    images: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    """Images for each label, those for review left out."""
    review: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason of the first few failures."""
    failed: int = 0

    def count(self, row: PredictionRow) -> None:
        """Count a row."""
        path, label, _, status, error = row[:5]
        self.images += 1
        if status == "failed":
            self.failed += 1
            if len(self.failures) < SHOWN_FAILURES:
                self.failures.append((path, error))
        elif status == "review":
            self.review += 1
        else:
            self.labels[label] += 1

    def add(self, other: Tally) -> None:
        """Count what another tally did."""
        self.images += other.images
        self.labels += other.labels
        self.review += other.review
        self.failures = (self.failures + other.failures)[:SHOWN_FAILURES]
        self.failed += other.failed


def rows_of(
    predictor: Predictor, paths: Iterator[str], settings: PredictSettings, loader: ImageLoader | None = None
) -> Iterator[list[tuple[Prediction, PredictionRow]]]:
    """Predictions of the images and their rows, in order, a few at a time; `loader` as `Predictor.stream` has it."""
    predictions = predictor.stream(paths, loader)
    while some := list(islice(predictions, FLUSH)):
        yield [(prediction, _row(prediction, predictor.run.classes, settings)) for prediction in some]


def _row(prediction: Prediction, classes: Sequence[str], settings: PredictSettings) -> PredictionRow:
    """One image's values, in the order of `rows.columns`."""
    ranks = min(settings.top, len(classes))
    found = prediction.probabilities
    if found is None:
        width = 2 * (ranks - 1) + (len(classes) if settings.probabilities else 0)
        return [portable_name(prediction.path), None, None, "failed", prediction.error, *[None] * width]
    assert prediction.label is not None, "an image with probabilities has a label"
    best = [(classes[label], round(float(found[label]), 6)) for label in ranked(prediction.label, found)[:ranks]]
    row: PredictionRow = [portable_name(prediction.path), *best[0], status_of(best[0][1], settings), None]
    row += [value for pair in best[1:] for value in pair]
    return row + [round(float(value), 6) for value in found] if settings.probabilities else row


def status_of(confidence: float, settings: PredictSettings) -> str:
    """`ok`, or `review` below `--min-confidence`."""
    low = settings.min_confidence is not None and confidence < settings.min_confidence
    return "review" if low else "ok"
