"""How much lower the losses of one candidate are than those of another on the same images, and its standard error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much lower the losses (or the numbers of errors) of one candidate are than another's, on the same images."""

    mean: float
    """Mean reduction per image; positive is better."""
    error: float
    """Standard error of the paired difference."""

    @property
    def significant(self) -> bool:
        """Whether the gain exceeds one standard error, by more than rounding."""
        return self.exceeds(1)

    def exceeds(self, errors: float) -> bool:
        """Return whether the gain exceeds this many standard errors, by more than rounding."""
        return self.mean > errors * self.error * (1 + 1e-9)


def paired_gain(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], groups: Sequence[str] | None = None
) -> Gain:
    """Compare losses or errors float [M] on the same images, M >= 1.

    Args:
        before: Losses of one candidate.
        after: Losses of the other.
        groups: A name for each image. Images of one group are alike, and the error counts them as one observation.
            None means that all images are independent.
    """
    difference = before - after
    mean = float(difference.mean())
    if groups is not None:
        sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=difference - mean)
        difference = sums * len(sums) / len(difference)
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return Gain(mean=mean, error=float(error))
