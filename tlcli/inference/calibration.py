"""Calibrated confidence: one temperature for all logits (Guo et al. 2017).

Shapes: N images, k classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def fit_temperature(
    logits: NDArray[np.floating], labels: NDArray[np.integer], log_prior: NDArray[np.floating] | None = None
) -> float:
    """Fit the temperature T for which softmax(logits / T) best explains the labels of held-out images.

    If every image is predicted correctly, plain maximum likelihood gives T = 0, and fifteen images would suffice for a
    confidence of 1.0000. The target probability of an image's class is therefore (N + 1) / (N + 2) instead of 1, and
    the best other class gets the rest. This is Laplace's rule of succession, which Platt (1999) used for the same
    purpose: it acts like two extra images, one correct and one wrong, and is negligible with hundreds of images.

    Args:
        logits: float [N, k].
        labels: int [N].
        log_prior: See `calibrated_probabilities`.

    Returns:
        A temperature in [0.05, 20]; 1 without images or with a single class.
    """
    count, classes = logits.shape
    if count == 0 or classes < 2:
        return 1.0
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    rows = np.arange(count)
    truth = scores[rows, labels]
    others = scores.copy()
    others[rows, labels] = -np.inf
    target = float(np.mean(truth + (others.max(axis=1) - truth) / (count + 2)))
    shift = 0.0 if log_prior is None else log_prior.astype(np.float64)

    # The loss is convex in 1 / T: Newton's method on its derivative, with bisection if a step leaves the bracket.
    low, high, inverse = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE, 1.0
    for _ in range(100):
        shifted = inverse * scores + shift
        weights = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * scores).sum(axis=1)
        slope = float(mean.mean()) - target
        if slope == 0:
            break
        curvature = float(((weights * scores**2).sum(axis=1) - mean**2).mean())
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else high
        following = step if low < step < high else float(np.sqrt(low * high))
        if abs(following - inverse) <= 1e-9 * inverse:
            break
        inverse = following
    return 1 / inverse


def calibrated_probabilities(
    logits: NDArray[np.floating], temperature: float, log_prior: NDArray[np.floating] | None = None
) -> NDArray[np.float32]:
    """Return softmax(logits / temperature + log_prior), float32 [N, k]; each row sums to 1.

    Args:
        logits: float [N, k].
        temperature: From `fit_temperature`.
        log_prior: float [k], for a head that was fitted with class weights: what converts its scores to probabilities
            at the frequencies of the classes, such as the logarithms of these. None adds nothing.
    """
    scores = logits.astype(np.float64) / temperature
    if log_prior is not None:
        scores += log_prior
    scores -= scores.max(axis=1, keepdims=True)
    weights = np.exp(scores)
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares.astype(np.float32)
