"""Keep the top nine images of each unit, and measure its selectivity, in one pass over any number of images.

Shapes: U units, B images in a batch, K images kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TOP_K = 9
"""Images kept for each unit."""

Statistics = npt.NDArray[np.float64]


class TopActivations:
    """The images that activate each unit most, and the mean and deviation of its activation over all images.

    Memory depends on the number of units only.

    Args:
        units: Number of units U.
        top_k: Images to keep for each unit, K.
    """

    def __init__(self, units: int, top_k: int = TOP_K) -> None:
        self.values = np.full((units, top_k), -np.inf, np.float32)
        """float32 [U, K], in descending order; -inf for missing images."""
        self.images = np.full((units, top_k), -1, np.int64)
        """int64 [U, K]: image indices, -1 for missing images. Ties keep the order in which images were seen."""
        self.seen = 0
        self._mean = np.zeros(units)
        self._squares = np.zeros(units)
        """Sum of squared differences from the mean."""

    def update(self, values: npt.NDArray[np.float32], images: npt.NDArray[np.int64]) -> None:
        """Add a batch.

        Args:
            values: float32 [B, U], the activation of each unit in each image.
            images: int64 [B], the images' indices, in ascending order and never repeated.
        """
        self._update_moments(values.astype(np.float64))
        rows = np.flatnonzero((values > self.values[:, -1]).any(axis=0))
        if not len(rows):
            return
        top_k = self.values.shape[1]
        candidates = np.concatenate([self.values[rows], values[:, rows].T], axis=1)
        indices = np.concatenate([self.images[rows], np.broadcast_to(images, (len(rows), len(images)))], axis=1)
        order = np.argsort(-candidates, axis=1, kind="stable")[:, :top_k]
        self.values[rows] = np.take_along_axis(candidates, order, axis=1)
        self.images[rows] = np.take_along_axis(indices, order, axis=1)

    def _update_moments(self, values: Statistics) -> None:
        """Update the moments as in Chan, Golub & LeVeque 1983, without the cancellation of plain sums of squares."""
        count = len(values)
        mean = values.mean(axis=0)
        shift = mean - self._mean
        total = self.seen + count
        self._squares += ((values - mean) ** 2).sum(axis=0) + shift**2 * (self.seen * count / total)
        self._mean += shift * (count / total)
        self.seen = total

    @property
    def mean(self) -> Statistics:
        """Mean activation over all images, float64 [U]."""
        return self._mean

    @property
    def deviation(self) -> Statistics:
        """Standard deviation of the activation over all images, float64 [U]."""
        deviation: Statistics = np.sqrt(self._squares / max(self.seen, 1))
        return deviation

    def selectivity(self) -> Statistics:
        """Return how far the mean of a unit's top images lies above its overall mean, in standard deviations.

        The scale of the activation does not matter: a unit that responds to one kind of image only scores high, one
        that responds to most images scores low.

        Returns:
            float64 [U]; NaN for dead units, whose activation is the same for every image.
        """
        found = np.isfinite(self.values)
        top = np.where(found, self.values, 0).sum(axis=1, dtype=np.float64) / np.maximum(found.sum(axis=1), 1)
        deviation = self.deviation
        # A deviation within rounding error is that of a constant.
        alive = np.isfinite(deviation) & (deviation > 1e-6 * np.maximum(np.abs(self._mean), 1e-6))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(alive & found.any(axis=1), (top - self._mean) / deviation, np.nan)

    def most_selective(self, count: int) -> list[int]:
        """Return the indices of up to `count` units that are not dead, the most selective first."""
        scores = self.selectivity()
        alive = np.flatnonzero(np.isfinite(scores))
        order = alive[np.argsort(-scores[alive], kind="stable")]
        return [int(unit) for unit in order[:count]]
