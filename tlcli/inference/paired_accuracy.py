"""Statistics of two classifiers that were evaluated on the same images. Torch-free.

Only the images on which exactly one of the two is right tell them apart: `only_a` counts those that A alone predicts
correctly, `only_b` those that B alone does. The images are assumed to be independent of each other.
"""

from __future__ import annotations

import math

LEVEL = 0.05
"""Two classifiers are distinguishable if the p-value is below this level; intervals have the coverage 1 - LEVEL."""
POWER = 0.8
"""Probability with which a test on `images_needed` images finds a difference of the observed size."""
Z_LEVEL, Z_POWER = 1.959963984540054, 0.8416212335729143
"""Quantiles of the normal distribution at 1 - LEVEL / 2 and at POWER."""


def mcnemar_test(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of the exact test of equal accuracies (McNemar 1947); 1 without any difference."""
    from scipy.stats import binomtest

    return float(binomtest(only_b, only_a + only_b).pvalue) if only_a + only_b else 1.0


def difference_interval(only_a: int, only_b: int, images: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of the accuracy of B minus that of A.

    It is the adjusted Wald interval for paired data (Bonett & Price 2012), and includes 0 if the exact test does not
    reject equal accuracies: near the limit, the interval alone would contradict the test.

    Args:
        only_a: Number of images that only A predicts correctly.
        only_b: Number of images that only B predicts correctly.
        images: Number of images, at least 1 and `only_a + only_b`.
    """
    share_a, share_b = (only_a + 1) / (images + 2), (only_b + 1) / (images + 2)
    center = share_b - share_a
    half = Z_LEVEL * math.sqrt((share_a + share_b - center**2) / (images + 2))
    low, high = max(-1.0, center - half), min(1.0, center + half)
    if mcnemar_test(only_a, only_b) >= LEVEL:
        return min(low, 0.0), max(high, 0.0)
    return low, high


def images_needed(only_a: int, only_b: int, images: int) -> int | None:
    """Return how many images the test needs to find a difference of the observed size with the probability `POWER`.

    The formula is that of Connor (1987), corrected for continuity as the exact test is discrete.

    Args:
        only_a: Number of images that only A predicts correctly.
        only_b: Number of images that only B predicts correctly.
        images: Number of images, at least 1.

    Returns:
        A number of images; None if both are right equally often, so that no number suffices.
    """
    differing, difference = (only_a + only_b) / images, abs(only_b - only_a) / images
    if not difference:
        return None
    root = Z_LEVEL * math.sqrt(differing) + Z_POWER * math.sqrt(differing - difference**2)
    needed = (root / difference) ** 2
    return math.ceil(needed / 4 * (1 + math.sqrt(1 + 4 / (needed * difference))) ** 2)
