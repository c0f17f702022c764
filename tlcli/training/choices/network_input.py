"""`--fit auto` and `--size auto`: how an image becomes the network's input."""

from __future__ import annotations

import time
from collections.abc import Callable

from tlcli.errors import UsageError
from tlcli.features.extractor import FeatureExtractor
from tlcli.progress import Reporter
from tlcli.training.choices.comparison import Comparison, measure
from tlcli.training.choices.subset import Subset
from tlcli.training.head.class_weights import ClassWeighting

FITS = ("crop", "squash", "pad")
"""In the order in which they are compared; ties go to the first."""
SIZES = (256, 288)
"""Sides that are compared with the backbone's own, if they are larger."""


def compare_fits(
    extractor: FeatureExtractor, subset: Subset, weighting: ClassWeighting, report: Reporter
) -> Comparison:
    """Compare the ways to make an image square.

    Args:
        extractor: The network, cut before its head, with the default fit.
        subset: The images to compare on.
        weighting: The weights of the classes.
        report: Receives progress.
    """
    comparison = Comparison(name="Fit", subset=subset)
    with report.task("Fit", len(FITS), "candidates") as advance:
        for fit in FITS:
            started = time.monotonic()
            extractor = extractor.with_fit(fit)
            comparison.challenge(fit, measure(extractor, subset, weighting), time.monotonic() - started)
            advance(1)
    return comparison


def compare_sizes(
    own: int,
    open_extractor: Callable[[int | None], FeatureExtractor],
    subset: Subset,
    weighting: ClassWeighting,
    report: Reporter,
) -> Comparison:
    """Compare the backbone's own input size with larger ones; ties go to the smaller.

    Args:
        own: Side of the backbone's own input, in pixels.
        open_extractor: Opens the network with inputs of this side, cut before its head; None is its own.
        subset: The images to compare on.
        weighting: The weights of the classes.
        report: Receives progress.
    """
    comparison = Comparison(name="Size", subset=subset)
    sides = [None, *(side for side in SIZES if side > own)]
    with report.task("Size", len(sides), "candidates") as advance:
        for side in sides:
            started = time.monotonic()
            try:
                extractor = open_extractor(side)
            except UsageError as error:  # such as a side that is no multiple of a transformer's patches
                comparison.skipped[str(side)] = error.message
            else:
                measured = measure(extractor, subset, weighting)
                comparison.challenge(str(side or own), measured, time.monotonic() - started)
            advance(1)
    return comparison
