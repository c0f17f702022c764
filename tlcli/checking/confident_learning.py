"""Which labels look wrong: confident learning.

After Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels".

Shapes: N images, k classes, M suspects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SURE = 0.8
"""The most that a class's threshold asks for: where nearly all images are sure of their class, a mean of 0.95 would
spare half of the wrong ones. With 3 % of the labels of 3,781 photographs of clothes made wrong at random, 75 % of these
are suspected instead of 69 %, and 41 % of the suspects are among them instead of 40 %; with 10 %, 71 % and 70 %."""


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """Images whose labels look wrong, the surest first."""

    rows: NDArray[np.int64]
    """[M], which images."""
    suggested: NDArray[np.int64]
    """[M], the class that each looks like."""
    margins: NDArray[np.float64]
    """[M], in (0, 1]: how much more probable that class is than the label."""


def judgeable(
    labels: NDArray[np.integer], folds: NDArray[np.integer], *, classes: int, least: int
) -> NDArray[np.bool_]:
    """Which images are judged by a head that knows their class: `least` images of it are in the other folds.

    Args:
        labels: int [N].
        folds: int [N], from 0 up.
        classes: Number of classes k.
        least: Images of a class from which it can be known.

    Returns:
        bool [N].
    """
    counts = np.zeros((int(folds.max(initial=0)) + 1, classes), np.int64)
    np.add.at(counts, (folds, labels), 1)
    others = counts.sum(axis=0) - counts
    known: NDArray[np.bool_] = others[folds, labels] >= least
    return known


def suspected(probabilities: NDArray[np.floating], labels: NDArray[np.integer], judged: NDArray[np.bool_]) -> Suspects:
    """Images that are surely of another class than their label says.

    A class's threshold is the mean probability that it gets on images with its label, so a class that is hard, or
    whose labels are often wrong, asks for less; `SURE` is our own addition. An image is suspected where another class
    reaches its threshold and is more probable than the label.

    Args:
        probabilities: float [N, k], by heads that had not seen the image.
        labels: int [N].
        judged: bool [N], the images that count.
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    thresholds = np.full(classes, np.inf)
    for label in np.unique(labels[judged]):
        thresholds[label] = min(SURE, own[judged & (labels == label)].mean())
    rivals = np.where(probabilities >= thresholds, probabilities, -np.inf).astype(np.float64)
    rivals[np.arange(len(labels)), labels] = -np.inf
    suggested = rivals.argmax(axis=1)
    margins = rivals.max(axis=1, initial=-np.inf) - own
    rows = np.flatnonzero(judged & (margins > 0))
    rows = rows[np.argsort(-margins[rows], kind="stable")]
    return Suspects(rows=rows, suggested=suggested[rows], margins=margins[rows])
