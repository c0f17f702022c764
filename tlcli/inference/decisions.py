"""What predict decides by the held-out predictions of a run: which labels need a review, and sets. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlcli.errors import DataError
from tlcli.inference.precision import LEVEL, ClassPromise, promise_precision
from tlcli.inference.prediction_sets import prediction_sets, set_limit
from tlcli.progress import Reporter
from tlcli.runs.held_out_predictions import HeldOutPredictions, held_out_predictions
from tlcli.runs.run import Run

LISTED = 5
"""Classes without a promise that are named."""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Thresholds of confidence by label, and the limit of the sets."""

    thresholds: dict[str, float] = field(default_factory=dict)
    """Infinite for a label whose precision cannot be promised."""
    set_limit: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    """The keys `precision` and `sets` of predict's JSON object, as far as they were asked for."""


def decide(run: Run, targets: dict[str, float], coverage: float | None, report: Reporter) -> Decisions:
    """Choose thresholds and the limit of the sets, and report what they promise.

    Args:
        run: The run whose held-out predictions decide.
        targets: Precisions to promise, by label.
        coverage: The probability with which a set contains the true class; None makes no sets.
        report: Receives what is promised, and for which share of the images.

    Raises:
        DataError: The run held out no images, or too few for this coverage.
        ArtifactError: The run's predictions are damaged.
    """
    if not targets and coverage is None:
        return Decisions()
    held_out = held_out_predictions(run)
    if not len(held_out.labels):
        raise DataError(f"{run.directory} held out no images, so nothing can be promised.", path=run.directory)
    thresholds, metrics = {}, {}
    if targets:
        promises = promise_precision(held_out, run.classes, [targets.get(name) for name in run.classes])
        thresholds = {
            promise.name: math.inf if promise.threshold is None else promise.threshold for promise in promises
        }
        metrics["precision"] = _precision_metrics(promises, held_out)
        for line in _describe_promises(promises, metrics["precision"]["automatic"], len(held_out.labels)):
            report.note(line)
        if _holds_out_a_part(run) and any(promise.held_out < promise.needed for promise in promises):
            report.note(
                "          Only the validation images count. A run without --validation-fraction, on data without a "
                "validation split, counts all training images."
            )
    limit = None
    if coverage is not None:
        limit = set_limit(held_out, coverage)
        metrics["sets"] = _set_metrics(held_out, limit, coverage)
        report.note(_describe_sets(metrics["sets"], len(held_out.labels)))
    return Decisions(thresholds=thresholds, set_limit=limit, metrics=metrics)


def _holds_out_a_part(run: Run) -> bool:
    """Return whether the run held out a part of its images, instead of predicting all of them out of fold."""
    return (run.info.get("validation") or {}).get("method") == "holdout"


def _precision_metrics(promises: list[ClassPromise], held_out: HeldOutPredictions) -> dict[str, Any]:
    images = len(held_out.labels)
    return {
        "confidence": 1 - LEVEL,
        "automatic": (images - sum(promise.held_out - promise.automatic for promise in promises)) / images,
        "classes": {
            promise.name: {
                "target": promise.target,
                "threshold": promise.threshold,
                "held_out": promise.held_out,
                "automatic": promise.automatic,
            }
            for promise in promises
        },
    }


def _describe_promises(promises: list[ClassPromise], automatic: float, images: int) -> list[str]:
    """Return lines on the share of images that stay automatic, and on classes without a promise."""
    targets = sorted({promise.target for promise in promises})
    lowest, highest = (f"{100 * target:g}" for target in (targets[0], targets[-1]))
    target = lowest if lowest == highest else f"{lowest} to {highest}"
    lines = [
        f"Precision {target} % of each class, promised with {100 * (1 - LEVEL):g} % confidence: about "
        f"{100 * automatic:.0f} % of images stay automatic (by {images:,} held-out images)"
    ]
    failed = [promise for promise in promises if promise.threshold is None]
    if failed:
        what = "1 class has" if len(failed) == 1 else f"{len(failed):,} classes have"
        lines.append(f"          {what} no promise, so all images with that label are to review:")
        lines += [f"            {_describe_failure(promise)}" for promise in failed[:LISTED]]
    if len(failed) > LISTED:
        lines.append(f"            ... and {len(failed) - LISTED:,} more")
    return lines


def _describe_failure(promise: ClassPromise) -> str:
    if promise.held_out < promise.needed:
        return (
            f"{promise.name}: {promise.held_out:,} held-out images with this label; at least {promise.needed:,} needed"
        )
    return f"{promise.name}: the {promise.held_out:,} held-out images with this label do not show it"


def _set_metrics(held_out: HeldOutPredictions, limit: float, coverage: float) -> dict[str, Any]:
    sizes = np.array([len(chosen) for chosen in prediction_sets(held_out, limit)])
    return {"coverage": coverage, "limit": limit, "mean_size": sizes.mean(), "single": (sizes == 1).mean()}


def _describe_sets(metrics: dict[str, Any], images: int) -> str:
    return (
        f"Sets      contain the true class in {100 * metrics['coverage']:g} % of cases: {metrics['mean_size']:.2f} "
        f"classes on average, 1 class for {100 * metrics['single']:.0f} % of images (by {images:,} held-out images)"
    )
