"""The predictions of a run's validation images, as numbers: the basis of thresholds and prediction sets. Torch-free.

Shapes: N images, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tlcli.errors import ArtifactError
from tlcli.runs.directory import PREDICTIONS_FILE
from tlcli.runs.run import Run
from tlcli.runs.stored_predictions import read_predictions

DECIMALS = 6
"""Decimals of confidences in the rows of predict, which thresholds are compared with."""


@dataclass(frozen=True, kw_only=True)
class HeldOutPredictions:
    """Predictions of N independent images on which the predicting weights were not trained."""

    labels: npt.NDArray[np.int64]
    """[N], the true classes."""
    predicted: npt.NDArray[np.int64]
    """[N], the predicted classes."""
    probabilities: npt.NDArray[np.float32]
    """[N, k], calibrated."""

    @property
    def confidences(self) -> npt.NDArray[np.float64]:
        """[N], the probabilities of the predicted classes, rounded as in the rows of predict."""
        chosen = self.probabilities[np.arange(len(self.predicted)), self.predicted]
        rounded: npt.NDArray[np.float64] = chosen.astype(np.float64).round(DECIMALS)
        return rounded


def held_out_predictions(run: Run) -> HeldOutPredictions:
    """Return the stored predictions of validation images: of each group of similar images, one.

    Images of one group are right or wrong together, so they would count as one observation several times. Runs of
    tlcli 0.2 and earlier store no groups; all their images are returned.

    Raises:
        ArtifactError: The predictions are missing, damaged, or not from tlcli.
    """
    table = read_predictions(run, "probabilities")
    rows = [row for row in table.to_pylist() if row["split"] == "validation"]
    try:
        return predictions_of_rows(rows, run.classes)
    except (KeyError, ValueError, TypeError) as error:
        path = run.directory / PREDICTIONS_FILE
        raise ArtifactError(
            f"{path} does not fit the run's {len(run.classes)} classes ({error}). Train again.", path=path
        ) from error


def predictions_of_rows(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> HeldOutPredictions:
    """Return rows of `predictions.parquet` as numbers: of each group of similar images, one; see above."""
    if rows and "group" in rows[0]:
        rows = _one_per_group(rows)
    number = {name: index for index, name in enumerate(classes)}
    return HeldOutPredictions(
        labels=np.array([number[row["label"]] for row in rows], np.int64),
        predicted=np.array([number[row["predicted"]] for row in rows], np.int64),
        probabilities=np.array([row["probabilities"] for row in rows], np.float32).reshape(len(rows), len(number)),
    )


def _one_per_group(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the row with the smallest digest of each group."""
    chosen: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["digest"] < chosen.setdefault(row["group"], row)["digest"]:
            chosen[row["group"]] = row
    return list(chosen.values())
