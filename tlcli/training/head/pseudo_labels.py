"""Train the head on images without labels as well, under the labels that the labeled images around them suggest.

Labels spread in a graph of nearest neighbors (Zhou et al. 2004, "Learning with local and global consistency"). Where
they and a head that was fitted on the labels agree most clearly, they are taken for the truth (Lee 2013,
"Pseudo-label"). Of each class, only the surer half is taken, so that classes keep their proportions.

Shapes: N labeled images, U unlabeled images, M = N + U, D features, k classes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from tlcli.inference.calibration import calibrated_probabilities
from tlcli.training.head.softmax_regression import SoftmaxHead
from tlcli.training.head.threads import one_thread_each

NEIGHBORS = 10
"""Each image is linked to so many others."""
SHARPNESS = 3
"""Power of the cosine that is the weight of a link."""
SPREAD = 0.9
"""Share of an image's label that comes from its neighbors."""
STEPS = 50
"""Steps that labels spread; the rest is a factor of `SPREAD` to this power."""
SURE_SHARE = 0.5
"""Share of the unlabeled images of each class that get their label."""
MOST_SURE = 768
"""Images that get one, at most, evenly from the surest to the least sure of each class: more cost seconds and add
little."""
MIN_STD = 1e-3
"""Added to each standard deviation, so that constant features are not amplified."""
BLOCK = 1024
"""Images that are compared with all others at a time."""


UNLABELED, HELD_OUT = -1, -2


class NeighborGraph:
    """Images that are linked to those most like them.

    Args:
        features: float32 [M, D], finite.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        cosines, neighbors = _nearest((features - features.mean(axis=0)) / (features.std(axis=0) + MIN_STD))
        weights, ends = np.maximum(cosines, 0) ** SHARPNESS, np.arange(len(features) + 1) * neighbors.shape[1]
        links = csr_array((weights.ravel(), neighbors.ravel(), ends), shape=(len(features), len(features)))
        links = csr_array(links + links.T)
        degrees = 1 / np.sqrt(np.maximum(links.sum(axis=1), 1e-12))
        self._links = csr_array(diags_array(degrees) @ links @ diags_array(degrees), dtype=np.float32)

    def spread(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
        """Spread labels along the links; each class starts with the same total.

        Args:
            labels: int64 [M]; -1 for unlabeled images, -2 for held-out images, which pass nothing on.
            classes: Number of classes k.

        Returns:
            float32 [M, k], the share of each class; the same for all classes if no label reaches an image.
        """
        given = np.zeros((len(labels), classes), np.float32)
        known = np.flatnonzero(labels >= 0)
        given[known, labels[known]] = 1 / np.bincount(labels[known], minlength=classes)[labels[known]]
        links = self._links @ diags_array((labels > HELD_OUT).astype(np.float32))
        shares = given
        for _ in range(STEPS):
            shares = SPREAD * (links @ shares) + (1 - SPREAD) * given
        shares += np.finfo(np.float32).tiny
        spread: NDArray[np.float32] = shares / shares.sum(axis=1, keepdims=True)
        return spread


def _nearest(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the cosines to the nearest neighbors of each of the features [M, D], [M, n], and their rows, [M, n]."""
    rows = torch.nn.functional.normalize(torch.from_numpy(features), dim=1)
    count = min(NEIGHBORS, len(rows) - 1)
    found = []
    with one_thread_each(rows.shape, "cpu"):
        for start in range(0, len(rows), BLOCK):
            cosines = rows[start : start + BLOCK] @ rows.T
            cosines[:, start : start + BLOCK].fill_diagonal_(-torch.inf)  # of an image with itself
            found.append(cosines.topk(count, dim=1))
    return torch.cat([top.values for top in found]).numpy(), torch.cat([top.indices for top in found]).numpy()


def pseudo_labels(
    graph: NeighborGraph,
    features: Tensor,
    labels: NDArray[np.int64],
    head: SoftmaxHead,
    temperature: float,
    log_prior: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the unlabeled images whose class is clear, and their labels.

    Args:
        graph: Of all images.
        features: float32 [M, D].
        labels: int64 [M]; -1 for unlabeled images, -2 for held-out images, which are not chosen.
        head: Fitted on the labeled images.
        temperature: Of its logits.
        log_prior: float64 [k] if classes were weighted: their weights do not make a label more likely.

    Returns:
        The chosen images, as int64 rows, and their classes.
    """
    classes = len(head.bias)
    shares = graph.spread(labels, classes)
    free = np.flatnonzero(labels == UNLABELED)
    logits = head.logits(features[torch.from_numpy(free)]).numpy()
    probabilities = calibrated_probabilities(logits, temperature, log_prior)
    agreement = np.sqrt(shares[free] * probabilities)
    agreement /= agreement.sum(axis=1, keepdims=True)
    found = agreement.argmax(axis=1)
    two_best = np.sort(agreement, axis=1)[:, -2:]
    margins = two_best[:, -1] - two_best[:, 0] if classes > 1 else two_best[:, 0]
    order = np.argsort(-margins, kind="stable")
    chosen = [order[found[order] == label] for label in range(classes)]
    step = math.ceil(SURE_SHARE * len(free) / MOST_SURE)
    kept = np.concatenate([rows[: int(SURE_SHARE * len(rows)) : step] for rows in chosen])
    return free[kept], found[kept]
