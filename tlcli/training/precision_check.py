"""How predictions in bf16 compare with those in fp32, and how much they may differ.

Shapes: M held-out images, k classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcli.errors import UsageError

MIN_AGREEMENT = 0.99
"""Smallest share of images with the same predicted class."""
MAX_STANDARD_ERRORS = 0.5
"""Largest difference of the accuracy, in standard errors of the accuracy in fp32."""


@dataclass(frozen=True, kw_only=True)
class PrecisionCheck:
    """How predictions on features in bf16 compare with those on features in fp32, by the same heads."""

    images: int
    agreement: float
    """Share of images with the same predicted class."""
    accuracy: float
    """Accuracy in bf16."""
    accuracy_fp32: float
    standard_error: float
    """Standard error of `accuracy_fp32`."""

    def require_agreement(self) -> None:
        """Check that bf16 may be used.

        Raises:
            UsageError: Too many predictions, or the accuracy, differ from fp32.
        """
        most = MAX_STANDARD_ERRORS * self.standard_error
        if self.agreement >= MIN_AGREEMENT and abs(self.accuracy - self.accuracy_fp32) <= most:
            return
        raise UsageError(
            f"--engine openvino --precision bf16: {100 * self.agreement:.1f} % of labels agree with fp32 on "
            f"{self.images:,} held-out images (expected at least {100 * MIN_AGREEMENT:.0f} %), with an accuracy of "
            f"{100 * self.accuracy:.1f} % instead of {100 * self.accuracy_fp32:.1f} % (expected within "
            f"{100 * most:.1f} points). Use --precision fp32."
        )


def compare_logits(
    reduced: NDArray[np.float32], exact: NDArray[np.float32], labels: NDArray[np.int64]
) -> PrecisionCheck:
    """Compare logits [M, k] in bf16 with those in fp32, for images with the classes int64 [M]."""
    predicted, expected = reduced.argmax(axis=1), exact.argmax(axis=1)
    accuracy = float((expected == labels).mean())
    return PrecisionCheck(
        images=len(labels),
        agreement=float((predicted == expected).mean()),
        accuracy=float((predicted == labels).mean()),
        accuracy_fp32=accuracy,
        standard_error=math.sqrt(accuracy * (1 - accuracy) / len(labels)),
    )
