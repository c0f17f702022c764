"""What the labels are worth so far: the accuracy of the proposals, and what more labels would add to it.

Shapes: M labeled images, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tlcli.datasets.splits import divide
from tlcli.inference.metrics import wilson_interval
from tlcli.training.active_learning.proposals import L2
from tlcli.training.head.softmax_regression import fit_paths

MIN_JUDGED = 10
"""Images chosen at random below which no accuracy is estimated."""
MIN_LABELS = 40
"""Labels below which no gain is predicted."""
MORE = 50
"""Labels whose gain is predicted."""
FOLDS, HALVES = 10, 3
"""Folds, and how many random halves of the labels the error with half of them is averaged over."""
MANY = 500
"""Labels above which half of the folds and a single half of the labels are accurate enough, and four times as fast."""
WORTHWHILE = 0.005
"""Gain of `MORE` labels below which labeling is no longer worth it."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Accuracy of the proposals for images that are not labeled."""

    accuracy: float
    interval: tuple[float, float]
    """95 % interval."""
    judged: int
    """Images that it is computed from."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What more labels are expected to add to the accuracy."""

    labels: int
    """Number of additional labels."""
    accuracy: float
    """By how much the accuracy is expected to grow, a fraction."""

    @property
    def worthwhile(self) -> bool:
        """Whether to go on."""
        return self.accuracy >= WORTHWHILE


def assess(
    features: NDArray[np.float32], labels: NDArray[np.int64], at_random: NDArray[np.bool_], *, seed: int = 0
) -> tuple[Estimate | None, Gain | None]:
    """Estimate the accuracy of the proposals, and predict what `MORE` labels would add to it.

    The accuracy is that of out-of-fold predictions, for the images that were chosen at random only: the others were
    chosen because they are difficult. (Proposals made before an image got its label would be unbiased as well, but most
    of them came from a model with far fewer labels.)

    The error is assumed to fall with a power of the number of labels (Hestness et al. 2017, "Deep learning scaling is
    predictable, empirically"). Its exponent is that between the out-of-fold errors with half of the labels and with all
    of them.

    Args:
        features: float32 [M, D], of the labeled images.
        labels: int64 [M], their classes.
        at_random: bool [M], which of them were chosen at random (`Choice.source`).
        seed: Decides which images are in which half and fold.

    Returns:
        The estimate, None with fewer than `MIN_JUDGED` random images; and the gain, None with fewer than `MIN_LABELS`.
    """
    count, judged = len(labels), int(at_random.sum())
    present, targets = np.unique(labels, return_inverse=True)
    if len(present) < 2 or (count < MIN_LABELS and judged < MIN_JUDGED):
        return None, None
    right, of_half = _out_of_fold(features, targets, seed)
    estimate = gain = None
    error = of_all = (count - int(right.sum()) + 0.5) / (count + 1)  # so that it is never 0
    if judged >= MIN_JUDGED:
        correct = int(right[at_random].sum())
        estimate = Estimate(accuracy=correct / judged, interval=wilson_interval(correct, judged), judged=judged)
        error = 1 - estimate.accuracy
    if count >= MIN_LABELS:
        exponent = max(0.0, math.log2(of_half / of_all))
        gain = Gain(labels=MORE, accuracy=error * (1 - (count / (count + MORE)) ** exponent))
    return estimate, gain


def _out_of_fold(
    features: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.bool_], float]:
    """Predict each image by heads that were fitted without it.

    Returns:
        Whether the prediction is right, by heads fitted on all other folds, bool [M]; and the share of wrong ones by
        heads fitted on half of these. One more image counts as half wrong, so that no share is 0.
    """
    count, classes = len(labels), int(labels.max()) + 1
    number_of_folds = FOLDS // 2 if count > MANY else FOLDS
    folds = np.array(divide([str(row) for row in range(count)], labels.tolist(), number_of_folds, seed=seed))
    generator = np.random.default_rng(seed)
    halves = [generator.permutation(count) % 2 == 0 for _ in range(1 if count > MANY else HALVES)]
    fits = [(folds == fold, half) for half in [np.ones(count, bool), *halves] for fold in range(number_of_folds)]
    weightings = [torch.from_numpy(~out & half).float() for out, half in fits]
    rows, targets = torch.from_numpy(features), torch.from_numpy(labels)
    (heads,) = fit_paths(rows, targets, weightings, classes=classes, l2s=[L2])
    right, wrong_of_half = np.zeros(count, bool), 0
    for number, ((out, _), head) in enumerate(zip(fits, heads, strict=True)):
        correct = (head.logits(rows[out]).argmax(dim=1) == targets[out]).numpy()
        if number < number_of_folds:
            right[out] = correct
        else:
            wrong_of_half += int((~correct).sum())
    return right, (wrong_of_half / len(halves) + 0.5) / (count + 1)
