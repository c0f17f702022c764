"""The learning curve: accuracy by the number of training images, and what more of them would bring.

Shapes: M evaluated images, P parts of the training images; the last one is all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POWER, FAST_POWER = 0.5, 1.0
"""Powers of the number of images with which the error falls to a floor: for the forecast, and for its upper bound. See
`benchmarks/learning_curve.py`."""
MORE = 1000
"""Images whose gain is predicted; at least a tenth of the images there are, and at most as many."""
LARGEST_PART = 0.8
"""The share of the images up to which a part counts in the forecast. Large groups of images can make a part larger."""
PER_CLASS = 4
"""Images per class from which a part counts."""
FEWEST_PER_CLASS = 20
"""Training images per class from which there is a curve."""
MIN_WRONG = 20
"""Mispredicted images below which nothing is predicted."""
NORMAL_95 = 1.96


@dataclass(frozen=True, kw_only=True)
class PartErrors:
    """Errors on M held-out images of heads fitted on parts of the other images."""

    images: list[float]
    """[P], number of images that a head was fitted on, on average over the folds, ascending; last, all not held out."""
    wrong: NDArray[np.bool_]
    """[P, M], whether each image is predicted incorrectly."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The accuracy of heads fitted on so many images."""

    images: int
    accuracy: float
    error: float
    """Standard error."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The accuracy that the same evaluation would give with more images."""

    more: int
    """Number of additional images."""
    images: int
    """Number of images that a head would be fitted on."""
    accuracy: float
    low: float
    high: float
    """95 % interval. It includes that additional images which are evaluated may be harder or easier, and on validation
    images, that single ones change from right to wrong or back."""


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """The learning curve of a head, as in `run.json`."""

    points: list[CurvePoint]
    """In ascending order; none if there are no parts."""
    forecast: Forecast | None
    reason: str | None
    """Why there is no forecast, or no curve."""


def no_curve(reason: str) -> LearningCurve:
    """Return an empty curve."""
    return LearningCurve(points=[], forecast=None, reason=reason)


def learning_curve(
    errors: PartErrors, wrong: NDArray[np.bool_], *, images: int, classes: int, folds: bool
) -> LearningCurve:
    """Return the curve and its forecast.

    The error is assumed to fall as a + b / n^POWER (Cortes et al. 1993, "Learning curves: asymptotic values and rate of
    convergence"): a part of it falls with the number of images, the rest stays. That part is fitted to the ratios of
    errors on the same images by generalized least squares. The interval also spans half of what a + b / n and a power
    law without a floor (Hestness et al. 2017, "Deep learning scaling is predictable, empirically") differ by.

    Args:
        errors: Errors of heads of parts, on held-out images.
        wrong: Whether each held-out image is predicted incorrectly by the heads of all images, bool; these may be more
            than those in `errors`.
        images: Number of training images.
        classes: Number of classes.
        folds: Whether training images are held out; otherwise, more images would not be evaluated.
    """
    ratios, covariance = _ratios(errors.wrong)
    level = float((wrong.sum() + 0.5) / (len(wrong) + 1))  # never 0
    variances = np.append(covariance.diagonal(), 0.0) + ratios**2 * (1 - level) / (level * len(wrong))
    points = [
        CurvePoint(images=round(count), accuracy=1 - min(1.0, level * float(ratio)), error=level * math.sqrt(variance))
        for count, ratio, variance in zip(errors.images, ratios, variances, strict=True)
    ]
    fitted_on = errors.images[-1] if folds else images  # of `wrong`
    points[-1] = CurvePoint(
        images=round(fitted_on), accuracy=1 - float(wrong.mean()), error=math.sqrt(level * (1 - level) / len(wrong))
    )
    found = _forecast(errors, ratios, covariance, level=level, images=images, classes=classes)
    if isinstance(found, str):
        return LearningCurve(points=points, forecast=None, reason=found)
    more, factor, error = found
    if folds:  # some of the additional images are evaluated
        chance = level * (1 - level) * (1 - 1 / (1 + more / images))
    else:  # as many images change from right to wrong or back as with twice the images, for each doubling
        chance = float((errors.wrong[-2] != errors.wrong[-1]).mean()) * math.log2(1 + more / images)
    accuracy = 1 - float(wrong.mean()) * factor
    margin = NORMAL_95 * math.hypot(level * error, math.sqrt(chance / len(wrong)))
    forecast = Forecast(
        more=more,
        images=round(fitted_on * (1 + more / images)),
        accuracy=accuracy,
        low=max(0.0, accuracy - margin),
        high=min(1.0, accuracy + margin),
    )
    return LearningCurve(points=points, forecast=forecast, reason=None)


def _ratios(wrong: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the error of each part relative to that of all images, [P], and the covariance of all but the last."""
    count = wrong.shape[1]
    errors = (wrong.sum(axis=1) + 0.5) / (count + 1)
    ratios = errors / errors[-1]
    influence = wrong / errors[-1] - ratios[:, None] * wrong[-1] / errors[-1]
    covariance = np.atleast_2d(np.cov(influence[:-1])) / count
    return ratios, covariance + 1e-6 * np.eye(len(ratios) - 1)


def _forecast(
    errors: PartErrors,
    ratios: NDArray[np.float64],
    covariance: NDArray[np.float64],
    *,
    level: float,
    images: int,
    classes: int,
) -> tuple[int, float, float] | str:
    """Return the number of additional images, the factor of the error, and its standard error; or why not."""
    counts = np.array(errors.images)
    parts = counts[:-1] / counts[-1]
    used = np.flatnonzero((parts <= LARGEST_PART) & (counts[:-1] >= PER_CLASS * classes))
    mistakes = int(errors.wrong[-1].sum())
    if len(used) < 2:
        return "too few images, or groups of similar ones, per class"
    if mistakes < MIN_WRONG:
        return f"{f'only {mistakes}' if mistakes else 'no'} errors on {errors.wrong.shape[1]:,} held-out images"
    more = _round(min(max(MORE, images / 10), images))
    weights = np.linalg.inv(covariance[np.ix_(used, used)])

    def fit(power: float) -> tuple[float, float, float]:
        """Return the share of the error that falls, its standard error, and the change of that part with more."""
        rises = (counts[used] / counts[-1]) ** -power - 1
        variance = 1 / (rises @ weights @ rises)
        share = variance * (rises @ weights @ (ratios[used] - 1))
        return float(min(1.0, share)), math.sqrt(variance), (1 + more / images) ** -power - 1

    share, error, change = fit(POWER)
    if share < NORMAL_95 * error:
        return "the curve is flat, or too noisy"
    fast_share, _, fast_change = fit(FAST_POWER)
    logs, steps = np.log(ratios[used]), np.log(counts[-1] / counts[used])
    log_weights = weights * np.outer(ratios[used], ratios[used])
    exponent = (steps @ log_weights @ logs) / (steps @ log_weights @ steps)
    least, most = 1 + fast_share * fast_change, (1 + more / images) ** -max(0.0, exponent)
    return more, 1 + share * change, float(np.hypot(error * change, (least - most) / 2))


def _round(number: float) -> int:
    """Round to one significant digit."""
    digits = math.floor(math.log10(number))
    return int(round(number / 10**digits) * 10**digits)
