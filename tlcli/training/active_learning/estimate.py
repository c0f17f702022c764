"""What the labels are worth so far: the accuracy of the proposals, and what more labels would add to it.

Shapes: M labeled images, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tlcli.datasets.splits import divide
from tlcli.inference.metrics import wilson_interval
from tlcli.training.active_learning.proposals import L2
from tlcli.training.head.softmax_regression import fit_paths

MIN_JUDGED = 8
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
    """Accuracy of the proposals for new images of the same kind.

    Those that are left in the pool become easier than these, because the difficult ones get labels.
    """

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

    The accuracy is that on the images that were chosen at random, by heads that were fitted without the image, but with
    nearly all others. These heads are as good as the one fitted on all labels, because the labels of random images do
    not influence which others are chosen (`ActiveLearner.fit`). (Proposals made before an image got its label would be
    unbiased as well, but most of them came from a model with far fewer labels.)

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
    if len(present) < 2:
        return None, None
    estimate = gain = None
    if judged >= MIN_JUDGED:
        right = _left_out_in_parts(features, targets, np.flatnonzero(at_random), [np.ones(count, bool)], seed)
        correct = int(right.sum())
        estimate = Estimate(accuracy=correct / judged, interval=wilson_interval(correct, judged), judged=judged)
    if count >= MIN_LABELS:
        of_all, of_half = _errors(features, targets, seed)
        error = of_all if estimate is None else 1 - estimate.accuracy
        exponent = max(0.0, math.log2(of_half / of_all))
        gain = Gain(labels=MORE, accuracy=error * (1 - (count / (count + MORE)) ** exponent))
    return estimate, gain


def _errors(features: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """Return the shares of wrong out-of-fold predictions, by heads fitted on all other folds, and on half of these.

    One more image counts as half wrong, so that no share is 0.
    """
    count = len(labels)
    generator = np.random.default_rng(seed)
    halves = [generator.permutation(count) % 2 == 0 for _ in range(1 if count > MANY else HALVES)]
    kept = [np.ones(count, bool), *halves]
    of_all, *of_halves = (~_left_out_in_parts(features, labels, np.arange(count), kept, seed)).sum(axis=1).tolist()
    return (of_all + 0.5) / (count + 1), (sum(of_halves) / len(of_halves) + 0.5) / (count + 1)


def _left_out_in_parts(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    judged: NDArray[np.int64],
    kept: Sequence[NDArray[np.bool_]],
    seed: int,
) -> NDArray[np.bool_]:
    """Predict images by heads that were fitted without them.

    Args:
        features: float32 [M, D].
        labels: int64 [M], from 0 to the number of classes, each of which has images.
        judged: int64 [J], the images to predict; they are divided into folds, which are left out one by one.
        kept: bool [M], each of K sets of images to fit on, apart from those that are left out.
        seed: Decides which images are in which fold.

    Returns:
        bool [K, J], whether predictions are right.
    """
    parts = min(len(judged), FOLDS // 2 if len(labels) > MANY else FOLDS)
    fold_of = np.full(len(labels), -1)
    fold_of[judged] = divide([str(row) for row in judged], labels[judged].tolist(), parts, seed=seed)
    fits = [(number, fold) for number in range(len(kept)) for fold in range(parts)]
    weightings = [torch.from_numpy((fold_of != fold) & kept[number]).float() for number, fold in fits]
    rows, targets = torch.from_numpy(features), torch.from_numpy(labels)
    (heads,) = fit_paths(rows, targets, weightings, classes=int(labels.max()) + 1, l2s=[L2])
    right = np.zeros((len(kept), len(labels)), bool)
    for (number, fold), head in zip(fits, heads, strict=True):
        out = fold_of == fold
        right[number, out] = (head.logits(rows[out]).argmax(dim=1) == targets[out]).numpy()
    return right[:, judged]
