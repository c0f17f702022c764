"""Confidence thresholds that promise a precision for each predicted class. Torch-free.

The precision of a class is the share of images that are right among those with this label at or above a threshold. It
is promised if a binomial test on held-out images rejects that it is lower than the target: in terms of the exact bound
of Clopper & Pearson (1934), if its lower bound reaches the target. The thresholds of a class are tested in an order
that is fixed before looking at which images are right: from one that should pass by the confidences downward until the
first failure, so the last one that passes keeps the level of a single test ("fixed sequence testing" in Angelopoulos et
al. 2021, "Learn then test"). The level is divided between the classes that are tested, so that all promises hold
together with the probability 1 - `LEVEL`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tlcli.runs.held_out_predictions import HeldOutPredictions

LEVEL = 0.05
"""Probability that some class does not have the precision that was promised, at most."""
MARGIN = 10
"""The first threshold to be tested is expected to pass at a level this many times smaller: a higher one includes fewer
errors, a lower one more images."""
OPTIMISM = 0.7
"""How many of the errors that confidences predict are expected. Below 1, because the confidences of a single class may
be too low, and a class that is not tested has no promise."""
STEPS = 20
"""Thresholds that are considered for each class."""


@dataclass(frozen=True, kw_only=True)
class ClassPromise:
    """What can be promised for the images that get the label of a class."""

    name: str
    target: float
    """The precision asked for."""
    threshold: float | None
    """The lowest confidence for which the target is promised; None if it cannot be promised."""
    held_out: int
    """Held-out images with this label, right or wrong."""
    automatic: int
    """Those of them whose confidence reaches the threshold."""
    needed: int
    """Held-out images with this label from which on a test is possible, if all are right."""


def promise_precision(
    held_out: HeldOutPredictions, classes: Sequence[str], targets: Sequence[float | None]
) -> list[ClassPromise]:
    """Choose the lowest thresholds that promise the target precisions.

    Args:
        held_out: Predictions of N images on which the predicting weights were not trained.
        classes: k class names.
        targets: [k] precisions, above 0 and below 1; None for a class without a target.
    """
    sequences = {
        label: _Sequence.of(held_out, label, target) for label, target in enumerate(targets) if target is not None
    }
    tested = _tested(sequences)
    level = LEVEL / max(1, len(tested))
    promises = []
    for label, sequence in sequences.items():
        threshold = sequence.lowest_threshold(level) if label in tested else None
        promises.append(
            ClassPromise(
                name=classes[label],
                target=sequence.target,
                threshold=threshold,
                held_out=len(sequence.confidences),
                automatic=0 if threshold is None else int((sequence.confidences >= threshold).sum()),
                needed=images_needed(sequence.target, LEVEL / max(1, len(tested | {label}))),
            )
        )
    return promises


def images_needed(target: float, level: float) -> int:
    """Return the smallest number of images that, all right, show a precision of `target` at the level `level`."""
    return math.ceil(math.log(level) / math.log(target))


@dataclass(frozen=True)
class _Sequence:
    """The thresholds of one label, from the one that is tested first to lower ones."""

    target: float
    confidences: npt.NDArray[np.float64]
    """[N] of the images with the label, in descending order."""
    errors: npt.NDArray[np.int64]
    """[N], how many of the first 1, 2, ... are wrong."""
    sizes: npt.NDArray[np.int64]
    """How many images are at or above each threshold, in ascending order; images of equal confidence stay together."""
    expected: npt.NDArray[np.float64]
    """The p-value of each size with the errors that are expected from the confidences."""

    @classmethod
    def of(cls, held_out: HeldOutPredictions, label: int, target: float) -> _Sequence:
        from scipy.special import betainc

        rows = np.flatnonzero(held_out.predicted == label)
        rows = rows[np.argsort(-held_out.confidences[rows], kind="stable")]
        confidences = held_out.confidences[rows]
        steps = np.arange(len(rows), 0, -max(1, len(rows) // STEPS))
        sizes = np.unique(np.searchsorted(-confidences, -confidences[steps - 1], side="right"))
        wrong = OPTIMISM * np.cumsum(1 - confidences)[sizes - 1]
        return cls(
            target=target,
            confidences=confidences,
            errors=np.cumsum(held_out.labels[rows] != label),
            sizes=sizes,
            expected=betainc(sizes - wrong, wrong + 1, target),  # the binomial distribution, between integers
        )

    def lowest_threshold(self, level: float) -> float | None:
        """Return the lowest confidence at and above which the target is shown; see `promise_precision`.

        Returns:
            A confidence; 0 if the target is shown for all images; None if it is not shown.
        """
        from scipy.special import bdtr

        clear = self.expected <= level / MARGIN
        start = int(np.argmax(clear)) if clear.any() else int(np.argmin(self.expected))
        shown = None
        for size in self.sizes[start:].tolist():
            if bdtr(int(self.errors[size - 1]), size, 1 - self.target) > level:
                break
            shown = 0.0 if size == len(self.confidences) else float(self.confidences[size - 1])
        return shown


def _tested(sequences: dict[int, _Sequence]) -> set[int]:
    """Return the labels to test: as many as can be expected to pass at their share of the level.

    The choice depends on the confidences only, not on whether the labels are right, so the other classes need no share.
    """
    best = {label: sequence.expected.min(initial=1.0) for label, sequence in sequences.items()}
    order = sorted(best, key=lambda label: best[label])
    passing = [number for number, label in enumerate(order, 1) if best[label] <= LEVEL / number]
    return set(order[: max(passing, default=0)])
