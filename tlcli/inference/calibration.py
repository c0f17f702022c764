"""Confidence that can be believed: one temperature for all logits (Guo et al. 2017).

Shapes: N images, k classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(
    logits: NDArray[np.floating], labels: NDArray[np.integer], log_prior: NDArray[np.floating] | None = None
) -> float:
    """Find the T that makes softmax(logits / T) best explain the labels of images not trained on.

    Where every image is right, the plain likelihood is best at T = 0, and fifteen images would
    give confidence 1.0000. So the target of an image is not 1 but (N + 1) / (N + 2), and its best
    rival gets the rest: Laplace's rule, which Platt (1999) used in the same place. It is as if two
    more images had been seen, one right and one wrong; with hundreds of images it fades away.

    Args:
        logits: float [N, k].
        labels: int [N].
        log_prior: As in `probabilities`.

    Returns:
        A temperature in [0.05, 20]; 1 where there is nothing to learn from.
    """
    count, classes = logits.shape
    if count == 0 or classes < 2:
        return 1.0
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    rows = np.arange(count)
    truth = scores[rows, labels]
    rivals = scores.copy()
    rivals[rows, labels] = -np.inf
    target = float(np.mean(truth + (rivals.max(axis=1) - truth) / (count + 2)))
    shift = 0.0 if log_prior is None else log_prior.astype(np.float64)

    # The loss is convex in 1 / T: Newton on its slope, halving the bracket where a step leaves it.
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(100):
        shifted = inverse * scores + shift
        weights = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * scores).sum(axis=1)
        slope = float(mean.mean()) - target
        if slope == 0:
            break
        bend = float(((weights * scores**2).sum(axis=1) - mean**2).mean())
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / bend if bend > 0 else high
        following = step if low < step < high else float(np.sqrt(low * high))
        if abs(following - inverse) <= 1e-9 * inverse:
            break
        inverse = following
    return 1 / inverse


def probabilities(
    logits: NDArray[np.floating], temperature: float, log_prior: NDArray[np.floating] | None = None
) -> NDArray[np.float32]:
    """Softmax of logits / temperature (+ log_prior): float [N, k] to float32 [N, k], rows adding up to 1.

    Args:
        logits: float [N, k].
        temperature: From `fit_temperature`.
        log_prior: float [k], for a head that was fitted with all classes weighing alike: the logarithms of the
            classes' true frequencies, which turn its scores back into probabilities for these frequencies.
    """
    scores = logits.astype(np.float64) / temperature
    if log_prior is not None:
        scores += log_prior
    scores -= scores.max(axis=1, keepdims=True)
    weights = np.exp(scores)
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares.astype(np.float32)
