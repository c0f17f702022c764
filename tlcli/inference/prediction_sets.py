"""Sets of classes that contain the true one with a promised probability. Torch-free.

They are adaptive (Romano et al. 2020, "Classification with valid and adaptive coverage"): classes are taken in the
order of their probability until their sum exceeds a limit, so difficult images get more classes. The limit is a
quantile of the sums that held-out images would have needed (cross-conformal: predicted by the heads of their folds,
Vovk 2015), without the randomization that would make some sets empty. The predicted class is always in the set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tlcli.errors import DataError
from tlcli.inference.predictor import ranked
from tlcli.runs.held_out_predictions import HeldOutPredictions

SEPARATOR = "|"


def set_limit(held_out: HeldOutPredictions, coverage: float) -> float:
    """Return the limit with which sets contain the true class with the probability `coverage`.

    Args:
        held_out: Predictions of N images on which the predicting weights were not trained.
        coverage: The probability, above 0 and below 1, of new images of the same kind.

    Raises:
        DataError: There are too few held-out images for this coverage.
    """
    count = len(held_out.labels)
    rank = math.ceil((count + 1) * coverage)
    if rank > count:
        needed = math.ceil(coverage / (1 - coverage))
        raise DataError(
            f"--sets {coverage:g} needs {needed:,} held-out images, but the run has {count:,}; with at most "
            f"{count / (count + 1):.3g}, sets are possible."
        )
    return float(np.partition(masses_before_truth(held_out), rank - 1)[rank - 1])


def masses_before_truth(held_out: HeldOutPredictions) -> npt.NDArray[np.float64]:
    """Return how probable the classes before the true one are in total: float64 [N]; 0 if the prediction is right."""
    found = np.zeros(len(held_out.labels))
    for row in np.flatnonzero(held_out.predicted != held_out.labels).tolist():
        probabilities = held_out.probabilities[row]
        order = ranked(int(held_out.predicted[row]), probabilities)
        before = order[: order.index(int(held_out.labels[row]))]
        found[row] = probabilities[before].astype(np.float64).sum()
    return found


def prediction_set(label: int, probabilities: npt.NDArray[np.float32], limit: float) -> list[int]:
    """Return the classes of an image's set, the predicted one first.

    Args:
        label: The predicted class.
        probabilities: float32 [k].
        limit: From `set_limit`: a class belongs to the set if those before it are together at most as probable.
    """
    order = ranked(label, probabilities)
    before = np.cumsum(probabilities[order], dtype=np.float64)
    return order[: 1 + int(np.searchsorted(before[:-1], limit, side="right"))]


def prediction_sets(predictions: HeldOutPredictions, limit: float) -> list[list[int]]:
    """Return the set of each image; see `prediction_set`."""
    pairs = zip(predictions.predicted.tolist(), predictions.probabilities, strict=True)
    return [prediction_set(label, probabilities, limit) for label, probabilities in pairs]


def join_labels(names: Sequence[str]) -> str:
    r"""Join class names with `|`; in names, `|` becomes `\|`, and `\` becomes `\\`."""
    return SEPARATOR.join(name.replace("\\", "\\\\").replace(SEPARATOR, f"\\{SEPARATOR}") for name in names)
