"""What the state says about accuracy: the estimate, what more labels would bring, and how a review goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlcli.datasets.label_table import GivenLabel
from tlcli.training.active_learning.estimate import Estimate, Gain

LATEST = 48
"""Reviewed labels whose share of wrong ones tells whether it is worth going on."""


def count_changes(given: Mapping[int, GivenLabel], labels: Mapping[int, str]) -> dict[str, int]:
    """Count the labels that a review changed, of all and of the latest ones."""
    changed = [label.label != labels.get(image) for image, label in given.items()]
    latest = changed[-LATEST:]
    return {"changed": sum(changed), "latest": len(latest), "latest_changed": sum(latest)}


def review_advice(review: Mapping[str, int]) -> str:
    """Return a sentence if reviewing more is hardly worth it, else nothing."""
    if review["latest"] < LATEST or review["latest_changed"] > 1:
        return ""
    wrong = "none" if not review["latest_changed"] else "one"
    return f"Of the latest {LATEST} labels, {wrong} was wrong: reviewing more is hardly worth it."


def describe_estimate(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate for JSON."""
    low, high = estimate.interval
    return {
        "accuracy": round(estimate.accuracy, 4),
        "interval": [round(low, 4), round(high, 4)],
        "judged": estimate.judged,
    }


def advice(estimate: Estimate | None, gain: Gain | None) -> str:
    """Return a sentence if labeling more is hardly worth it, else nothing."""
    if estimate is None or gain is None or gain.worthwhile:
        return ""
    return (
        f"Another {gain.labels} labels would add about {100 * gain.accuracy:.1f} points: labeling more is hardly worth "
        "it."
    )
