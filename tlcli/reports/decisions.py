"""What a report says about decisions: precision against automation, prediction sets, and unknown images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.errors import DataError
from tlcli.inference.precision import promise_precision
from tlcli.inference.prediction_sets import prediction_sets, set_limit
from tlcli.runs.held_out_predictions import HeldOutPredictions
from tlcli.settings import DEFAULT_UNKNOWN_RATE
from tlcli.training.novelty import FittedNovelty

TARGETS = (0.9, 0.95, 0.98, 0.99)
COVERAGES = (0.9, 0.95, 0.99)
CURVE_POINTS = 200
"""Points of the curve of precision against automation, at most."""
BINS = 40
"""Bars of the histogram of known images."""


@dataclass(frozen=True, kw_only=True)
class ReportDecisions:
    """The contents of the three sections, ready for JSON; None where there is nothing to say."""

    precision: dict[str, Any] | None
    sets: list[dict[str, Any]]
    novelty: dict[str, Any] | None


def report_decisions(
    held_out: HeldOutPredictions,
    test: HeldOutPredictions | None,
    classes: tuple[str, ...],
    novelty: FittedNovelty | None,
) -> ReportDecisions:
    """Collect the contents of the sections.

    Args:
        held_out: Predictions of validation images, on which thresholds and sets are based.
        test: Predictions of test images, on which the coverage of sets is measured.
        classes: The class names.
        novelty: Scores of known images.
    """
    return ReportDecisions(
        precision=_precision(held_out, classes) if len(held_out.labels) else None,
        sets=[row for coverage in COVERAGES if (row := _sets(held_out, test, coverage))],
        novelty=None if novelty is None else _novelty(novelty),
    )


def _precision(held_out: HeldOutPredictions, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the precision of the most confident images by their share, and what each target promises."""
    confidences, right = held_out.confidences, held_out.predicted == held_out.labels
    order, count = np.argsort(-confidences, kind="stable"), len(confidences)
    precision = np.cumsum(right[order]) / np.arange(1, count + 1)
    ends = np.flatnonzero(np.diff(confidences[order], append=-1))  # equal confidences stay together
    chosen = ends[np.unique(np.linspace(0, len(ends) - 1, CURVE_POINTS).astype(np.int64))]
    targets = []
    for target in TARGETS:
        promises = promise_precision(held_out, classes, [target] * len(classes))
        lowest = np.array([np.inf if promise.threshold is None else promise.threshold for promise in promises])
        automatic = confidences >= lowest[held_out.predicted]
        targets.append(
            {
                "target": target,
                "automatic": float(automatic.mean()),
                "precision": float(right[automatic].mean()) if automatic.any() else None,
                "classes": int(np.isfinite(lowest).sum()),
            }
        )
    return {
        "images": count,
        "curve": [[round((end + 1) / count, 4), round(float(precision[end]), 4)] for end in chosen.tolist()],
        "targets": targets,
    }


def _sets(held_out: HeldOutPredictions, test: HeldOutPredictions | None, coverage: float) -> dict[str, Any] | None:
    """Return the sizes of sets with this coverage, and how many contain the truth; None if there are too few images."""
    try:
        limit = set_limit(held_out, coverage)
    except DataError:
        return None
    judged = test or held_out
    sets = prediction_sets(judged, limit)
    sizes = np.array([len(chosen) for chosen in sets])
    covered = [label in chosen for label, chosen in zip(judged.labels.tolist(), sets, strict=True)]
    return {
        "coverage": coverage,
        "size": float(sizes.mean()),
        "single": float((sizes == 1).mean()),
        "covered": None if test is None else float(np.mean(covered)),
    }


def _novelty(fitted: FittedNovelty) -> dict[str, Any]:
    """Return a histogram of the scores of known images, from their median, and the score that is called unknown."""
    middle = float(np.median(fitted.scores))
    counts, edges = np.histogram(fitted.scores - middle, bins=BINS)
    flagged = fitted.novelty.of_scores(np.sort(fitted.scores)) > 1 - DEFAULT_UNKNOWN_RATE
    return {
        "images": len(fitted.scores),
        "edges": edges.round(3).tolist(),
        "counts": counts.tolist(),
        "unknown": round(float(np.sort(fitted.scores)[flagged][0] - middle), 3) if flagged.any() else None,
    }
