"""Accuracy on slices of the evaluated images, such as those of one camera, or the darkest quarter. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tlcli.inference.metrics import wilson_interval

LEVEL = 0.05
"""Expected share of marked slices that are not worse than the rest, at most."""
QUARTERS = 4
NO_SLICE = "(none)"
"""The slice of images without a value."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedImage:
    """An image with its true and its predicted class."""

    path: str
    label: str
    predicted: str
    confidence: float
    """Calibrated probability of the predicted class."""

    @property
    def correct(self) -> bool:
        """Whether the prediction is right."""
        return self.label == self.predicted


def slice_metrics(names: Sequence[str], correct: npt.NDArray[np.bool_], order: Iterable[str]) -> list[dict[str, Any]]:
    """Return the metrics of each slice, ready for JSON, in the order in which names first appear in `order`.

    A slice is marked as worse if Fisher's exact test rejects that it is as accurate as the rest, after the correction
    of Benjamini & Hochberg (1995) for the number of slices.

    Args:
        names: The slice of each of N images.
        correct: bool [N], whether their predictions are right.
        order: The same names, in the order of the result.

    Returns:
        Dictionaries with the keys

        - name: name of the slice
        - images, correct: number of images, and of those predicted correctly
        - accuracy, interval: share of correct predictions, and its 95 % interval (Wilson 1927)
        - p_value: of the one-sided test that the slice is worse than the rest; 1 if there is no rest
        - adjusted_p_value: the same, corrected for the number of slices
        - worse: whether that is below `LEVEL`
    """
    from scipy.stats import false_discovery_control, hypergeom

    unique, members = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    sizes = np.bincount(members, minlength=len(unique))
    hits = np.bincount(members, weights=correct, minlength=len(unique)).astype(np.int64)
    # The number of correct images in a slice, if they were distributed by chance.
    p_values = hypergeom.cdf(hits, len(correct), int(correct.sum()), sizes)
    adjusted = false_discovery_control(np.clip(p_values, 0, 1))
    place = {name: index for index, name in enumerate(unique.tolist())}
    return [
        {
            "name": name,
            "images": int(sizes[index]),
            "correct": int(hits[index]),
            "accuracy": hits[index] / sizes[index],
            "interval": list(wilson_interval(int(hits[index]), int(sizes[index]))),
            "p_value": float(p_values[index]),
            "adjusted_p_value": float(adjusted[index]),
            "worse": bool(adjusted[index] < LEVEL),
        }
        for name in dict.fromkeys(order)
        for index in [place[name]]
    ]


def quarters(values: npt.NDArray[np.float64]) -> list[str]:
    """Divide N values into quarters of equal size, and return the range of the quarter of each.

    Equal values are in one quarter, so there may be fewer than four. NaN belongs to `NO_SLICE`.
    """
    if np.isnan(values).any():
        found = np.full(len(values), NO_SLICE, dtype=object)
        known = ~np.isnan(values)
        if known.any():
            found[known] = quarters(values[known])
        return list(found)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, QUARTERS + 1)[1:-1], method="lower"))
    parts = np.searchsorted(edges, values, side="left")
    bounds = {part: (values[parts == part].min(), values[parts == part].max()) for part in np.unique(parts).tolist()}
    for digits in range(3, 18):
        ranges = {part: " to ".join(_short(bound, digits) for bound in pair) for part, pair in bounds.items()}
        if len(set(ranges.values())) == len(bounds):
            break
    return [ranges[part] for part in parts.tolist()]


def _short(value: float, digits: int) -> str:
    """Return a value with some significant digits, or without decimals."""
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:,.{digits}g}"
