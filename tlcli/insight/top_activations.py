"""A running top nine for each unit, and how selective the unit is, from one pass over any number of images.

U units, B images in a batch, K images kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

KEPT = 9
"""Images that are kept for each unit."""

Floats = npt.NDArray[np.float64]


class RunningTop:
    """The images that excite each unit most, and the mean and spread of its activation over all images.

    Memory depends on the number of units only.

    Args:
        units: How many there are.
        kept: Images to keep for each.
    """

    def __init__(self, units: int, kept: int = KEPT) -> None:
        self.values = np.full((units, kept), -np.inf, np.float32)
        """float32 [U, K], the largest first; -inf where fewer images were seen."""
        self.images = np.full((units, kept), -1, np.int64)
        """int64 [U, K]: which images these are, -1 for none. Of equals, the first one stands first."""
        self.seen = 0
        self._mean = np.zeros(units)
        self._squares = np.zeros(units)
        """Sum of squared differences from the mean."""

    def update(self, values: npt.NDArray[np.float32], images: npt.NDArray[np.int64]) -> None:
        """Take a batch in.

        Args:
            values: float32 [B, U], the activation of each unit in each image.
            images: int64 [B], their numbers, each given once and in rising order.
        """
        self._update_moments(values.astype(np.float64))
        rows = np.flatnonzero((values > self.values[:, -1]).any(axis=0))
        if not len(rows):
            return
        kept = self.values.shape[1]
        together = np.concatenate([self.values[rows], values[:, rows].T], axis=1)
        numbers = np.concatenate([self.images[rows], np.broadcast_to(images, (len(rows), len(images)))], axis=1)
        order = np.argsort(-together, axis=1, kind="stable")[:, :kept]
        self.values[rows] = np.take_along_axis(together, order, axis=1)
        self.images[rows] = np.take_along_axis(numbers, order, axis=1)

    def _update_moments(self, values: Floats) -> None:
        """Chan, Golub & LeVeque 1983: sums around the mean so far, which don't cancel as plain squares would."""
        count = len(values)
        mean = values.mean(axis=0)
        shift = mean - self._mean
        total = self.seen + count
        self._squares += ((values - mean) ** 2).sum(axis=0) + shift**2 * (self.seen * count / total)
        self._mean += shift * (count / total)
        self.seen = total

    @property
    def mean(self) -> Floats:
        """float64 [U]: the mean over all images of the activation."""
        return self._mean

    @property
    def deviation(self) -> Floats:
        """float64 [U]: the standard deviation of the activation over all images."""
        deviation: Floats = np.sqrt(self._squares / max(self.seen, 1))
        return deviation

    def selectivity(self) -> Floats:
        """How far the mean of a unit's top images lies above its mean over all, in standard deviations.

        float64 [U]; NaN for dead units, which answer every image alike. A unit that fires for one kind of image
        only scores high, one that fires for most scores low; the scale of its activation plays no part.
        """
        found = np.isfinite(self.values)
        top = np.where(found, self.values, 0).sum(axis=1, dtype=np.float64) / np.maximum(found.sum(axis=1), 1)
        deviation = self.deviation
        # What rounding makes of a constant is no answer.
        alive = np.isfinite(deviation) & (deviation > 1e-6 * np.maximum(np.abs(self._mean), 1e-6))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(alive & found.any(axis=1), (top - self._mean) / deviation, np.nan)

    def most_selective(self, count: int) -> list[int]:
        """The numbers of up to `count` living units, the most selective first."""
        scores = self.selectivity()
        alive = np.flatnonzero(np.isfinite(scores))
        order = alive[np.argsort(-scores[alive], kind="stable")]
        return [int(unit) for unit in order[:count]]
