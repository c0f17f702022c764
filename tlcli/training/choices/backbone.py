"""`--backbone auto`: which of the networks on this machine has the best frozen features."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tlcli import processes
from tlcli.errors import UsageError
from tlcli.features.extractor import FeatureExtractor
from tlcli.progress import Reporter
from tlcli.training.choices.comparison import Comparison, measure
from tlcli.training.choices.subset import Subset
from tlcli.training.head.class_weights import ClassWeighting


def compare_backbones(
    names: Sequence[str],
    open_extractor: Callable[[str], FeatureExtractor],
    subset: Subset,
    weighting: ClassWeighting,
    *,
    seconds: float | None = None,
    report: Reporter,
) -> Comparison:
    """Compare backbones; ties go to the one before.

    Args:
        names: The default backbone, then others, fast ones first.
        open_extractor: Opens a backbone by name, cut before its head.
        subset: The images to compare on.
        weighting: The weights of the classes.
        seconds: A backbone is left out if it would not end within so many seconds, as it takes at least as long as the
            one before. None compares all. The default backbone is never left out.
        report: Receives progress.
    """
    comparison = Comparison(name="Backbone", subset=subset)
    began, last = time.monotonic(), 0.0
    with report.task("Backbone", len(names), "candidates") as advance:
        for name in names:
            if seconds is not None and comparison.tried and _passed_since(began) + last > seconds:
                comparison.skipped[name] = f"left out, since {seconds:.0f} s are not enough"
                continue
            started = time.monotonic()
            try:
                measured = measure(open_extractor(name), subset, weighting)
            except UsageError as error:  # no vector of features enters its head
                comparison.skipped[name] = error.message
            else:
                last = time.monotonic() - started
                comparison.challenge(name, measured, last)
            advance(1)
    return comparison


def _passed_since(began: float) -> float:
    """Return the seconds that passed in the first process, so that all processes decide alike."""
    return processes.from_first(lambda: time.monotonic() - began)
